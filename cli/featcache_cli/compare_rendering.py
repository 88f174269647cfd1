"""How backbones beside each other look in a terminal: how good, what it costs, the advice."""

from pathlib import Path
from typing import Any

from featcache.rounding import count, digits, percent, points
from featcache_cli.rendering import ends, line, loss, printable, show, suggest, table

_MANY = 15


def render(result: Any) -> None:
    """A comparison; 80 columns are enough."""
    _render_scores(result)
    _render_costs(result)
    _render_sizes(result)
    _render_pairs(result)
    line(f"how: {printable(result.method)}")
    line(f"\n[bold]advice[/bold]: {printable(result.advice)}")
    chosen = _recommended(result)
    if chosen is not None:
        command = "probe", Path(chosen.cache), "--save", "my.fc"
        more = ("--unfreeze", str(result.depth)) if result.depth else ()
        suggest("keep it", "featcache", *command, *more)
    else:
        caches = (Path(row.cache) for row in result.backbones)
        wider = f"{2 * result.margin:g}"
        suggest("give more away", "featcache", "compare", *caches, "--margin", wider)


def _recommended(result: Any) -> Any:
    return next((row for row in result.backbones if row.name == result.recommended), None)


def _render_scores(result: Any) -> None:
    scores = table(
        *("~backbone", ">accuracy", ">95% interval", ">per class", ">log-loss"),
        *(">train", ">gap"),
        title=f"on the same {result.n} held-out pictures, the cheapest first (* recommended)",
    )
    decimals = digits(*(row.ci95 for row in result.backbones))
    for row in result.backbones:
        scores.add_row(
            *(_marked(row.name, result), percent(row.accuracy, decimals)),
            *(ends(row.ci95, decimals), percent(row.mean_per_class, decimals)),
            loss(row.log_loss, decimals),
            "" if row.train_accuracy is None else percent(row.train_accuracy, decimals),
            "" if row.overfitting is None else points(row.overfitting, decimals),
        )
    show(scores)


def _render_costs(result: Any) -> None:
    together = any(row.together > 1 for row in result.backbones)
    costs = table(
        *("~backbone", ">mult.", ">pixels", ">width", ">extract s", ">pictures/s", ">probe s"),
        title="\nwhat it costs: multiplications a picture, and seconds",
    )
    for row in result.backbones:
        costs.add_row(
            *(_marked(row.name, result), count(row.multiplications)),
            *(" x ".join(map(str, dict.fromkeys(row.size))), str(row.width)),
            *(_seconds(row.extract_seconds), _rate(row), _seconds(row.probe_seconds)),
        )
    show(costs)
    if together:
        line("+ extracted in one pass with others, whose time it shares")


def _render_sizes(result: Any) -> None:
    sizes = table(
        *("~backbone", ">trainable", ">non-trainable", ">total"),
        title=f"\nnumbers at depth {result.depth}, BatchNorm's statistics among the non-trainable",
    )
    for row in result.backbones:
        sizes.add_row(
            _marked(row.name, result),
            f"{row.params_trainable:,}",
            f"{row.params_non_trainable:,}",
            f"{row.params_total:,}",
        )
    show(sizes)


def _render_pairs(result: Any) -> None:
    pairs = table(
        *("~backbone", "~against", ">points", ">95% interval", ">p"),
        title="\npaired, on the same pictures (p adjusted for all pairs)",
    )
    for pair in result.pairs[:_MANY]:
        found = pair.difference
        pairs.add_row(
            *(printable(pair.second), printable(pair.first)),
            points(found.difference, digits(found.ci95)),
            " to ".join(points(end, digits(found.ci95)) for end in found.ci95),
            f"{pair.adjusted_p:.2g}",
        )
    show(pairs)
    if len(result.pairs) > _MANY:
        line(f"... and {len(result.pairs) - _MANY} more pairs, in --json")


def _marked(name: str, result: Any) -> str:
    shown = printable(name)
    return f"[bold]* {shown}[/bold]" if name == result.recommended else f"  {shown}"


def _seconds(value: float | None) -> str:
    return "?" if value is None else f"{value:.1f}"


def _rate(row: Any) -> str:
    if row.images_per_second is None:
        return "?"
    return f"{row.images_per_second:.1f}" + ("+" if row.together > 1 else "")

"""How a sweep over depth looks in a terminal: what depth gives, what it costs, and the advice."""

from typing import Any

from featcache.rounding import count, digits, percent, points
from featcache_cli.rendering import ends, line, loss, printable, show, table


def render_sweep(result: Any) -> None:
    """The sweep of a probe, if there was one; 80 columns are enough."""
    if not result.unfreeze:
        return
    _render_scores(result)
    _render_crops(result)
    _render_costs(result)
    _render_sizes(result)
    line(f"\n[bold]advice[/bold]: {printable(result.advice)}")


def _render_scores(result: Any) -> None:
    scores = table(
        *(">depth", ">accuracy", ">95% interval", ">train", ">per class"),
        *(">log-loss", ">to 0", ">p"),
        title="\nby depth, on held-out pictures (* recommended)",
    )
    decimals = digits(*(score.ci95 for _, score in _named(result)))
    for name, score in _named(result):
        against, advised = score.against_depth_0, name == str(result.recommended_depth)
        scores.add_row(
            name,
            _marked(percent(score.accuracy, decimals), marked=advised),
            ends(score.ci95, decimals),
            percent(score.train_accuracy, decimals),
            percent(score.mean_per_class, decimals),
            loss(score.log_loss, decimals),
            "" if against is None else points(against.difference, decimals),
            "" if score.adjusted_p is None else f"{score.adjusted_p:.2g}",
        )
    show(scores)


def _render_crops(result: Any) -> None:
    """What random crops beside the plain view gain at each depth, if that was asked for."""
    found = [(name, score) for name, score in _named(result) if score.tta is not None]
    if not found:
        return
    tta = found[0][1].tta
    crops = table(
        *(">depth", ">plain", ">with crops", ">gain", ">95% interval", ">p"),
        title=f"\nwith {tta.crops} random crops ({tta.how}), on the same pictures",
    )
    decimals = digits(*(score.ci95 for _, score in found))
    for name, score in found:
        gain = score.tta.gain
        crops.add_row(
            name,
            percent(score.accuracy, decimals),
            percent(score.tta.accuracy, decimals),
            points(gain.difference, digits(gain.ci95)),
            " to ".join(points(end, digits(gain.ci95)) for end in gain.ci95),
            f"{gain.p_value:.2g}",
        )
    show(crops)


def _render_costs(result: Any) -> None:
    costs = table(
        *(
            ">depth",
            "~cut",
            ">trained",
            ">frozen",
            ">total",
            ">rate",
            ">epochs",
            ">seconds",
            ">MB",
        ),
        title="\nwhat it costs: numbers trained, seconds, and MB cached",
    )
    for name, score in _named(result):
        costs.add_row(
            name,
            printable(score.cut),
            count(score.params_trainable),
            count(score.params_frozen),
            count(score.params_total),
            "" if score.rate is None else f"{score.rate:.2g}",
            "" if score.epochs is None else str(score.epochs),
            f"{score.seconds:.1f}",
            f"{score.bytes / 1e6:.1f}",
        )
    show(costs)


def _named(result: Any) -> list[tuple[str, Any]]:
    """Depths by number, and last the network from random weights, if it was asked for."""
    rows = [(str(score.depth), score) for score in result.unfreeze]
    return rows if result.scratch is None else [*rows, ("scratch", result.scratch)]


def _render_sizes(result: Any) -> None:
    if not result.data_sizes:
        return
    depths = [score.depth for score in result.data_sizes[0].scores]
    sizes = table(
        ">pictures",
        *(f">depth {depth}" for depth in depths),
        "advice",
        title="\naccuracy by number of training pictures (* highest)",
    )
    for size in result.data_sizes:
        best = max(score.accuracy for score in size.scores)
        decimals = digits(*(score.ci95 for score in size.scores))
        cells = [
            _marked(percent(score.accuracy, decimals), marked=score.accuracy == best)
            for score in size.scores
        ]
        sizes.add_row(str(size.n_train), *cells, _advised(size.recommended_depth))
    show(sizes)


def _advised(depth: int | None) -> str:
    return "undecided" if depth is None else f"depth {depth}"


def _marked(text: str, *, marked: bool) -> str:
    return f"[bold]*{text}[/bold]" if marked else text

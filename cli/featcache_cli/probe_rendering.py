"""How a probe looks in a terminal: the path, the number, and what else was asked for."""

from pathlib import Path
from typing import Any

from featcache.rounding import digits, percent, points
from featcache_cli.mlp_rendering import render_mlp
from featcache_cli.rendering import (
    Ending,
    ends,
    gain,
    interval,
    line,
    loss,
    printable,
    say,
    show,
    suggest,
    table,
)
from featcache_cli.sweep_rendering import render_sweep

_MANY = 10
_BAR = 24
"""Width of the bars that draw the path."""


def render(result: Any) -> None:
    """A probe: the path, then the number, then what else was asked for."""
    _render_path(result)
    _render_estimate(result)
    _render_shots(result)
    _render_layers(result)
    _render_tta(result)
    _render_against(result)
    _render_suspects(result)
    _render_overlaps(result)
    render_mlp(result)
    render_sweep(result)
    _suggest_next(result)


def _suggest_next(result: Any) -> None:
    """What to do with the result; a head that cannot be kept leads to one that can."""
    if result.result is not None:
        suggest("see what it gets wrong", "featcache", "report", Path(result.cache))
    if result.saved:
        line(f"saved, and checked from pixels: {printable(result.saved)}")
        suggest("use it", "featcache", "predict", Path(result.saved), "PICTURE")
        return
    probe = "featcache", "probe", Path(result.cache)
    if result.mlp is not None:
        suggest("keep it", *probe, "--head", "mlp", "--save", "my.fc")
    elif result.recommended_depth:
        suggest("keep it", *probe, "--unfreeze", str(result.recommended_depth), "--save", "my.fc")
    elif result.best_C is not None and result.gap is not None and result.cut == "penultimate":
        head = () if result.head == "softmax" else ("--head", result.head)
        own = () if result.protocol == "default" else ("--protocol", result.protocol)
        suggest("keep it", *probe, *(own or head), "--save", "my.fc")
    else:
        suggest("a classifier to keep", *probe, "--save", "my.fc")


def _render_path(result: Any) -> None:
    if not result.path:
        return
    votes = result.best_neighbours is not None
    measure = "squared error" if result.path[0].log_loss is None else "log-loss"
    path = table(
        ">k" if votes else ">C",
        ">accuracy",
        f">{measure}",
        "",
        "",
        title=f"on held-out pictures, by {'neighbours' if votes else 'C'}",
    )
    decimals = digits(result.estimate.ci95)
    least = min(point.accuracy for point in result.path)
    most = max(point.accuracy for point in result.path)
    for point in result.path:
        chosen = (point.C, point.neighbours) == (result.best_C, result.best_neighbours)
        value = point.squared_error if point.log_loss is None else point.log_loss
        height = (point.accuracy - least) / (most - least) if most > least else 1.0
        path.add_row(
            str(point.neighbours) if votes else f"{point.C:.3g}",
            percent(point.accuracy, decimals),
            loss(value, decimals),
            "chosen" if chosen else "",
            "#" * max(1, round(_BAR * height)),
        )
    show(path)


def _render_estimate(result: Any) -> None:
    estimate = result.estimate
    if result.one_error_C is not None:
        line(
            f"within one standard error of the least log-loss from C = {result.one_error_C:.3g} on"
        )
    decimals = digits(estimate.ci95)
    line(
        f"[bold]accuracy {percent(estimate.accuracy, decimals)}[/bold]  "
        f"({interval(estimate.ci95, decimals)})"
    )
    by_class = "mean average precision" if result.multi_label else "mean per class"
    nats = "" if estimate.log_loss is None else f"log-loss {loss(estimate.log_loss, decimals)}, "
    line(
        f"{by_class} {percent(estimate.mean_per_class, decimals)}, {nats}"
        f"on {estimate.n} pictures that were held out"
    )
    if result.train_accuracy is not None:
        line(
            f"on the pictures they trained on, the same heads reach "
            f"{percent(result.train_accuracy, decimals)}"
        )
    line(f"how: {printable(estimate.method)}")
    if result.calibration is not None:
        found = result.calibration
        line(
            f"calibration error {percent(found.ece_before)}, {percent(found.ece_after)} at the "
            f"temperature {found.temperature:.2f} (fitted on other held-out pictures)"
        )
    if result.gap is None:
        certified = "in closed form"
    else:
        certified = f"certified within {100 * result.gap:.1g}% of the optimum"
    if not result.path:
        return
    line(
        f"{result.head} on {result.n_train} pictures, {len(result.classes)} classes; "
        f"{certified}; {result.seconds:.1f} s"
    )
    if result.views:
        views = printable(", ".join(map(str, result.views)))
        line(f"views that trained beside the plain one: {views}")
    if not result.converged:
        say("the final fit did not reach its tolerance: its gap is above --tol", style="yellow")


def _render_shots(result: Any) -> None:
    if not result.shots:
        return
    shots = table(
        ">shots", ">accuracy", ">std", ">95% interval", ">seeds", title="\nfew pictures a class"
    )
    decimals = digits(*(found.ci95 for found in result.shots))
    for found in result.shots:
        shots.add_row(
            str(found.shots),
            percent(found.mean, decimals),
            "" if found.std is None else percent(found.std, decimals),
            ends(found.ci95, decimals),
            str(found.seeds),
        )
    show(shots)
    for method in dict.fromkeys(found.method for found in result.shots):
        numbers = ", ".join(str(found.shots) for found in result.shots if found.method == method)
        line(f"how, {numbers}: {printable(method)}")


def _render_layers(result: Any) -> None:
    if not result.layers:
        return
    several = any(layer.views > 1 for layer in result.layers)
    layers = table(
        "~cut",
        ">width",
        *([">views"] if several else []),
        ">accuracy",
        ">95% interval",
        ">to penultimate",
        ">p",
        title="\nwhere the classes separate",
    )
    decimals = digits(*(layer.ci95 for layer in result.layers))
    for layer in result.layers:
        difference = layer.difference
        layers.add_row(
            printable(layer.cut),
            str(layer.width),
            *([str(layer.views)] if several else []),
            percent(layer.accuracy, decimals),
            ends(layer.ci95, decimals),
            "" if difference is None else points(difference.difference, decimals),
            "" if difference is None else f"{difference.p_value:.2g}",
        )
    show(layers)


def _render_tta(result: Any) -> None:
    if result.tta is None:
        return
    found = result.tta
    accuracy = percent(found.accuracy, digits(result.estimate.ci95))
    line(
        f"with {found.crops} random crops ({found.how}): [bold]{accuracy}[/bold], "
        f"{gain(found.gain, bold=False)}"
    )


def _render_against(result: Any) -> None:
    if result.against is None:
        return
    other, found = result.against, result.against.difference
    accuracy = percent(other.accuracy, digits(result.estimate.ci95))
    line(
        f"\nagainst {printable(other.cache)} ({printable(other.head)}, {accuracy}): "
        f"{gain(found)} on {found.n} pictures that both held out"
    )
    line(f"how: {printable(found.method)}")


def _render_suspects(result: Any) -> None:
    if result.suspects is None:
        return
    if not result.suspects:
        line("no label is likely wrong")
        return
    suspects = table("~picture", "~given", ">", "~suggested", ">", title="\nlikely label errors")
    for found in result.suspects:
        suspects.add_row(
            Ending(found.path),
            printable(found.given),
            percent(found.probability_given),
            printable(found.suggested),
            percent(found.probability_suggested),
        )
    show(suspects)


def _render_overlaps(result: Any) -> None:
    for found in result.overlaps[:_MANY]:
        named = ", ".join(
            f"{printable(path)} ({printable(' '.join(part for part in (split, label) if part))})"
            for path, label, split in zip(found.paths, found.labels, found.splits, strict=True)
        )
        line(f"[yellow]same bytes[/yellow]: {named}")
    if len(result.overlaps) > _MANY:
        line(f"... and {len(result.overlaps) - _MANY} more with the same bytes, in --json")

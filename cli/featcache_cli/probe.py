"""`featcache probe`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from featcache_cli.rendering import (
    interval,
    line,
    percent,
    printable,
    progress,
    say,
    show,
    show_json,
    suggest,
    table,
    warn,
)


class HeadName(StrEnum):
    """What is fitted."""

    softmax = "softmax"
    logistic = "logistic"


def probe(
    cache: Annotated[
        Path, typer.Argument(metavar="CACHE", help="A cache that `featcache extract` made.")
    ],
    head: Annotated[
        HeadName,
        typer.Option(
            help="softmax (one label a picture), or logistic (one-vs-rest; several labels)."
        ),
    ] = HeadName.softmax,
    cv: Annotated[int, typer.Option(min=2, help="Folds of the cross-validation.")] = 5,
    seed: Annotated[int, typer.Option(help="Of the folds.")] = 0,
    standardize: Annotated[
        bool,
        typer.Option(
            "--standardize", help="Scale features to unit variance, by training rows only."
        ),
    ] = False,
    tol: Annotated[
        float,
        typer.Option(help="Certified relative gap to the optimum that every fit is to reach."),
    ] = 1e-3,
    save: Annotated[
        Path | None,
        typer.Option(help="Save the classifier, checked from pixels first, as FILE.fc."),
    ] = None,
    embed_backbone: Annotated[
        bool, typer.Option("--embed-backbone", help="Put the backbone's weights into FILE.fc too.")
    ] = False,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="package.module:factory, to vouch for the code of a network of your own."
        ),
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Do not hash the cached features before reading them.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Fit classifiers on cached features, and say honestly how good they are.

    C (the strength of the fit) is chosen on held-out pictures and the accuracy
    measured on others: nested cross-validation where the data has no test split,
    the data's own splits where it has.

    [bold]For example[/bold]

    $ featcache probe cache/pets-efficientnet_lite0

    $ featcache probe cache/pets-resnet50 --save pets.fc
    """
    from featcache import api

    with progress() as report:
        result = api.probe(
            cache,
            head=head.value,
            folds=cv,
            seed=seed,
            standardize=standardize,
            tolerance=tol,
            save=save,
            embed_backbone=embed_backbone,
            backbone=backbone,
            trust=trust,
            progress=report,
        )
    warn(result.warnings)
    if as_json:
        show_json(result.to_json())
        return
    render(result)


def render(result: Any) -> None:
    """A probe: the path, then the number."""
    path = table(">C", ">accuracy", ">log-loss", "", title="on held-out pictures, by C")
    for point in result.path:
        chosen = "chosen" if result.best_C == point.C else ""
        path.add_row(f"{point.C:.3g}", percent(point.accuracy), f"{point.log_loss:.4f}", chosen)
    show(path)
    estimate = result.estimate
    line(f"[bold]accuracy {percent(estimate.accuracy)}[/bold]  ({interval(*estimate.ci95)})")
    by_class = "mean average precision" if result.multi_label else "mean per class"
    line(
        f"{by_class} {percent(estimate.mean_per_class)}, log-loss {estimate.log_loss:.4f}, "
        f"on {estimate.n} pictures that were held out"
    )
    line(f"how: {printable(estimate.method)}")
    line(
        f"{result.head} on {result.n_train} pictures, {len(result.classes)} classes; "
        f"certified within {100 * result.gap:.1g}% of the optimum; {result.seconds:.1f} s"
    )
    if not result.converged:
        say("the final fit did not reach its tolerance: its gap is above --tol", style="yellow")
    if result.saved:
        line(f"saved, and checked from pixels: {printable(result.saved)}")
        suggest("use it", "featcache", "predict", result.saved, "PICTURE")
    else:
        suggest("keep it", "featcache", "probe", result.cache, "--save", "my.fc")

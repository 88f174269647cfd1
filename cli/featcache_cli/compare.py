"""`featcache compare`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from featcache_cli.compare_rendering import render
from featcache_cli.probe import (
    WRITES,
    AsJson,
    ClassWeighting,
    Memory,
    ProductDevice,
    Seed,
    Smoothing,
    Standardize,
    Tolerance,
    Trust,
    draw,
    drawable,
    rates_of,
)
from featcache_cli.rendering import progress, said, show_json, warn

PANEL = "Training deeper layers (--depth 1 and more)"


class LinearHeadName(StrEnum):
    """What is fitted."""

    softmax = "softmax"
    logistic = "logistic"


def compare(
    caches: Annotated[
        list[Path],
        typer.Argument(
            metavar="CACHE...", help="Two caches or more, that `featcache extract` made."
        ),
    ],
    head: Annotated[
        LinearHeadName,
        typer.Option(help="softmax (one label a picture); logistic (one-vs-rest; several labels)."),
    ] = LinearHeadName.softmax,
    depth: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="K",
            help="Train the last K units of every network too; 0 trains the head alone.",
        ),
    ] = 0,
    margin: Annotated[
        float, typer.Option(help="Accuracy that a cheaper backbone may lack and still be advised.")
    ] = 0.01,
    cv: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Folds of the cross-validation where there is no test split: 5, and above depth "
            "0 one hold-out of 30%, unless given.",
        ),
    ] = None,
    seed: Seed = 0,
    standardize: Standardize = False,
    tol: Tolerance = 1e-3,
    class_weight: ClassWeighting = None,
    label_smoothing: Smoothing = 0.0,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Over all pictures, at most; 12 unless given.", rich_help_panel=PANEL
        ),
    ] = None,
    rates: Annotated[
        Any,
        typer.Option(
            parser=rates_of,
            metavar="R,R,...",
            help="Base learning rates; of several, pictures held out of training choose.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    training_seeds: Annotated[
        int,
        typer.Option(
            min=1,
            help="Trainings of each backbone; of several, the advice knows their variance.",
            rich_help_panel=PANEL,
        ),
    ] = 1,
    memory: Memory = "2GiB",
    device: ProductDevice = "cpu",
    backbone: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="package.module:factory, to vouch for the code of a network of your own. May be "
            "given for each.",
        ),
    ] = None,
    trust: Trust = False,
    plot: Annotated[
        Any,
        typer.Option(
            parser=drawable,
            metavar="FILE",
            help="Draw accuracy by backbone into a PNG, PDF or SVG.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare backbones on the same pictures, and say which is the cheapest that is enough.

    Every cache is probed with the same held-out pictures, matched by content, and
    what was found is kept in it; an earlier probe with the same settings is taken
    as it is. Cheapest first: by multiplications a picture.

    [bold]For example[/bold]

    $ featcache compare cache/pets-resnet50 cache/pets-mobilenet_v3_large

    $ featcache compare cache/pets-* --margin 0.02 --cv 10

    $ featcache compare cache/pets-* --depth 1
    """
    from featcache import api

    with progress() as report, said(WRITES):
        result = api.compare(
            *caches,
            head=head.value,
            depth=depth,
            margin=margin,
            folds=cv,
            seed=seed,
            standardize=standardize,
            tolerance=tol,
            class_weight=class_weight.value if class_weight else None,
            label_smoothing=label_smoothing,
            training=api.TrainingOptions(
                epochs=epochs,
                rates=rates or (),
                seeds=training_seeds,
                label_smoothing=label_smoothing,
            ),
            memory=memory,
            device=device,
            backbones=tuple(backbone or ()),
            trust=trust,
            progress=report,
        )
    warn(result.warnings)
    if plot is not None:
        draw(result, plot)
    if as_json:
        show_json(result.to_json())
        return
    render(result)

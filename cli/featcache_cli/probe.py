"""`featcache probe`."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from featcache_cli.predict import AveragingName
from featcache_cli.probe_rendering import render
from featcache_cli.rendering import progress, said, say, show_json, warn

WRITES = "featcache.api.activations"
"""Tells how much it is about to write into the cache."""

UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "": 1}


def bytes_of(text: str) -> int:
    """Bytes of `2GB`, `1.5GiB`, `500MB` or a plain number."""
    parts = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMG]I?B)?\s*", text.upper())
    count = int(float(parts[1]) * UNITS[parts[2] or ""]) if parts else 0
    if not count:
        raise typer.BadParameter(f"{text!r}: give bytes as 2GB, 1.5GiB or 500MB")
    return count


class ClassWeight(StrEnum):
    """How much classes weigh."""

    balanced = "balanced"


class HeadName(StrEnum):
    """What is fitted."""

    softmax = "softmax"
    logistic = "logistic"
    ridge = "ridge"
    knn = "knn"
    mlp = "mlp"


def source_row(text: str) -> tuple[str, int]:
    """`CLASS=ID` in two."""
    label, _, number = text.rpartition("=")
    if not label or not number.isdecimal():
        raise typer.BadParameter(f"{text!r}: give CLASS=ID, as tabby=281")
    return label, int(number)


def drawable(text: str) -> Path:
    """A path whose ending says how to draw."""
    path = Path(text)
    if path.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise typer.BadParameter(f"{text!r}: give a .png, .pdf or .svg")
    return path


class ProtocolName(StrEnum):
    """Whose rules are followed."""

    default = "default"
    clip = "clip"
    dinov2 = "dinov2"
    dinov2_knn = "dinov2-knn"
    fewshot_lsr = "fewshot-lsr"
    vtab1k = "vtab1k"
    coop = "coop"


def shots_of(text: str) -> tuple[int | None, ...]:
    """`1,2,4,all` as numbers, all as None."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part == "all" or (part.isdecimal() and int(part) > 0) for part in parts):
        raise typer.BadParameter(f"{text!r}: give numbers of pictures a class, as 1,2,4,8,all")
    return tuple(None if part == "all" else int(part) for part in parts)


def counts_of(text: str) -> tuple[int | None, ...]:
    """`50,200,all` as numbers, all as None."""
    try:
        return shots_of(text)
    except typer.BadParameter as error:
        raise typer.BadParameter(f"{text!r}: give numbers of pictures, as 50,200,all") from error


PANEL = "Training deeper layers, or an MLP head"


class OptimizerName(StrEnum):
    """What takes the steps."""

    adamw = "adamw"
    sgd = "sgd"


class ScheduleName(StrEnum):
    """How rates rise and fall."""

    cosine = "cosine"
    one_cycle = "one-cycle"


def rates_of(text: str) -> tuple[float, ...]:
    """`3e-4,1e-3` as numbers."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"{text!r}: give rates as 3e-4,1e-3") from error


def sizes_of(text: str) -> tuple[tuple[int, int], ...]:
    """`128:2,224:3` as pairs of a side and epochs."""
    parts = [part.strip().partition(":") for part in text.split(",")]
    numbers = [number for side, _, epochs in parts for number in (side, epochs)]
    if not all(number.isdecimal() and int(number) > 0 for number in numbers):
        raise typer.BadParameter(f"{text!r}: give SIDE:EPOCHS in turn, as 128:2,224:3")
    return tuple((int(side), int(epochs)) for side, _, epochs in parts)


def views_of(text: str) -> int | str:
    """`all`, or a number from 1."""
    if text != "all" and not (text.isdecimal() and int(text) > 0):
        raise typer.BadParameter(f"{text!r}: give a number from 1, or all")
    return text if text == "all" else int(text)


# Options that `compare` has too.
Seed = Annotated[int, typer.Option(help="Of the folds.")]
Standardize = Annotated[
    bool,
    typer.Option("--standardize", help="Scale features to unit variance, by training rows only."),
]
Tolerance = Annotated[
    float,
    typer.Option(help="Certified relative gap to the optimum that every fit is to reach."),
]
ClassWeighting = Annotated[
    ClassWeight | None,
    typer.Option(help="balanced: every class weighs the same, however many pictures it has."),
]
Smoothing = Annotated[
    float,
    typer.Option(
        min=0.0, max=0.99, help="Share of every target that is given to all classes alike."
    ),
]
Memory = Annotated[
    Any,
    typer.Option(parser=bytes_of, metavar="BYTES", help="For the solver to stay within, about."),
]
ProductDevice = Annotated[str, typer.Option(help="Of the solver's products: cpu or cuda.")]
Trust = Annotated[
    bool, typer.Option("--trust", help="Do not hash the cached features before reading them.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def probe(
    cache: Annotated[
        Path, typer.Argument(metavar="CACHE", help="A cache that `featcache extract` made.")
    ],
    head: Annotated[
        HeadName,
        typer.Option(
            help="softmax (one label a picture); logistic (one-vs-rest; several labels); ridge "
            "and knn, which are quick, for screening, and cannot be saved; mlp, new hidden units "
            "trained on the features, beside the linear head on the same pictures."
        ),
    ] = HeadName.softmax,
    hidden: Annotated[
        int | None,
        typer.Option(
            min=1, help="Hidden units of --head mlp; 256 unless given.", rich_help_panel=PANEL
        ),
    ] = None,
    dropout: Annotated[
        float | None,
        typer.Option(
            help="Share of the hidden units that is left out at each step; 0.25 unless given.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    protocol: Annotated[
        ProtocolName,
        typer.Option(
            help="A published protocol's grid, selection and refit: clip, dinov2, dinov2-knn, "
            "fewshot-lsr, vtab1k or coop. All need a test split."
        ),
    ] = ProtocolName.default,
    cut: Annotated[
        str,
        typer.Option(
            help="The activations to probe: a cut that `extract --cut` cached, or 'all' for a "
            "table of them."
        ),
    ] = "penultimate",
    views: Annotated[
        Any,
        typer.Option(
            parser=views_of,
            metavar="V",
            help="How many cached views of a picture train, each weighing 1/V: 'all', or a number; "
            "1 is the plain one alone. Measured is on the plain one.",
        ),
    ] = "all",
    augment: Annotated[
        str | None,
        typer.Option(
            metavar="POLICY",
            help="Of the views, where the cache has several policies; with --live, of those that "
            "are made for it (standard unless given).",
        ),
    ] = None,
    augment_seed: Annotated[
        int | None, typer.Option(min=0, help="Of the views, where the cache has several seeds.")
    ] = None,
    tta: Annotated[
        AveragingName | None,
        typer.Option(
            help="Predict also from the crops of `extract --tta`, mean or max of the "
            "probabilities, and say what that gains, with --unfreeze at every depth."
        ),
    ] = None,
    shots: Annotated[
        Any,
        typer.Option(
            parser=shots_of,
            metavar="N,N,...",
            help="Also heads of so few pictures a class: numbers and 'all', as 1,2,4,8,all.",
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="Support sets drawn for each number of shots.")
    ] = 10,
    suspects: Annotated[
        int, typer.Option(min=0, help="List so many pictures whose label is likely wrong.")
    ] = 0,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="CACHE[:RESULT]",
            help="Compare with an earlier probe of the same pictures (a cache's last, unless "
            "named), paired.",
        ),
    ] = None,
    unfreeze: Annotated[
        str | None,
        typer.Option(
            metavar="DEPTHS",
            help="Also train the last units of the network: 0-3, 0,1,4, names of units, or all "
            "(the whole network, from pixels). Activations are made if they are not cached.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    margin: Annotated[
        float,
        typer.Option(
            help="Accuracy that a shallower depth, or the linear head, may lack and still be "
            "advised.",
            rich_help_panel=PANEL,
        ),
    ] = 0.01,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Over all pictures, the weights of the best one are kept; 12, and 30 of --head "
            "mlp, unless given.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    rates: Annotated[
        Any,
        typer.Option(
            parser=rates_of,
            metavar="R,R,...",
            help="Base learning rates; of several, pictures held out of training choose. 1e-3, "
            "and 3e-4,1e-3,3e-3 of --head mlp, unless given.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    optimizer: Annotated[
        OptimizerName, typer.Option(help="What takes the steps.", rich_help_panel=PANEL)
    ] = OptimizerName.adamw,
    schedule: Annotated[
        ScheduleName, typer.Option(help="How rates rise and fall.", rich_help_panel=PANEL)
    ] = ScheduleName.cosine,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Pictures a step.", rich_help_panel=PANEL)
    ] = 32,
    head_lr_factor: Annotated[
        float | None,
        typer.Option(
            help="Rate of the head over the base; 1, or 10 with --no-lp-init, unless given.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    no_lp_init: Annotated[
        bool,
        typer.Option(
            "--no-lp-init",
            help="Start from an untrained head, not from the solved one.",
            rich_help_panel=PANEL,
        ),
    ] = False,
    mixup: Annotated[
        float,
        typer.Option(min=0.0, help="Alpha of mixup on activations.", rich_help_panel=PANEL),
    ] = 0.0,
    cutmix: Annotated[
        float,
        typer.Option(min=0.0, help="Alpha of CutMix on maps.", rich_help_panel=PANEL),
    ] = 0.0,
    batchnorm_moves: Annotated[
        bool,
        typer.Option(
            "--batchnorm-moves",
            help="Statistics of unfrozen BatchNorm move with the pictures.",
            rich_help_panel=PANEL,
        ),
    ] = False,
    live: Annotated[
        bool,
        typer.Option(
            "--live",
            help="Train every depth from pixels, with fresh views in each epoch (--augment): slow, "
            "since the frozen part runs again and again.",
            rich_help_panel=PANEL,
        ),
    ] = False,
    image_size: Annotated[
        Any,
        typer.Option(
            parser=sizes_of,
            metavar="SIDE:EPOCHS,...",
            help="Grow the pictures while pixels train (--live, or all), as 128:2,224:3; the last "
            "side is the cache's. Takes the place of --epochs.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    compare_scratch: Annotated[
        bool,
        typer.Option(
            "--compare-scratch",
            help="Also train the whole network from random weights, to see what the pretrained "
            "ones are worth.",
            rich_help_panel=PANEL,
        ),
    ] = False,
    training_seeds: Annotated[
        int,
        typer.Option(
            min=1,
            help="Trainings of each depth; of several, the advice knows their variance.",
            rich_help_panel=PANEL,
        ),
    ] = 1,
    data_sizes: Annotated[
        Any,
        typer.Option(
            parser=counts_of,
            metavar="N,N,...",
            help="Repeat the sweep on so many training pictures: 50,200,800,all.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    cv: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Folds of the cross-validation: 5, and for --unfreeze and --head mlp one "
            "hold-out of 30%, unless given.",
        ),
    ] = None,
    seed: Seed = 0,
    standardize: Standardize = False,
    tol: Tolerance = 1e-3,
    class_weight: ClassWeighting = None,
    label_smoothing: Smoothing = 0.0,
    memory: Memory = "2GiB",
    device: ProductDevice = "cpu",
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
    trust: Trust = False,
    init_from_source: Annotated[
        list[Any] | None,
        typer.Option(
            parser=source_row,
            metavar="CLASS=ID",
            help="Start the head's row of a class from that of a class of the network's own "
            "classifier (ImageNet's number, say): it is drawn to it, and at one shot is it. "
            "May be given for each class.",
        ),
    ] = None,
    plot: Annotated[
        Any,
        typer.Option(
            parser=drawable,
            metavar="FILE",
            help="Draw the path (and shots, cuts) into this PNG, PDF or SVG.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fit classifiers on cached features, and say honestly how good they are.

    C (the strength of the fit) is chosen on held-out pictures and the accuracy
    measured on others: nested cross-validation where the data has no test split,
    the data's own splits where it has.

    [bold]For example[/bold]

    $ featcache probe cache/pets-efficientnet_lite0

    $ featcache probe cache/pets-resnet50 --save pets.fc

    $ featcache probe cache/pets-resnet50 --unfreeze 0-3 --save pets.fc

    $ featcache probe cache/pets-resnet50 --shots 1,2,4,8,all --suspects 20 --plot pets.png
    """
    from featcache import api

    with progress() as report, said(WRITES):
        result = api.probe(
            cache,
            head=head.value,
            hidden=hidden,
            dropout=dropout,
            protocol=protocol.value,
            cut=cut,
            views=None if views == "all" else views,
            augment=augment,
            augment_seed=augment_seed,
            tta=tta.value if tta else None,
            shots=shots or (),
            seeds=seeds,
            suspects=suspects,
            against=against,
            init_from_source=dict(init_from_source or ()),
            unfreeze=unfreeze,
            training=api.TrainingOptions(
                epochs=epochs,
                rates=rates or (),
                optimizer=optimizer.value,
                schedule=schedule.value,
                batch_size=batch_size,
                head_factor=head_lr_factor,
                solved_start=not no_lp_init,
                mixup=mixup,
                cutmix=cutmix,
                batchnorm_moves=batchnorm_moves,
                label_smoothing=label_smoothing,
                seeds=training_seeds,
                data_sizes=data_sizes or (),
                live=live,
                image_sizes=image_size or (),
                compare_scratch=compare_scratch,
            ),
            margin=margin,
            folds=cv,
            seed=seed,
            standardize=standardize,
            tolerance=tol,
            class_weight=class_weight.value if class_weight else None,
            label_smoothing=label_smoothing,
            memory=memory,
            device=device,
            save=save,
            embed_backbone=embed_backbone,
            backbone=backbone,
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


def draw(result: Any, path: Path) -> None:
    """Write the plot; where that cannot be, the result is shown all the same."""
    try:
        result.plot().savefig(path, dpi=150)
    except (ImportError, OSError) as error:
        say(f"{path}: not drawn ({error})", style="yellow")
    else:
        say(f"drawn: {path}")

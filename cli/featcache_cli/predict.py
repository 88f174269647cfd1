"""`featcache predict`."""

import csv
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from featcache.rounding import percent
from featcache_cli.extract import EngineName
from featcache_cli.rendering import (
    Ending,
    cell,
    folded,
    printable,
    progress,
    show,
    show_json,
    suggest,
    table,
)

_MANY = 2
"""Pictures that are named again, at most."""


class AveragingName(StrEnum):
    """How probabilities of views become one."""

    mean = "mean"
    max = "max"


def predict(
    classifier: Annotated[
        Path, typer.Argument(metavar="FILE.fc", help="A file that `featcache probe --save` made.")
    ],
    pictures: Annotated[
        list[str],
        typer.Argument(metavar="PICTURE", help="Pictures, folders, or quoted patterns."),
    ],
    top: Annotated[int, typer.Option(min=1, help="How many of the likeliest classes to list.")] = 3,
    tta: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Predict from N random crops of each picture as well."
        ),
    ] = 0,
    tta_by: Annotated[
        AveragingName, typer.Option(help="How their probabilities become one: mean or max.")
    ] = AveragingName.mean,
    tta_seed: Annotated[
        int,
        typer.Option(
            min=0, help="Of the crops; the --augment-seed of `extract` gives the same as there."
        ),
    ] = 0,
    min_probability: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Below it no label is given (several labels: it is left out)."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    engine: Annotated[EngineName, typer.Option(help="What runs the network.")] = EngineName.auto,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="package.module:factory, to vouch for the code of a network of your own."
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="The backbone's weights, where the file the classifier names is gone."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV: path, label, probability, error.")
    ] = False,
) -> None:
    """Label pictures with a saved classifier.

    A picture that cannot be read is reported in its row and stops nothing;
    the exit code is 1 only if none could be read.

    [bold]For example[/bold]

    $ featcache predict pets.fc photo.jpg

    $ featcache predict pets.fc 'holiday/*.jpg' --min-probability 0.8

    $ featcache predict pets.fc holiday/ --csv > labels.csv

    In CSV control characters are spelt out, and a name that a spreadsheet would take for a formula
    (it begins with = + - @, or with ' already) has a ' in front. --json has names as they are.
    """
    if as_json and as_csv:
        raise typer.BadParameter("give either --json or --csv")
    from featcache import api

    with progress() as report:
        predictions = api.predict(
            classifier,
            pictures,
            top=top,
            tta=tta,
            tta_by=tta_by.value,
            tta_seed=tta_seed,
            min_probability=min_probability,
            device=device,
            engine=engine.value,
            backbone=backbone,
            weights=weights,
            progress=report,
        )
    if as_json:
        show_json([p.to_json() for p in predictions])
    elif as_csv:
        write_csv(predictions)
    else:
        render(predictions)
        given = pictures if len(pictures) <= _MANY else ["PICTURE"]
        suggest("for a spreadsheet", "featcache", "predict", classifier, *given, "--csv")
    if all(p.error for p in predictions):
        raise typer.Exit(1)


def render(predictions: Any) -> None:
    """A row a picture."""
    rows = table("~picture", "~label", ">probability", "~then")
    for p in predictions:
        if p.error:
            rows.add_row(Ending(p.path), "[red]unreadable[/red]", "", folded(p.error))
            continue
        label = p.label if p.labels is None else "; ".join(p.labels)
        others = ", ".join(f"{printable(e.label)} {percent(e.probability)}" for e in p.top[1:])
        rows.add_row(Ending(p.path), printable(label or "unsure"), percent(p.probability), others)
    show(rows)


def write_csv(predictions: Any) -> None:
    """CSV on stdout."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["path", "label", "probability", "error"])
    for p in predictions:
        labels = (p.label or "",) if p.labels is None else p.labels
        probability = "" if p.probability is None else f"{p.probability:.6g}"
        label = ";".join(map(cell, labels))
        writer.writerow([cell(p.path), label, probability, cell(p.error or "")])

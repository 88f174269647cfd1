"""`featcache report`."""

from pathlib import Path
from typing import Annotated

import typer

from featcache_cli.rendering import line, printable, progress, say, show_json, suggest, warn


def report(
    result: Annotated[
        str,
        typer.Argument(
            metavar="CACHE[:RESULT]",
            help="A probed cache, whose last result is taken, one of its results by name, or the "
            "result's folder.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="FILE", help="The file; a page that is there is replaced."
        ),
    ] = Path("report.html"),
    mistakes: Annotated[
        int, typer.Option(min=0, help="Wrong pictures in the gallery, at most.")
    ] = 48,
    points: Annotated[
        int,
        typer.Option(min=0, help="Pictures in the map of the features, at most; 0 leaves it out."),
    ] = 600,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write what a probe found into one HTML page, with the pictures it gets wrong.

    The page needs nothing else: no network, no server. It shows the accuracy with its
    interval, the path over C, depths and data sizes, every class, whether the
    probabilities can be believed, mistakes and likely label errors with their
    pictures, duplicates, a map of the features, the recipe, and how to have it again.
    `featcache info CACHE` lists the results of a cache.

    [bold]For example[/bold]

    $ featcache report cache/pets-efficientnet_lite0

    $ featcache report cache/pets-resnet50:8b0c6a1f2e3d -o pets.html
    """
    from featcache.report import write_report

    with progress() as told:
        written = write_report(result, out, mistakes=mistakes, points=points, progress=told)
    warn(written.warnings)
    if as_json:
        show_json(written.to_json())
        return
    pictures = f"{written.pictures} pictures"
    if written.left_out:
        pictures += f", {written.left_out} could not be shown"
    line(
        f"written: [bold]{printable(written.path)}[/bold], {written.bytes / 1e6:.1f} MB, "
        f"{pictures} (result {printable(written.result)}, {written.seconds:.1f} s)"
    )
    say(f"open it in a browser: {Path(written.path).absolute().as_uri()}")
    suggest("its rows for others", "featcache", "export", Path(written.cache), "-o", "rows.parquet")

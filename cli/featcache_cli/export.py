"""`featcache export`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from featcache_cli.rendering import line, printable, say, show_json, suggest, warn


class FormatName(StrEnum):
    """What is written: of a cache, or of a classifier."""

    npz = "npz"
    parquet = "parquet"
    csv = "csv"
    hdf5 = "hdf5"


class ImagesName(StrEnum):
    """Which pictures go into a file."""

    none = "none"
    thumbnails = "thumbnails"
    originals = "originals"


def export(
    source: Annotated[Path, typer.Argument(metavar="CACHE", help="A cache.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The file to be written.")
    ],
    format_name: Annotated[
        FormatName | None,
        typer.Option("--format", help="Left out: as the file's name ends."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="What is there already.")] = False,
    cut: Annotated[
        str | None,
        typer.Option(
            metavar="UNIT",
            help="Which activations: the penultimate feature, for hdf5 all there are.",
            show_default=False,
        ),
    ] = None,
    views: Annotated[
        bool, typer.Option("--views", help="hdf5: augmented views of the pictures, too.")
    ] = False,
    result: Annotated[
        str,
        typer.Option(
            metavar="ID",
            help="The probe whose held-out probabilities go along (pred_probs, as cleanlab takes "
            "them): newest, none, or one that `featcache info` lists. A CSV has none.",
        ),
    ] = "newest",
    images: Annotated[
        ImagesName, typer.Option(help="parquet: a column with the pictures themselves.")
    ] = ImagesName.none,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write features and labels of a cache into one file that others read.

    A parquet has the columns that FiftyOne (filepath, label, features) and
    Embedding Atlas (--vector features --image image) look for. hdf5 is one
    plain file with everything. How to read it is printed.

    [bold]For example[/bold]

    $ featcache export cache/pets-efficientnet_lite0 -o pets.npz

    $ featcache export cache/pets-efficientnet_lite0 -o pets.parquet --images thumbnails

    $ featcache export cache/pets-efficientnet_lite0 -o pets.h5 --views
    """
    from featcache.export import export_cache

    done = export_cache(
        source,
        output,
        format=format_name.value if format_name else None,
        cut=cut,
        views=views,
        result=result,
        images=images.value,
        overwrite=overwrite,
    )
    if as_json:
        show_json(done.to_json())
    else:
        _render_cache(done)


def _render_cache(done: Any) -> None:
    shapes = ", ".join(
        f"{printable(name)} {' x '.join(map(str, shape))}" for name, shape in done.features.items()
    )
    line(
        f"[bold]{printable(done.file)}[/bold]: {done.rows} pictures, {len(done.classes)} classes, "
        f"{shapes}; {done.bytes / 1e6:.1f} MB ({done.seconds:.1f} s)"
    )
    if done.skipped:
        line(f"left out, since they have no features: {done.skipped}")
    if done.result:
        line(f"held-out probabilities: pred_probs, of result {printable(done.result)}")
    warn(done.warnings)
    say("to read it:")
    for text in done.example.splitlines():
        line(printable(text))
    if done.format == "parquet":
        suggest("look at it", "embedding-atlas", done.file, "--vector", "features")

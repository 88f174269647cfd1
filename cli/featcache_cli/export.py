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
    onnx = "onnx"
    torchscript = "torchscript"
    pt2 = "pt2"


class InputName(StrEnum):
    """What an exported classifier takes."""

    uint8 = "uint8"
    normalised = "normalised"


class ImagesName(StrEnum):
    """Which pictures go into a file."""

    none = "none"
    thumbnails = "thumbnails"
    originals = "originals"


OF_CACHES = ("cut", "views", "result", "images")
OF_CLASSIFIERS = ("takes", "pictures", "backbone", "weights")


def export(
    context: typer.Context,
    source: Annotated[
        Path, typer.Argument(metavar="CACHE|FILE.fc", help="A cache, or a classifier.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The file to write.")],
    format_name: Annotated[
        FormatName | None,
        typer.Option(
            "--format",
            help="Of a cache npz, parquet, csv or hdf5, of a classifier onnx, torchscript or pt2; "
            "left out: as the file's name ends.",
            show_choices=False,
            metavar="NAME",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that is there already.")
    ] = False,
    cut: Annotated[
        str | None,
        typer.Option(
            metavar="UNIT",
            help="Which activations: the penultimate feature, for hdf5 all there are.",
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
    takes: Annotated[
        InputName,
        typer.Option(
            "--input",
            help="What an exported classifier takes: uint8 pixels (N, H, W, 3), or float32 "
            "(N, 3, H, W) that were normalised before.",
        ),
    ] = InputName.uint8,
    pictures: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PICTURE",
            help="On which an exported classifier is checked; left out: two photos of "
            "scikit-learn.",
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="package.module:factory, to vouch for the code of a classifier's own network."
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="A classifier's backbone, where the file it names is gone."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write a cache or a classifier into one file that others read.

    A cache's features and labels: parquet has the columns that FiftyOne
    (filepath, label, features) and Embedding Atlas (--vector features --image
    image) look for; hdf5 is one plain file with everything.

    A classifier, from pixels to probabilities in one file. It is run on real
    pictures, and must say what the classifier says, or it is not written.

    How to read or use it is printed, in Python without featcache.

    [bold]For example[/bold]

    $ featcache export cache/pets-efficientnet_lite0 -o pets.npz

    $ featcache export cache/pets-efficientnet_lite0 -o pets.parquet --images thumbnails

    $ featcache export cache/pets-efficientnet_lite0 -o pets.h5 --views

    $ featcache export pets.fc -o pets.onnx
    """
    name = format_name.value if format_name else None
    is_classifier = source.suffix == ".fc" or source.is_file()
    _refuse_strangers(context, is_classifier=is_classifier)
    if is_classifier:
        from featcache.export import export_classifier

        done = export_classifier(
            source,
            out,
            format=name,
            input=takes.value,
            pictures=pictures or (),
            backbone=backbone,
            weights=weights,
            overwrite=overwrite,
        )
    else:
        from featcache.export import export_cache

        done = export_cache(
            source,
            out,
            format=name,
            cut=cut,
            views=views,
            result=result,
            images=images.value,
            overwrite=overwrite,
        )
    if as_json:
        show_json(done.to_json())
        return
    _render(done)
    if is_classifier:
        suggest("try it on a page", "featcache", "serve", source)
    elif done.format == "parquet":
        shown = ["--image", "image"] if images is not ImagesName.none else []
        suggest("look at it", "embedding-atlas", Path(done.file), "--vector", "features", *shown)
    else:
        suggest("see what is in the cache", "featcache", "info", source)


def _refuse_strangers(context: typer.Context, *, is_classifier: bool) -> None:
    """Refuse options that say nothing of what is exported."""
    for name in OF_CACHES if is_classifier else OF_CLASSIFIERS:
        given = context.get_parameter_source(name)
        if given is not None and given.name == "COMMANDLINE":
            option = "--input" if name == "takes" else f"--{name}"
            what = "cache, and this is a classifier" if is_classifier else "classifier"
            raise typer.BadParameter(f"{option} is for the export of a {what}")


def _render(done: Any) -> None:
    is_cache = hasattr(done, "rows")
    (_render_cache if is_cache else _render_classifier)(done)
    warn(done.warnings)
    say("to use it without featcache:")
    for text in done.example.splitlines():
        line(printable(text))


def _render_classifier(done: Any) -> None:
    line(
        f"[bold]{printable(done.file)}[/bold]: {done.format}, {len(done.classes)} classes; "
        f"{done.bytes / 1e6:.1f} MB ({done.seconds:.1f} s)"
    )
    for side, about in (("takes", done.input), ("gives", done.output)):
        shape = ", ".join(map(str, about["shape"]))
        line(f"{side} {about['name']}: {about['dtype']} ({shape})")
    line(
        f"checked on {done.checked} pictures: log-probabilities differ by {done.difference:.1e} of "
        f"their size at most (allowed: {done.tolerance:g})"
    )


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

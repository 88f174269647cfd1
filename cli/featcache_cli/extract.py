"""`featcache extract`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from featcache_cli.rendering import (
    Ending,
    line,
    printable,
    progress,
    said,
    show,
    show_json,
    suggest,
    table,
    warn,
)

WRITES = "featcache.extraction.computing.sizes"
"""Logger of what is to be written, before it is."""

_MANY = 10


class StoreDtype(StrEnum):
    """What features are stored as."""

    float32 = "float32"
    float16 = "float16"


class Pooling(StrEnum):
    """What is kept of an activation."""

    avg = "avg"
    cls = "cls"
    flatten = "flatten"
    none = "none"


class EngineName(StrEnum):
    """What runs the network."""

    auto = "auto"
    torch = "torch"
    torch_compile = "torch-compile"
    openvino = "openvino"


class Precision(StrEnum):
    """Of the forward pass's arithmetic."""

    fp32 = "fp32"
    tf32 = "tf32"
    bf16 = "bf16"
    fp16 = "fp16"
    int8 = "int8"


def extract(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A folder of class folders; a folder of train/ val/ test/ with class folders; "
            "a CSV with path,label[,split][,group] (several labels: a;b); 'digits'; or a data set: "
            "oxford-pets, flowers102, food101, imagenette, cifar10, cifar100, stl10.",
        ),
    ],
    backbone: Annotated[
        str,
        typer.Option(
            help="A network: see `featcache backbones`. 'timm/NAME' for timm's, or your own as "
            "'package.module:factory'. Several, as a,b,c: a cache each, from one pass over the "
            "pictures."
        ),
    ] = "efficientnet_lite0",
    weights: Annotated[
        str | None,
        typer.Option(
            help="A .safetensors file or state dict, or 'random'; else the published ones."
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(min=1, help="Side of the input in pixels, instead of the published one."),
    ] = None,
    preprocessing: Annotated[
        Path | None,
        typer.Option(
            help="A JSON file with size, resize, mean, std[, interpolation, resize_mode], for "
            "networks that publish none."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The cache's folder; of several backbones, the folder of their caches. Else "
            "<data>-<backbone> in $FEATCACHE_DIR or ./cache."
        ),
    ] = None,
    cut: Annotated[
        list[str] | None,
        typer.Option(
            metavar="UNIT",
            help="Keep the activation after this unit too: see `featcache layers`. Give it as "
            "often as you like, or 'all'.",
        ),
    ] = None,
    pool: Annotated[
        Pooling,
        typer.Option(
            metavar="HOW",
            help="What is kept of it: 'avg', the mean over positions (no class or register "
            "tokens); 'cls', the class token; 'flatten', all as one vector; 'none', all as it is.",
        ),
    ] = Pooling.avg,
    views: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="V",
            help="Views of every picture not marked test: the plain one and V - 1 augmented ones.",
        ),
    ] = 1,
    augment: Annotated[
        str | None,
        typer.Option(
            metavar="POLICY",
            help="What makes the others: flip, the mirrored picture; standard, a random crop, "
            "mirrored or not, turned, sheared, its colours shifted; randaugment:N,M; trivial. "
            "Else standard.",
        ),
    ] = None,
    augment_seed: Annotated[int, typer.Option(min=0, help="Of what they and crops draw.")] = 0,
    tta: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="N random crops of every picture, for `probe --tta` to predict from as well.",
        ),
    ] = 0,
    store_dtype: Annotated[
        StoreDtype | None,
        typer.Option(
            help="What rows are stored as. Else float32; float16 for 'flatten' and 'none'."
        ),
    ] = None,
    fast_decode: Annotated[
        bool,
        typer.Option(
            "--fast-decode",
            help="Decode large JPEGs at 1/2, 1/4 or 1/8 of their size. Quicker, but other "
            "features, so another cache.",
        ),
    ] = False,
    engine: Annotated[
        EngineName,
        typer.Option(
            help="What runs the network. auto takes the quickest in a short trial; openvino comes "
            "with the extra 'cpu'; torch-compile takes minutes to start."
        ),
    ] = EngineName.auto,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    precision: Annotated[
        Precision,
        typer.Option(
            help="Of the arithmetic; less than fp32 makes another cache. tf32: CUDA's; int8: "
            "OpenVINO's, with the extra 'int8', to probe only."
        ),
    ] = Precision.fp32,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Pictures a forward pass (32; a resumed run keeps its own)."),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="A picture that cannot be read is an error, not a skip."),
    ] = False,
    verify_content: Annotated[
        bool,
        typer.Option(
            "--verify-content", help="Hash every file again, whatever its time stamps say."
        ),
    ] = False,
    replace_source: Annotated[
        bool,
        typer.Option(
            "--replace-source", help="Let DATA take the place of what this cache was made from."
        ),
    ] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Print where the time went.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Run a frozen network over pictures once and keep its features.

    Only what is new or changed is computed. Interrupt it whenever you like:
    run it again and it goes on.

    [bold]For example[/bold]

    $ featcache extract pets/

    $ featcache extract pets.csv --backbone resnet50 --out cache/pets50

    $ featcache extract digits --backbone timm/vit_small_patch16_224

    $ featcache extract pets/ --backbone resnet50 --cut layer3.5 --cut layer4.2

    $ featcache extract pets/ --views 4 --augment standard

    $ featcache extract pets/ --backbone mobilenet_v3_large,resnet50,inception_v3
    """
    from featcache import api

    several = "," in backbone
    with progress() as report, said(WRITES):
        found = (api.extract_each if several else api.extract)(
            data,
            backbone=backbone,
            weights=weights,
            image_size=image_size,
            preprocessing=preprocessing,
            out=out,
            cuts=tuple(cut or ()),
            pooling=pool.value,
            views=views,
            augment=augment,
            augment_seed=augment_seed,
            tta=tta,
            store_dtype=store_dtype.value if store_dtype else None,
            fast_decode=fast_decode,
            engine=engine.value,
            device=device,
            precision=precision.value,
            batch_size=batch_size,
            strict=strict,
            verify_content=verify_content,
            replace_source=replace_source,
            progress=report,
        )
    results: list[Any] = list(found) if isinstance(found, tuple) else [found]
    for result in results:
        warn(result.warnings)
    if as_json:
        show_json([each.to_json() for each in results] if several else results[0].to_json())
        return
    for result in results:
        if several:
            line(f"[bold]{printable(result.cache)}[/bold]")
        _render_one(result)
        if profile:
            render_profile(result)
    if len(results) > 1:
        suggest("compare them", "featcache", "compare", *(Path(result.cache) for result in results))
    else:
        suggest("probe it", "featcache", "probe", Path(results[0].cache))


def render(result: Any) -> None:
    """An extraction in a few lines, and what to do next."""
    _render_one(result)
    suggest("probe it", "featcache", "probe", Path(result.cache))


def _render_one(result: Any) -> None:
    rate = f", {result.images_per_second:.1f} pictures/s" if result.images_per_second else ""
    line(
        f"[bold]{result.samples}[/bold] pictures in {len(result.classes)} classes: "
        f"[bold]{result.computed}[/bold] computed, [bold]{result.reused}[/bold] reused, "
        f"[bold]{len(result.skipped)}[/bold] skipped  ({result.seconds:.1f} s{rate})"
    )
    engine = result.engine
    (feature, *inner) = (
        f"{printable(cut)}, {' x '.join(map(str, kept.shape))} {kept.dtype}"
        for cut, kept in result.features.items()
    )
    line(f"features: {feature}")
    line(printable(f"engine: {engine['name']} on {engine['device']} ({engine['why']})"))
    for activation in inner:
        line(f"  after {activation}")
    if result.precision_change:
        line(_precision_change(result.precision_change))
    if result.views:
        line(f"views beside the plain one: {printable(', '.join(map(str, result.views)))}")
    if result.passed_over:
        passed = ", ".join(f"{count} {reason}" for reason, count in result.passed_over.items())
        line(f"passed over: {printable(passed)}")
    if result.skipped:
        skipped = table("~skipped", "reason")
        for skip in result.skipped[:_MANY]:
            skipped.add_row(Ending(skip.path), printable(skip.reason))
        show(skipped)
        if len(result.skipped) > _MANY:
            more = len(result.skipped) - _MANY
            line(f"... and {more} more")
            suggest("all of them", "featcache", "info", Path(result.cache), "--json")


def _precision_change(change: Any) -> str:
    text = (
        f"{change.precision} beside fp32 on {change.pictures} pictures: cosine "
        f"{change.mean_cosine:.5f}, {change.least_cosine:.5f} at least"
    )
    if change.accuracy is None:
        return text
    return (
        f"{text}; accuracy of a ridge probe {change.accuracy:.3f}, "
        f"{change.accuracy_fp32:.3f} in fp32"
    )


def render_profile(result: Any) -> None:
    """Where the time of an extraction went."""
    profile = result.profile
    if profile is None:
        line("profile: nothing was computed")
        return
    total = profile.cores * profile.seconds
    stages = table("stage", "CPU s", "share")
    for stage, seconds in profile.cpu_seconds.items():
        stages.add_row(stage, f"{seconds:.2f}", f"{seconds / total:.0%}")
    show(stages)
    waited = ", ".join(f"{seconds:.2f} s for {what}" for what, seconds in profile.waited.items())
    line(
        f"{profile.seconds:.2f} s on {profile.cores} cores; the forward pass waited {waited}",
    )
    outside = ", ".join(f"{what} {seconds:.2f}" for what, seconds in profile.outside.items())
    line(f"{sum(profile.outside.values()):.2f} s before and after: {outside}")

"""`featcache info`, `verify`, `repair` and `prune`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from featcache_cli.rendering import (
    line,
    printable,
    progress,
    say,
    show,
    show_json,
    suggest,
    table,
    warn,
)

_MANY = 15

CacheArgument = Annotated[
    Path, typer.Argument(metavar="CACHE", help="A cache that `featcache extract` made.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def info(cache: CacheArgument, as_json: AsJson = False) -> None:
    """Say what is in a cache, and what is stale, missing or new against its source, and why.

    [bold]For example[/bold]

    $ featcache info cache/pets-efficientnet_lite0
    """
    from featcache import api

    result = api.info(cache)
    if as_json:
        show_json(result.to_json() | {"fresh": result.staleness.fresh})
        return
    _render_contents(result)
    _render_staleness(result)
    if result.staleness.fresh:
        suggest("probe it", "featcache", "probe", Path(result.cache))


def _render_contents(result: Any) -> None:
    line(f"[bold]{printable(result.cache)}[/bold]")
    line(f"source: {printable(result.source['location'])} ({printable(result.source['kind'])})")
    recipe = result.recipe
    line(
        f"backbone: {printable(result.backbone['name'])}, weights "
        f"{printable(recipe['weights'][:12])}, "
        f"{recipe['preprocessing']['size'][0]} pixels, {recipe['precision']}"
    )
    splits = ", ".join(f"{count} {name}" for name, count in result.splits.items() if name != "none")
    line(f"samples: {result.samples}" + (f" ({splits})" if splits else ""))
    classes = ", ".join(f"{printable(n)} {c}" for n, c in list(result.classes.items())[:_MANY])
    more = len(result.classes) - _MANY
    line(f"classes: {len(result.classes)}: {classes}" + (f" and {more} more" if more > 0 else ""))
    augmented = any(s.view["number"] for s in result.streams)
    view = ["view"] if augmented else []
    streams = table(
        "~cut",
        *(f"~{column}" for column in view),
        ">shape",
        ">dtype",
        ">rows",
        ">missing",
        ">skipped",
        ">shards",
        ">MB",
        "computed by",
    )
    for s in result.streams:
        streams.add_row(
            _kept(s),
            *([_view(s.view)] if augmented else []),
            " x ".join(map(str, s.shape)),
            s.dtype,
            str(s.rows),
            str(s.missing),
            str(s.skipped),
            str(s.shards),
            f"{s.bytes / 1e6:.1f}",
            printable("; ".join(s.computed_by)),
        )
    show(streams)
    for parent in dict.fromkeys(s.parent for s in result.streams if s.parent):
        cuts = dict.fromkeys(s.cut for s in result.streams if s.parent == parent)
        line(
            f"derived from the activations at {printable(parent)}, not from pixels: "
            f"{printable(', '.join(cuts))}"
        )
    for skip in result.skipped[:_MANY]:
        line(f"skipped: {printable(skip.path)}: {printable(skip.reason)}")
    if result.results:
        line(f"results: {printable(', '.join(result.results))}")


def _kept(stream: Any) -> str:
    """The cut, and how it is pooled or that it is derived."""
    cut = printable(stream.cut)
    if stream.parent:
        return f"{cut} (derived)"
    return cut if stream.pooling == "none" else f"{cut} ({stream.pooling})"


def _view(view: dict[str, Any]) -> str:
    """`plain`, or number, policy and seed."""
    if not view["number"]:
        return "plain"
    return f"{view['number']} of {printable(view['policy'])}, seed {view['seed']}"


def _render_staleness(result: Any) -> None:
    state = result.staleness
    if state.reason:
        warn([f"not compared with its source: {state.reason}"])
    if state.recipe_reason:
        warn([f"not compared with its backbone: {state.recipe_reason}"])
    for field in state.recipe:
        line(f"[yellow]stale: {printable(field)}[/yellow]")
    for kind, paths in state.examples.items():
        count = getattr(state.counts, kind)
        named = ", ".join(printable(path) for path in paths)
        line(f"[yellow]{kind}: {count}[/yellow]: {named}" + (" ..." if count > len(paths) else ""))
    if state.fresh:
        line("[green]fresh: the source and the backbone are as they were[/green]")
    elif state.examples or state.missing:
        if state.missing:
            line(f"[yellow]missing rows: {state.missing}[/yellow]: never computed")
        say("to bring it up to date, run the `featcache extract` that made it again")


def verify(
    cache: Annotated[
        Path,
        typer.Argument(
            metavar="CACHE", help="A cache that `featcache extract` made, or a classifier's .fc."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Hash every committed file of a cache again; exit 1 if one is not as it was written.

    [bold]For example[/bold]

    $ featcache verify cache/pets-efficientnet_lite0

    $ featcache verify pets.fc
    """
    from featcache import api

    result = api.verify(cache)
    if as_json:
        show_json(result.to_json())
    else:
        _render_damage(result)
        state = f"{len(result.damaged)} damaged" if result.damaged else "all as committed"
        line(f"{result.files} files, {result.bytes / 1e6:.1f} MB: {state} ({result.seconds:.2f} s)")
        if result.damaged and cache.is_dir():
            suggest("drop it, and compute it again", "featcache", "repair", cache)
        elif not result.damaged and cache.is_dir():
            suggest("see what is in it", "featcache", "info", cache)
        elif not result.damaged:
            suggest("use it", "featcache", "predict", cache, "PICTURE")
    if result.damaged:
        raise typer.Exit(1)


def _render_damage(result: Any) -> None:
    for damaged in result.damaged:
        line(f"[red]{printable(damaged.path)}: {printable(damaged.problem)}[/red]")


def repair(
    cache: CacheArgument,
    backbone: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The cache's network, where it is your own 'package.module:factory', which runs "
            "code.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what is damaged; change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Drop what is damaged in a cache, and compute it again where the pictures are there.

    Shards and results that are damaged or gone are dropped, a damaged index is
    rebuilt. Exit 1 if something is still missing then. A damaged manifest cannot
    be repaired: restore it, or extract again into another folder.

    [bold]For example[/bold]

    $ featcache repair cache/pets-efficientnet_lite0
    """
    from featcache import api

    with progress() as report:
        result = api.repair(cache, backbone=backbone, dry_run=dry_run, progress=report)
    if as_json:
        show_json(result.to_json() | {"whole": result.whole})
    else:
        _render_repair(result)
    if not result.whole:
        raise typer.Exit(1)


def _render_repair(result: Any) -> None:
    _render_damage(result)
    if result.dry_run:
        line(f"{len(result.damaged)} damaged, with {result.dropped} rows; nothing was changed")
        if result.damaged:
            suggest("drop it, and compute it again", "featcache", "repair", Path(result.cache))
        return
    index = "the index rebuilt, " if result.reindexed else ""
    line(
        f"{len(result.damaged)} damaged: {index}{result.dropped} rows dropped, "
        f"{len(result.results)} results dropped, {result.computed} rows computed "
        f"({result.seconds:.1f} s)"
    )
    warn(f"not computed: {reason}" for reason in result.reasons)
    if result.missing:
        line(f"[yellow]missing rows: {result.missing}[/yellow]")
    if result.results:
        suggest("have the results again", "featcache", "probe", Path(result.cache))
    elif result.whole:
        suggest("check it", "featcache", "verify", Path(result.cache))
    else:
        suggest("see what is missing", "featcache", "info", Path(result.cache))


def prune(cache: CacheArgument, as_json: AsJson = False) -> None:
    """Remove what nothing names any more: rows of pictures that are gone, old indices, leftovers.

    Sweeps that were interrupted are forgotten too.

    [bold]For example[/bold]

    $ featcache prune cache/pets-efficientnet_lite0
    """
    from featcache import api

    result = api.prune(cache)
    if as_json:
        show_json(result.to_json())
        return
    line(f"removed {result.rows} rows and {result.files} files, {result.bytes_freed / 1e6:.1f} MB")
    if result.sweeps:
        line(f"interrupted sweeps forgotten: {result.sweeps}")
    if result.views:
        line(f"still there: views {printable(', '.join(map(str, result.views)))}")
    suggest("see what is left", "featcache", "info", Path(result.cache))

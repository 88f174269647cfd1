"""`featcache backbones`."""

from typing import Annotated

import typer

from featcache_cli.rendering import line, printable, say, show, show_json, suggest, table

_MANY = 60


def backbones(
    pattern: Annotated[
        str | None,
        typer.Argument(metavar="PATTERN", help="Part of a name, or a pattern with * and ?."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """List the networks that can be backbones.

    [bold]For example[/bold]

    $ featcache backbones mobilenet

    $ featcache backbones 'timm/vit_small*'
    """
    from featcache import api

    rows = api.list_backbones(pattern)
    if as_json:
        show_json([row.to_json() for row in rows])
        return
    if not rows:
        say(
            f"no backbone matches {pattern!r}; try a part of its name, such as 'resnet'",
            style="yellow",
        )
        raise typer.Exit(1)
    listed = table("~name", "library", "~weights", ">pixels")
    for row in rows[:_MANY]:
        listed.add_row(row.name, row.library, printable(row.weights), str(row.size or ""))
    show(listed)
    if len(rows) > _MANY:
        line(f"... and {len(rows) - _MANY} more; give a part of the name")
    suggest("extract with one", "featcache", "extract", "DATA", "--backbone", rows[0].name)

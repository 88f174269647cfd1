"""`featcache layers`."""

from typing import Annotated

import typer

from featcache.rounding import count, percent
from featcache_cli.rendering import printable, show, show_json, suggest, table


def layers(
    backbone: Annotated[
        str, typer.Argument(metavar="BACKBONE", help="A network: see `featcache backbones`.")
    ],
    image_size: Annotated[
        int | None,
        typer.Option(min=1, help="Side of the input in pixels, instead of the published one."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """List the units of a network, from the top: where it can be cut.

    A cut is named after the unit below it. Bytes are those of the whole
    activation of one picture; cost is counted in multiplications.

    [bold]For example[/bold]

    $ featcache layers resnet50

    $ featcache layers timm/vit_small_patch16_224 --json
    """
    from featcache import api

    rows = api.layers(backbone, image_size=image_size)
    if as_json:
        show_json([row.to_json() for row in rows])
        return
    listed = table(
        ">depth", "~unit", ">shape", ">kB", ">parameters", ">trainable", ">frozen", ">cost"
    )
    for row in rows:
        listed.add_row(
            str(row.depth),
            printable(row.name),
            " x ".join(map(str, row.shape)),
            f"{row.bytes / 1000:.1f}",
            count(row.params),
            count(row.params_trainable),
            count(row.params_frozen),
            percent(row.cost_share),
        )
    show(listed)
    if rows:
        command = ("featcache", "extract", "DATA", "--backbone", backbone, "--cut", rows[0].name)
        suggest("keep an activation", *command)

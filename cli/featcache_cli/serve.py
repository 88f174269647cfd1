"""`featcache serve`."""

from pathlib import Path
from typing import Annotated

import typer

from featcache_cli.rendering import line, printable, said, say

_MEGABYTE = 1_000_000


def serve(
    classifier: Annotated[
        Path, typer.Argument(metavar="FILE.fc", help="A file that `featcache probe --save` made.")
    ],
    host: Annotated[
        str, typer.Option(help="Address to bind; the default is reached from this machine alone.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A name besides the host's own by which it may be asked."
        ),
    ] = None,
    max_upload: Annotated[
        int, typer.Option(min=1, metavar="MB", help="Megabytes that a request may have.")
    ] = 32,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
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
) -> None:
    r"""Serve a classifier on this machine: a page to drop pictures on, and JSON for programs.

    Needs pip install 'featcache\[serve]'. Pictures are kept nowhere. There is no
    password: whoever reaches the port may ask. Ctrl-C ends it.

    [bold]For example[/bold]

    $ featcache serve pets.fc

    $ curl --data-binary @photo.jpg http://127.0.0.1:8000/predict

    $ curl -F a=@tom.jpg -F b=@rex.jpg http://127.0.0.1:8000/predict
    """
    from featcache.serve import serve_classifier

    with said("featcache.serve.running"):
        serve_classifier(
            classifier,
            host=host,
            port=port,
            allow_hosts=allow_host or (),
            most_bytes=max_upload * _MEGABYTE,
            device=device,
            backbone=backbone,
            weights=weights,
            ready=lambda url: _announce(classifier, url),
        )


def _announce(classifier: Path, url: str) -> None:
    line(f"{printable(str(classifier))} is served at {url}")
    say("Ctrl-C ends it")

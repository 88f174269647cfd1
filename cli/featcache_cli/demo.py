"""`featcache demo`."""

from pathlib import Path
from typing import Annotated

import typer

from featcache_cli import extract, predict, probe
from featcache_cli.rendering import line, printable, progress, say, show_json, suggest


def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for the cache, the classifier and the pictures.")
    ] = Path("featcache-demo"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Run the main job on what is installed already: handwritten digits, embedded weights.

    Needs no download. A second run reuses the features of the first.

    [bold]For example[/bold]

    $ featcache demo
    """
    from featcache import api

    if not as_json:
        say("1,797 digits of 8 x 8 through efficientnet_lite0, then its last layers trained too:")
        say("three to four minutes on two cores")
    with progress() as report:
        result = api.demo(out, progress=report)
    if as_json:
        show_json(result.to_json())
        return
    line("\n[bold]1. extract[/bold]: the frozen network ran once; its features are kept")
    extract.render(result.extract)
    line("\n[bold]2. probe[/bold]: heads on the features, then the last units trained with them")
    probe.render(result.probe)
    line(f"drawn: {printable(result.plot)}")
    line("\n[bold]3. predict[/bold]: the saved classifier on a few digits it was trained on")
    predict.render(result.predictions)
    line(f"\nall in {result.seconds:.0f} s")
    suggest("your own pictures, in a folder a class", "featcache", "extract", "FOLDER")

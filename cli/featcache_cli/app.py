"""The `featcache` command: its subcommands, its exit codes, and how errors are shown."""

import logging
import os
import sys
import traceback
from typing import Annotated

import typer

from featcache_cli import backbones, caches, demo, extract, predict, probe
from featcache_cli.rendering import say

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130
_DEBUG = "FEATCACHE_DEBUG"

app = typer.Typer(
    name="featcache",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    epilog="A first walk:  [bold]featcache demo[/bold]     Your own pictures:  "
    "[bold]featcache extract pets/[/bold], then what it suggests.",
)
app.command("extract")(extract.extract)
app.command("probe")(probe.probe)
app.command("predict")(predict.predict)
app.command("backbones")(backbones.backbones)
app.command("info")(caches.info)
app.command("verify")(caches.verify)
app.command("prune")(caches.prune)
app.command("demo")(demo.demo)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"featcache {version('featcache')}")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error, and what is logged.")
    ] = False,
) -> None:
    """Run a frozen pretrained network over your pictures once, then train classifiers in seconds.

    [bold]extract[/bold] turns pictures into cached features, [bold]probe[/bold] fits and judges
    heads on them, [bold]predict[/bold] labels new pictures.
    """
    if debug:
        os.environ[_DEBUG] = "1"
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")


def main() -> None:
    """Run the command line; errors become one or two lines and an exit code."""
    from featcache.errors import FeatcacheError

    try:
        app()
    except KeyboardInterrupt:
        say("interrupted; what was finished is kept, run the same command again to go on")
        sys.exit(EXIT_INTERRUPTED)
    except FeatcacheError as error:
        if os.environ.get(_DEBUG):
            traceback.print_exc()
        say(f"error: {error}", style="red")
        sys.exit(EXIT_ERROR)

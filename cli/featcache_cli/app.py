"""The `featcache` command: its subcommands, its exit codes, and how errors are shown."""

import atexit
import gc
import io
import logging
import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from featcache.lean import keep_imports, let_waiting_threads_sleep
from featcache_cli import (
    backbones,
    caches,
    compare,
    demo,
    export,
    extract,
    layers,
    predict,
    probe,
    report,
    serve,
)
from featcache_cli.rendering import say

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130


class Commands(TyperGroup):
    """Runs a command; an error becomes one or two lines and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """As typer does, but for errors that featcache raises on purpose, and for Ctrl-C."""
        from featcache.errors import FeatcacheError

        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            say("interrupted; what was finished is kept, run the same command again to go on")
            raise typer.Exit(EXIT_INTERRUPTED) from error
        except FeatcacheError as error:
            if ctx.params.get("debug"):
                traceback.print_exc()
            say(f"error: {error}", style="red")
            raise typer.Exit(EXIT_ERROR) from error


app = typer.Typer(
    name="featcache",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    epilog="A first walk: [bold]featcache demo[/bold]. "
    "Your own pictures: [bold]featcache extract pets/[/bold], then what it suggests.",
)
app.command("extract")(extract.extract)
app.command("probe")(probe.probe)
app.command("compare")(compare.compare)
app.command("predict")(predict.predict)
app.command("report")(report.report)
app.command("export")(export.export)
app.command("serve")(serve.serve)
app.command("layers")(layers.layers)
app.command("backbones")(backbones.backbones)
app.command("info")(caches.info)
app.command("verify")(caches.verify)
app.command("repair")(caches.repair)
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
        bool,
        typer.Option(
            "--debug",
            envvar="FEATCACHE_DEBUG",
            help="Show the traceback of an error, and what is logged.",
        ),
    ] = False,
) -> None:
    """Run a frozen pretrained network over your pictures once, then train classifiers in seconds.

    [bold]extract[/bold] turns pictures into cached features, [bold]probe[/bold] fits and judges
    heads on them, [bold]predict[/bold] labels new pictures.

    [bold]For example[/bold]

    $ featcache extract pets/

    $ featcache probe cache/pets-efficientnet_lite0 --save pets.fc

    $ featcache predict pets.fc photo.jpg
    """
    if debug:
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")


def main() -> None:
    """Run the command line in a process of its own."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name of any bytes can be printed anywhere
            stream.reconfigure(errors="backslashreplace")
    let_waiting_threads_sleep()
    keep_imports()
    atexit.register(gc.freeze)  # or Python would look through all that is left, at its end
    app()

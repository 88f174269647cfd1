"""Record docs/walk.md again: `make walk`.

The walk is its own script: its text is kept, its commands are run one after the other in a
temporary folder, at 80 columns and without colour, and what they print takes the place of what
was printed before. Then its pictures are taken, in docs/images/.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from screenshots import take_screenshots
from walk_pictures import make_pictures

DOCS = Path(__file__).parent
WALK, IMAGES = DOCS / "walk.md", DOCS / "images"

BLOCK = re.compile(r"^```console\n(.*?)^```$", re.M | re.S)
PROMPT = "$ "
READY = "Ctrl-C ends it"
"""What a command that ends with & prints last before it waits."""

_PROGRAM = """\
#!/bin/sh
exec "{python}" -c \
  'import sys; sys.argv[0] = "featcache"; from featcache_cli.app import main; main()' "$@"
"""

_TIMED = re.compile(
    r"\d s\b|/s\b|\bengine: |\btorch\b|\bopenvino\b|\d{4}\.\d+\.\d+|^\s*[\d.]* ?(on)? ?(cpu)?$"
    r"|differ by |of result "
)
"""What a line has that is not the same in every run: seconds, rates, which engine was quickest just
then, what hangs on the last bits of its features."""

_LONG = re.compile(r"\d\.\d{6,}(?:e-\d+)?")
"""A number that was not rounded for people."""

_TIMED_TABLE = re.compile(r"^what it costs: .*(?:\n.+)*", re.M)
"""A table with seconds in it."""


def commands_of(block: str) -> list[str]:
    """The commands of a block, without what they printed."""
    return [line.removeprefix(PROMPT) for line in block.splitlines() if line.startswith(PROMPT)]


def steady(walk: str) -> list[str]:
    """The lines of a walk that every run has, long numbers rounded."""
    lines = _TIMED_TABLE.sub("", walk).splitlines()
    return [
        _LONG.sub(lambda number: f"{float(number[0]):.3f}", line)
        for line in lines
        if line.strip() and not _TIMED.search(line)
    ]


@contextmanager
def session(folder: Path) -> Iterator[Session]:
    """Where a walk can be gone, in an empty folder; what it left running ends with it."""
    make_pictures(folder)
    with tempfile.TemporaryDirectory() as programs:
        started = Session(folder, Path(programs))
        try:
            yield started
        finally:
            started.close()


class Session:
    """A shell without colour in a folder, in which `featcache` is this one."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self._folder = folder.resolve()
        self._waiting: list[subprocess.Popen[str]] = []
        program = programs / "featcache"
        program.write_text(_PROGRAM.format(python=sys.executable), "utf-8")
        program.chmod(0o755)
        self._environment = {
            **os.environ,
            "COLUMNS": "80",
            "NO_COLOR": "1",
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",
            "XDG_CACHE_HOME": str(programs / "cache"),
            "PATH": os.pathsep.join([str(programs), os.environ["PATH"]]),
        }
        self._environment.pop("FEATCACHE_DIR", None)

    def recorded(self, walk: str) -> str:
        """The same walk with what its commands print now."""
        return BLOCK.sub(lambda found: f"```console\n{self._block(found[1])}```", walk)

    def _block(self, block: str) -> str:
        return "".join(f"{PROMPT}{each}\n{self._run(each)}" for each in commands_of(block))

    def _run(self, command: str) -> str:
        waits = command.endswith(" &")
        started = subprocess.Popen(
            ["bash", "-c", f"exec {command.removesuffix(' &')}" if waits else command],
            cwd=self._folder,
            env=self._environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        printed = self._until_ready(started) if waits else started.communicate()[0]
        if not waits and started.returncode:
            raise RuntimeError(f"{command}\n{printed}")
        told = printed.replace(str(self._folder), "~").splitlines()
        return "".join(f"{line.rstrip()}\n" for line in told)

    def _until_ready(self, started: subprocess.Popen[str]) -> str:
        self._waiting.append(started)
        lines: list[str] = []
        for line in started.stdout or ():
            lines.append(line)
            if READY in line:
                return "".join(lines)
        raise RuntimeError("".join(lines))

    def close(self) -> None:
        """End what still waits."""
        for process in self._waiting:
            process.send_signal(signal.SIGINT)
            process.communicate()


def main() -> None:
    """Write docs/walk.md and docs/images/ again."""
    with tempfile.TemporaryDirectory() as made, session(Path(made)) as going:
        walk = going.recorded(WALK.read_text("utf-8"))
        url = re.findall(r"is served at (\S+)", walk)[-1]
        take_screenshots(Path(made, "report.html"), url, Path(made, "photo.jpg"), IMAGES)
    WALK.write_text(walk, "utf-8")


if __name__ == "__main__":
    main()

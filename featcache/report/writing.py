"""`write_report`: a kept result to one HTML file."""

from __future__ import annotations

import os
import time
from pathlib import Path

from featcache.api.kept_results import kept_result
from featcache.api.requests import PathLike, Progress
from featcache.errors import ProbeError, StoreError
from featcache.report.contents import STEPS, Limits, page_of
from featcache.report.pages import render
from featcache.results import ProbeResult, ReportResult
from featcache.store.files import make_folder, naming, write_durably

_START = b"<!doctype html>"
"""Of every page."""


def write_report(
    result: PathLike | ProbeResult,
    out: PathLike = "report.html",
    *,
    mistakes: int = Limits.mistakes,
    points: int = Limits.points,
    progress: Progress | None = None,
) -> ReportResult:
    """Write what a probe found into one HTML file that needs nothing else.

    The same result gives the same file. Pictures are read from where the cache says they are; what
    is gone or changed since leaves a note in its place.

    Args:
        result: what `probe` returned; or a cache, whose last result is taken, `CACHE:RESULT`, or a
            folder of its results.
        out: the file; a page that is there is replaced.
        mistakes: pictures in the gallery of mistakes, at most.
        points: pictures in the map of the features, at most; 0 leaves it out.
        progress: called with ("report", done, total).

    Raises:
        StoreError: the result cannot be read, the file cannot be written, or something else than
            a page is there.
        ProbeError: the cache was never probed, or the result was not kept; says what to do.
    """
    started, path = time.perf_counter(), Path(out)
    if mistakes < 0 or points < 0:
        raise ProbeError(f"mistakes {mistakes}, points {points}: give at least 0")
    _refuse_in_the_way(path)
    kept, done = kept_result(_named(result)), 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress:
            progress("report", done, STEPS)

    page = page_of(kept, Limits(mistakes, points), step)
    content = render(page)
    make_folder(path.absolute().parent)
    write_durably(path, content)
    return ReportResult(
        path=os.fspath(out),
        cache=kept.result.cache,
        result=kept.identity,
        bytes=len(content),
        pictures=page.pictures_shown,
        left_out=page.pictures_left_out,
        seconds=round(time.perf_counter() - started, 3),
        warnings=() if page.missing is None else (f"no pictures: {page.missing}",),
    )


def _refuse_in_the_way(path: Path) -> None:
    """Refuse to replace what is no page: a mistyped name costs nobody a classifier.

    Raises:
        StoreError: says what is there.
    """
    if path.is_dir():
        raise StoreError(f"{path}: is a folder; name the file, such as {path / 'report.html'}")
    if not path.exists():
        return
    with naming(path), path.open("rb") as file:
        start = file.read(len(_START))
    if start and start.lower() != _START:
        raise StoreError(f"{path}: is there and is no page; give another name, or remove it")


def _named(result: PathLike | ProbeResult) -> str:
    if not isinstance(result, ProbeResult):
        return os.fspath(result)
    if result.result is None:
        raise ProbeError(
            "this result was not kept in its cache, so there are no rows to report; make the cache "
            "writable and probe again"
        )
    return f"{result.cache}:{result.result}"

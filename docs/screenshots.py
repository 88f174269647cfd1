"""The pictures of docs/walk.md: a report and a served page, as Chromium shows them."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

WIDTH, COLORS = 1100, 128

_QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def take_screenshots(report: Path, url: str, picture: Path, into: Path) -> None:
    """PNGs of a report's parts, and of a served page that was given a picture.

    Raises:
        RuntimeError: there is no Chromium.
    """
    into.mkdir(exist_ok=True)
    with _page() as page:
        page.goto(report.as_uri())
        _keep(page.screenshot(full_page=True, clip=_from_top(page, "#depths")), into, "report-top")
        _keep(_top_of(page, "#mistakes", 760), into, "report-mistakes")
        _point_at_a_mistake(page)
        _keep(_top_of(page, "#map", 760), into, "report-map")
        page.goto(url)
        page.set_viewport_size({"width": WIDTH, "height": 640})
        page.set_input_files("#files", picture)
        page.locator("#answers img").first.wait_for()
        page.locator("#answers").get_by_text("%").first.wait_for()
        _keep(page.screenshot(), into, "serve")


@contextmanager
def _page() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    chromium = os.environ.get("FEATCACHE_CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        raise RuntimeError("no chromium: `apt-get install chromium`, or set FEATCACHE_CHROMIUM")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=list(_QUIET))
        size = {"width": WIDTH, "height": 800}
        yield browser.new_page(viewport=size, color_scheme="light", reduced_motion="reduce")
        browser.close()


def _box(page: Any, part: str) -> dict[str, float]:
    """Where a part lies on the whole page."""
    return page.locator(part).evaluate(
        "e => { const b = e.getBoundingClientRect();"
        " return {x: 0, y: b.y + scrollY, width: innerWidth, height: b.height}; }"
    )


def _from_top(page: Any, last: str) -> dict[str, float]:
    """The page down to the end of a part."""
    box = _box(page, last)
    return {**box, "y": 0, "height": box["y"] + box["height"]}


def _top_of(page: Any, part: str, most: int) -> bytes:
    """The upper part of a part."""
    box = _box(page, part)
    clip = {**box, "height": min(box["height"], most)}
    return page.screenshot(full_page=True, clip=clip)


def _point_at_a_mistake(page: Any) -> None:
    """Show the picture of the first ringed dot that no other one lies over."""
    for dot in page.locator("#map-t i.w").all():
        dot.hover(force=True)
        if dot.locator("span").is_visible():
            return
    raise RuntimeError("pointing at dots shows nothing")


def _keep(shot: bytes, into: Path, name: str) -> None:
    """Write a PNG of few colours, which is small."""
    with Image.open(io.BytesIO(shot)) as image:
        few = image.convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
        few.save(into / f"{name}.png", optimize=True)

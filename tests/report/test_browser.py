"""The page in a browser: quiet, alone, sortable, with pictures on hover; whole without scripts."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.browser

Page = Any
"""What a page says; see `Page` in the fixtures."""

_QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = os.environ.get("FEATCACHE_CHROMIUM") or shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium: `apt-get install chromium`, or name one in FEATCACHE_CHROMIUM")
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with api.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=path, args=list(_QUIET))
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: Any, page: Page) -> Iterator[Callable[..., Any]]:
    """Open the page; at the end nothing was said on the console, and nothing else was asked for."""
    said: list[str] = []
    asked: list[str] = []
    contexts: list[Any] = []

    def start(**options: Any) -> Any:
        contexts.append(browser.new_context(**options))
        tab = contexts[-1].new_page()
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("dialog", lambda dialog: said.append(dialog.message))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(page.path.as_uri())
        return tab

    yield start
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in asked if not url.startswith("data:image/")] == [
        page.path.as_uri() for _ in contexts
    ]


def _column(tab: Any, table: str, number: int) -> list[str]:
    cells = tab.locator(f"#{table} tbody tr > :nth-child({number})")
    return [text.strip() for text in cells.all_inner_texts()]


def test_it_opens_from_disk(visit: Callable[..., Any], page: Page) -> None:
    tab = visit()
    assert tab.title().endswith(page.texts["accuracy"])
    assert tab.locator("#accuracy").is_visible()
    shown = tab.locator("img")
    assert shown.count() == len(page.images())
    assert shown.evaluate_all("all => all.every(one => one.complete && one.naturalWidth > 0)")


def test_columns_sort_by_a_click(visit: Callable[..., Any]) -> None:
    tab = visit()
    before = _column(tab, "class-scores", 1)
    assert before == sorted(before)
    recall = tab.get_by_role("button", name="recall").first
    header = tab.locator("#class-scores th", has=recall)
    recall.click()
    rising = [float(text[:-1]) for text in _column(tab, "class-scores", 3)]
    assert rising == sorted(rising)
    assert header.get_attribute("aria-sort") == "ascending"
    recall.click()
    assert [float(text[:-1]) for text in _column(tab, "class-scores", 3)] == rising[::-1]
    assert header.get_attribute("aria-sort") == "descending"
    tab.locator("#class-scores").get_by_role("button", name="class", exact=True).press("Enter")
    assert _column(tab, "class-scores", 1) == before
    assert header.get_attribute("aria-sort") is None


@pytest.mark.parametrize("scripts", [True, False])
def test_pointing_at_a_dot_shows_its_picture(visit: Callable[..., Any], scripts: bool) -> None:
    tab = visit(java_script_enabled=scripts)
    for plane in ("p", "t"):
        number = _pointed_at(tab, plane)
        picture = tab.locator(f"#{plane}{number} b")
        assert picture.bounding_box()["width"] > 60
        assert tab.locator(f"#map-{plane} span:visible").count() == 1
    tab.mouse.move(0, 0)
    assert tab.locator("#map span:visible").count() == 0
    tab.locator("#t3").focus()  # as a tap does
    assert tab.locator("#t3 b").is_visible()


def _pointed_at(tab: Any, plane: str) -> int:
    """The first dot that no other one lies over, pointed at."""
    for number in range(20):
        dot = tab.locator(f"#{plane}{number}")
        assert not dot.locator("span").is_visible()
        dot.hover(force=True)
        if dot.locator("span").is_visible():
            return number
    pytest.fail("pointing at dots shows nothing")


def test_each_dot_has_a_picture_of_its_own(visit: Callable[..., Any]) -> None:
    tab = visit()
    style = "all => all.map(one => {s = getComputedStyle(one); return [s.backgroundImage, s.%s]})"
    found = tab.locator("#map-t b").evaluate_all(style % "backgroundPosition")
    assert len(found) == len({place for _, place in found}) == 62
    assert {image[:20] for image, _ in found} == {'url("data:image/webp'}


def test_without_scripts_everything_is_there(visit: Callable[..., Any], page: Page) -> None:
    tab = visit(java_script_enabled=False)
    for identity in page.sections():
        assert tab.locator(f"#{identity} h2").is_visible()
    assert tab.locator("th button").count() == 0
    assert _column(tab, "class-scores", 1) == [row[0] for row in page.tables["class-scores"][1:]]
    assert tab.locator("svg[role=img]").count() == page.source.count('role="img"')
    assert tab.locator("#again pre").first.is_visible()
    tab.locator("summary").first.click()
    assert tab.locator("#path details table").is_visible()


def test_names_are_shown_as_they_are(visit: Callable[..., Any]) -> None:
    tab = visit()
    assert "<script>alert(1)</script>" in _column(tab, "class-scores", 1)
    assert tab.get_by_text('0"><script>alert(2)<script>.jpg').count() > 0
    assert tab.evaluate("document.scripts.length") == 1


def test_dark_and_light(visit: Callable[..., Any]) -> None:
    grounds = {}
    for scheme in ("light", "dark"):
        tab = visit(color_scheme=scheme)
        ground, ink = (
            tab.evaluate(f"getComputedStyle(document.body).{name}")
            for name in ("backgroundColor", "color")
        )
        grounds[scheme] = _brightness(ground)
        assert abs(_brightness(ground) - _brightness(ink)) > 150
        tab.emulate_media(media="print", color_scheme=scheme)
        assert _brightness(tab.evaluate("getComputedStyle(document.body).backgroundColor")) == 255
    assert grounds["dark"] < 50
    assert grounds["light"] > 240


def _brightness(colour: str) -> float:
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3


@pytest.mark.parametrize("width", [360, 800, 1400])
def test_nothing_sticks_out(visit: Callable[..., Any], width: int) -> None:
    tab = visit(viewport={"width": width, "height": 900})
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    outside = """all => all.filter(text => {
      const own = text.getBoundingClientRect();
      const all = text.ownerSVGElement.getBoundingClientRect();
      return own.left < all.left - 1 || own.right > all.right + 1 || own.bottom > all.bottom + 1;
    }).map(text => text.textContent)"""
    assert tab.locator("svg text").evaluate_all(outside) == []


def test_it_prints_on_pages(visit: Callable[..., Any], tmp_path: Path) -> None:
    tab = visit(viewport={"width": 718, "height": 900})  # A4 within its margins, 96 pixels an inch
    tab.emulate_media(media="print")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 718
    assert not tab.locator("nav").is_visible()
    assert not tab.locator("summary").first.is_visible()
    tab.screenshot(path=tmp_path / "print.png", full_page=True)
    with Image.open(tmp_path / "print.png") as shot:
        assert len(np.unique(np.asarray(shot.convert("L").resize((64, 64))))) > 20
    assert tab.pdf(format="A4").startswith(b"%PDF")

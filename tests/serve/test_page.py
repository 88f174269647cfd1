"""The page in Chromium: pictures that are dropped, chosen or pasted are answered, names escaped."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import featcache as fc

pytestmark = pytest.mark.browser

QUIET = (
    *("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)

DROP = """({name, type, bytes, event}) => {
    const content = Uint8Array.from(atob(bytes), c => c.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([content], name, {type}));
    const given = event === "paste" ? new ClipboardEvent("paste", {clipboardData: transfer})
        : new DragEvent(event, {dataTransfer: transfer, bubbles: true, cancelable: true});
    (event === "paste" ? document : document.getElementById("drop")).dispatchEvent(given);
}"""


@pytest.fixture(scope="module")
def url(saved: Path) -> Iterator[str]:
    """A server of the classifier."""
    command = "from featcache_cli.app import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", command, "serve", str(saved), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    yield process.stdout.readline().rpartition(" ")[2].strip()
    process.terminate()
    process.communicate(timeout=30)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, without its sandbox only where this is root."""
    place = os.environ.get("FEATCACHE_CHROMIUM") or shutil.which("chromium")
    if place is None:
        pytest.skip("no Chromium: apt-get install chromium, or name one by FEATCACHE_CHROMIUM")
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with sync_api.sync_playwright() as playwright:
        sandbox = not (hasattr(os, "geteuid") and os.geteuid() == 0)
        started = playwright.chromium.launch(
            executable_path=place, chromium_sandbox=sandbox, args=list(QUIET)
        )
        yield started
        started.close()


class Watched:
    """A page, and what it asked for and complained of."""

    def __init__(self, browser: Any, url: str, **options: Any) -> None:
        self.page = browser.new_page(**options)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.on(
            "console",
            lambda said: self.complaints.append(said.text) if said.type == "error" else None,
        )
        self.page.goto(url)

    def give(self, path: Path, event: str = "drop") -> Any:
        """Drop or paste a file, and wait for what is said of it."""
        content = base64.b64encode(path.read_bytes()).decode()
        kind = "image/png" if path.suffix == ".png" else "image/jpeg"
        self.page.evaluate(
            DROP, {"name": path.name, "type": kind, "bytes": content, "event": event}
        )
        return self.answered(path)

    def answered(self, path: Path) -> Any:
        """The card of a file, once it has an answer."""
        card = self.page.locator("article", has_text=path.name).first
        card.locator("li, .wrong").first.wait_for()
        return card


@pytest.fixture
def watched(browser: Any, url: str) -> Iterator[Callable[..., Watched]]:
    pages: list[Watched] = []

    def open_page(**options: Any) -> Watched:
        pages.append(Watched(browser, url, **options))
        return pages[-1]

    yield open_page
    for one in pages:
        assert all(asked.startswith((url, "blob:", "data:")) for asked in one.requests)
        one.page.close()


def said(card: Any) -> list[tuple[str, str]]:
    """Classes and percentages of a card."""
    rows = card.locator("li div")
    return [tuple(rows.nth(i).locator("span").all_inner_texts()) for i in range(rows.count())]


def test_a_picture_that_is_dropped_chosen_or_pasted(
    watched: Callable[..., Watched], saved: Path, photos: Any
) -> None:
    page = watched()
    cat, cup, _ = photos
    expected = {
        Path(p.path).name: [(e.label, f"{100 * e.probability:.1f}%") for e in p.top]
        for p in fc.predict(saved, [cat, cup], engine="torch")
    }
    assert said(page.give(cat)) == expected["cat.jpg"]
    page.page.set_input_files("#files", cup)
    assert said(page.answered(cup)) == expected["cup.png"]
    assert said(page.give(cup, "paste")) == expected["cup.png"]
    assert page.page.locator("article").count() == 3
    bars = page.page.locator("article .bar")
    widths = bars.evaluate_all("all => all.map(e => parseFloat(e.style.width))")
    told = [row for name in ("cat.jpg", "cup.png", "cup.png") for row in expected[name]]
    assert sorted(widths) == sorted(float(percent.rstrip("%")) for _, percent in told)
    assert page.page.title() == "drinks.fc - featcache"
    assert "2 classes" in page.page.inner_text("#about")
    assert page.complaints == []


def test_what_is_no_picture_says_why_and_stops_nothing(
    watched: Callable[..., Watched], photos: Any
) -> None:
    page = watched()
    cat, _, text = photos
    assert "not a picture" in page.give(text).locator("[role=alert]").inner_text()
    assert len(said(page.give(cat))) == 2


def test_names_are_shown_as_text(
    watched: Callable[..., Watched], photos: Any, tmp_path: Path
) -> None:
    page = watched()
    named = tmp_path / "<b onclick=alert(2)>x<b>.jpg"
    named.write_bytes(photos[0].read_bytes())
    card = page.give(named)
    assert card.locator("h2").inner_text() == named.name
    assert "<img src=x onerror=alert(1)>" in dict(said(card))
    assert page.page.locator("img[src=x], b").count() == 0
    assert page.complaints == []


def test_it_fits_a_phone_and_is_dark_where_that_is_wanted(
    watched: Callable[..., Watched], photos: Any
) -> None:
    colours = set()
    for scheme in ("light", "dark"):
        page = watched(viewport={"width": 360, "height": 640}, color_scheme=scheme)
        page.give(photos[0])
        across = page.page.evaluate("document.documentElement.scrollWidth")
        assert across <= 360
        colours.add(page.page.evaluate("getComputedStyle(document.body).backgroundColor"))
        if folder := os.environ.get("FEATCACHE_SCREENSHOTS"):
            page.page.screenshot(path=Path(folder) / f"serve-{scheme}.png")
    assert len(colours) == 2

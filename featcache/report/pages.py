"""From a page's contents to its HTML: templates, and the policy that nothing else is loaded."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from featcache.naming import shown
from featcache.report.contents import Page
from featcache.report.numbers import FILTERS


def render(page: Page) -> bytes:
    """The page as UTF-8 HTML, complete in itself."""
    templates = _templates()
    rules = page.feature_map.rules if page.feature_map else ""
    if page.chance is not None:
        rules += f"#chance{{left:{100 * page.chance:.2f}%}}\n"
    style = Markup(_source("report.css") + rules)
    script = Markup(_source("report.js"))
    html = templates.get_template("report.html.jinja").render(
        page=page,
        result=page.result,
        style=style,
        script=script,
        policy=_policy(style, script),
    )
    return html.encode("utf-8")


@cache
def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("featcache.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= FILTERS
    return made


def _printable(value: Any) -> Any:
    """Names of files may hold anything: line breaks, turned writing, bytes that are no UTF-8."""
    plain = isinstance(value, str) and not isinstance(value, Markup)
    return shown(value) if plain else value


@cache
def _source(name: str) -> str:
    environment = _templates()
    loader = environment.loader
    if loader is None:
        raise TypeError(f"{name}: the templates have no loader")
    return loader.get_source(environment, name)[0]


def _policy(style: str, script: str) -> str:
    """Nothing is loaded, and nothing runs but this style and this script."""
    return (
        f"default-src 'none'; img-src data:; style-src '{_hashed(style)}'; "
        f"script-src '{_hashed(script)}'; base-uri 'none'; form-action 'none'"
    )


def _hashed(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return "sha256-" + base64.b64encode(digest).decode("ascii")

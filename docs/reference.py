"""Write docs/commands.md and the reference in docs/python.md from the code: `make reference`.

What commands say of themselves is read from their functions, not from their `--help`, so that no
terminal's width or colour gets into the text.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from typer.models import ArgumentInfo, OptionInfo

import featcache
from featcache.results import Record
from featcache_cli.app import app

DOCS = Path(__file__).parent
COMMANDS, PYTHON = DOCS / "commands.md", DOCS / "python.md"

MARK = "<!-- From here on written by `make reference`. -->\n"
"""In docs/python.md: what stands before is kept."""

_HEAD = """\
# Commands

Written by `make reference` from the commands themselves; `featcache COMMAND --help` says the same.
What the words mean: [concepts](concepts.md). The same from Python: [python](python.md).

Exit codes: 0 done, 1 an error that says what to do, 2 wrong usage, 130 interrupted with everything
finished kept. Results go to stdout, progress and remarks to stderr.
"""


def commands() -> str:
    """The text of docs/commands.md."""
    root = app.registered_callback
    named = [(info.name or "", info.callback) for info in app.registered_commands]
    listed = [f"- [`featcache {name}`](#featcache-{name})" for name, _ in named]
    parts = [_HEAD, "\n".join(listed) + "\n"]
    if root is not None and root.callback is not None:
        parts += ["## featcache\n", _described(root.callback, "featcache")]
    for name, callback in named:
        if callback is not None:
            parts += [f"## featcache {name}\n", _described(callback, f"featcache {name}")]
    return "\n".join(parts)


def _described(callback: Callable[..., Any], name: str) -> str:
    hints = get_type_hints(callback, include_extras=True)
    told = [name for name, hint in hints.items() if hasattr(hint, "__metadata__")]
    found = [_Parameter.of(callback, each) for each in told]
    arguments = [each for each in found if isinstance(each.info, ArgumentInfo)]
    options = [each for each in found if isinstance(each.info, OptionInfo)]
    usage = " ".join([name, *(each.shown for each in arguments), "[OPTIONS]"])
    parts = [f"    {usage}\n", *_paragraphs(inspect.getdoc(callback) or "")]
    if arguments:
        rows = [f"| {each.typed} | {each.told} |" for each in arguments]
        parts.append("\n".join(["| argument | |", "|---|---|", *rows]) + "\n")
    panels = dict.fromkeys(each.info.rich_help_panel for each in options)
    for panel in panels:
        rows = [each.row for each in options if each.info.rich_help_panel == panel]
        title = f"{panel}:\n\n" if panel else ""
        parts.append(
            "\n".join([f"{title}| option | unless given | |", "|---|---|---|", *rows]) + "\n"
        )
    return "\n".join(parts)


def _paragraphs(doc: str) -> Iterator[str]:
    """A docstring as Markdown, its example commands together in one block."""
    block: list[str] = []
    for paragraph in re.split(r"\n\s*\n", doc.strip()):
        text = " ".join(paragraph.split())
        if text.startswith("$ "):
            block.append(text)
            continue
        yield from _console(block)
        block = []
        yield _markdown(text) + "\n"
    yield from _console(block)


def _console(block: list[str]) -> Iterator[str]:
    if block:
        yield "\n".join(["```console", *block, "```"]) + "\n"


@dataclasses.dataclass(frozen=True)
class _Parameter:
    """A parameter of a command: its name, its type, its default, and what typer is told of it."""

    name: str
    kind: Any
    default: Any
    info: Any

    @classmethod
    def of(cls, callback: Callable[..., Any], name: str) -> _Parameter:
        """Of a function's signature."""
        hint = get_type_hints(callback, include_extras=True)[name]
        kind, info = get_args(hint)[0], hint.__metadata__[0]
        if get_origin(kind) is UnionType:
            kind = next(each for each in get_args(kind) if each is not type(None))
        return cls(name, kind, inspect.signature(callback).parameters[name].default, info)

    @property
    def shown(self) -> str:
        """As it is typed."""
        if isinstance(self.info, ArgumentInfo):
            name = self.info.metavar or self.name.upper()
            several = get_origin(self.kind) in (list, tuple) and not name.endswith("...")
            return f"{name} ..." if several else name
        flag = f"--{self.name.replace('_', '-')}"
        given = (self.info.default, *(self.info.param_decls or ()))  # typer's first one is either
        names = ", ".join(each for each in given if isinstance(each, str) and each[:1] == "-")
        if self.kind is bool:
            return names or f"{flag}/--no-{flag[2:]}"
        return f"{names or flag} {self.info.metavar or self._metavar}"

    @property
    def typed(self) -> str:
        """The same in a cell of a table."""
        return f"`{self.shown}`".replace("|", "\\|")

    @property
    def _metavar(self) -> str:
        inner = (get_args(self.kind) or (self.kind,))[0]
        known = {int: "NUMBER", float: "NUMBER", str: "TEXT", Path: "PATH"}
        return known.get(inner, self.name.upper().replace("_", "-"))

    @property
    def told(self) -> str:
        """What it means, and what may be given."""
        parts = [" ".join((self.info.help or "").split())]
        if self._has_choices:
            parts.append(f"One of {', '.join(str(each.value) for each in self.kind)}.")
        low, high = self.info.min, self.info.max
        if low is not None:
            parts.append(f"At least {low:g}." if high is None else f"{low:g} to {high:g}.")
        if self.info.envvar:
            parts.append(f"Also by the environment's {self.info.envvar}.")
        return _cell(" ".join(part for part in parts if part))

    @property
    def _has_choices(self) -> bool:
        named = isinstance(self.kind, type) and issubclass(self.kind, Enum)
        return named and self.info.show_choices

    @property
    def row(self) -> str:
        """As an option's row of a table."""
        value = self.default.value if isinstance(self.default, Enum) else self.default
        none = value is None or value is False or value is inspect.Parameter.empty
        return f"| {self.typed} | {'' if none else f'`{value}`'} | {self.told} |"


def _markdown(text: str) -> str:
    """Typer's markup as Markdown; what Markdown or HTML would read as markup is a text."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([<*])", r"\\\1", part) for part in parts[::2]]  # outside of code
    return re.sub(r"\[/?bold\]", "**", "`".join(parts))


def _cell(text: str) -> str:
    return _markdown(text).replace("|", "\\|")


def reference() -> str:
    """What stands under the mark in docs/python.md: every public name."""
    names = [name for name in featcache.__all__ if name != "__version__"]
    functions = [name for name in names if inspect.isfunction(getattr(featcache, name))]
    classes = [name for name in names if name not in functions]
    parts = ["## Functions\n", *map(_function, functions), "## Classes\n", *map(_class, classes)]
    return "\n".join(parts)


def _function(name: str) -> str:
    return f"### {name}\n\n{_signature(name, getattr(featcache, name))}\n{_doc(name)}"


def _class(name: str) -> str:
    kind = getattr(featcache, name)
    made = f"{_signature(name, kind)}\n" if _is_made_by_hand(kind) else ""
    methods = [
        f"- `.{member}{'()' if callable(value) else ''}`: {_first_line(value)}"
        for member, value in sorted(vars(kind).items())
        if not member.startswith("_") and _first_line(value)
    ]
    listed = "\n".join(["\nMethods:\n", *methods]) + "\n" if methods else ""
    return f"### {name}\n\n{made}{_doc(name)}{listed}"


def _is_made_by_hand(kind: type) -> bool:
    """Whether people make one themselves, rather than get it from a command."""
    given = Exception, Record, featcache.Records, featcache.FeatureCache, featcache.FeatureRows
    return not issubclass(kind, given)


def _signature(name: str, made: Any) -> str:
    """Call and types, a parameter a line where they are many."""
    signature = inspect.signature(made)
    each = [_parameter(parameter) for parameter in signature.parameters.values()]
    kinds = [parameter.kind for parameter in signature.parameters.values()]
    if inspect.Parameter.KEYWORD_ONLY in kinds:
        each.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    returned = signature.return_annotation
    arrow = f" -> {_type(returned)}" if returned not in (signature.empty, None, "None") else ""
    one = f"{name}({', '.join(each)}){arrow}"
    lines = one if len(one) <= 92 else f"{name}(\n    " + ",\n    ".join(each) + f",\n){arrow}"
    return f"```text\n{lines}\n```\n"


def _parameter(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    hint = "" if parameter.annotation is parameter.empty else f": {_type(parameter.annotation)}"
    default = "" if parameter.default is parameter.empty else f" = {_default(parameter.default)}"
    return f"{stars}{parameter.name}{hint}{default}"


def _default(value: Any) -> str:
    made = type(value).__name__ == "_HAS_DEFAULT_FACTORY_CLASS" or dataclasses.is_dataclass(value)
    return "..." if made else repr(value)


def _type(hint: Any) -> str:
    return hint if isinstance(hint, str) else getattr(hint, "__name__", str(hint))


def _doc(name: str) -> str:
    """A docstring as Markdown: its sentences, and lists of its sections (Args, Raises)."""
    doc = inspect.cleandoc(getattr(featcache, name).__doc__ or "")
    text, *sections = re.split(r"\n(?=(?:Args|Attributes|Returns|Yields|Raises):\n)", doc)
    return "\n".join([_markdown(text.strip()) + "\n", *map(_section, sections)])


def _section(section: str) -> str:
    title, _, body = section.partition("\n")
    entries = re.split(r"\n(?=\S)", inspect.cleandoc("\n" + body))
    return "\n".join([f"{title}\n", *map(_entry, entries)]) + "\n"


def _entry(entry: str) -> str:
    """A name and what it is, or a sentence alone."""
    text = " ".join(entry.split())
    name, colon, rest = text.partition(": ")
    named = colon and re.fullmatch(r"[\w*]+(, [\w*]+)*", name)
    return f"- `{name}`: {_markdown(rest)}" if named else f"- {_markdown(text)}"


def _first_line(value: Any) -> str:
    documented = inspect.isfunction(value) or isinstance(value, (property, classmethod))
    return (inspect.getdoc(value) or "").partition("\n")[0] if documented else ""


def python() -> str:
    """The text of docs/python.md: the guide as it is, and the reference."""
    guide = PYTHON.read_text("utf-8").partition(MARK)[0] if PYTHON.exists() else ""
    return f"{guide}{MARK}\n{reference()}"


def main(arguments: Iterable[str]) -> None:
    """Write both files, or those that are named."""
    wanted = set(arguments)
    for path, text in ((COMMANDS, commands), (PYTHON, python)):
        if not wanted or path.name in wanted:
            path.write_text(text(), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])

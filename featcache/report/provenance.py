"""The recipe and the provenance of a result, in full, as names and values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from featcache.api.kept_results import KeptResult
from featcache.store.manifest import StreamEntry


@dataclass(frozen=True)
class Facts:
    """A heading, and what is said under it: dotted names and values."""

    title: str
    pairs: tuple[tuple[str, str], ...]


def provenance(kept: KeptResult) -> tuple[Facts, ...]:
    """Everything that decides the numbers, and what computed them."""
    manifest, result = kept.cache.manifest, kept.result
    made = {
        "result": kept.identity,
        "head": result.head,
        "protocol": result.protocol,
        "cut": result.cut,
        "asked": result.asked,
        "rows": len(kept.rows["hashes"]),
        "report made by": f"featcache {version('featcache')}",
    }
    recipe = manifest.recipe.to_dict() | {"key": manifest.recipe.key}
    index = {} if manifest.index is None else {"index sha256": manifest.index.sha256}
    sections = [
        ("Result", made),
        ("Source", dict(manifest.source) | index),
        ("Backbone", dict(manifest.backbone)),
        ("Recipe", recipe),
    ]
    streams = [(f"Stream {number}", _stream(entry)) for number, entry in enumerate(_used(kept), 1)]
    return tuple(Facts(title, tuple(_flat(facts))) for title, facts in [*sections, *streams])


def _used(kept: KeptResult) -> list[StreamEntry]:
    """The streams of the cache, those of the probed cut first, plain views before others."""
    entries = kept.cache.manifest.streams.values()
    order = {kept.result.cut: 0}
    return sorted(entries, key=lambda e: (order.get(e.stream.cut, 1), e.stream.view.sort_key))


def _stream(entry: StreamEntry) -> dict[str, Any]:
    plans = [plan.provenance for plan in entry.plans]
    distinct = [_said(plan) for k, plan in enumerate(plans) if plan not in plans[:k]]
    computed = {
        "computed by" if number == 1 else f"and by, {number}": said
        for number, said in enumerate(distinct, 1)
    }
    shape = {"shape": list(entry.shape), "shards": len(entry.shards)}
    return entry.stream.to_dict() | {"key": entry.stream.key} | shape | computed


def _said(plan: Mapping[str, Any]) -> str:
    """What computed, in a line."""
    versions = ", ".join(f"{name} {number}" for name, number in plan["versions"].items())
    return (
        f"{plan['engine']} on {plan['device']}, batches of {plan['batch_size']}, "
        f"{plan['threads']} threads; {versions}"
    )


def _flat(facts: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for name, value in facts.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{before}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield f"{before}{name}", text

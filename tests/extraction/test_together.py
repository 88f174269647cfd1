"""Several backbones in one pass: each cache is, byte for byte, what its backbone alone makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from featcache import api
from featcache.backbones import registry
from featcache.errors import BackboneError, CacheMismatchError, PictureError
from featcache.extraction.jobs import Job
from featcache.extraction.running import Extraction
from featcache.extraction.together import Together, run_together
from featcache.images.clock import Clock
from featcache.images.listing import StatKey

LONG_AGO = 10**18


@pytest.fixture
def labs(make_lab: Callable[..., Any]) -> Callable[..., list[Any]]:
    """Labs of networks that differ, on one source."""

    def made(pictures: Any, count: int = 3, **options: Any) -> list[Any]:
        found = [make_lab(pictures, **options) for _ in range(count)]
        for number, lab in enumerate(found):
            lab.weights, lab.source, lab.stem.shift = str(number) * 64, found[0].source, number
        return found

    return made


def jobs(labs: Sequence[Any], **options: Any) -> list[Job]:
    return [lab.job(**options) for lab in labs]


def alone(labs: Sequence[Any], **options: Any) -> list[dict[str, bytes]]:
    """What each makes by itself, in folders beside."""
    made = []
    for lab in labs:
        beside = replace(lab, folder=lab.folder.with_name(lab.folder.name + "-alone"))
        beside.run(**options)
        made.append(beside.bytes())
    return made


PRESENT = {f"{i:02d}": i for i in range(17)} | {"x": b"no picture", "y": -1}


@pytest.mark.parametrize(
    "options", [{}, {"views": "three"}, {"batch_size": 3, "shard_rows": 6}, {"threads": 1}]
)
def test_each_cache_is_what_its_backbone_alone_makes(labs: Any, options: dict[str, Any]) -> None:
    from featcache.images.policies import views_of

    if "views" in options:
        options = {"views": views_of("flip", 2, 0)}
    found = labs(PRESENT)
    done = run_together(jobs(found, **options))
    assert [lab.bytes() for lab in found] == alone(found, **options)
    assert [(e.computed, e.reused, len(e.skipped)) for e in done] == [(17, 0, 2)] * 3


def test_each_picture_is_read_once_to_be_hashed_and_once_to_be_decoded(labs: Any) -> None:
    stats = {f"{i:02d}": StatKey(i, LONG_AGO, LONG_AGO, i) for i in range(40)}
    found = labs(range(40), stats=stats)
    run_together(jobs(found))
    reads = found[0].source.reads
    assert sorted(reads) == sorted([*stats, *stats])


def test_what_waits_is_bounded_however_many_there_are(
    labs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, most = Together.loaded, [0]

    def watched(self: Together, *args: Any) -> Any:
        found = loaded(self, *args)
        most[0] = max(most[0], self.waiting)
        return found

    monkeypatch.setattr(Together, "loaded", watched)
    highest = []
    for count in (60, 240):
        most[0] = 0
        run_together(jobs(labs(range(count)), batch_size=2))
        highest.append(most[0])
    assert highest[0] == highest[1] <= 3 * 2 + 1  # two batches ahead, and the one in hand


def test_caches_that_lack_other_pictures_are_all_completed(labs: Any) -> None:
    found = labs(range(12))
    found[0].interrupt(3)
    found[1].run()
    source = found[0].source
    before = len(source.reads)
    source.pictures |= {"new": 77}
    done = run_together(jobs(found))
    assert [e.computed for e in done] == [13 - 4, 1, 13]
    hashed, decoded = 3 * 13, 13  # each time, without stat keys; once
    again = 1  # the first goes on with its open plan, then takes the new picture by itself
    assert len(source.reads) - before == hashed + decoded + again
    for lab, shift in zip(found, range(3), strict=True):
        rows = lab.rows()
        assert set(rows) == set(source.pictures)
        for path, row in lab.expected().items():
            np.testing.assert_allclose(rows[path], row + shift, rtol=1e-6)
    again = run_together(jobs(found))
    assert [(e.computed, e.processed, e.reused) for e in again] == [(0, 0, 13)] * 3


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9)), max_size=4))
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_interruptions_change_no_byte_of_any_cache(
    labs: Any, interruptions: list[tuple[int, int]]
) -> None:
    found = labs(PRESENT)
    for number, batch in interruptions:
        for lab in found:
            lab.stem.batches = 0
        found[number].stem.fail_at = batch
        try:
            run_together(jobs(found))
        except found[number].Interrupted:
            pass
        found[number].stem.fail_at = -1
    run_together(jobs(found))
    assert [lab.bytes() for lab in found] == alone(found)


def test_one_that_fails_keeps_what_all_of_them_finished(labs: Any) -> None:
    found = labs(range(16))
    found[2].stem.fail_at = 6
    with pytest.raises(found[2].Interrupted):
        run_together(jobs(found))
    found[2].stem.fail_at = -1
    assert all(len(lab.rows()) >= 8 for lab in found)
    done = [lab.run() for lab in found]  # nobody holds them any more
    assert all(0 < e.reused < 16 for e in done)
    assert [lab.bytes() for lab in found] == alone(found)


def test_strict_names_the_picture(labs: Any) -> None:
    with pytest.raises(PictureError, match="broken: truncated"):
        run_together(jobs(labs({"a": 1, "broken": b"no picture"}), strict=True))


def test_settings_are_in_force_in_every_turn_and_in_none_after(labs: Any) -> None:
    found, seen = labs(range(9)), []
    for lab in found:
        lab.stem.register_forward_hook(
            lambda *_: seen.append((torch.is_inference_mode_enabled(), torch.get_num_threads()))
        )
    before = torch.get_num_threads()
    turned: list[Extraction] = run_together(jobs(found))
    assert {state for state, _ in seen} == {True}
    assert {threads for _, threads in seen} == {int(e.engine["threads"]) for e in turned}
    assert not torch.is_inference_mode_enabled()
    assert torch.get_num_threads() == before


def test_progress_and_seconds_are_of_all_and_of_each(labs: Any) -> None:
    found, told = labs(range(9)), []
    done = run_together(jobs(found), lambda *report: told.append(report))
    extracted = [report for report in told if report[0] == "extract"]
    assert extracted[-1] == ("extract", 27, 27)
    assert [report[1] for report in extracted] == sorted(report[1] for report in extracted)
    assert all(e.profile.seconds <= e.seconds for e in done)


def test_waiting_for_pixels_is_shared_equally() -> None:
    together = Together(source=None, threads=1)  # type: ignore[arg-type]
    clocks = [Clock(), Clock(), Clock()]
    for clock, seconds in zip(clocks, (6.0, 0.0, 3.0), strict=True):
        together.watch(clock)
        together.watch(clock)
        clock.waited["pixels"] = seconds
    assert [together.waited_beyond(clock) for clock in clocks] == [3.0, -3.0, 0.0]
    assert together.waited_beyond(Clock()) == 0.0  # it asked for nothing


# By name, on real files

NAMES = ("timm/test_resnet", "timm/test_vit", "timm/test_efficientnet")


def files_of(cache: str | Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(cache)): p.read_bytes()
        for p in Path(cache).rglob("*")
        if p.is_file() and p.name not in ("log.jsonl", ".lock")
    }


def test_by_name_they_lie_side_by_side(class_folders: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"weights": "random", "engine": "torch", "cuts": ("all",)}
    out = tmp_path / "caches"
    made = api.extract_each(class_folders, backbone=", ".join(NAMES), out=out, **options)
    for name, result in zip(NAMES, made, strict=True):
        single = api.extract(class_folders, backbone=name, out=tmp_path / "one" / name, **options)
        folder = f"{class_folders.name}-{name.replace('/', '-')}"
        assert result.cache == str(out / folder)
        assert files_of(result.cache) == files_of(single)
        assert (result.computed, result.skipped) == (single.computed, single.skipped)
    again = api.extract_each(class_folders, backbone=",".join(NAMES), out=out, **options)
    assert all(each.computed == 0 for each in again)


def test_two_names_of_one_network_are_refused(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry._ALIASES, "tiny", "timm/test_resnet")
    options: dict[str, Any] = {"weights": "random", "image_size": 32, "out": tmp_path / "c"}
    with pytest.raises(BackboneError, match=r"two of them would share the cache .*-timm-test_resn"):
        api.extract_each(class_folders, backbone="tiny,timm/test_resnet", **options)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"backbone": ","}, "none is named"),
        ({"backbone": "resnet18,resnet18"}, "resnet18 is named twice"),
        ({"weights": "a.safetensors"}, "weights a.safetensors are one network's"),
        ({"cuts": ("layer4.0",)}, "units of one network; give 'all'"),
    ],
)
def test_what_only_one_network_can_have_is_refused(
    class_folders: Path, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(BackboneError, match=says):
        api.extract_each(class_folders, **{"backbone": "resnet18,resnet50", **options})


def test_several_are_not_one_and_no_cache_holds_caches(class_folders: Path, tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"call extract_each"):
        api.extract(class_folders, backbone="resnet18,resnet50")
    light = {"weights": "random", "image_size": 32, "out": tmp_path / "c"}
    api.extract(class_folders, backbone=NAMES[0], **light)
    with pytest.raises(CacheMismatchError, match="names the folder that holds their caches"):
        api.extract_each(class_folders, backbone=",".join(NAMES), **light)


@pytest.mark.slow
def test_the_networks_that_people_compare(tmp_path: Path) -> None:
    """Three sizes of pictures (224, 299 and 256 before its crop), from one decoding."""
    from skimage import data

    for label, photo in {"cat": data.chelsea(), "cup": data.coffee()}.items():
        (tmp_path / "p" / label).mkdir(parents=True)
        for i in range(4):
            crop = photo[10 * i : 10 * i + 250, 20 * i : 20 * i + 300]
            Image.fromarray(crop).save(tmp_path / "p" / label / f"{i}.jpg")
    names = ("mobilenet_v3_large", "resnet50", "inception_v3", "xception")
    options: dict[str, Any] = {"weights": "random", "engine": "torch"}
    made = api.extract_each(tmp_path / "p", backbone=",".join(names), out=tmp_path / "c", **options)
    sides = [result.recipe["preprocessing"]["size"][0] for result in made]
    assert sides == [224, 224, 299, 299]
    for name, result in zip(names, made, strict=True):
        single = api.extract(tmp_path / "p", backbone=name, out=tmp_path / "one" / name, **options)
        assert files_of(result.cache) == files_of(single)

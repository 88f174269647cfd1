"""Records where people look at them: data frames, notebooks, a prompt."""

from __future__ import annotations

import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import featcache as fc
from featcache import results
from featcache.errors import MissingExtraError, TableError
from featcache.results import DataSize, DepthScore, Skip, Suspect
from featcache.results.looking import Shown
from featcache.results.record import Record
from featcache.rounding import digits, percent

pd = pytest.importorskip("pandas", reason="needs the extra 'frames'")

NASTY = "<script>alert('1')</script>&\"\udcff\x1b[31m\u202e.png"


class Text(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str | None]] = set()
        self.text = ""
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= set(attrs)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


TABLE_TAGS = {"table", "caption", "thead", "tbody", "tr", "th", "td", "p", "code"}


@pytest.fixture(scope="module")
def records(extracted: Any, folders: Path, tmp_path_factory: Any) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("classifiers") / "kinds.fc"
    probed = fc.probe(extracted, tolerance=0.5, folds=2, save=path, shots=(1, 2), suspects=3)
    predicted = fc.predict(path, [str(folders / "sky" / "moon-00.jpg"), "missing.png"])
    return {
        "extract": extracted,
        "opened": fc.open_cache(extracted),
        "probe": probed,
        "predict": predicted,
        "prediction": predicted[0],
        "info": fc.info(extracted),
        "verify": fc.verify(extracted),
        "repair": fc.repair(extracted),
        "prune": fc.prune(extracted),
        "layers": fc.layers("timm/test_resnet"),
        "backbones": fc.list_backbones("efficientnet_lite"),
    }


def test_every_record_is_short_where_it_is_printed(records: dict[str, Any]) -> None:
    for record in records.values():
        assert len(repr(record)) < 300
        assert "\n" not in repr(record)
        assert len(str(record)) < 1500
    assert "accuracy " in repr(records["probe"])
    assert str(records["probe"].n_train) in str(records["probe"])


def test_no_kind_of_record_prints_all_its_numbers() -> None:
    kinds = [getattr(results, name) for name in results.__all__]
    kinds = [kind for kind in kinds if issubclass(kind, Record)]
    assert len(kinds) > 8
    assert all(kind.__repr__ is Shown.__repr__ for kind in (*kinds, fc.ExtractedCache))


def test_notebooks_get_small_tables_of_no_colour(records: dict[str, Any]) -> None:
    for record in records.values():
        page = record._repr_html_()
        read = Text(page)
        assert read.tags <= TABLE_TAGS
        assert not read.open
        assert {value for _, value in read.attributes} <= {"text-align:left"}
        assert len(page) < 20_000
    estimate = records["probe"].estimate
    told = percent(estimate.accuracy, digits(estimate.ci95))
    assert f"{told} (95% interval" in Text(records["probe"]._repr_html_()).text


def nasty(records: dict[str, Any]) -> list[Any]:
    """Records in which every name is one that wants to be more than a text."""
    suspects = (Suspect(NASTY, NASTY, NASTY, 0.1, 0.9),)
    info = replace(records["info"], classes={NASTY: 3}, skipped=(Skip(NASTY, NASTY),))
    prediction = replace(records["prediction"], path=NASTY, label=NASTY)
    return [
        replace(records["probe"], classes=(NASTY,) * 3, suspects=suspects, cache=NASTY),
        replace(records["extract"], classes=(NASTY,), skipped=(Skip(NASTY, NASTY),), cache=NASTY),
        info,
        prediction,
        fc.Records([prediction]),
    ]


def test_names_are_texts_and_nothing_else(records: dict[str, Any]) -> None:
    for record in nasty(records):
        read = Text(record._repr_html_())
        assert read.tags <= TABLE_TAGS
        assert "<script>alert('1')</script>&\"\\udcff\\x1b[31m\\u202e.png" in read.text
        for text in (record._repr_html_(), repr(record), str(record)):
            text.encode("utf-8")
            assert all(c.isprintable() or c == "\n" for c in text)


def test_what_is_left_out_is_said(records: dict[str, Any]) -> None:
    skipped = tuple(Skip(f"{i}.png", "truncated") for i in range(100))
    page = Text(replace(records["extract"], skipped=skipped)._repr_html_()).text
    assert "9.png" in page
    assert "10.png" not in page
    assert "10 of 100 rows; all of them: to_frame('skipped')" in page


def test_the_path_is_the_main_table_of_a_probe(records: dict[str, Any]) -> None:
    probe = records["probe"]
    frame = probe.to_frame()
    assert list(frame["C"]) == [point.C for point in probe.path]
    assert list(frame["log_loss"]) == [point.log_loss for point in probe.path]
    assert frame.loc[frame["log_loss"].idxmin(), "C"] == probe.best_C
    pd.testing.assert_frame_equal(frame, probe.to_frame("path"))


def test_confusion_is_named_on_both_sides(records: dict[str, Any]) -> None:
    probe = records["probe"]
    frame = probe.to_frame("confusion")
    assert (frame.index.name, frame.columns.name) == ("given", "predicted")
    assert list(frame.index) == list(frame.columns) == list(probe.classes)
    assert np.trace(frame.to_numpy()) == round(probe.estimate.accuracy * probe.estimate.n)
    assert replace(probe, confusion=()).to_frame("confusion").shape == (0, 0)


def depth(number: int, accuracy: float) -> DepthScore:
    ends = (accuracy - 0.01, accuracy + 0.01)
    return DepthScore(number, "a", accuracy, ends, 1.0, 10, 5, 5, 1.0, accuracy, 0.1, 4)


def test_tables_of_a_sweep(records: dict[str, Any]) -> None:
    scores = (depth(0, 0.9), depth(2, 0.95))
    sizes = tuple(DataSize(n, scores, 2, "") for n in (50, 100))
    probe = replace(records["probe"], unfreeze=scores, data_sizes=sizes)
    frame = probe.to_frame("unfreeze")
    assert list(frame["depth"]) == [0, 2]
    assert list(frame["ci95_low"]) == [score.ci95[0] for score in scores]
    assert np.allclose(frame["overfitting"], [0.1, 0.05])
    sized = probe.to_frame("data_sizes").pivot(index="n_train", columns="depth", values="accuracy")
    assert sized.to_numpy().tolist() == [[0.9, 0.95]] * 2
    assert probe.to_frame("layers").empty
    assert "unfreeze" in Text(probe._repr_html_()).text


def test_every_table_of_every_record_is_a_frame(records: dict[str, Any]) -> None:
    for record in records.values():
        for table in record.tables() if isinstance(record, Record) else ():
            frame = record.to_frame(table)
            assert isinstance(frame, pd.DataFrame)
            assert len(frame) == 1 or table != "summary"
    extract = records["extract"]
    assert list(extract.to_frame("features")["name"]) == ["penultimate"]
    assert dict(extract.to_frame("recipe").to_numpy())["key"] == extract.recipe["key"]
    assert list(records["info"].to_frame("classes")["value"]) == [39] * 3
    assert records["extract"].to_frame().loc[0, "samples"] == 117


def test_records_of_one_kind_are_one_frame(records: dict[str, Any]) -> None:
    probe, frame = records["probe"], fc.Records([records["probe"]] * 2).to_frame()
    assert list(frame["estimate_accuracy"]) == [probe.estimate.accuracy] * 2
    assert list(frame["cut"]) == ["penultimate"] * 2
    layers = records["layers"]
    assert list(layers.to_frame()["name"]) == [row.name for row in layers]
    assert layers.to_frame().loc[0, "shape"] == layers[0].shape
    assert list(records["predict"].to_frame()["label"].isna()) == [False, True]
    assert layers.to_json() == [row.to_json() for row in layers]
    assert tuple(layers) == layers
    assert fc.Records().to_frame().empty
    assert "<table>" in fc.Records()._repr_html_()


def test_pictures_of_a_cache_are_a_frame(records: dict[str, Any], folders: Path) -> None:
    frame = records["opened"].to_frame()
    assert sorted(frame["path"]) == sorted(
        path.relative_to(folders).as_posix() for path in folders.glob("*/*.jpg")
    )
    assert all(path.startswith(label) for path, label in zip(frame.path, frame.label, strict=True))


def test_what_no_table_is_called_is_refused(records: dict[str, Any]) -> None:
    with pytest.raises(TableError, match=r"ProbeResult has no table 'paths'; there are: .*path"):
        records["probe"].to_frame("paths")
    with pytest.raises(TableError, match="no plot 'paths'; there is 'confusion'"):
        records["probe"].plot("paths")


def test_without_pandas_the_extra_is_named(
    records: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    for record in ("probe", "layers", "opened"):
        with pytest.raises(MissingExtraError, match=r"pip install 'featcache\[frames\]'"):
            records[record].to_frame()
    records["probe"]._repr_html_()  # needs none


def test_plots_are_shown_by_a_notebook(records: dict[str, Any]) -> None:
    for figure in (records["probe"].plot(), records["extract"].plot()):
        assert figure._repr_png_().startswith(b"\x89PNG")
    (axes,) = records["probe"].plot("confusion").axes
    assert [text.get_text() for text in axes.get_xticklabels()] == list(records["probe"].classes)
    (axes,) = records["extract"].plot().axes
    spent = records["extract"].profile.cpu_seconds
    assert [bar.get_width() for bar in axes.patches] == list(spent.values())
    assert [text.get_text() for text in axes.get_yticklabels()] == list(spent)

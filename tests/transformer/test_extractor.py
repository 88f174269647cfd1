"""The transformer: what `extract` gives, in scikit-learn's ways, each picture computed once."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import SkipTestWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks as checks
from sklearn.utils.validation import check_is_fitted, validate_data

import featcache as fc
from featcache.errors import (
    BackboneError,
    CacheMismatchError,
    EngineError,
    PictureError,
    SourceError,
)
from featcache.transformer import keeping, networks

LIGHT: dict[str, Any] = {"backbone": "timm/test_resnet", "weights": "random", "image_size": 32}


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is in memory that another test computed."""
    monkeypatch.setattr(keeping, "_memory", keeping._Memory())


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Contents that go through a network in this process, in order, but for those into a folder."""
    contents: list[bytes] = []
    rows = networks.Network.rows

    def noted(network: Any, source: Any, slots: Any) -> Any:
        contents.extend(slot.content for slot in slots)
        return rows(network, source, slots)

    monkeypatch.setattr(networks.Network, "rows", noted)
    return contents


@pytest.fixture
def paths(class_folders: Path) -> list[Path]:
    return sorted(class_folders.glob("*/*.jpg"))


@pytest.mark.parametrize("cache", ["memory", "folder", None])
@pytest.mark.parametrize("cut", ["penultimate", "layer2.0"])
def test_features_are_those_that_extract_keeps(
    class_folders: Path, paths: list[Path], tmp_path: Path, cache: str | None, cut: str
) -> None:
    cuts = () if cut == "penultimate" else (cut,)
    kept = fc.extract(class_folders, cuts=cuts, out=tmp_path / "c", engine="torch", **LIGHT)
    rows = dict(zip(kept.paths(), np.asarray(kept.features(cut=cut)), strict=True))
    expected = np.stack([rows[path.relative_to(class_folders).as_posix()] for path in paths])
    place = tmp_path / "kept" if cache == "folder" else cache
    found = fc.FeatureExtractor(**LIGHT, cut=cut, cache=place).fit_transform(paths)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_pictures_are_given_in_many_ways(photos: list[Image.Image], tmp_path: Path) -> None:
    names = [tmp_path / f"{number}.png" for number in range(4)]
    arrays = [np.asarray(photo.convert("RGB"))[:100, :120] for photo in photos[:4]]
    for name, array in zip(names, arrays, strict=True):
        Image.fromarray(array).save(name)
    made = fc.FeatureExtractor(**LIGHT)
    expected = made.transform(names)
    given: list[Any] = [
        [str(name) for name in names],
        np.array([str(name) for name in names]),
        np.array(names, object)[:, None],
        [Image.open(name) for name in names],
        arrays,
        np.stack(arrays),
        (names[0], Image.open(names[1]), arrays[2], str(names[3])),
    ]
    for each in given:
        np.testing.assert_allclose(made.transform(each), expected, rtol=1e-5, atol=1e-6)
    grey = np.stack(arrays)[..., 0]
    rgb = np.repeat(grey[..., None], 3, axis=3)
    np.testing.assert_allclose(made.transform(grey), made.transform(rgb), rtol=1e-5, atol=1e-6)
    assert made.transform([]).shape == (0, 96)


@pytest.mark.parametrize("orientation", [1, 6])
def test_an_image_of_pillow_is_seen_as_its_file(
    photos: list[Image.Image], tmp_path: Path, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    photos[1].save(tmp_path / "turned.jpg", exif=exif)
    clear = photos[2].convert("RGBA").resize((90, 60))
    clear.putalpha(Image.linear_gradient("L").resize((90, 60)))
    clear.save(tmp_path / "clear.png")
    photos[3].convert("CMYK").save(tmp_path / "inks.jpg")
    made = fc.FeatureExtractor(**LIGHT)
    for name in ("turned.jpg", "clear.png", "inks.jpg"):
        by_path = made.transform([tmp_path / name])
        with Image.open(tmp_path / name) as image:
            for _ in range(2):  # a picture is not used up
                np.testing.assert_allclose(made.transform([image]), by_path, rtol=1e-5, atol=1e-6)


def test_a_frame_gives_its_column(paths: list[Path]) -> None:
    pd = pytest.importorskip("pandas", reason="needs the extra 'frames'")
    frame = pd.DataFrame({"picture": [str(path) for path in paths[:5]]})
    made = fc.FeatureExtractor(**LIGHT).set_output(transform="pandas")
    found = made.fit_transform(frame)
    assert list(found.columns) == [f"featureextractor{i}" for i in range(96)]
    plain = fc.FeatureExtractor(**LIGHT)
    np.testing.assert_array_equal(found.to_numpy(), plain.transform(frame["picture"]))


def test_a_grid_computes_every_picture_once(paths: list[Path], computed: list[bytes]) -> None:
    labels = [path.parent.name for path in paths]
    pipeline = make_pipeline(fc.FeatureExtractor(**LIGHT), LogisticRegression(max_iter=500))
    grid = GridSearchCV(pipeline, {"logisticregression__C": [1, 100]}, cv=3)
    grid.fit(paths, labels)
    assert len(computed) == len(set(computed)) == len(paths)
    assert grid.best_score_ > 0.6
    features = fc.FeatureExtractor(**LIGHT).transform(paths)
    assert len(computed) == len(paths)
    by_hand = LogisticRegression(max_iter=500, C=grid.best_params_["logisticregression__C"])
    by_hand.fit(features, labels)
    assert list(grid.predict(paths)) == list(by_hand.predict(features))


def test_a_folder_keeps_features_for_other_processes(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, folder = [path.parent.name for path in paths], tmp_path / "kept"
    made = fc.FeatureExtractor(**LIGHT, cache=folder)
    pipeline = make_pipeline(made, LogisticRegression(max_iter=500))
    predicted = cross_val_predict(pipeline, paths, labels, cv=3)
    assert np.mean(predicted == np.array(labels)) > 0.6
    (cache,) = folder.iterdir()
    assert fc.info(cache).streams[0].rows == len(paths)
    expected = made.transform(paths[::-1])

    def refused(*_: Any) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(keeping, "run", refused)
    monkeypatch.setattr(networks.Network, "rows", refused)
    again = fc.FeatureExtractor(**LIGHT, cache=str(folder)).transform(paths)
    np.testing.assert_array_equal(again[::-1], expected)


def test_a_folder_that_is_being_written_stops_nothing(
    paths: list[Path], tmp_path: Path, computed: list[bytes]
) -> None:
    from featcache.store.locks import locked

    made = fc.FeatureExtractor(**LIGHT, cache=tmp_path / "kept")
    made.transform(paths[:3])
    (cache,) = (tmp_path / "kept").iterdir()
    with locked(cache):
        np.testing.assert_array_equal(
            made.transform(paths)[:3], fc.FeatureExtractor(**LIGHT).transform(paths)[:3]
        )
    assert len(computed) == 2 * len(paths)
    assert fc.info(cache).streams[0].rows == 3


def test_what_was_used_least_lately_leaves_memory(
    paths: list[Path], computed: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "_MOST_BYTES", 5 * 4 * 96)
    made = fc.FeatureExtractor(**LIGHT)
    first = made.transform(paths[:5])
    made.transform(paths[:1])
    made.transform(paths[5:6])
    assert len(computed) == 6
    made.transform(paths[:1])
    assert len(computed) == 6
    np.testing.assert_allclose(made.transform(paths[1:2]), first[1:2], rtol=1e-5, atol=1e-6)
    assert len(computed) == 7


def test_networks_and_cuts_are_kept_apart(paths: list[Path], computed: list[bytes]) -> None:
    one, other = (fc.FeatureExtractor(**LIGHT | {"weights": w}) for w in ("random", "random:1"))
    assert not np.array_equal(one.transform(paths[:2]), other.transform(paths[:2]))
    assert clone(one).set_params(cut="layer2.0").transform(paths[:2]).shape == (2, 48)
    assert len(computed) == 6


def test_it_is_cloned_pickled_and_set_like_any_estimator(paths: list[Path]) -> None:
    made = fc.FeatureExtractor(**LIGHT).fit(paths)
    again = pickle.loads(pickle.dumps(made))
    np.testing.assert_array_equal(again.transform(paths[:3]), made.transform(paths[:3]))
    copied = clone(made).set_params(image_size=48, cache=None)
    assert not hasattr(copied, "recipe_")
    assert copied.get_params()["image_size"] == 48
    assert made.n_features_out_ == len(made.get_feature_names_out()) == 96


def test_another_network_than_it_was_fitted_with_is_refused(paths: list[Path]) -> None:
    made = fc.FeatureExtractor(**LIGHT).fit(paths)
    made.set_params(weights="random:7")
    with pytest.raises(CacheMismatchError, match="fitted with a network or settings of key"):
        made.transform(paths)
    made.fit(paths).transform(paths[:1])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("photo.jpg", "a single str: give paths"),
        (Path("photo.jpg"), "a single PosixPath"),
        (np.zeros((5, 5, 3), np.uint8), r"an array \(5, 5, 3\) uint8 is no list of pictures"),
        (np.zeros((5, 64)), r"an array \(5, 64\) float64"),
        (np.zeros((2, 8, 8, 4), np.uint8), r"\(2, 8, 8, 4\) uint8"),
        ([np.zeros((8, 8))], r"picture 0 is array \(8, 8\) float64"),
        (["a.jpg", 3], "picture 1 is 3: give paths"),
        ([None], "picture 0 is None"),
    ],
)
def test_what_is_no_picture_is_refused(given: Any, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        fc.FeatureExtractor(**LIGHT).fit(given)


@pytest.mark.parametrize("cache", ["memory", "folder", None])
def test_a_picture_that_cannot_be_read_is_named(
    paths: list[Path], tmp_path: Path, cache: str | None
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(paths[0].read_bytes()[:200])
    made = fc.FeatureExtractor(**LIGHT, cache=tmp_path / "kept" if cache == "folder" else cache)
    with pytest.raises(PictureError, match=r"broken\.jpg: .*(truncated|damaged)"):
        made.transform([paths[0], broken])
    with pytest.raises(PictureError, match=r"picture 1, nowhere\.jpg: missing"):
        made.transform([paths[0], "nowhere.jpg"])


def test_what_gives_no_vectors_is_refused(paths: list[Path]) -> None:
    with pytest.raises(BackboneError, match="gives no vectors"):
        fc.FeatureExtractor(**LIGHT, cut="layer2.0", pooling="none").fit(paths)
    with pytest.raises(EngineError, match=r"int8.*featcache\.extract"):
        fc.FeatureExtractor(**LIGHT, precision="int8").fit(paths)


class OfNumbers(fc.FeatureExtractor):
    """Takes tables of numbers, as scikit-learn's checks give them: each row is a small picture."""

    def __init__(
        self,
        backbone: str = "timm/test_resnet",
        weights: str = "random",
        image_size: int = 32,
        batch_size: int = 32,
        cache: str | None = "memory",
    ) -> None:
        super().__init__(
            backbone, weights=weights, image_size=image_size, batch_size=batch_size, cache=cache
        )

    def fit(self, X: Any, y: Any = None) -> OfNumbers:
        return super().fit(as_pictures(validate_data(self, X)))

    def transform(self, X: Any) -> Any:
        check_is_fitted(self)
        return super().transform(as_pictures(validate_data(self, X, reset=False)))

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "recipe_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        tags.input_tags.string = False
        tags.requires_fit = True
        return tags


def as_pictures(table: np.ndarray) -> list[np.ndarray]:
    grey = np.clip(table * 16 + 128, 0, 255).astype(np.uint8)
    return [np.resize(row, (8, 8)) for row in grey]


DO_NOT_APPLY: dict[str, str] = {}
"""Checks of scikit-learn that such an estimator cannot pass, and why: there are none."""


@pytest.mark.parametrize("cache", ["memory", pytest.param(None, marks=pytest.mark.slow)])
def test_all_checks_of_scikit_learn_pass_where_rows_are_pictures(cache: str | None) -> None:
    estimator = OfNumbers(cache=cache)
    found = checks.check_estimator(
        estimator, expected_failed_checks=DO_NOT_APPLY, on_fail=None, on_skip=None
    )
    failed = {c["check_name"]: c["exception"] for c in found if c["status"] == "failed"}
    skipped = {c["check_name"] for c in found if c["status"] == "skipped"}
    assert failed == {}
    assert skipped <= {"check_array_api_input"}  # runs if SCIPY_ARRAY_API is set
    assert len(found) > 40
    name = type(estimator).__name__
    checks.check_transformer_get_feature_names_out(name, clone(estimator))
    checks.check_set_output_transform(name, clone(estimator))


def test_the_checks_that_give_no_numbers_pass_as_it_is() -> None:
    made, name = fc.FeatureExtractor(), "FeatureExtractor"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkipTestWarning)  # it takes no table of numbers
        checks.check_estimator(made)
    for check in (
        checks.check_parameters_default_constructible,
        checks.check_no_attributes_set_in_init,
        checks.check_do_not_raise_errors_in_init_or_set_params,
        checks.check_get_params_invariance,
        checks.check_set_params,
        checks.check_estimator_repr,
        checks.check_mixin_order,
        checks.check_valid_tag_types,
    ):
        check(name, made)

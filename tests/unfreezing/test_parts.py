"""What is held out: the same pictures for all depths, and nothing of them anywhere else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from featcache.errors import ProbeError
from featcache.unfreezing.parts import restricted, split_of, whole_of


def test_a_hold_out_takes_its_share_of_every_class(data: Any, spec: Any) -> None:
    (part,) = split_of(data, spec).parts
    assert part.judged.mean() == pytest.approx(0.3, abs=0.02)
    assert part.stop.sum() / part.train.sum() == pytest.approx(0.15, abs=0.03)
    every = part.fit.astype(int) + part.stop + part.judged
    assert (every == 1).all()
    for k in range(10):
        assert part.judged[data.targets == k].mean() == pytest.approx(0.3, abs=0.1)


def test_groups_stay_on_one_side(data: Any, spec: Any) -> None:
    grouped = replace(data, groups=np.arange(len(data)) // 3)
    (part,) = split_of(grouped, spec).parts
    for one, other in ((part.fit, part.stop), (part.train, part.judged)):
        assert not set(grouped.groups[one]) & set(grouped.groups[other])


def test_folds_judge_every_picture_once(data: Any, spec: Any) -> None:
    split = split_of(data, replace(spec, folds=4))
    assert len(split.parts) == 4
    assert (sum(part.judged.astype(int) for part in split.parts) == 1).all()
    assert "4-fold" in split.method


def test_the_datas_own_splits_are_kept(data: Any, spec: Any) -> None:
    splits = np.arange(len(data)) % 5 % 3  # train, val, test and more train, val
    own = replace(data, splits=splits.astype(np.int8))
    (part,) = split_of(own, spec).parts
    np.testing.assert_array_equal(part.judged, splits == 2)
    np.testing.assert_array_equal(part.stop, splits == 1)
    tested = replace(data, splits=np.where(splits == 2, 2, 0).astype(np.int8))
    (part,) = split_of(tested, spec).parts
    np.testing.assert_array_equal(part.judged, splits == 2)
    assert part.stop.any()


def test_what_is_used_trains_on_all_but_a_test_split(data: Any, spec: Any) -> None:
    assert whole_of(data, spec).train.all()
    tested = replace(data, splits=(2 * (np.arange(len(data)) % 4 == 0)).astype(np.int8))
    np.testing.assert_array_equal(whole_of(tested, spec).train, tested.splits == 0)


def test_fewer_pictures_are_a_part_of_more_and_keep_the_shares(data: Any, spec: Any) -> None:
    split = split_of(data, spec)
    small, large = (restricted(split, data, n, 0).parts[0] for n in (40, 120))
    assert (small.train.sum(), large.train.sum()) == (40, 120)
    assert not (small.train & ~large.train).any()
    np.testing.assert_array_equal(small.judged, split.parts[0].judged)
    counts = np.bincount(data.targets[large.train], minlength=10)
    shares = np.bincount(data.targets[split.parts[0].train], minlength=10)
    np.testing.assert_allclose(counts / 120, shares / shares.sum(), atol=0.02)


@pytest.mark.parametrize("count", [3, 100_000])
def test_a_number_of_pictures_that_cannot_be_is_refused(data: Any, spec: Any, count: int) -> None:
    with pytest.raises(ProbeError, match=f"{count} pictures"):
        restricted(split_of(data, spec), data, count, 0)

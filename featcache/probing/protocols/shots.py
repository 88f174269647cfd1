"""Protocols of few shots: heads of k pictures a class, one support set a seed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from featcache.evaluation.metrics import Scores, accuracy, mean_per_class, score
from featcache.evaluation.shots import support_rows
from featcache.heads.ridge import RidgeProblem, solve_ridge
from featcache.probing.few_shots import FewShots
from featcache.probing.protocols.asked import Asked
from featcache.probing.protocols.holding_out import hold_out_by_class
from featcache.probing.protocols.searching import Search
from featcache.probing.roles import short_classes
from featcache.probing.rows import Bools
from featcache.probing.spec import ShotScore

COOP_SHOTS, COOP_SEEDS = (1, 2, 4, 8, 16), (1, 2, 3)
COOP_VAL_SHOTS = 4
COOP_POWERS = (6.0, 4.0, 2.0, 0.0, -2.0, -4.0, -6.0)
COOP_STEPS = 8

LSR_SHOTS, LSR_SEEDS = (1, 5, 10, 25), (0, 1, 2)
LSR_L2 = 2.0**10
LSR_BIAS = 100.0
LSR_FLOOR = 1e-5

_FIFTH = 0.2
_BLOCK = 16384


def coop(asked: Asked) -> FewShots:
    """CoOp's linear-probe CLIP (Zhou et al. 2022, arXiv 2109.01134, section 4.1).

    As KaiyangZhou/CoOp, `lpclip/linear_probe.py` and `.sh`: 1, 2, 4, 8 and 16 pictures a class,
    seeds 1 to 3, min(shots, 4) pictures a class of val; C of 1e6 down to 1e-6 two decades apart,
    then eight halvings, on a logarithmic scale, of the interval of a decade to either side of the
    peak, towards the end that is more accurate on val (the lower one where equal); the head is
    that of the last step's better end, trained on the support set alone, measured on test.

    Ours: support sets are drawn by content, not by numpy's generator, so that they are other
    pictures; a class with fewer pictures gives all it has (their code stops); where there is no
    val a fifth of every class of train stands for it (as their `datasets/oxford_pets.py` splits),
    drawn once; fits end by certificate, not at 1000 iterations.
    """
    train, val = _coop_pools(asked)
    asked.warnings.extend(short_classes(asked.data, train, COOP_SHOTS[-1], "train"))
    asked.warnings.extend(short_classes(asked.data, val, COOP_VAL_SHOTS, "val"))
    each = len(COOP_POWERS) + 2 + COOP_STEPS - 1
    asked.solving.expected = len(COOP_SHOTS) * len(COOP_SEEDS) * each
    method = (
        f"{asked.cite}: C by accuracy on up to {COOP_VAL_SHOTS} pictures a class of val, which do "
        "not train; measured on test"
    )
    return _few_shots(asked, tuple(_coop_shots(asked, train, val, k, method) for k in COOP_SHOTS))


def _coop_pools(asked: Asked) -> tuple[Bools, Bools]:
    """Rows that support sets are drawn from, and those that choose C."""
    roles = asked.roles
    if roles.tuning.any():
        return roles.train, roles.tuning
    val = hold_out_by_class(asked.data, roles.train, _FIFTH, asked.spec.seed)
    asked.warnings.append(
        f"no val split: {int(val.sum())} pictures of train, a fifth of every class, choose C"
    )
    return roles.train & ~val, val


def _coop_shots(asked: Asked, train: Bools, val: Bools, shots: int, method: str) -> ShotScore:
    found = [_coop_head(asked, train, val, shots, seed) for seed in COOP_SEEDS]
    scores, chosen = zip(*found, strict=True)
    return ShotScore(shots, scores, chosen, method)


def _coop_head(
    asked: Asked, train: Bools, val: Bools, shots: int, seed: int
) -> tuple[Scores, float]:
    """Scores on test of one support set's head, and its C."""
    judged = asked.roles.judged
    support = _support(asked, train, shots, seed)
    tuning = _support(asked, val, min(shots, COOP_VAL_SHOTS), seed)
    search = Search(asked, support, tuning, judged)
    chosen = _bisected(search)
    return score(search.probabilities(chosen, judged), asked.data.targets[judged]), chosen


def _bisected(search: Search) -> float:
    """The C that the last step settles on; see `coop`."""
    search.solve(10.0**power for power in COOP_POWERS)
    peak = max(COOP_POWERS, key=lambda power: search.accuracy(10.0**power))
    left, right, final = peak - 1, peak + 1, 10.0**peak
    for _ in range(COOP_STEPS):
        ends = [10.0**left, 10.0**right]
        search.solve(ends)
        upper = search.accuracy(ends[0]) < search.accuracy(ends[1])
        middle, final = (left + right) / 2, ends[upper]
        left, right = (middle, right) if upper else (left, middle)
    return final


def fewshot_lsr(asked: Asked) -> FewShots:
    """Big Vision's few-shot least squares (Dosovitskiy et al. 2021, arXiv 2010.11929, section 4.1).

    As google-research/big_vision, `big_vision/evaluators/fewshot_lsr.py` with the values of
    `big_vision/configs/common_fewshot.py`: 1, 5, 10 and 25 pictures a class, seeds 0 to 2; columns
    less the support set's mean, over its standard deviation + 1e-5; a bias column of 100; targets
    of +-1; ridge with the one penalty 2^10 (nothing is chosen); measured on test.

    The penalised bias is exact here: on centred columns it is apart from the weights, and is the
    mean target of the class times m / (m + 2^10 / 100^2), m pictures in the support set. A val
    split takes no part. Ours: float64 (there float32), and support sets that are drawn by content.
    """
    train = asked.roles.train
    asked.warnings.extend(short_classes(asked.data, train, LSR_SHOTS[-1], "train"))
    if asked.roles.tuning.any():
        asked.warnings.append("the val split takes no part in this protocol")
    asked.solving.expected = len(LSR_SHOTS) * len(LSR_SEEDS)
    method = f"{asked.cite}: penalty 2^10, nothing is chosen; measured on test"
    return _few_shots(asked, tuple(_lsr_shots(asked, shots, method) for shots in LSR_SHOTS))


def _lsr_shots(asked: Asked, shots: int, method: str) -> ShotScore:
    scores = tuple(_lsr_scores(asked, shots, seed) for seed in LSR_SEEDS)
    return ShotScore(shots, scores, (1 / LSR_L2,) * len(scores), method)


def _lsr_scores(asked: Asked, shots: int, seed: int) -> Scores:
    """What one support set's head says of test; its scores are no probabilities."""
    data, judged = asked.data, asked.roles.judged
    support = _support(asked, asked.roles.train, shots, seed)
    predicted = _lsr_predictions(asked, support, np.flatnonzero(judged))
    asked.count()
    targets = data.targets[judged]
    right, by_class = accuracy(predicted, targets), mean_per_class(predicted, targets)
    return Scores(right, by_class, None, len(targets))


def _lsr_predictions(
    asked: Asked, support: Bools, rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """(m,) codes of some rows; see `fewshot_lsr`."""
    data, spec = asked.data, asked.spec
    X = data.features[support].astype(np.float64)  # noqa: N806 - as in the mathematics
    mean, scale = X.mean(axis=0), X.std(axis=0) + LSR_FLOOR
    given = np.where(data.targets[support][:, None] == np.arange(len(data.classes)), 1.0, -1.0)
    problem = RidgeProblem(
        (X - mean) / scale, given, np.array([1 / LSR_L2]), memory=spec.memory, device=spec.device
    )
    fit = solve_ridge(problem).fit(0)
    bias = given.mean(axis=0) * len(X) / (len(X) + LSR_L2 / LSR_BIAS**2)
    predicted = np.empty(len(rows), np.int64)
    for start in range(0, len(rows), _BLOCK):
        part = slice(start, start + _BLOCK)
        scores = ((data.features[rows[part]] - mean) / scale) @ fit.coef.T + bias
        predicted[part] = scores.argmax(axis=1)
    return predicted


def _support(asked: Asked, rows: Bools, shots: int, seed: int) -> Bools:
    """(n,) bool: `shots` of the rows of each class, by content and seed alone."""
    data = asked.data
    return support_rows(data.targets, data.groups, data.hashes, rows, shots, seed)


def _few_shots(asked: Asked, shots: tuple[ShotScore, ...]) -> FewShots:
    solving = asked.solving
    return FewShots(
        shots=shots,
        fits=solving.done,
        missed=solving.missed,
        worst_gap=solving.worst,
        seconds=0.0,
        warnings=(),
    )

r"""The walk: a batch of problems, each on its own way along C, every step one product each way.

One *tick* moves all problems at once. A problem whose certificate is within the tolerance hands its
solution in and goes on to its next C in the same tick (from a C that is only on the way already by
the estimate of its gap), so that the product is always as wide as there are problems under way. Its
direction is that of L-BFGS, whose pairs stay exact in the penalty along the path (`quasi_newton`)
and whose H0 is the inverse diagonal of the Hessian in the eigenbasis, 1 / (h_k sigma_r^2 + lambda),
h_k = mean p_k (1 - p_k), sigma_r^2 the features' mean square along coordinate r. On arrival at a
new C two secants, the ways between the last solutions, are mixed in: in log C the path is smooth,
and they are known before any product.

The objective is convex along a direction and costs no product there (logits are linear in the
rate), so a safeguarded Newton iteration on its slope finds the rate. Nor does the bias: after every
step it is solved exactly, K numbers a problem, and the walk is one over W alone. (Left to L-BFGS,
the bias was what kept certificates waiting: they pay for a wrong one as 1/lambda.)

Problems whose rows are strangers to each other can walk *abreast* (`abreast`): no decision on one
then depends on another, and nothing that is summed changes its shape on the way, so that not a bit
of one does.

Steps may be in float32 (`rows`). Certificates never are: logits and gradient are multiplied out in
float64 before one, and a walk that float32 brings no closer turns to float64 for good.
"""

# torch ships few types: what it returns is known here by its shape, written beside it
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportConstantRedefinition=false

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from featcache.heads.batch import Batch, Evaluation, some
from featcache.heads.certificate import Travel, addition_share, bounds
from featcache.heads.quasi_newton import CurvaturePairs, pairs_for

_FLAT_ENOUGH, _CLOSE = 0.5, 0.5
"""A rate is taken where the slope is this share of what it was: with a last Newton step, which is
not looked at, where that changes it by no more than the second share."""

_TRIALS = 12
"""Rates tried along one direction."""

_BALANCINGS = 12
"""Newton steps, at most, that solve the bias after a step of the weights."""

MANY_CLASSES, _SLOW = 128, 0.5
"""The Hessian of more classes is kept while a step leaves no more than this of the imbalance."""

_IMBALANCE = 0.01
"""Share of the tolerance that an unsolved bias may take of a certificate, about."""

_PATIENCE = 50
"""Ticks at one C without a smaller gap (by a tenth) before a problem gives up."""

_GATE = 1.0
"""A certificate is computed where ||gradient||^2 / (2 lambda) is under this many tolerances, and
under half as many after each that did not suffice."""

_ON_THE_WAY = 0.02
"""Estimated gap at which a C that is not asked for is left, unless the tolerance is wider: solved
to 1e-6, four decades on the way take half as many steps again."""

_ROUNDED_PATIENCE, _BLUNT = 10, _GATE / 4
"""Rows in float32 are given up for float64 ones after so many ticks at one C without a smaller gap,
or where certificates did not suffice until the gate is less than this."""

_DETOUR, _FINE_DETOUR, _FINE = 1e3, 4.0, 1e-5
"""Logits are multiplied out again when the way there was this many times the straight one; less
where the tolerance is below the last."""


@dataclass(frozen=True, eq=False)
class Goals:
    """When a problem is solved at a C; all of (B,).

    Attributes:
        tolerance: certified relative gap.
        slope: length of the gradient, inf where the certificate is enough.
    """

    tolerance: Tensor
    slope: Tensor

    def of(self, problems: Tensor) -> Goals:
        """Those of some problems (indices)."""
        return Goals(self.tolerance[problems], self.slope[problems])

    @property
    def pairs(self) -> int:
        """How many pairs to remember, for most problems."""
        return pairs_for(float(self.tolerance.median()))

    @property
    def ask_for_flat(self) -> bool:
        """Whether the gradient of any is to be short."""
        return not bool(self.slope.isinf().all())


@dataclass(frozen=True, eq=False)
class Solved:
    """One problem at one C.

    Attributes:
        problem: its place in the batch; position: of the C among those asked for.
        W: (K, R + 1).
        logits: (K, n) of all rows; only until the next one is asked for.
        objective, lower: of the certificate.
        ticks, seconds: spent on it (seconds: its share of the batch's).
    """

    problem: int
    position: int
    W: Tensor
    logits: Tensor
    objective: float
    lower: float
    ticks: int
    seconds: float


def walk(
    batch: Batch,
    start: Tensor,
    strengths: Tensor,
    asked: Tensor,
    goals: Goals,
    *,
    steps: Tensor | None = None,
) -> Iterator[Solved]:
    """Solve every problem at every strength that is asked for.

    Args:
        batch: B problems.
        start: (B, K) biases to begin with, -inf for a class that a problem lacks.
        strengths: (B, G) lambda, descending along the path.
        asked: (B, G) bool: what is solved for itself, and not for being on the way. On the way a
            gap is estimated, without a certificate.
        goals: of the problems.
        steps: (B,) how many of the strengths are a problem's, for a walk abreast: no bit of a
            problem then depends on what is in another. Rows are to be in memory, in float64, and
            classes up to `MANY_CLASSES`.
    """
    walkers = _Walkers(batch, start, strengths, asked, goals, steps)
    while len(walkers):
        walkers.step()  # at every C: biases alone can be within the tolerance, and are poor
        yield from walkers.hand_in()


class _Walkers:
    """State of the problems under way, abreast also of those that are through.

    Every tensor's first axis is theirs.
    """

    def __init__(
        self,
        batch: Batch,
        start: Tensor,
        strengths: Tensor,
        asked: Tensor,
        goals: Goals,
        steps: Tensor | None,
    ) -> None:
        B, width = len(batch), batch.rows.width
        self._abreast = steps is not None
        whole = torch.full((B,), strengths.shape[1], device=start.device)
        self._steps = whole if steps is None else steps
        self._batch, self._strengths, self._asked, self._goals = batch, strengths, asked, goals
        fine = bool((goals.tolerance <= _FINE).any())
        self._detour = _FINE_DETOUR if fine else _DETOUR
        self._lacking = start.isinf()  # (B, K)
        self._some_lack = bool(self._lacking.any())
        self._W = start.new_zeros(B, batch.classes, width, dtype=batch.weights_dtype)
        self._W[..., -1] = start.masked_fill(self._lacking, 0.0)
        kept = start.to(batch.rows.logit_dtype)
        self._Z = kept[..., None].expand(-1, -1, len(batch.rows)).clone()
        if batch.offset is not None:
            self._Z += batch.offset
        self._travel = self._straight(self._W)
        self._at = batch.evaluate(self._Z)
        self._pairs = CurvaturePairs(goals.pairs)
        self._bending: Tensor | None = None  # a Hessian (B, K, K) in the bias that is kept
        self._last = self._W.clone()  # the solution before this C
        # a view of no column would hold all of them
        self._last_Z = self._Z.clone() if batch.rows.in_memory else self._Z[..., :0].clone()
        self._gate = start.new_full((B,), _GATE)
        self._since = self._travel.nowhere()  # how far it is from there, by rounding
        self._older = _Step(  # from the solution before that to it
            torch.zeros_like(self._W),
            torch.zeros_like(self._last_Z),
            self._travel.nowhere(),
        )
        self._solved = start.new_zeros(B, dtype=torch.int64)  # how many, and the position now
        self._arrived = start.new_zeros(B, dtype=torch.bool)
        self._least = start.new_full((B,), torch.inf)  # gap estimated at this C
        self._waited, self._ticks = torch.zeros_like(self._solved), torch.zeros_like(self._solved)
        self._ids = torch.arange(B, device=start.device)
        self._seconds = start.new_zeros(B)

    def __len__(self) -> int:
        return len(self._ids)

    def _now(self, along: Tensor) -> Tensor:
        """(B,) of numbers (B, G) along the path, those of now; the last of problems through."""
        now = torch.minimum(self._solved, self._steps - 1)
        return along.gather(1, now[:, None])[:, 0]

    def _strength(self) -> Tensor:
        """(B,) lambda now."""
        return self._now(self._strengths)

    def _under_way(self) -> Tensor:
        """(B,) bool."""
        return self._solved < self._steps

    def _chosen(self, marked: Tensor) -> Tensor:
        """Indices of the problems marked (m,) bool; of all of them, if any, where they are abreast.

        What is then done to the others too must leave them as they were.
        """
        chosen = torch.nonzero(marked)[:, 0]
        if self._abreast and len(chosen):
            return torch.arange(len(marked), device=marked.device)
        return chosen

    def _everyone(self) -> Tensor:
        """Indices of all of them."""
        return torch.arange(len(self), device=self._W.device)

    def _gradient(self, strength: Tensor) -> Tensor:
        """(B, K, R + 1), the penalty's part included."""
        data = self._at.gradient
        full = torch.addcmul(data, self._W, strength[:, None, None].to(data.dtype))
        full[..., -1] = data[..., -1]
        return full

    # Handing in

    def hand_in(self) -> list[Solved]:
        """What is solved of what is asked for; all that is solved goes on to its next C."""
        started = time.perf_counter()
        strength = self._strength()
        squared, gap = self._estimated_gap(strength)
        given_up = self._watch(gap)
        if self._is_blunt():
            self._sharpen()
        asked = self._now(self._asked)
        tolerance = self._goals.tolerance
        enough = torch.where(asked, self._gate * tolerance, tolerance.clamp(min=_ON_THE_WAY))
        flat = ~asked | (squared <= self._goals.slope.square())
        near = ((self._least <= enough) & flat) | given_up
        if self._abreast:
            near &= self._under_way()
        if not bool(near.any()):
            return []
        wanted = near & asked
        done, solved = near & ~wanted, list[Solved]()
        ids = self._chosen(wanted)
        if len(ids):
            within, solved = self._certify(ids, strength, wanted, given_up)
            done[ids] |= within
            self._gate = torch.where(wanted, self._gate / 2, self._gate)
        self._gate.masked_fill_(done, _GATE)
        self._seconds += (time.perf_counter() - started) / len(self)
        if bool(done.any()):
            self._go_on(done)
        return solved

    def _certify(
        self, ids: Tensor, strength: Tensor, wanted: Tensor, given_up: Tensor
    ) -> tuple[Tensor, list[Solved]]:
        """Which of the problems `ids` are solved (m,), if they are `wanted`, and what they are."""
        Z, at = self._look_closely(ids)
        batch, W = self._batch.keep(ids), some(self._W, ids).double()
        travel = self._travel.of_problems(ids)
        value, lower = bounds(batch, W, Z, at, strength[ids], travel)
        goals = self._goals.of(ids)
        near = value - lower <= goals.tolerance * value
        if goals.ask_for_flat:
            near &= _squared_slope(at.gradient, W, strength[ids]) <= goals.slope.square()
        within = (near | given_up[ids]) & wanted[ids]
        each = (self._ids, self._now(self._asked.cumsum(dim=1)) - 1, self._ticks, self._seconds)
        numbers = (*(of_all[ids] for of_all in each), value, lower, within)
        listed = zip(*(part.tolist() for part in numbers), strict=True)
        return within, [
            Solved(own, position, W[i].clone(), Z[i], objective, low, ticks, seconds)
            for i, (own, position, ticks, seconds, objective, low, is_within) in enumerate(listed)
            if is_within
        ]

    def _look_closely(self, ids: Tensor) -> tuple[Tensor, Evaluation]:
        """Logits (m, K, n) of the problems `ids` that may be certified, and what they tell.

        They are multiplied out, and the gradient, where anything that was added up to them was not
        in float64.
        """
        rows = self._batch.rows
        if rows.dtype == torch.float64 and rows.logit_dtype == torch.float64:
            return some(self._Z, ids), self._at.of(ids)
        batch = replace(self._batch.keep(ids), rows=rows.exactly())
        Z = self._multiplied_out(batch, ids)
        at = batch.evaluate(Z)
        self._put_at(ids, Z, at)
        return Z, at

    def _multiplied_out(self, batch: Batch, ids: Tensor) -> Tensor:
        """Logits of the problems `ids`, a batch of their own, from the weights and nothing else."""
        if len(ids) == len(self):
            del self._Z  # before as large an array takes its place
        Z = batch.values(some(self._W, ids).to(batch.weights_dtype))
        return Z.masked_fill_(self._lacking[ids][..., None], -torch.inf)

    def _put_at(self, ids: Tensor, Z: Tensor, at: Evaluation) -> None:
        """Take logits of the problems `ids` that were multiplied out, and what they tell."""
        self._anew(ids)
        at = replace(at, gradient=at.gradient.to(self._W.dtype))
        if len(ids) == len(self):
            self._Z, self._at = Z.to(self._batch.rows.logit_dtype), at
            return
        self._Z[ids] = Z.to(self._Z.dtype)
        for own, its in zip(self._at.parts, at.parts, strict=True):
            own[ids] = its

    def _anew(self, ids: Tensor) -> None:
        """Logits of the problems `ids` were multiplied out: what rounding there is, is new."""
        straight = self._straight(some(self._W, ids))
        for since, way, direct in zip(self._since, self._travel, straight, strict=True):
            since[ids] += way[ids] + direct  # unlike that of the last solution, too
            way[ids] = direct

    def _is_blunt(self) -> bool:
        """Whether float32 steps lead no closer to the optimum."""
        if self._batch.rows.dtype == torch.float64:
            return False
        return bool(((self._gate < _BLUNT) | (self._waited > _ROUNDED_PATIENCE)).any())

    def _sharpen(self) -> None:
        """Go on in float64, with nothing that was rounded: certificates allow for no more."""
        batch = self._batch = replace(self._batch, rows=self._batch.rows.exactly())
        everyone, self._W = self._everyone(), self._W.double()
        self._last = self._last.double()
        Z = self._multiplied_out(batch, everyone)
        self._put_at(everyone, Z, batch.evaluate(Z))
        if batch.rows.in_memory:
            lacking = self._lacking[..., None]
            self._last_Z = batch.values(self._last).masked_fill_(lacking, -torch.inf)
            last = self._straight(self._last)
            self._since = last.plus(self._travel, torch.ones_like(last.weights))
            D = self._older.D.double()
            self._older = _Step(D, batch.logits(D).masked_fill_(lacking, 0.0), Travel.of(D))
        self._least.fill_(torch.inf)
        self._waited.zero_()
        self._gate.fill_(_GATE)

    def _estimated_gap(self, strength: Tensor) -> tuple[Tensor, Tensor]:
        """Both (B,): |gradient|^2, and what a certificate will about say, were the bias solved."""
        squared = _squared_slope(self._at.gradient, self._W, strength)
        value = self._at.loss + strength / 2 * self._W[..., :-1].square().sum(dim=(1, 2)).double()
        return squared, squared / (2 * strength * value)

    def _watch(self, gap: Tensor) -> Tensor:
        """(B,) bool: the problems whose gap has not become smaller for long."""
        better = gap < 0.9 * self._least
        self._least = torch.where(better, gap, self._least)
        self._waited = torch.where(better, 0, self._waited + 1)
        return self._waited > _PATIENCE

    def _go_on(self, done: Tensor) -> None:
        """Send what is solved to its next C, and drop what has none; abreast, all at the end."""
        self._solved += done
        self._arrived |= done
        self._least.masked_fill_(done, torch.inf)
        for counter in (self._waited, self._ticks, self._seconds):
            counter.masked_fill_(done, 0)
        under_way = torch.nonzero(self._under_way())[:, 0]
        if len(under_way) < len(self) and not (self._abreast and len(under_way)):
            self._keep(under_way)

    def _keep(self, problems: Tensor) -> None:
        self._batch = self._batch.keep(problems)
        self._pairs.keep(problems)
        self._bending = None if self._bending is None else self._bending[problems]
        self._at, self._goals = self._at.of(problems), self._goals.of(problems)
        self._travel = self._travel.of_problems(problems)
        self._since = self._since.of_problems(problems)
        self._older = self._older.of(problems)
        for name in (
            *("_strengths", "_asked", "_steps", "_lacking", "_W", "_Z", "_last", "_last_Z"),
            *("_solved", "_arrived", "_least", "_waited", "_ticks", "_ids", "_seconds", "_gate"),
        ):
            setattr(self, name, getattr(self, name)[problems])

    # One step

    def step(self) -> None:
        """Move every problem one step."""
        started = time.perf_counter()
        strength = self._strength()
        step = self._onwards(self._steepest(strength), strength)
        rate, bias = self._rate(step, strength), self._W[..., -1].clone()
        taken = step.D.mul_(rate[:, None, None])
        self._W += taken
        self._Z.addcmul_(step.change, rate[:, None, None].to(self._Z.dtype))
        self._travel = self._travel.plus(step.travel, rate)
        self._since = self._since.plus(step.travel, rate)
        del step  # what it does to the logits is as large as they are
        self._balance(strength)
        self._refresh()
        before, self._at = self._at.gradient, self._batch.evaluate(self._Z)
        taken[..., -1] = self._W[..., -1] - bias
        self._pairs.push(taken, self._at.gradient - before)
        self._ticks += 1
        self._seconds += (time.perf_counter() - started) / len(self)

    def _balance(self, strength: Tensor) -> None:
        """Solve the bias: Newton steps until the columns' means are those that a certificate needs.

        With an imbalance t (`certificate`) G is off by about t XY, and the bound by its square over
        2 lambda. Newton squares the imbalance, so the last step need not be looked at. Of many
        classes the Hessian costs more than all else of a step, and is kept, from one step of the
        weights to the next too: the imbalance then falls by about as much as it did before.
        """
        shares = self._batch.targets_sum[..., -1]
        value = self._at.loss + strength / 2 * self._W[..., :-1].square().sum(dim=(1, 2)).double()
        allowed = (_IMBALANCE * self._goals.tolerance * strength * value).sqrt()
        allowed /= self._batch.targets_length
        keeps = self._batch.classes > MANY_CLASSES
        hessian, before = self._bending, None
        unsolved = torch.ones_like(strength, dtype=torch.bool)
        for _ in range(_BALANCINGS):
            kept = hessian is not None
            gradient, hessian = self._batch.balance(self._Z, hessian)
            imbalance = torch.where(shares > 0, gradient.abs() / shares, 0.0).amax(dim=1)
            left = imbalance  # of it, after a step with the Hessian of this very point
            if kept:
                left = torch.ones_like(imbalance) if before is None else imbalance / before
            change = _newton(gradient, hessian).masked_fill_(self._lacking, 0.0)
            if self._abreast:
                change.masked_fill_(~unsolved[:, None], 0.0)
            largest = change.abs().amax(dim=1)
            change /= largest.clamp(min=1)[:, None]  # far off a whole step might overshoot
            self._W[..., -1] += change
            self._Z += change[..., None].to(self._Z.dtype)
            self._travel.bias.add_(largest)
            self._since.bias.add_(largest)
            self._bending = hessian if keeps else None
            unsolved &= imbalance * left > allowed
            if not bool(unsolved.any()):
                return
            slow = kept and before is not None and bool((left > _SLOW).any())
            if slow or not keeps:
                hessian = None
            before = imbalance

    def _refresh(self) -> None:
        """Multiply out again where logits were added up for long: their rounding adds up too.

        So does that of the additions of this step, as if the way had been so much longer.
        """
        straight = self._straight(self._W)
        if self._Z.dtype == torch.float64:  # others are multiplied out before a certificate
            additions = 1 + _BALANCINGS  # at most: how many, another problem may have decided
            share = straight.weights.new_full((), additions * addition_share(self._batch))
            self._travel = self._travel.plus(straight, share)
            self._since = self._since.plus(straight, share)
        marked = self._travel.weights > self._detour * straight.weights
        stale = self._chosen(marked)
        if not len(stale):
            return
        if self._abreast:
            Z = self._batch.values(self._W)
            Z.masked_fill_(self._lacking[..., None], -torch.inf)
            stale = torch.nonzero(marked)[:, 0]
            self._Z[stale] = Z[stale]
        else:
            Z = self._multiplied_out(self._batch.keep(stale), stale)
            if len(stale) == len(self):
                self._Z = Z
            else:
                self._Z[stale] = Z
        self._anew(stale)

    def _straight(self, W: Tensor) -> Travel:
        """From the origin, by way of what made the offset."""
        travel = Travel.of(W)
        return Travel(travel.weights + self._batch.reach, travel.bias)

    def _steepest(self, strength: Tensor) -> _Step:
        """The direction of L-BFGS, always one of descent, and what it does to the logits."""
        gradient = self._gradient(strength)
        inverse = self._inverse_diagonal(strength)
        D = self._pairs.direction(gradient, strength, inverse.float())
        uphill = ~((D * gradient).sum(dim=(1, 2)) < 0)
        if bool(uphill.any()):
            self._pairs.forget(uphill)
            D = torch.where(uphill[:, None, None], -inverse * gradient, D)
        change = self._batch.logits(D)
        self._leave_out_lacking(change, self._everyone())
        return _Step(D, change, Travel.of(D))

    def _inverse_diagonal(self, strength: Tensor) -> Tensor:
        """H0 (B, K, R + 1)."""
        scale, spread = self._batch.rows.scale[:, None, :], self._at.spread[..., None]
        curvature = spread.to(self._W.dtype) * scale.to(self._W.dtype)
        curvature[..., :-1] += strength[:, None, None]
        return curvature.clamp_(min=torch.finfo(torch.float32).tiny).reciprocal_()

    def _onwards(self, step: _Step, strength: Tensor) -> _Step:
        """On arrival at a new C, mix the last two secants in."""
        ids = self._chosen(self._arrived)
        if len(ids) and self._batch.rows.in_memory:
            arrived = self._arrived[ids]
            secant, older = self._secant(ids), self._older.of(ids)
            moved = (secant.travel.weights > 0) & arrived
            known = self._chosen(moved)
            secants = [older.of(known), secant.of(known)]
            step = self._mixed(step, ids[known], secants, strength[ids[known]], moved[known])
            gone = torch.nonzero(moved)[:, 0]
            self._older = self._older.replaced(ids[gone], secant.of(gone))
            self._arrive()
        return step

    def _arrive(self) -> None:
        """Keep the solution from which those that arrived go on."""
        gone = torch.nonzero(self._arrived)[:, 0]
        self._last[gone], self._last_Z[gone] = self._W[gone], self._Z[gone]
        for since in self._since:
            since[gone] = 0
        self._arrived.zero_()

    def _secant(self, ids: Tensor) -> _Step:
        """From the last solution to this one; of no length where there was none."""
        D = some(self._W, ids) - some(self._last, ids)
        change = some(self._Z, ids) - some(self._last_Z, ids)
        self._leave_out_lacking(change, ids)
        moved = self._solved[ids] > 1
        since = self._since.of_problems(ids)
        return _Step(D, change, Travel(*(torch.where(moved, way, 0.0) for way in since)))

    def _leave_out_lacking(self, change: Tensor, ids: Tensor) -> None:
        """Logits (m, K, n) of the problems `ids` stay as they are for classes that they lack."""
        if self._some_lack:
            change.masked_fill_(self._lacking[ids][..., None], 0.0)

    def _mixed(
        self, step: _Step, ids: Tensor, secants: list[_Step], strength: Tensor, moved: Tensor
    ) -> _Step:
        """The step with, of the problems `ids`, about the best sum of it and the secants.

        Those that have not `moved` keep theirs.

        A Newton step in their space, from the last secant's end, which is near where the path goes.
        """
        if not len(ids):
            return step
        batch, W, Z = self._batch.keep(ids), some(self._W, ids), some(self._Z, ids)
        parts = [step.of(ids), *secants]
        D = torch.stack([*(part.D for part in parts), W], dim=1)  # (b, 4, K, R + 1)
        biases = D[..., -1].clone()
        D[..., -1] = 0  # no bias is penalised
        flat = D.flatten(2)
        pulls = strength[:, None, None] * (flat @ flat.mT).double()
        bends, tilts = pulls[:, :3, :3], pulls[:, :3, 3]
        end = strength.new_tensor([0.0, 0.0, 1.0])  # of the last secant
        slopes, curvatures = batch.along(
            Z, [part.change for part in parts], torch.ones_like(strength)
        )
        slopes += tilts + bends[..., 2]
        shares = end - _solve_small(curvatures + bends, slopes)
        usable = (shares.isfinite().all(dim=1) & moved)[:, None]
        shares = torch.where(usable, shares, shares.new_tensor([1.0, 0.0, 0.0]))
        D[..., -1] = biases
        return step.replaced(ids, _Step.sum(D[:, :3], parts, shares))

    def _rate(self, step: _Step, strength: Tensor) -> Tensor:
        """(B,) how far to go: about where the objective is least along the step."""
        d, w = step.D[..., :-1], self._W[..., :-1]
        tilt, bend = (strength * (other * d).sum(dim=(1, 2)).double() for other in (w, d))
        at_zero = (self._at.gradient * step.D).sum(dim=(1, 2)).double() + tilt
        rate, low, high = (
            torch.ones_like(tilt),
            torch.zeros_like(tilt),
            torch.full_like(tilt, torch.inf),
        )
        batch, Z, change = self._batch, self._Z, step.change
        ids = torch.arange(len(tilt), device=tilt.device)
        sought = torch.ones_like(ids, dtype=torch.bool)  # those of them whose rate is to be found
        for _ in range(_TRIALS):
            now = rate[ids]
            slopes, curvatures = batch.along(Z, [change], now)
            slope = slopes[:, 0] + tilt[ids] + now * bend[ids]
            curvature = curvatures[:, 0, 0] + bend[ids]
            newton = now - slope / curvature
            steep = slope.abs() > _FLAT_ENOUGH * at_zero[ids].abs()
            close = ((newton - now).abs() <= _CLOSE * now) & (curvature > 0)
            rate[ids] = torch.where(sought & ~steep & close, newton, now)
            sought = sought & steep
            left = self._chosen(sought)
            if not len(left):
                return rate
            if len(left) < len(ids):
                batch, Z, change = batch.keep(left), Z[left], change[left]
                ids, now, slope, newton = ids[left], now[left], slope[left], newton[left]
                sought = sought[left]
            least = low[ids] = torch.where(slope < 0, now, low[ids])
            most = high[ids] = torch.where(slope > 0, now, high[ids])
            halfway = torch.where(most.isinf(), 4 * now, (least + most) / 2)
            inside = (newton > least) & (newton < most) & (newton < 10 * now)
            rate[ids] = torch.where(sought, torch.where(inside, newton, halfway), rate[ids])
        rate[ids] = torch.where(sought, low[ids], rate[ids])
        return rate


@dataclass(frozen=True, eq=False)
class _Step:
    """Directions D (B, K, R + 1), what they do to the logits (B, K, n), and their lengths."""

    D: Tensor
    change: Tensor
    travel: Travel

    def of(self, problems: Tensor) -> _Step:
        """Those of some problems (indices)."""
        D, change = some(self.D, problems), some(self.change, problems)
        return _Step(D, change, self.travel.of_problems(problems))

    def replaced(self, problems: Tensor, other: _Step) -> _Step:
        """With another's in the place of those of some problems, written over."""
        if len(problems) == len(self.D):
            return other
        pairs = ((self.D, other.D), (self.change, other.change))
        for own, its in (*pairs, *zip(self.travel, other.travel, strict=True)):
            own[problems] = its
        return self

    @classmethod
    def sum(cls, D: Tensor, parts: list[_Step], shares: Tensor) -> _Step:
        """The sum of d parts with shares (B, d), their D stacked (B, d, K, R + 1)."""
        total = shares[:, None].to(D.dtype) @ D.flatten(2)
        travel = parts[0].travel.nowhere()
        change = torch.zeros_like(parts[0].change)
        for part, share in zip(parts, shares.T, strict=True):
            change.addcmul_(part.change, share[:, None, None].to(change.dtype))
            travel = travel.plus(part.travel, share)
        return cls(total.view_as(D[:, 0]), change, travel)


def _squared_slope(gradient: Tensor, W: Tensor, strength: Tensor) -> Tensor:
    """(B,) squared length of the gradient, the penalty's part included, along the weights."""
    full = torch.addcmul(
        gradient[..., :-1], W[..., :-1], strength[:, None, None].to(gradient.dtype)
    )
    return full.square_().sum(dim=(1, 2)).double()


def _solve_small(A: Tensor, b: Tensor) -> Tensor:
    """Solutions of symmetric d x d systems (B, d, d) and (B, d), nearly singular ones too."""
    scale = A.diagonal(dim1=1, dim2=2).clamp(min=torch.finfo(A.dtype).tiny).rsqrt()
    scaled = A * scale[:, :, None] * scale[:, None, :]
    scaled.diagonal(dim1=1, dim2=2).add_(1e-10)
    return torch.linalg.solve_ex(scaled, (b * scale)[..., None])[0][..., 0] * scale


def _newton(gradient: Tensor, hessian: Tensor) -> Tensor:
    """Minus the inverse Hessian (B, K, K) times the gradient (B, K), 0 where it has no inverse.

    A softmax does not change with a number added to all its logits: along that, as along a class
    that a problem lacks, gradient and Hessian are 0, and so is the step.
    """
    K = gradient.shape[1]
    size = hessian.diagonal(dim1=1, dim2=2).amax(dim=1).clamp(min=torch.finfo(hessian.dtype).tiny)
    A = hessian / size[:, None, None]
    if K > 1:
        A += 1 / K
    A.diagonal(dim1=1, dim2=2).add_(1e-14)
    step, failed = torch.linalg.solve_ex(A, -(gradient / size[:, None])[..., None])
    step = step[..., 0]
    return torch.where(step.isfinite() & (failed == 0)[:, None], step, 0.0)

"""`probe --head mlp`: what is asked of an MLP head, and its record beside the linear head's."""

from __future__ import annotations

from dataclasses import replace

from featcache.api.requests import ProbeRequest
from featcache.api.sweeps import training_spec
from featcache.errors import ProbeError
from featcache.probing import LabelledRows, ProbeSpec
from featcache.results import Difference, HeadScore, MlpScore
from featcache.unfreezing import DepthFound, MlpFound, MlpSpec, SweepSpec

EPOCHS, RATES = 30, (3e-4, 1e-3, 3e-3)
"""Unless others are asked for: an epoch on features takes a fraction of a second."""


def refuse_mlp(request: ProbeRequest) -> None:
    """Refuse what means nothing beside an MLP head, and its options beside another head.

    Raises:
        ProbeError: names the option to leave out.
    """
    own, mlp = request.training, request.head == "mlp"
    of_units = {"--hidden": request.hidden is not None, "--dropout": request.dropout is not None}
    of_others = {
        "--unfreeze": request.unfreeze is not None,
        "--shots": bool(request.shots),
        "--cut all": request.cut == "all",
        "--tta": request.tta is not None,
        "--init-from-source": bool(request.init_from_source),
        "--data-sizes": bool(own.data_sizes),
        "--no-lp-init": not own.solved_start,
        "--cutmix": own.cutmix > 0,
        "--batchnorm-moves": own.batchnorm_moves,
    }
    for option, given in (of_others if mlp else of_units).items():
        if given and mlp:
            raise ProbeError(
                f"--head mlp trains new units on the cached features; leave out {option}"
            )
        if given:
            raise ProbeError(f"{option} is of new units; give --head mlp too, or leave it out")


def mlp_spec(request: ProbeRequest, spec: ProbeSpec, data: LabelledRows) -> MlpSpec:
    """What is asked of an MLP head; where pictures have several labels its loss is logistic.

    Raises:
        ProbeError, TrainingError: a value that cannot be asked for.
    """
    own = request.training
    sweep = SweepSpec(
        depths=(0,),
        probe=replace(spec, loss="logistic") if data.targets.ndim == 2 else spec,
        training=training_spec(request, EPOCHS),
        rates=own.rates or RATES,
        seeds=own.seeds,
        folds=request.folds,
        held_out=own.held_out,
        margin=request.margin,
    )
    return MlpSpec(
        sweep,
        MlpSpec.hidden if request.hidden is None else request.hidden,
        MlpSpec.dropout if request.dropout is None else request.dropout,
    )


def mlp_score(spec: MlpSpec, found: MlpFound) -> MlpScore:
    """The record of an MLP head."""
    pair, first = found.difference, found.mlp.fits[0][0]
    rows = int(found.probed.judged.sum())
    units = sum(first.tensors[name].numel() for name in ("1.weight", "1.bias"))
    return MlpScore(
        hidden=spec.hidden,
        dropout=spec.dropout,
        rate=first.rate,
        epochs=first.epochs,
        score=_head_score(found.mlp, units),
        linear=_head_score(found.linear),
        difference=Difference(pair.difference, pair.ci95, pair.p_value, pair.method, rows),
    )


def _head_score(found: DepthFound, units: int = 0) -> HeadScore:
    head = found.fits[0][0].head
    return HeadScore(
        accuracy=found.scores.accuracy,
        ci95=(found.interval.lo, found.interval.hi),
        mean_per_class=found.scores.mean_per_class,
        log_loss=found.scores.log_loss,
        train_accuracy=found.train_accuracy,
        params=units + head.coef.size + head.bias.size,
        seconds=round(found.seconds, 3),
    )

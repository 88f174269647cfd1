"""Optimisers, and the share of its rate that each group has at every step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from featcache.training.groups import Group
from featcache.training.spec import TrainingSpec

_MOMENTUM = 0.9
_FEWEST = 4
"""Steps that a one-cycle has at least: up, down, and the two ends."""


def optimizer_of(spec: TrainingSpec, groups: Sequence[Group]) -> torch.optim.Optimizer:
    """AdamW or SGD over groups with rates and weight decay of their own, fused where torch can."""
    fused = torch.device(spec.device).type in ("cpu", "cuda")
    options = [
        {"params": g.parameters, "lr": g.rate, "weight_decay": g.weight_decay, "name": g.name}
        for g in groups
    ]
    if spec.optimizer == "adamw":
        return torch.optim.AdamW(options, fused=fused)
    return torch.optim.SGD(options, momentum=_MOMENTUM, fused=fused)


def schedule_of(spec: TrainingSpec, optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    """What sets the rates; to be advanced after each of so many steps."""
    if spec.schedule == "cosine":
        return LambdaLR(optimizer, partial(cosine_share, steps=steps, warmup=spec.warmup))
    total = max(steps, _FEWEST)
    return OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=total,
        pct_start=max(spec.warmup, 2 / total),
    )


def cosine_share(step: int, *, steps: int, warmup: float) -> float:
    """Share of the full rate at a step from 0: linear up from above 0, then half a cosine to 0."""
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rising) / max(1, steps - rising))))

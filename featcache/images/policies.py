"""Which views there are: policies by their one spelling, and the views of a policy by number.

What a policy does stands in `augmentation`; here is no torch, so that requests are quick to check.
"""

from __future__ import annotations

import re

from featcache.errors import AugmentationError
from featcache.recipe import PLAIN, TTA, View

FLIP = "flip"
POLICIES = (PLAIN, FLIP, "standard", "randaugment:N,M", "trivial")
"""What `canonical_policy` takes; a policy whose meaning changes takes another name."""

_LARGEST_SEED = 2**32 - 1
MAGNITUDES = 31
"""Of RandAugment and TrivialAugment, torchvision's default."""


def canonical_policy(text: str) -> str:
    """The one spelling of a policy, which stands in keys.

    Args:
        text: one of `POLICIES`, N and M being numbers; randaugment alone is randaugment:2,9.

    Raises:
        AugmentationError: there is no such policy.
    """
    name = re.sub(r"\s", "", text).lower()
    if name in (PLAIN, FLIP, "standard", "trivial"):
        return name
    numbers = re.fullmatch(r"randaugment(?::(\d{1,4}),(\d{1,4}))?", name)
    if numbers is None:
        raise AugmentationError(
            f"augment {text!r}: no such policy; give one of {', '.join(POLICIES)}"
        )
    count, magnitude = (int(numbers[1]), int(numbers[2])) if numbers[1] else (2, 9)
    if count < 1 or magnitude >= MAGNITUDES:
        raise AugmentationError(
            f"augment {text!r}: give N from 1 (operations) and M from 0 to {MAGNITUDES - 1} "
            "(magnitude), as in randaugment:2,9"
        )
    return f"randaugment:{count},{magnitude}"


def views_of(policy: str, count: int, seed: int = 0) -> tuple[View, ...]:
    """The plain view and `count` - 1 of a policy.

    Raises:
        AugmentationError: no such policy, or it has not so many views.
    """
    name = canonical_policy(policy)
    most = {PLAIN: 1, FLIP: 2}.get(name)
    if count < 1 or (most and count > most):
        limit = f"from 1 to {most}" if most != 1 else "1, or another --augment"
        raise AugmentationError(
            f"{count} views by {name!r}: give {limit if most else 'at least 1'}; the plain picture "
            "is one of them"
        )
    if not 0 <= seed <= _LARGEST_SEED:
        raise AugmentationError(f"augment seed {seed}: give one from 0 to {_LARGEST_SEED}")
    drawn = 0 if name == FLIP else seed
    return (View(), *(View(name, drawn, number) for number in range(1, count)))


def tta_views(count: int, seed: int = 0) -> tuple[View, ...]:
    """`count` random crops for pictures that are predicted, the plain view left out.

    Raises:
        AugmentationError: a negative count.
    """
    if count < 0 or not 0 <= seed <= _LARGEST_SEED:
        raise AugmentationError(
            f"tta {count}, seed {seed}: give how many random crops, from 0, and a seed from 0 to "
            f"{_LARGEST_SEED}"
        )
    return tuple(View(TTA, seed, number) for number in range(1, count + 1))

"""Published protocols by name: grid, split, selection and refit as their sources have them.

    asked        what may be asked of a protocol, and the bookkeeping of its run
    holding_out  training rows that choose where there is no val split
    searching    values of C, scored on held-out rows
    refitting    clip, dinov2, vtab1k: choose C, refit on what chose it too, measure on test
    neighbours   dinov2-knn
    shots        coop, fewshot-lsr: support sets of k pictures a class

Heads are solved by `heads`, to a certificate or in closed form, where the sources stop after a
number of iterations. `docs/protocols.md` has all of them in one table, with what differs and why.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from featcache.errors import ProbeError
from featcache.probing.few_shots import FewShots
from featcache.probing.fitting import fit_probe
from featcache.probing.protocols.asked import Asked, refuse
from featcache.probing.protocols.neighbours import dinov2_knn
from featcache.probing.protocols.refitting import clip, dinov2, vtab1k
from featcache.probing.protocols.shots import coop, fewshot_lsr
from featcache.probing.rows import LabelledRows
from featcache.probing.solving import Progress
from featcache.probing.spec import Probed, ProbeSpec

__all__ = [
    "DEFAULT",
    "OF_SHOTS",
    "PROTOCOLS",
    "FewShots",
    "Protocol",
    "find_protocol",
    "run_protocol",
]

DEFAULT = "default"

OF_SHOTS = ("coop", "fewshot-lsr")
"""Those that give `FewShots`: a head for each support set, none of which is the result."""


@dataclass(frozen=True)
class Protocol:
    """A protocol as it is listed.

    Attributes:
        summary: one line for help.
        source: paper and place.
        run: what it does; None: `fit_probe`.
        head: what is fitted.
        seeded: whether the spec's seed decides which training rows are held out.
    """

    summary: str
    source: str = ""
    run: Callable[[Asked], Probed | FewShots] | None = None
    head: str = "softmax"
    seeded: bool = True


PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        DEFAULT: Protocol("nested cross-validation, or the data's own splits; C by log-loss"),
        "clip": Protocol(
            "CLIP: C of 97 by halving around the peak on val, refit on train and val",
            "Radford et al. 2021, appendix A.3",
            clip,
        ),
        "dinov2": Protocol(
            "DINOv2: 45 values of C on val or a tenth of train, refit on both",
            "Oquab et al. 2023, eval/log_regression.py",
            dinov2,
        ),
        "dinov2-knn": Protocol(
            "DINOv2: weighted kNN by cosine, k of 10, 20, 100 and 200",
            "Oquab et al. 2023, eval/knn.py",
            dinov2_knn,
            head="knn",
            seeded=False,
        ),
        "fewshot-lsr": Protocol(
            "Big Vision: ridge to +-1 with one penalty, 1, 5, 10 and 25 shots, 3 seeds",
            "Dosovitskiy et al. 2021, evaluators/fewshot_lsr.py",
            fewshot_lsr,
            head="ridge",
            seeded=False,
        ),
        "vtab1k": Protocol(
            "VTAB-1k: 800 pictures train, 200 choose C, refit on the 1000",
            "Zhai et al. 2019, with a grid of C of our own",
            vtab1k,
        ),
        "coop": Protocol(
            "CoOp: linear-probe CLIP of 1, 2, 4, 8 and 16 shots, 3 seeds",
            "Zhou et al. 2022, lpclip/linear_probe.py",
            coop,
            seeded=False,
        ),
    }
)


def find_protocol(name: str) -> Protocol:
    """The protocol of a name.

    Raises:
        ProbeError: there is none.
    """
    protocol = PROTOCOLS.get(name)
    if protocol is None:
        raise ProbeError(f"protocol {name!r}: unknown; give one of {', '.join(PROTOCOLS)}")
    return protocol


def run_protocol(
    name: str, data: LabelledRows, spec: ProbeSpec, progress: Progress | None = None
) -> Probed | FewShots:
    """Fit and judge as a published protocol does.

    Args:
        name: of `PROTOCOLS`.
        data: see `labelled_rows`; all protocols but "default" need a test split and one label a
            picture.
        spec: tolerance, memory, device and cut; the seed, where training rows are held out by it.
            What else differs from the default is refused: the protocol fixes it.
        progress: called with ("fit", done, total).

    Raises:
        ProbeError: no such protocol, or data or spec are not for it; says what to do.
    """
    protocol = find_protocol(name)
    if protocol.run is None:
        return fit_probe(data, spec, progress)
    started = time.perf_counter()
    refuse(name, data, spec, seeded=protocol.seeded)
    asked = Asked.of(f"{name} ({protocol.source})", data, spec, progress)
    found = protocol.run(asked)
    return replace(
        found,
        seconds=time.perf_counter() - started,
        warnings=(*found.warnings, *asked.all_warnings()),
    )

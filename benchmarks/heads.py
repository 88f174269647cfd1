"""Every fold and C of linear heads, beside scikit-learn on the same features.

Prints one table: seconds a fit and their ratio to scikit-learn's LogisticRegression (lbfgs, at its
defaults but max_iter=1000), gaps to the optimum, objectives beside its own, and memory. Each side
runs in a process of its own, with all cores. Fits of scikit-learn are measured on a stated subset.

    python benchmarks/heads.py [--rows pets,digits,tiny,shots] [--json FILE] [--cache DIR]

    pets     3680 x 2048 x 37, 45 C x (5 folds + all)
    digits   1797 x 1280 x 10 real features, 45 C x (5 folds + all) x 5 seeds
    tiny     251 x 1280 x 10, the nested default of `featcache probe`
    tall     50,000 x 768 x 100, 9 C
    memmap   200,000 x 2048 float16 from a memory map, 1000 classes: ridge, and softmax at 3 C
    shots    10 seeds x 5 shot counts x 25 C on the features of pets
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from heads_cases import CASES, Case, Options
from heads_judging import Side
from measuring import count, machine, print_machine

QUICK = ("pets", "digits", "tiny", "shots")

HEADER = (
    f"{'side':<30}{'fits':>6}{'s':>9}{'ms a fit':>10}{'faster':>9}{'certified':>11}"
    f"{'true gap':>10}{'median':>9}{'obj/theirs':>13}{'peak MB':>9}{'before':>8}{'anon.':>8}"
)

LEGEND = """\
faster      scikit-learn's seconds a fit / this side's; a fit of featcache is 1/fits of the whole
            call, heads in the features' own coordinates included
certified   worst proven gap of all fits; true gap: worst and median of the judged ones
obj/theirs  worst objective, in float64, over that of scikit-learn's fit at the same C
peak MB     most that the side's process was resident, mapped pages included (VmHWM); before: as
            its work began, libraries and features; anon.: most seen without mapped pages (RssAnon,
            sampled)"""


def main() -> None:
    """Print the table."""
    load = os.getloadavg()[0]
    asked = _arguments()
    described = machine()
    print_machine(described, load)
    with ExitStack() as stack:
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=asked.folder)))
        options = Options(
            folder=temporary,
            cache=asked.cache or temporary,
            scale=asked.scale,
            sklearn_folds=asked.sklearn_folds,
            sklearn_values=asked.sklearn_values,
            newton_fits=asked.newton_fits,
            calls=asked.calls,
            memory=asked.memory_mb << 20,
            device=asked.device,
        )
        cases = list[Case]()
        for name in asked.rows:
            cases.append(CASES[name](options))
            _print_case(cases[-1])
            if asked.json:
                asked.json.write_text(json.dumps(_record(described, asked, cases), indent=1))
    print(LEGEND)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=_names, default=QUICK, help="of the table, or `all`")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    parser.add_argument("--cache", type=Path, help="where the digits' features are kept")
    parser.add_argument("--folder", type=Path, help="of temporary files (memmap: 0.8 GB)")
    parser.add_argument("--scale", type=float, default=1.0, help="of all sizes: below 1 for a try")
    parser.add_argument(
        "--sklearn-folds", type=count, default=1, help="of 6, on which scikit-learn is measured"
    )
    parser.add_argument(
        "--sklearn-values", type=count, default=5, help="of C, for scikit-learn in tall and shots"
    )
    parser.add_argument("--newton-fits", type=int, default=1, help="of newton-cholesky; 0: none")
    parser.add_argument("--calls", type=count, default=3, help="of the probe in tiny")
    parser.add_argument("--device", default="cpu", help="of featcache's products: cpu or cuda")
    parser.add_argument("--memory-mb", type=count, default=2048, help="the solver's budget")
    return parser.parse_args()


def _names(text: str) -> tuple[str, ...]:
    names = tuple(CASES) if text == "all" else tuple(text.split(","))
    unknown = [name for name in names if name not in CASES]
    if unknown:
        raise argparse.ArgumentTypeError(f"no row {unknown[0]!r}; give some of {', '.join(CASES)}")
    return names


def _print_case(case: Case) -> None:
    print(f"{case.name}: {case.title}\n{HEADER}")
    for side in case.sides:
        print(_line(side))
    for note in case.notes:
        print(f"  - {note}")
    if case.features:
        print("  - features:", ", ".join(f"{k} {v:.3g}" for k, v in case.features.items()))
    print(flush=True)


def _line(side: Side) -> str:
    run = side.run
    if run is None:
        return f"{side.name:<30}  left out: {side.reason}"
    true, over, usage = side.values("true_gap"), side.values("over_theirs"), run.usage
    cells = [
        (f"{run.count}", 6),
        (f"{run.seconds:.2f}", 9),
        (f"{1000 * run.each:.1f}", 10),
        ("" if side.faster is None else f"{side.faster:.1f} x", 9),
        ("" if run.gap is None else f"{run.gap:.1e}", 11),
        (f"{true.max():.1e}" if len(true) else "", 10),
        (f"{sorted(true)[len(true) // 2]:.1e}" if len(true) else "", 9),
        (f"{over.max():.7f}" if len(over) else "", 13),
        (_megabytes(usage.peak), 9),
        (_megabytes(usage.before), 8),
        (_megabytes(usage.anonymous), 8),
    ]
    return f"{side.name:<30}" + "".join(f"{text:>{width}}" for text, width in cells)


def _megabytes(number: int | None) -> str:
    return "" if number is None else f"{number / 1e6:.0f}"


def _record(
    described: dict[str, object], asked: argparse.Namespace, cases: list[Case]
) -> dict[str, object]:
    chosen = {
        key: str(value) if isinstance(value, Path) else value for key, value in vars(asked).items()
    }
    return {
        "machine": described,
        "options": chosen,
        "rows": [
            {
                "name": case.name,
                "title": case.title,
                "features": case.features,
                "notes": case.notes,
                "sides": [_side_record(side) for side in case.sides],
            }
            for case in cases
        ],
    }


def _side_record(side: Side) -> dict[str, object]:
    run = side.run
    if run is None:
        return {"name": side.name, "left_out": side.reason}
    return {
        "name": side.name,
        "fits": run.count,
        "seconds": run.seconds,
        "seconds_a_fit": run.each,
        "seconds_of_heads": run.turning,
        "faster": side.faster,
        "missed": run.missed,
        "certified_gap": run.gap,
        "memory": asdict(run.usage),
        "judged": list(side.points),
    }


if __name__ == "__main__":
    main()

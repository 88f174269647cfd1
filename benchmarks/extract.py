"""Extraction beside the loop people write, what they install, and what the machine allows.

Prints one table a row: seconds, pictures a second and memory of `featcache.extract` into a fresh
cache, of the usual loop (torchvision's or timm's network and published transform, a DataLoader with
two workers, inference_mode, features in a list), and of fastai, img2vec-pytorch and thingsvision
where they are installed. Features are compared row by row. The limit is the time of featcache's
decoding alone and of its quickest engine's forward pass alone, one after the other, each with all
cores. Each side runs in a process of its own.

    python benchmarks/extract.py [--rows resnet50,lite0-phones,...] [--json FILE] [--pictures DIR]

    resnet50, mobilenet, lite0, vit   ResNet-50 *, MobileNet-v3-L *, EfficientNet-lite0 (ImageNet
                                      weights), ViT-S/16 * on 2,000 JPEGs of about 500 x 375
    resnet50-phones, ...              the same on 200 JPEGs of 12 megapixels
    resnet50-limit, ...               decoding alone, forward pass alone and extraction in turn, on
                                      the smaller pictures, for a machine of unsteady speed
    growth                            EfficientNet-lite0 on 500, 1,000, 2,000 and 4,000 pictures
    startup                           seconds of the command `featcache extract`, 1 and 64 pictures

* random weights of seed 0, with BatchNorm statistics of the pictures

With `--device cuda` the forward passes of all sides are the GPU's, whose driver is started before
the clock is, the usual loop runs a second time with a worker a core, and peers are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import extract_limit
import extract_sides as sides
import numpy as np
from extract_networks import NETWORKS, Network
from extract_peers import PEERS, why_not
from extract_pictures import PETS, PHONES, PictureSet, make_pictures, take
from extract_sides import Job, Run, off_by
from measuring import apart, cores, count, machine, print_machine

LIGHT = "lite0"
"""The network of the rows `growth` and `startup`."""

GROWTH = (500, 1000, 2000, 4000)
STARTED_ON = (1, 64)
"""Pictures of the rows `growth` and `startup`."""

TOLERANCE = 1e-3
"""Relative difference of a picture's features, over which the table says so."""

OF_LIMIT = 0.95
"""Share of the limit to be reached."""

PACKAGES = ("torchvision", "timm", "pillow", "openvino", "simplejpeg", "fastai")
PACKAGES += ("img2vec-pytorch", "thingsvision")

USUAL, DECODING = "usual loop", "decoding alone"

HEADER = (
    f"{'side':<34}{'ran by':<30}{'pictures':>9}{'s':>8}{'pictures/s':>11}{'faster':>9}"
    f"{'of limit':>9}{'off by':>9}{'peak MB':>8}{'with workers':>13}{'CPU':>6}"
)

LEGEND = """\
s             from where the network is loaded to where the features are there, on disk for
              featcache, in memory for the others; not the import of libraries
faster        the usual loop's seconds a picture over this side's
of limit      (seconds of decoding alone + of the quickest forward pass alone) over this side's
off by        largest ||a - b|| / ||b|| of a picture's features, b being the usual loop's; not of
              sides that crop or resize in ways of their own
peak MB       most that the side's process was resident (VmHWM); with workers: most seen of it and
              its workers together, what they share counted once (Pss, sampled each second)
CPU           seconds of all cores, workers included, over wall clock and cores"""


@dataclass(frozen=True)
class Row:
    """A network and what it sees."""

    key: str
    kind: PictureSet

    @property
    def network(self) -> Network:
        """What runs."""
        return NETWORKS[self.key]


ROWS = {key: Row(key, PETS) for key in NETWORKS} | {
    f"{key}-phones": Row(key, PHONES) for key in NETWORKS
}
LIMITS = {f"{key}-limit": Row(key, PETS) for key in NETWORKS}
ALL = (*ROWS, *LIMITS, "growth", "startup")


@dataclass(eq=False)
class Result:
    """All that was measured of a row; a side that was left out has its reason in place of a run."""

    title: str
    runs: dict[str, Run | str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def run(self, name: str) -> Run | None:
        """What a side did, if it ran."""
        found = self.runs.get(name)
        return found if isinstance(found, Run) else None

    def ran(self, start: str) -> list[Run]:
        """What the sides did whose names start so."""
        return [r for name, r in self.runs.items() if isinstance(r, Run) and name.startswith(start)]

    @property
    def limit(self) -> float | None:
        """Seconds a picture of decoding alone and of the quickest forward pass alone."""
        decoding, forwards = self.run(DECODING), self.ran("forward")
        if decoding is None or not forwards:
            return None
        return decoding.each + min(run.each for run in forwards)


@dataclass(frozen=True)
class Setting:
    """What rows are measured with.

    Attributes:
        asked: the options.
        pictures: where they are kept. folder: of temporary files.
        forwards: forward passes alone, by network and side; other pictures take no longer.
    """

    asked: argparse.Namespace
    pictures: Path
    folder: Path
    forwards: dict[str, dict[str, Run | str]] = field(default_factory=dict)

    def job(self, key: str, kind: PictureSet, number: int, name: str) -> Job:
        """A network on the first pictures of a set, in a folder of that name."""
        make_pictures(self.pictures, kind, number)
        folder = self.folder / name
        chosen = take(self.pictures, kind, number, folder / kind.name)
        return Job(key, chosen, number, folder, self.asked.device)

    def scaled(self, number: int) -> int:
        """A number of pictures, as many times less as a try has."""
        return max(round(number * self.asked.scale), 1)


def main() -> None:
    """Print the tables."""
    load = os.getloadavg()[0]
    asked = _arguments()
    described = machine(*PACKAGES)
    print_machine(described, load)
    records = list[dict[str, object]]()
    with tempfile.TemporaryDirectory(dir=asked.folder) as temporary:
        setting = Setting(asked, asked.pictures or Path(temporary, "pictures"), Path(temporary))
        for name in asked.rows:
            records.append(_measured(name, setting))
            if asked.json:
                record = {"machine": described, "options": _options(asked), "rows": records}
                asked.json.write_text(json.dumps(record, indent=1))
    print(LEGEND)


def _measured(name: str, setting: Setting) -> dict[str, object]:
    """Measure a row, print it, and give what is kept of it."""
    if name == "growth":
        return _growth(setting)
    if name == "startup":
        return _start_up(setting)
    if name in LIMITS:
        return _limit(name, LIMITS[name], setting)
    result = _compared(name, ROWS[name], setting)
    _print(result)
    measured = [_side_record(side, result) for side in result.runs]
    return {"name": result.title, "notes": result.notes, "sides": measured}


def _compared(name: str, row: Row, setting: Setting) -> Result:
    """Every side of one network on one set of pictures."""
    asked, scaled = setting.asked, setting.scaled
    number = asked.pictures_count if row.kind is PETS else asked.phones_count
    job = setting.job(row.key, row.kind, scaled(number), name)
    some = min(scaled(asked.peer_pictures), job.count)
    few = setting.job(row.key, row.kind, some, f"{name}-few")
    apart(sides.prepare, job)
    few.weights.hardlink_to(job.weights)
    result = Result(f"{row.network.title}, {job.count} {row.kind.name}, {_size(job)}")
    for engine in asked.engines:
        result.runs[f"featcache, --engine {engine}"] = _tried(sides.ours, job, engine)
    result.runs[USUAL] = apart(sides.usual, job)
    if job.on_gpu:
        result.runs[f"{USUAL}, a worker a core"] = apart(sides.usual, job, cores())
    for title, (module, side) in ({} if job.on_gpu else PEERS).items():
        result.runs[title] = apart(why_not, few, module) or _tried(side, few)
    result.runs[DECODING] = apart(sides.decoding, job)
    if row.key not in setting.forwards:
        setting.forwards[row.key] = _forwards(job, scaled(asked.forward_pictures))
    result.runs |= setting.forwards[row.key]
    result.notes += _notes(row, result)
    return result


def _forwards(job: Job, number: int) -> dict[str, Run | str]:
    """The forward pass alone by each engine there is."""
    engines = ("torch",) if job.on_gpu else _engines()
    return {f"forward alone, {e}": _tried(sides.forward, job, e, number) for e in engines}


def _notes(row: Row, result: Result) -> list[str]:
    """What is to be reached, and what was; what does not agree."""
    notes, usual, limit = list[str](), result.run(USUAL), result.limit
    for name, run in result.runs.items():
        if not isinstance(run, Run) or run.passes is None or usual is None or limit is None:
            continue
        aim = f" (to reach: {row.network.faster:g} x)" if row.kind is PETS else ""
        passes = run.passes / run.count
        notes += [f"{name}: {run.why}"] if run.why else []
        notes.append(
            f"{name}: {usual.each / run.each:.2f} x the usual loop{aim}, {limit / run.each:.3f} of "
            f"the limit (to reach: {OF_LIMIT}); decoding and forward passes took {run.passes:.1f} "
            f"of {run.seconds:.1f} s, {limit / passes:.3f} of the limit"
        )
    for name, run in result.runs.items():
        if isinstance(run, Run) and usual is not None and off_by(run, usual) > TOLERANCE:
            notes.append(f"WARNING: {name}: features are off by {off_by(run, usual):.1e}")
    return notes


def _limit(name: str, row: Row, setting: Setting) -> dict[str, object]:
    """Shares of the limit in turns."""
    asked = setting.asked
    job = setting.job(row.key, row.kind, setting.scaled(asked.pictures_count), name)
    apart(sides.prepare, job)
    title = f"{row.network.title}, {job.count} {row.kind.name}"
    turns = extract_limit.in_turn(job, asked.turns, setting.scaled(asked.forward_pictures))
    extract_limit.print_turns(title, turns)
    return extract_limit.record(title, turns)


def _growth(setting: Setting) -> dict[str, object]:
    """Seconds of more and more pictures, beside a straight line."""
    engine, runs = setting.asked.engines[0], list[Run]()
    for number in map(setting.scaled, GROWTH):
        job = setting.job(LIGHT, PETS, number, f"growth-{number}")
        apart(sides.prepare, job)
        runs.append(apart(sides.ours, job, engine))
    numbers, seconds = np.array([[run.count, run.seconds] for run in runs]).T
    line = np.polynomial.Polynomial.fit(numbers, seconds, 1)
    off = seconds / line(numbers) - 1
    fixed, each = (float(value) for value in line.convert().coef)
    print(f"growth: {NETWORKS[LIGHT].title}, --engine {engine}")
    print(f"{'pictures':>9}{'s':>9}{'off the line':>14}{'peak MB':>9}{'CPU':>6}  ran by")
    for run, share in zip(runs, off, strict=True):
        print(
            f"{run.count:>9}{run.seconds:>9.2f}{100 * share:>13.1f}%"
            f"{_megabytes(run.usage.peak):>9}{_cpu(run):>6}  {run.by}"
        )
    print(
        f"  - line: {fixed:.2f} s + {1000 * each:.2f} ms a picture; largest deviation "
        f"{100 * np.abs(off).max():.1f}%\n",
        flush=True,
    )
    measured = [{"count": r.count, "by": r.by, "usage": asdict(r.usage)} for r in runs]
    line_record = {"seconds_fixed": fixed, "seconds_each": each, "off": off.tolist()}
    return {"name": "growth", "line": line_record, "sides": measured}


def _start_up(setting: Setting) -> dict[str, object]:
    """Seconds of the command, from its start to its end; the first of each is not counted."""
    found = dict[str, list[float]]()
    calls = range(setting.asked.starts + 1)
    found["only imports torch, torchvision and timm"] = [sides.imported() for _ in calls]
    for number in STARTED_ON:
        job = setting.job(LIGHT, PETS, number, f"startup-{number}")
        seconds = [sides.started(job, fresh=True) for _ in calls]
        found[f"pictures, fresh cache: {number}"] = seconds
    grown, added = STARTED_ON[-1], list[float]()
    for number in range(grown + 1, grown + 1 + len(calls)):
        job = setting.job(LIGHT, PETS, number, f"startup-{grown}")
        added.append(sides.started(job, fresh=False))
    found["1 picture more, same cache"] = added
    print(f"start-up: `featcache extract`, {NETWORKS[LIGHT].title}, from its start to its end")
    for name, (_, *counted) in found.items():
        print(
            f"{name:<42}{statistics.median(counted):>7.2f} s"
            f"  ({min(counted):.2f} to {max(counted):.2f} of {len(counted)})"
        )
    print("  - to reach: the first picture is computed within 3 s\n", flush=True)
    return {"name": "startup", "seconds": found}


def _tried(side: Callable[..., Run], *arguments: object) -> Run | str:
    """What a side did, or why it did not; the benchmark goes on without it."""
    try:
        return apart(side, *arguments)
    except Exception as error:  # noqa: BLE001 - other people's code can raise anything
        return f"it failed: {type(error).__name__}: {error}".partition("\n")[0]


def _engines() -> tuple[str, ...]:
    """Names of featcache's engines."""
    from featcache.engines import ENGINES

    return ENGINES


def _size(job: Job) -> str:
    """Mean size of the files."""
    sizes = [path.stat().st_size for path in job.pictures.rglob("*.jpg")]
    return f"{statistics.mean(sizes) / 1000:.0f} kB each"


def _print(result: Result) -> None:
    print(f"{result.title}\n{HEADER}")
    for name in result.runs:
        print(_line(name, result))
    for note in result.notes:
        print(f"  - {note}")
    print(flush=True)


def _line(name: str, result: Result) -> str:
    run, usual, limit = result.runs[name], result.run(USUAL), result.limit
    if isinstance(run, str):
        return f"{name:<34}left out: {run}"
    off = off_by(run, usual) if usual and run is not usual else float("nan")
    alone = name == DECODING or name.startswith("forward")
    cells = [
        (f"{run.count}", 9),
        (f"{run.seconds:.2f}", 8),
        (f"{1 / run.each:.1f}", 11),
        (f"{usual.each / run.each:.2f} x" if usual and not alone else "", 9),
        (f"{limit / run.each:.3f}" if limit and not alone else "", 9),
        ("" if np.isnan(off) else f"{off:.1e}", 9),
        (_megabytes(run.usage.peak), 8),
        (_megabytes(run.usage.together), 13),
        (_cpu(run), 6),
    ]
    return f"{name:<34}{run.by:<30}" + "".join(f"{text:>{width}}" for text, width in cells)


def _megabytes(number: int | None) -> str:
    return "" if number is None else f"{number / 1e6:.0f}"


def _cpu(run: Run) -> str:
    return f"{100 * run.usage.cpu / run.seconds / cores():.0f}%"


def _side_record(name: str, result: Result) -> dict[str, object]:
    run, usual, limit = result.runs[name], result.run(USUAL), result.limit
    if isinstance(run, str):
        return {"name": name, "left_out": run}
    off = off_by(run, usual) if usual else float("nan")
    return {
        "name": name,
        "by": run.by,
        "why": run.why,
        "count": run.count,
        "seconds_a_picture": run.each,
        "seconds_of_passes": run.passes,
        "seconds_outside": run.outside,
        "faster": usual.each / run.each if usual else None,
        "of_limit": limit / run.each if limit else None,
        "off_by": None if np.isnan(off) else off,
        "usage": asdict(run.usage),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=_names, default=ALL, help="of the table, or `all`")
    parser.add_argument("--device", default="cpu", help="of the forward pass: cpu or cuda")
    parser.add_argument("--engines", type=_engine_names, default=("auto",), help="of featcache")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    parser.add_argument("--pictures", type=Path, help="where they are kept, and found next time")
    parser.add_argument("--folder", type=Path, help="of temporary files")
    parser.add_argument("--scale", type=float, default=1.0, help="of all sets: below 1 for a try")
    parser.add_argument("--pictures-count", type=count, default=2000, help="of about 500 x 375")
    parser.add_argument("--phones-count", type=count, default=200, help="of 12 megapixels")
    parser.add_argument("--peer-pictures", type=count, default=500, help="for what people install")
    parser.add_argument(
        "--forward-pictures", type=count, default=640, help="for a forward pass alone"
    )
    parser.add_argument("--turns", type=count, default=3, help="of each row of the limit")
    parser.add_argument("--starts", type=count, default=3, help="of each command of `startup`")
    return parser.parse_args()


def _options(asked: argparse.Namespace) -> dict[str, object]:
    return {k: str(v) if isinstance(v, Path) else v for k, v in vars(asked).items()}


def _names(text: str) -> tuple[str, ...]:
    names = ALL if text == "all" else tuple(text.split(","))
    unknown = [name for name in names if name not in ALL]
    if unknown:
        raise argparse.ArgumentTypeError(f"no row {unknown[0]!r}; give some of {', '.join(ALL)}")
    return names


def _engine_names(text: str) -> tuple[str, ...]:
    names, known = tuple(text.split(",")), ("auto", *_engines())
    unknown = [name for name in names if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no engine {unknown[0]!r}; give some of {', '.join(known)}"
        )
    return names


if __name__ == "__main__":
    main()

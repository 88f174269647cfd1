"""Tails trained from cached activations, beside the usual loop that runs the frozen part each step.

Prints one table: seconds a step of the same training (weights, batches, AdamW, schedule, clipping)
by featcache from cached float16 activations, and by the usual loop, which runs the whole network at
every step, its frozen part without gradient: once with pixels in memory, once decoding the JPEG
files by a DataLoader with a worker a core. Losses of both are compared step by step, from float32
activations. fastai is measured on the same folder where it is installed.

    python benchmarks/unfreeze.py [--rows stage,block,lite0,vit,mobilenet,accuracy] [--json FILE]

    stage      ResNet-50, last stage (3 units)            random weights *
    block      ResNet-50, last block (1 unit)             random weights *
    lite0      EfficientNet-lite0, last 2 units           ImageNet weights
    vit        ViT-S/16, last 2 blocks                    random weights *
    mobilenet  MobileNet-v3-L, last 3 units               random weights *
    accuracy   EfficientNet-lite0, last 2 units, on scikit-learn's digits at 96 pixels: accuracy of
               both loops after the same training from the solved head, paired by seed

* of seed 0, with BatchNorm statistics of the pictures, so that losses depend on what is cached
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from measuring import apart, count, machine, print_machine
from PIL import Image
from unfreeze_sides import Job, Prepared, Run, cached, fastai, prepare, solve_head, usual

CLASSES = 8
SIDES = (500, 375)
"""Width and height of the JPEG files, as Oxford-IIIT Pets' are."""

TOLERANCE = 1e-3
"""Relative difference of a step's losses, over which the table says so."""


@dataclass(frozen=True)
class Row:
    """A network and how many of its units train."""

    title: str
    network: str
    depth: int
    reach: float | None = None
    weights: str | None = "random"


ROWS = {
    "stage": Row("ResNet-50, last stage", "resnet50", 3, 3.0),
    "block": Row("ResNet-50, last block", "resnet50", 1, 8.0),
    "lite0": Row("EfficientNet-lite0, last 2 units", "efficientnet_lite0", 2, weights=None),
    "vit": Row("ViT-S/16, last 2 blocks", "timm/vit_small_patch16_224", 2),
    "mobilenet": Row("MobileNet-v3-L, last 3 units", "mobilenet_v3_large", 3),
}

ACCURACY = Row("EfficientNet-lite0, last 2 units, digits", "efficientnet_lite0", 2, weights=None)

HEADER = (
    f"{'side':<34}{'ms a step':>11}{'pictures/s':>12}{'times':>8}{'steps':>7}"
    f"{'loss off by':>13}{'peak MB':>9}"
)

LEGEND = """\
times        seconds a step over those of featcache from float16 activations
steps        that the mean is of; the first of each side is left out
loss off by  largest relative difference of a step's loss to the usual loop's with pixels in memory;
             fastai deals batches of its own, so its losses are not compared
peak MB      most that the side's process was resident (VmHWM)"""


@dataclass(eq=False)
class Result:
    """All that was measured of a row."""

    title: str
    prepared: Prepared
    runs: dict[str, Run] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def main() -> None:
    """Print the table."""
    load = os.getloadavg()[0]
    asked = _arguments()
    described = machine()
    print_machine(described, load)
    records = list[dict[str, object]]()
    with tempfile.TemporaryDirectory(dir=asked.folder) as temporary:
        for name in asked.rows:
            folder = Path(temporary, name)
            folder.mkdir()
            if name == "accuracy":
                records.append(_accuracy(folder, asked))
            else:
                records.append(_timed(ROWS[name], folder, asked))
            if asked.json:
                record = {"machine": described, "options": _options(asked), "rows": records}
                asked.json.write_text(json.dumps(record, indent=1))
    print(LEGEND)


def _timed(row: Row, folder: Path, asked: argparse.Namespace) -> dict[str, object]:
    """Measure a row, side by side, and print it."""
    make_pictures(folder, asked.pictures)
    job = Job(
        row.network,
        row.weights,
        row.depth,
        asked.image_size,
        folder,
        CLASSES,
        asked.pictures,
        asked.batch_size,
        asked.epochs,
        asked.rate,
    )
    result = Result(row.title, apart(prepare, job))
    runs = result.runs
    runs["featcache, float16 cache"] = apart(cached, job, "float16")
    runs["featcache, float32 cache"] = apart(cached, job, "float32")
    runs["usual loop, pixels in memory"] = apart(usual, job, decoding=False)
    runs["usual loop, decoding JPEG"] = apart(usual, job, decoding=True)
    if importlib.util.find_spec("fastai"):
        runs["fastai freeze_to, fit"] = apart(fastai, job)
    else:
        result.notes.append("fastai is not installed: left out")
    result.notes += _notes(row, job, result)
    _print(result, job)
    return {"name": row.title, "prepared": asdict(result.prepared), "notes": result.notes} | {
        "sides": [_side_record(name, run) for name, run in runs.items()]
    }


def _notes(row: Row, job: Job, result: Result) -> list[str]:
    """What the sides say of each other."""
    p, runs = result.prepared, result.runs
    ours, pixels, jpeg = (
        runs[name]
        for name in (
            "featcache, float16 cache",
            "usual loop, pixels in memory",
            "usual loop, decoding JPEG",
        )
    )
    steps = -(-job.rows // job.batch_size)
    saved = steps * (jpeg.step - ours.step)
    off = _off(runs["featcache, float32 cache"], pixels)
    notes = [
        f"trained {', '.join(p.units)} and the head: {p.trained / 1e6:.2f} of "
        f"{p.total / 1e6:.1f} million parameters; cached {' x '.join(map(str, p.shape))}",
        f"{pixels.step / ours.step:.1f} x without decoding, {jpeg.step / ours.step:.1f} x with"
        + (f" (to reach without: {row.reach:g} x)" if row.reach else ""),
        f"caching {job.rows} pictures once, one after the other: {p.decoding:.1f} s decoding + "
        f"{p.forward:.1f} s forward = {(p.decoding + p.forward) / saved:.1f} epochs of what an "
        "epoch saves beside the loop that decodes",
    ]
    if not off <= TOLERANCE:
        notes.append(f"WARNING: losses from float32 activations are off by {off:.1e}")
    return notes


def _accuracy(folder: Path, asked: argparse.Namespace) -> dict[str, object]:
    """Both loops on digits, from the solved head, seed by seed."""
    found, losses = list[tuple[np.ndarray, np.ndarray]](), list[tuple[float, float]]()
    for seed in range(asked.seeds):
        own = folder / str(seed)
        own.mkdir()
        rows = make_digits(own, seed, asked.digits)
        job = Job(
            ACCURACY.network,
            ACCURACY.weights,
            ACCURACY.depth,
            96,
            own,
            10,
            rows,
            asked.batch_size,
            asked.digit_epochs,
            asked.rate,
            seed,
        )
        apart(prepare, job)
        apart(solve_head, job)
        ours, theirs = apart(cached, job, "float16"), apart(usual, job, decoding=False)
        found.append((ours.right, theirs.right))
        losses.append((ours.losses[-1], theirs.losses[-1]))
    own, peer = (np.array([pair[i].mean() for pair in found]) for i in (0, 1))
    difference = own - peer
    error = difference.std(ddof=1) / np.sqrt(len(own)) if len(own) > 1 else float("nan")
    changed = [int((a != b).sum()) for a, b in found]
    print(f"accuracy: {ACCURACY.title}, {len(found[0][0])} tested, {asked.seeds} seeds")
    print(f"  featcache, float16 cache      {_percents(own)}")
    print(f"  usual loop, float32 pixels    {_percents(peer)}")
    print(
        f"  - paired difference {100 * difference.mean():+.2f} points, standard error "
        f"{100 * error:.2f}; pictures judged otherwise: {', '.join(map(str, changed))}\n",
        flush=True,
    )
    return {
        "name": ACCURACY.title,
        "featcache": own.tolist(),
        "usual": peer.tolist(),
        "judged_otherwise": changed,
        "last_losses": losses,
    }


def _percents(values: np.ndarray) -> str:
    return " ".join(f"{100 * value:6.2f}" for value in values)


def make_pictures(folder: Path, count: int) -> None:
    """JPEG files in class folders: crops of two photographs, tinted by class."""
    from sklearn.datasets import load_sample_images

    photos = [Image.fromarray(array) for array in load_sample_images().images]
    rng = np.random.default_rng(0)
    tints = rng.uniform(0.5, 1.0, (CLASSES, 3))
    targets = np.arange(count) % CLASSES
    np.save(folder / "targets.npy", targets)
    for number, target in enumerate(targets):
        photo = photos[number % 2]
        left, top = (int(rng.integers(0, side // 4)) for side in photo.size)
        box = (left, top, left + 3 * photo.width // 4, top + 3 * photo.height // 4)
        crop = np.asarray(photo.crop(box).resize(SIDES)) * tints[target]
        stream = io.BytesIO()
        Image.fromarray(crop.astype(np.uint8)).save(stream, "JPEG", quality=90)
        path = folder / "pictures" / f"class{target}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(stream.getvalue())


def make_digits(folder: Path, seed: int, count: int | None) -> int:
    """Digits at 96 pixels as the network takes them, shuffled; 70% are to train on."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.default_rng(seed).permutation(len(bunch.target))[:count]
    np.save(folder / "targets.npy", bunch.target[order].astype(np.int64))
    enlarged = [
        np.asarray(Image.fromarray(picture.astype(np.float32)).resize((96, 96), Image.BICUBIC))
        for picture in bunch.images[order]
    ]
    gray = (np.stack(enlarged) / 8 - 1).astype(np.float32)  # mean and std of 0.5
    np.save(folder / "pixels.npy", np.repeat(gray[:, None], 3, axis=1))
    return round(0.7 * len(order))


def _off(run: Run, reference: Run) -> float:
    ours, theirs = np.array(run.losses), np.array(reference.losses)
    return float(np.max(np.abs(ours - theirs) / np.abs(theirs)))


def _print(result: Result, job: Job) -> None:
    runs = result.runs
    first, reference = runs["featcache, float16 cache"], runs["usual loop, pixels in memory"]
    print(f"{result.title}, batches of {job.batch_size}\n{HEADER}")
    for name, run in runs.items():
        off = "" if name.startswith("fastai") or run is reference else f"{_off(run, reference):.1e}"
        peak = "" if run.usage.peak is None else f"{run.usage.peak / 1e6:.0f}"
        print(
            f"{name:<34}{1000 * run.step:>11.0f}{job.batch_size / run.step:>12.1f}"
            f"{run.step / first.step:>8.1f}{len(run.seconds):>7}{off:>13}{peak:>9}"
        )
    for note in result.notes:
        print(f"  - {note}")
    print(flush=True)


def _side_record(name: str, run: Run) -> dict[str, object]:
    return {
        "name": name,
        "seconds_a_step": run.step,
        "seconds": run.seconds,
        "losses": run.losses,
        "usage": asdict(run.usage),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=_names, default=tuple(ROWS), help="of the table, or `all`")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    parser.add_argument("--folder", type=Path, help="of temporary files")
    parser.add_argument("--pictures", type=count, default=128, help="that are trained on")
    parser.add_argument("--epochs", type=count, default=5, help="over them")
    parser.add_argument("--batch-size", type=count, default=32, help="pictures a step")
    parser.add_argument("--image-size", type=count, default=224, help="side in pixels")
    parser.add_argument("--rate", type=float, default=1e-4, help="of AdamW")
    parser.add_argument("--seeds", type=count, default=5, help="of the row `accuracy`")
    parser.add_argument("--digits", type=count, help="of the row `accuracy`; all 1,797 if left out")
    parser.add_argument("--digit-epochs", type=count, default=12, help="of the row `accuracy`")
    return parser.parse_args()


def _options(asked: argparse.Namespace) -> dict[str, object]:
    return {k: str(v) if isinstance(v, Path) else v for k, v in vars(asked).items()}


def _names(text: str) -> tuple[str, ...]:
    known = (*ROWS, "accuracy")
    names = known if text == "all" else tuple(text.split(","))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"no row {unknown[0]!r}; give some of {', '.join(known)}")
    return names


if __name__ == "__main__":
    main()

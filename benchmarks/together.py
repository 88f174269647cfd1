"""What one pass over the pictures saves where several backbones are extracted.

Prints seconds of `extract` for each backbone in turn and of `extract_each` for all, each in a
process of its own, and the ratio; on pictures of 500 pixels and of 12 megapixels, where decoding
weighs more.

    python benchmarks/together.py [--rows pets,phones] [--backbones a,b,c] [--pictures FOLDER]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from extract_pictures import PETS, PHONES, PictureSet, make_pictures, take
from measuring import Gauge, apart

BACKBONES = "timm/test_resnet,mobilenet_v3_large,efficientnet_lite0"
"""Light ones: of heavy ones the forward pass decides, and decoding is a small part."""

ROWS: dict[str, tuple[PictureSet, int]] = {"pets": (PETS, 200), "phones": (PHONES, 40)}


def extracted(
    pictures: Path, backbones: str, out: Path, *, together: bool
) -> tuple[float, float, int]:
    """Seconds, CPU seconds, and bytes of the largest that the process was."""
    from featcache.api import extract, extract_each

    with Gauge() as gauge:
        options = {"weights": "random", "engine": "torch"}
        if together:
            extract_each(pictures, backbone=backbones, out=out, **options)
        else:
            for name in backbones.split(","):
                extract(pictures, backbone=name, out=out / name, **options)
    return gauge.seconds, gauge.cpu, gauge.peak or 0


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="pets,phones")
    parser.add_argument("--backbones", default=BACKBONES)
    parser.add_argument("--pictures", type=Path, default=Path("bench-pictures"))
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    for row in arguments.rows.split(","):
        kind, count = ROWS[row]
        make_pictures(arguments.pictures, kind, count)
        for _ in range(arguments.repeats):
            with tempfile.TemporaryDirectory() as folder:
                some = take(arguments.pictures, kind, count, Path(folder, "some"))
                alone, together = (
                    apart(extracted, some, arguments.backbones, Path(folder, name), together=shared)
                    for name, shared in (("alone", False), ("together", True))
                )
            print(
                f"{row}, {count} pictures, {arguments.backbones}: "
                f"in turn {_told(*alone)}, in one pass {_told(*together)}: "
                f"{alone[0] / together[0]:.2f}x, CPU {alone[1] / together[1]:.2f}x",
                flush=True,
            )


def _told(seconds: float, cpu: float, peak: int) -> str:
    return f"{seconds:.1f} s (CPU {cpu:.1f} s, {peak / 1e6:.0f} MB)"


if __name__ == "__main__":
    main()

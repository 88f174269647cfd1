"""Ten lines that use an exported classifier without featcache, with its own preprocessing."""

from __future__ import annotations

import json

from featcache.export.whole import Input
from featcache.images.transforms import mean_colour
from featcache.recipe import Preprocessing

_LOADING = {
    "onnx": """\
import json, numpy as np, onnxruntime
from PIL import Image, ImageOps

model = onnxruntime.InferenceSession({file})
classes = json.loads(model.get_modelmeta().custom_metadata_map["classes"])
""",
    "torchscript": """\
import json, numpy as np, torch
from PIL import Image, ImageOps

said = {{"featcache.json": ""}}
model = torch.jit.load({file}, _extra_files=said)
classes = json.loads(said["featcache.json"])["classes"]
""",
    "pt2": """\
import json, numpy as np, torch
from PIL import Image, ImageOps

said = {{"featcache.json": ""}}
model = torch.export.load({file}, extra_files=said).module()
classes = json.loads(said["featcache.json"])["classes"]
""",
}

_SIZES = {
    "shorter": "width, height = (int({0} * n / min(image.size)) for n in image.size)",
    "longer": "width, height = (round({0} * n / max(image.size)) for n in image.size)",
    "exact": "width, height = {1}, {0}",
}

_RUNNING = {
    "onnx": 'probabilities = model.run(["probabilities"], {"pixels": pixels})[0][0].tolist()\n',
    "torch": "with torch.no_grad(): probabilities = model(torch.from_numpy(pixels))[0].tolist()\n",
}


def example_of(file: str, kind: str, preprocessing: Preprocessing, takes: Input) -> str:
    """Python that labels `photo.jpg`.

    Args:
        file: the exported one.
        kind: its format.
        preprocessing: of the recipe.
        takes: what the file takes.
    """
    running = _RUNNING["onnx" if kind == "onnx" else "torch"]
    shown = "print(sorted(zip(probabilities, classes), reverse=True)[:3])\n"
    pixels = _pillow(preprocessing) + _scaled(preprocessing, takes)
    return _LOADING[kind].format(file=json.dumps(file)) + pixels + running + shown


def _pillow(preprocessing: Preprocessing) -> str:
    """Resize and crop, as `images.transforms` does for photos."""
    height, width = preprocessing.size
    sizes = _SIZES[preprocessing.resize_mode].format(*preprocessing.resize)
    filter_ = f"Image.Resampling.{preprocessing.interpolation.upper()}"
    code = (
        'image = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")\n'
        f"{sizes}\n"
        f"image = image.resize((width, height), {filter_})\n"
    )
    if preprocessing.resize_mode == "longer":
        return code + (
            f'part = Image.new("RGB", ({width}, {height}), {mean_colour(preprocessing)})\n'
            f"part.paste(image, (({width} - width) // 2, ({height} - height) // 2))\n"
            "pixels = np.array(part)[None]\n"
        )
    return code + (
        f"left, top = round((width - {width}) / 2), round((height - {height}) / 2)\n"
        f"pixels = np.array(image.crop((left, top, left + {width}, top + {height})))[None]\n"
    )


def _scaled(preprocessing: Preprocessing, takes: Input) -> str:
    if takes == "uint8":
        return ""
    mean, std = list(preprocessing.mean), list(preprocessing.std)
    return (
        f"pixels = (pixels / 255 - {mean}) / {std}\n"
        "pixels = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32)\n"
    )

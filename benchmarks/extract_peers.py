"""What people install, for `extract.py`, each used as its own documentation does.

Each gets the network with the same weights. Every function here is called in a process of its own;
a package is imported before the clock starts. What is not installed is left out of the table:

    pip install fastai img2vec-pytorch

thingsvision 2.7 asks for torchvision 0.15, which excludes the torch that featcache needs. It runs
beside that torch where this is upgraded afterwards; on Linux packages of CUDA 11 stand in its way:

    pip install thingsvision && pip install -U "torch>=2.6" "torchvision>=0.21"
    pip list | grep -o "nvidia-.*-cu11" | xargs pip uninstall -y
    pip install --force-reinstall --no-deps nvidia-nccl-cu13
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path

from extract_networks import BATCH, load, transform
from extract_sides import Job, Run, keep
from measuring import WORKERS_START, Gauge


def fastai(job: Job) -> Run:
    """A learner's `get_preds` of the folder, with fastai's own crop and its default loader."""
    import multiprocessing

    multiprocessing.set_start_method(WORKERS_START, force=True)  # its loader asks for no other
    from fastai.vision.all import (  # pyright: ignore[reportMissingImports]
        CrossEntropyLossFlat,
        ImageDataLoaders,
        Learner,
        Normalize,
        Resize,
        get_image_files,
        imagenet_stats,
        noop,
    )

    with Gauge() as gauge:
        loaders = ImageDataLoaders.from_folder(
            job.pictures,
            valid_pct=0.5,
            item_tfms=Resize(224),
            batch_tfms=Normalize.from_stats(*imagenet_stats, cuda=False),
            device="cpu",
        )
        model = load(job.network, job.weights)
        learner = Learner(loaders, model, loss_func=CrossEntropyLossFlat())
        batches = loaders.test_dl(get_image_files(job.pictures))
        with learner.no_bar(), learner.no_logging():
            features, _ = learner.get_preds(dl=batches, act=noop)
    return Run(len(features), gauge.usage, f"{batches.fake_l.num_workers} workers, its own crop")


def img2vec(job: Job) -> Run:
    """`Img2Vec.get_vec` of lists of pictures, which it squeezes to 224 x 224."""
    _pretend_downloaded(job)
    from img2vec_pytorch import Img2Vec  # pyright: ignore[reportMissingImports]
    from PIL import Image

    paths = sorted(job.pictures.rglob("*.jpg"))
    with Gauge() as gauge:
        model = Img2Vec(model=job.network.name)
        count = 0
        for start in range(0, len(paths), BATCH):
            pictures = [Image.open(path).convert("RGB") for path in paths[start : start + BATCH]]
            count += len(model.get_vec(pictures))
    return Run(count, gauge.usage, "lists of 32, its own resize")


def thingsvision(job: Job) -> Run:
    """`extract_features` of its `ImageDataset`, with the network's published transform."""
    from thingsvision import get_extractor_from_model  # pyright: ignore[reportMissingImports]
    from thingsvision.utils.data import DataLoader, ImageDataset  # pyright: ignore[reportMissingImports]

    with Gauge() as gauge, contextlib.redirect_stdout(io.StringIO()):
        model = load(job.network, job.weights)
        extractor = get_extractor_from_model(
            model=model, device="cpu", backend="pt", preprocess=transform(job.network, model)
        )
        dataset = ImageDataset(
            root=str(job.pictures),
            out_path=str(job.folder / "thingsvision"),
            backend=extractor.get_backend(),
            transforms=extractor.get_transformations(),
        )
        batches = DataLoader(dataset=dataset, batch_size=BATCH, backend=extractor.get_backend())
        features = extractor.extract_features(
            batches=batches,
            module_name=job.network.head,
            flatten_acts=True,
            output_type="ndarray",
        )
    listed = (job.folder / "thingsvision" / "file_names.txt").read_text().splitlines()
    paths = [Path(path).relative_to(job.pictures).as_posix() for path in listed]
    return Run(len(features), gauge.usage, "no workers", keep(job, "thingsvision", paths, features))


PEERS: dict[str, tuple[str, Callable[[Job], Run]]] = {
    "fastai get_preds": ("fastai", fastai),
    "img2vec-pytorch get_vec": ("img2vec_pytorch", img2vec),
    "thingsvision extract_features": ("thingsvision", thingsvision),
}
"""By what is printed: the module that has to be there, and the side."""

_ONLY = {"img2vec_pytorch": ("resnet50",)}
"""Networks a package has, where it takes none of one's own."""


def why_not(job: Job, module: str) -> str | None:
    """Why a package cannot be measured on a network, if so; in a process of its own."""
    if not importlib.util.find_spec(module):
        return "not installed"
    if job.key not in _ONLY.get(module, (job.key,)):
        return f"it has no {job.network.title}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            importlib.import_module(module)
        except Exception as error:  # noqa: BLE001 - beside other versions it can raise anything
            why = f"{type(error).__name__}: {error}".partition("\n")[0]
            return f"installed, but its import fails: {why}"
    return None


def _pretend_downloaded(job: Job) -> None:
    """Lay the weights where torchvision keeps what it has downloaded, under the published name."""
    import torch
    import torchvision
    from safetensors.torch import load_file

    home = job.folder / "torch-home"
    url = torchvision.models.get_model_weights(job.network.name)["DEFAULT"].url
    place = home / "hub" / "checkpoints" / url.rpartition("/")[2]
    place.parent.mkdir(parents=True, exist_ok=True)
    torch.save(load_file(job.weights), place)
    os.environ["TORCH_HOME"] = str(home)

"""Whether published weights can be fetched, found out in seconds.

timm and torchvision download by themselves, but without a network the one retries for a minute and
the other may wait for minutes. What is already on this machine is used without asking; what is not
is looked up once, with a short time limit, before the library is let at it.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import huggingface_hub
import torch

from featcache.errors import WeightsError

TIMEOUT = 10.0
"""Seconds to wait for the first answer of a server."""

_HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # in the order timm looks for them


def no_weights(name: str, happened: str, url: str | None = None) -> WeightsError:
    """The error for a network whose published weights are not to be had, with what can be done."""
    where = f" (published at {url})" if url else ""
    return WeightsError(
        f"{name}: {happened}. Give a file you have{where} with --weights FILE, an untrained "
        "network with --weights random, or use --backbone efficientnet_lite0, whose weights are "
        "installed"
    )


def require_reachable(name: str, url: str) -> None:
    """Ask for a file's head once.

    Raises:
        WeightsError: the server does not answer; it names the URL and the other options.
    """
    request = urllib.request.Request(url, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=TIMEOUT).close()
    except urllib.error.HTTPError:
        return  # it answers; whether it has the file is for the library to find out
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise no_weights(name, f"the weights could not be fetched ({reason})", url) from error


def hub_copy(hub_id: str) -> Path | None:
    """The weights file of a Hugging Face repository ("owner/name[@revision]"), if downloaded."""
    repository, _, revision = hub_id.partition("@")
    for filename in _HUB_FILES:
        found = huggingface_hub.try_to_load_from_cache(
            repository, filename, revision=revision or None
        )
        if isinstance(found, str):
            return Path(found)
    return None


def hub_url(hub_id: str) -> str:
    """Where the Hub serves the weights file of a repository."""
    repository, _, revision = hub_id.partition("@")
    return huggingface_hub.hf_hub_url(repository, _HUB_FILES[0], revision=revision or None)


def is_downloaded(url: str) -> bool:
    """Whether torch's download folder holds the file of a URL."""
    filename = PurePosixPath(urlsplit(url).path).name
    return (Path(torch.hub.get_dir()) / "checkpoints" / filename).is_file()

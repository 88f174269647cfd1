"""The routes: a page, what is served, and what the classifier says of pictures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from featcache.api.predicting import prediction_of
from featcache.api.requests import PathLike, PredictRequest
from featcache.classifier.joined import load_classifier
from featcache.results import Prediction
from featcache.serve.answering import answer, refusal
from featcache.serve.guarding import Guard, names_of
from featcache.serve.uploads import uploaded

MOST_BYTES = 32_000_000
"""Of a request, unless another limit is given."""

_SLOTS = 8
"""Requests whose pictures are in memory at once."""

_PATIENCE = 30.0
"""Seconds that a request waits for one of the slots; until then nothing of it is read."""

_SECONDS = 60.0
"""That a request may take to send its pictures."""

_PAGE = Path(__file__).parent / "page"


class _Service:
    """A loaded classifier, and the one thread that runs it.

    Args:
        path: a .fc file.
        device: where it runs.
        most: bytes of a request.
        backbone, weights: see `PredictRequest`.
    """

    def __init__(
        self, path: Path, device: str, most: int, backbone: str | None, weights: PathLike | None
    ) -> None:
        self._path, self._most = path, most
        self._classifier = load_classifier(path, backbone=backbone, weights=weights)
        self._engine = self._classifier.engine("torch", device)
        self._worker = ThreadPoolExecutor(1, "classifier")
        self._slots = asyncio.Semaphore(_SLOTS)
        self._worker.submit(self._warm).result()

    def _warm(self) -> None:
        """One forward pass, so that what cannot run is known before anyone asks."""
        with self._engine:
            self._engine.run(
                np.zeros((1, *self._classifier.recipe.preprocessing.size, 3), np.uint8)
            )

    async def predict(self, request: Request) -> Response:
        """Predictions of the pictures that were sent, as `featcache predict --json` gives them."""
        asked = self._asked(request)
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._slots.acquire()
        except TimeoutError:
            return refusal(503, "busy: try again in a moment")
        try:
            return await self._answered(request, asked)
        finally:
            self._slots.release()

    async def _answered(self, request: Request, asked: PredictRequest) -> Response:
        try:
            async with asyncio.timeout(_SECONDS):
                pictures = await uploaded(request, self._most)
        except TimeoutError:
            return refusal(408, f"the pictures did not come within {_SECONDS:.0f} s")
        except ClientDisconnect:
            return Response(status_code=400)
        found = [await self._said(name, content, asked) for name, content in pictures]
        readable = any(prediction.error is None for prediction in found)
        return answer([prediction.to_json() for prediction in found], 200 if readable else 422)

    def _asked(self, request: Request) -> PredictRequest:
        top = request.query_params.get("top", str(len(self._classifier.classes)))
        if not (top.isdecimal() and len(top) < 10 and int(top)):
            raise HTTPException(400, "top: give how many classes to list, at least 1")
        return PredictRequest(self._path, (), top=int(top))

    async def _said(self, name: str, content: bytes, asked: PredictRequest) -> Prediction:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._worker, self._say, name, content, asked)

    def _say(self, name: str, content: bytes, asked: PredictRequest) -> Prediction:
        said = self._classifier.answer(self._engine, name, content)
        return prediction_of(said, self._classifier, asked)

    async def info(self, request: Request) -> Response:
        """What is served."""
        content = self._classifier.content
        return answer(
            {
                "classifier": self._path.name,
                "classes": list(self._classifier.classes),
                "multi_label": content.head.multi_label,
                "backbone": content.backbone["name"],
                "size": list(self._classifier.recipe.preprocessing.size),
                "estimate": content.measured.get("estimate"),
                "most_bytes": self._most,
                "featcache": version("featcache"),
            }
        )

    async def health(self, request: Request) -> Response:
        """That it answers."""
        return answer({"status": "ok"})

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncGenerator[None, None]:
        """Until it ends; what waits then is given up."""
        yield
        self._worker.shutdown(wait=False, cancel_futures=True)


def classifier_app(
    classifier: PathLike,
    *,
    host: str = "127.0.0.1",
    allow_hosts: Iterable[str] = (),
    most_bytes: int = MOST_BYTES,
    device: str = "auto",
    backbone: str | None = None,
    weights: PathLike | None = None,
) -> Starlette:
    """An ASGI application that serves a classifier: `/`, `/predict`, `/info`, `/health`.

    Args:
        classifier: a .fc file.
        host: that it will be bound to; by which names it may be asked hangs on it.
        allow_hosts: more names that lead to it.
        most_bytes: of a request.
        device: "auto" or a name.
        backbone: `package.module:factory`, to vouch for the code of a network of one's own.
        weights: the backbone's, where the file that the classifier names is gone.

    Raises:
        ClassifierError, BackboneError, EngineError: the classifier cannot be used.
    """
    service = _Service(Path(classifier), device, most_bytes, backbone, weights)
    pages = [
        Route(path, _static(name))
        for path, name in (("/", "page.html"), ("/page.css", "page.css"), ("/page.js", "page.js"))
    ]
    return Starlette(
        routes=[
            *pages,
            Route("/predict", service.predict, methods=["POST"]),
            Route("/info", service.info),
            Route("/health", service.health),
        ],
        middleware=[Middleware(Guard, names=names_of(host, allow_hosts))],
        exception_handlers={HTTPException: _refused, Exception: _failed},
        lifespan=service.lifespan,
    )


def _static(name: str) -> Any:
    async def give(request: Request) -> Response:
        return FileResponse(_PAGE / name)

    return give


async def _refused(request: Request, error: Exception) -> Response:
    """Every refusal as JSON."""
    if not isinstance(error, HTTPException):
        raise error
    return refusal(error.status_code, error.detail)


async def _failed(request: Request, error: Exception) -> Response:
    """What nobody foresaw is told where the server runs, not to whoever asks."""
    return refusal(500, "the server failed; where it runs it says why")

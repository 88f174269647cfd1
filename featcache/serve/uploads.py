"""What a request sends: bytes of one picture, or a form of several; in memory, and bounded."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

MOST_FILES = 64
"""Of one form."""

_UNNAMED = "picture"


class _InMemory(MultiPartParser):
    """Never rolls a file over to disk; the stream it reads is bounded."""

    spool_max_size = 0


async def uploaded(request: Request, most: int) -> list[tuple[str, bytes]]:
    """Names and bytes of the pictures that a request sends.

    Args:
        request: a multipart form, or the bytes of one picture.
        most: bytes, of all together.

    Raises:
        HTTPException: 413 too many bytes, 400 no form or no picture in it.
    """
    stream = _bounded(request, most)
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        return [(_UNNAMED, b"".join([chunk async for chunk in stream]))]
    try:
        parser = _InMemory(request.headers, stream, max_files=MOST_FILES, max_fields=MOST_FILES)
        form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(400, f"the form cannot be read: {error.message}") from error
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    found = [(file.filename or _UNNAMED, await file.read()) for file in files]
    await form.close()
    if not found:
        raise HTTPException(400, "the form has no file; send one or more, in fields of any name")
    return found


async def _bounded(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    """The request's bytes; what it says beforehand is believed only where it is too much."""
    declared, seen = request.headers.get("content-length", ""), 0
    if declared.isdecimal() and int(declared) > most:
        raise _too_large(most)
    async for chunk in request.stream():
        seen += len(chunk)
        if seen > most:
            raise _too_large(most)
        yield chunk


def _too_large(most: int) -> HTTPException:
    return HTTPException(413, f"too large: at most {most / 1e6:.0f} MB a request are taken")

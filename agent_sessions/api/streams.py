"""Answers that are written while they are read: JSON Lines and server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import StreamingHttpResponse
from rest_framework.request import Request

PIECE_BYTES = 64 * 1024


def is_async(request: Request) -> bool:
    """Tell whether an asynchronous server asks."""
    return isinstance(request._request, ASGIRequest)


def lines_response(
    request: Request, pieces: Iterable[bytes], filename: str
) -> StreamingHttpResponse:
    """Return JSON Lines to be saved under a name, in flat memory under WSGI and ASGI."""
    large = _gathered(pieces)
    return StreamingHttpResponse(
        _awaited(large) if is_async(request) else large,
        content_type="application/x-ndjson",
        headers={"Content-Disposition": f'attachment; filename="{filename}"'},
    )


def _gathered(pieces: Iterable[bytes]) -> Iterator[bytes]:
    waiting = bytearray()
    for piece in pieces:
        waiting += piece
        if len(waiting) >= PIECE_BYTES:
            yield bytes(waiting)
            waiting.clear()
    if waiting:
        yield bytes(waiting)


async def _awaited(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    # Given the plain iterator, Django would read it to its end before it sends a byte.
    def following() -> bytes:
        return next(pieces, b"")

    while piece := await sync_to_async(following)():
        yield piece

"""Long answers as they are read, under WSGI and ASGI alike."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, StreamingHttpResponse


def ndjson_response(
    request: HttpRequest, pieces: Iterator[bytes], filename: str
) -> StreamingHttpResponse:
    """Return the pieces as a download of JSON Lines, read while the client takes them."""
    # Under ASGI Django would first read a synchronous iterator to its end, into memory.
    body = _awaited(pieces) if isinstance(request, ASGIRequest) else pieces
    response = StreamingHttpResponse(body, content_type="application/x-ndjson")
    response["Content-Disposition"] = f'attachment; filename="{filename}"'
    response["X-Accel-Buffering"] = "no"
    return response


async def _awaited(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (piece := await sync_to_async(_gather)(pieces)) is not None:
        yield piece


def _gather(pieces: Iterator[bytes], size: int = 64 * 1024) -> bytes | None:
    """Return the next pieces together: a change of thread costs more than most of them."""
    gathered = bytearray()
    for piece in pieces:
        gathered += piece
        if len(gathered) >= size:
            break
    return bytes(gathered) or None

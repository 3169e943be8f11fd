"""Streams downloads of JSON Lines while the client reads them, under WSGI and ASGI."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, StreamingHttpResponse

_CHUNK_BYTES = 64 * 1024


def ndjson_response(
    request: HttpRequest, pieces: Iterator[bytes], filename: str
) -> StreamingHttpResponse:
    """Return ``pieces`` as a download named ``filename``, in bounded memory."""
    # Under ASGI Django would read a synchronous iterator to its end before it sends a byte.
    body = _async_chunks(pieces) if isinstance(request, ASGIRequest) else _chunks(pieces)
    return StreamingHttpResponse(
        body,
        content_type="application/x-ndjson",
        # Proxies may buffer it: under WSGI a client that reads slowly would hold a thread.
        headers={"Content-Disposition": f'attachment; filename="{filename}"'},
    )


def _chunks(pieces: Iterator[bytes]) -> Iterator[bytes]:
    while chunk := _next_chunk(pieces):
        yield chunk


async def _async_chunks(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    while chunk := await sync_to_async(_next_chunk)(pieces):
        yield chunk


def _next_chunk(pieces: Iterator[bytes]) -> bytes:
    """Return the next pieces joined, because each change of thread and each write is costly."""
    chunk = bytearray()
    for piece in pieces:
        chunk += piece
        if len(chunk) >= _CHUNK_BYTES:
            break
    return bytes(chunk)

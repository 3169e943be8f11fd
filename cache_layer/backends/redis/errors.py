"""Which exceptions mean that Redis cannot be used, as opposed to one refused command."""

from __future__ import annotations

from typing import Final

#: Replies that say so in words: any further command, or any further write, would get the same.
_PREFIXES: Final = (
    "BUSY ",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "NOAUTH",
    "NOPERM",
    "NOREPLICAS",
    "OOM",
    "READONLY",
    "TRYAGAIN",
    "WRONGPASS",
)


class RedisUnavailableError(Exception):
    """Redis cannot be used now.

    ``decisive``: it is not worth asking again before a probe has found it healthy.
    """

    def __init__(self, reason: str, *, decisive: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.decisive = decisive


class CircuitOpenError(RedisUnavailableError):
    """The circuit opened while the call waited for a connection; Redis was not asked."""

    def __init__(self) -> None:
        super().__init__("the circuit is open", decisive=False)


def as_unavailable(error: BaseException) -> RedisUnavailableError | None:
    """Return what an exception of the client means, or None when it concerns one command only."""
    from redis import exceptions

    from cache_layer.backends.redis.handshake import ClusterNodeError, OtherServerError

    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, exceptions.TimeoutError | TimeoutError):
        return RedisUnavailableError(reason, decisive=True)
    if isinstance(error, exceptions.ResponseError):
        outages = (
            exceptions.OutOfMemoryError,
            exceptions.ReadOnlyError,
            exceptions.NoPermissionError,
            exceptions.ClusterDownError,
            exceptions.MovedError,
            exceptions.AskError,
            exceptions.TryAgainError,
            exceptions.AuthenticationWrongNumberOfArgsError,
        )
        # An older server wraps what a script ran into: "Error running script ...: -OOM command".
        text = str(error)
        if (
            isinstance(error, outages)
            or text.startswith(_PREFIXES)
            or any(f"-{prefix}" in text for prefix in _PREFIXES)
        ):
            return RedisUnavailableError(reason, decisive=True)
        return None
    if isinstance(
        error,
        exceptions.AuthenticationError
        | exceptions.AuthorizationError
        | ClusterNodeError
        | OtherServerError,
    ):
        return RedisUnavailableError(reason, decisive=True)
    if isinstance(
        error,
        exceptions.ConnectionError
        | exceptions.InvalidResponse
        | exceptions.RedisClusterException
        | OSError,
    ):
        return RedisUnavailableError(reason, decisive=False)
    return None


class _Translated:
    """Raises what exceptions of the client mean in their place, where they mean anything.

    Not made by ``contextlib``, because it stands around every command.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: object
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, RedisUnavailableError):
            unavailable = as_unavailable(error)
            if unavailable is not None:
                raise unavailable from error


translated: Final = _Translated()

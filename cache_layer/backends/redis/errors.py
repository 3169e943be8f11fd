"""Classifies errors of Redis and its client: an outage, a refusal, or a wrong key."""

from __future__ import annotations

import enum
from typing import Final, TypeVar

from cache_layer.backends.operations.base import Operation, Refusal
from cache_layer.exceptions import CommandRefusedError

T = TypeVar("T")

#: Replies that any further command, or any further write, would get too.
_OUTAGES: Final = (
    "BUSY ",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "NOAUTH",
    "NOREPLICAS",
    "OOM",
    "READONLY",
    "TRYAGAIN",
    "WRONGPASS",
)

#: Replies to a command that was right, about what a key holds or about a value.
_OF_KEYS: Final = (
    "WRONGTYPE",
    "against a key holding the wrong kind of value",
    "exceeds maximum",
    "is not an integer",
    "no such key",
    "No such client",
    "would overflow",
)

#: Replies of scripts that ran into a command which they may not use.
_FORBIDDEN_IN_SCRIPTS: Final = ("ACL failure", "can't run this command", "NOPERM", "nknown Redis")


class Meaning(enum.Enum):
    """The meaning of an error reply."""

    OUTAGE = "Redis cannot be used"
    REFUSED = "Redis does not do this command"
    KEY = "the command does not fit what the key holds"


class RedisUnavailableError(Exception):
    """Redis cannot be used now.

    Args:
        reason: The cause, for the log.
        decisive: Whether the circuit opens at once, until probes find Redis healthy.
    """

    def __init__(self, reason: str, *, decisive: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.decisive = decisive


class WrongServerError(Exception):
    """The server answers, but is not one that this cache may use."""


class CircuitOpenError(RedisUnavailableError):
    """The circuit opened while the call waited for a connection; Redis was not asked."""

    def __init__(self) -> None:
        super().__init__("the circuit is open", decisive=False)


def meaning(error: Exception) -> Meaning:
    """Return the meaning of an error reply of Redis.

    A reply of no known kind counts as a refusal: the operation decides what that means.
    """
    from redis import exceptions

    text = str(error)
    if isinstance(
        error,
        exceptions.OutOfMemoryError
        | exceptions.ReadOnlyError
        | exceptions.ClusterDownError
        | exceptions.MovedError
        | exceptions.AskError
        | exceptions.TryAgainError
        | exceptions.AuthenticationWrongNumberOfArgsError,
    ) or text.startswith(_OUTAGES):
        return Meaning.OUTAGE
    if "user_script" in text or "f_" in text:
        # An older server wraps what a script ran into: "Error running script ...: -OOM command".
        if any(f"-{prefix}" in text for prefix in _OUTAGES):
            return Meaning.OUTAGE
        # Otherwise the script found a key that the cache did not write.
        forbidden = any(part in text for part in _FORBIDDEN_IN_SCRIPTS)
        return Meaning.REFUSED if forbidden else Meaning.KEY
    return Meaning.KEY if any(part in text for part in _OF_KEYS) else Meaning.REFUSED


def is_refusal(reply: object) -> bool:
    """Return whether a reply is a refusal of the command."""
    from redis.exceptions import ResponseError

    return isinstance(reply, ResponseError) and meaning(reply) is Meaning.REFUSED


def raise_refusal(operation: Operation[T], reply: Exception) -> None:
    """Raise the exception for an error reply to an operation.

    Nothing is raised if the operation handles the reply itself.

    Raises:
        RedisUnavailableError: Redis cannot be used, or the operation cannot do without.
        CommandRefusedError: The operation is refused for good.
    """
    found = meaning(reply)
    if found is Meaning.KEY or (found is Meaning.REFUSED and operation.refusal is Refusal.PASSED):
        return
    reason = f"{type(reply).__name__}: {reply}"
    if found is Meaning.REFUSED and operation.refusal is Refusal.ERROR:
        raise CommandRefusedError(
            f"Redis refuses a command that this takes ({reason}). Allow it to the user of this "
            "cache, or do without."
        ) from reply
    raise RedisUnavailableError(reason, decisive=True) from reply


def as_unavailable(error: BaseException) -> RedisUnavailableError | None:
    """Return the outage that an exception of the client means; None if it is about one command."""
    from redis import exceptions

    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, exceptions.TimeoutError | TimeoutError):
        return RedisUnavailableError(reason, decisive=True)
    if isinstance(error, exceptions.ResponseError):
        if meaning(error) is Meaning.KEY:
            return None
        return RedisUnavailableError(reason, decisive=True)
    if isinstance(
        error,
        exceptions.AuthenticationError | exceptions.AuthorizationError | WrongServerError,
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


def raise_outage(error: Exception) -> None:
    """Raise the outage that an exception of the client means; return if it is about one command.

    Raises:
        RedisUnavailableError: Redis cannot be used.
    """
    if not isinstance(error, RedisUnavailableError) and (outage := as_unavailable(error)):
        raise outage from error

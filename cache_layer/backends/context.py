"""What operations share: whose they are, how values are encoded, which keys belong to the alias."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any, Final

from cache_layer.backends.encoding import Codec
from cache_layer.exceptions import CacheLayerError
from cache_layer.globs import escape_glob

KeyFunction = Callable[[str, str, int], str]

_KEY_PLACE: Final = "cache-layer-place-of-the-key"
_VERSION_PLACE: Final = 918273645546


@dataclasses.dataclass(frozen=True, slots=True)
class Lease:
    """The right to store the value of one key, until the key is invalidated or it runs out.

    ``owner`` is True for the one caller that placed it; others who miss meanwhile share the token.
    """

    token: bytes
    owner: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Keyspace:
    """All keys of an alias: its key prefix, every version."""

    pattern: str
    expression: bytes

    def owns(self, key: bytes) -> bool:
        """Tell whether a key that matches the pattern belongs to this alias.

        With the prefix ``app``, the pattern also finds the keys of an alias whose prefix is
        ``app:sessions``.
        """
        return re.match(self.expression, key, re.DOTALL) is not None

    @classmethod
    def of(cls, key_func: KeyFunction, prefix: str, version: int) -> Keyspace | None:
        """Derive it from a key function; None when that hides the key (a digest)."""
        before, found, after = key_func(_KEY_PLACE, prefix, _VERSION_PLACE).partition(_KEY_PLACE)
        if not found:
            return None
        pattern = f"{_spread(before)}*{_spread(after)}"
        versions = rf"(?:-?\d+|{re.escape(str(version))})"
        expression = "(?s:.*)".join(
            versions.join(map(re.escape, part.split(str(_VERSION_PLACE))))
            for part in (before, after)
        )
        return cls(pattern, expression.encode("utf-8", "surrogatepass") + rb"\Z")


def _spread(template: str) -> str:
    return "*".join(map(escape_glob, template.split(str(_VERSION_PLACE))))


@dataclasses.dataclass(frozen=True, slots=True)
class KeyTemplate:
    """What stands before and after the caller's key in a full key."""

    before: str
    after: str

    @classmethod
    def of(cls, key_func: KeyFunction, prefix: str, version: int) -> KeyTemplate:
        """Derive them from a key function.

        :raises CacheLayerError: the key function hides the key, so keys cannot be listed.
        """
        before, found, after = key_func(_KEY_PLACE, prefix, version).partition(_KEY_PLACE)
        if not found:
            raise CacheLayerError(
                "Keys cannot be listed or deleted by pattern: the KEY_FUNCTION of this cache does "
                "not leave the key as it is. Use one that only puts something before or after it."
            )
        return cls(before, after)

    def pattern(self, pattern: str) -> str:
        """Return the pattern of full keys for a pattern of the caller's keys."""
        return f"{escape_glob(self.before)}{pattern}{escape_glob(self.after)}"

    def strip(self, key: str) -> str:
        """Return the caller's key in a full key."""
        return key[len(self.before) : len(key) - len(self.after)]


@dataclasses.dataclass(frozen=True, slots=True)
class Context:
    """What every operation is given beside its own arguments."""

    #: Under which name its metrics are counted.
    namespace: str
    codec: Codec
    #: What is dropped when the journal cannot remember more; None when keys cannot be listed.
    keyspace: Keyspace | None
    #: Whether a caller's key always stands for the same full key. It does with Django's own key
    #: function; any other may depend on more, such as the tenant of a request.
    steady: bool = False
    #: Whether what is read is kept in this process.
    near: bool = False


def options_of(params: dict[str, Any]) -> dict[str, Any]:
    """Return a ``CACHES`` entry's ``OPTIONS``."""
    return dict(params.get("OPTIONS") or {})

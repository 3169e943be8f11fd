"""The full keys of an alias in Redis, and the keys of tags."""

from __future__ import annotations

import dataclasses
import functools
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any, Final
from urllib.parse import quote

from cache_layer.exceptions import CacheLayerError
from cache_layer.globs import escape_glob, literal_text

KeyFunction = Callable[[str, str, int], str]

_KEY_PLACE: Final = "cache-layer-place-of-the-key"
_VERSION_PLACE: Final = 918273645546
#: Keys that a key function may quote, shorten or digest while it leaves others as they are.
_SPECIAL_KEYS: Final = ("A: *?é", "x" * 1000)

#: The beginning of the key of a tag, after the namespace.
FUNCTION_TAG: Final = "@function:"
TAG: Final = "@tag:"

_LONGEST_TAG: Final = 100
_READABLE_TAG: Final = re.compile(rf"[A-Za-z0-9_./@+~:-]{{1,{_LONGEST_TAG}}}")


@dataclasses.dataclass(frozen=True, slots=True)
class Keyspace:
    """All keys of an alias: its key prefix, every version."""

    pattern: str
    expression: bytes

    @property
    def start(self) -> str:
        """The text that every key begins with, in all versions."""
        return literal_start(self.pattern)

    @property
    def reserved(self) -> str:
        """The text that the keys of the cache layer itself begin with; no caller's key does."""
        return f"{self.start}@cache_layer:"

    def owned(self, keys: Iterable[bytes]) -> list[bytes]:
        """Return those keys that belong to this alias, among keys that match the pattern.

        With the prefix ``app``, the pattern also finds the keys of an alias whose prefix is
        ``app:sessions``.
        """
        match = re.compile(self.expression, re.DOTALL).match
        return [key for key in self.callers(keys) if match(key)]

    def callers(self, keys: Iterable[bytes]) -> list[bytes]:
        """Return the keys among these that callers have chosen."""
        reserved = self.reserved.encode("utf-8", "surrogatepass")
        return [key for key in keys if not key.startswith(reserved)]

    @classmethod
    def of(cls, key_func: KeyFunction, prefix: str, version: int) -> Keyspace | None:
        """Derive the keyspace from a key function.

        None if full keys cannot be told from others: one does not contain the caller's key once,
        special keys have no beginning and end in common with it, or not every version has keys.
        """
        # Django takes a text for a version too.
        given: object = version
        place: Any = str(_VERSION_PLACE) if isinstance(given, str) else _VERSION_PLACE
        try:
            full = key_func(_KEY_PLACE, prefix, place)
        except (LookupError, TypeError, ValueError):
            # If the version is not the reason, this raises too.
            key_func(_KEY_PLACE, prefix, version)
            return None
        before, found, after = full.partition(_KEY_PLACE)
        if not found or _KEY_PLACE in after or not _keeps_ends(key_func, prefix, version):
            return None
        pattern = f"{_any_version(before)}*{_any_version(after)}"
        versions = rf"(?:-?\d+|{re.escape(str(version))})"
        expression = "(?s:.*)".join(
            versions.join(map(re.escape, part.split(str(_VERSION_PLACE))))
            for part in (before, after)
        )
        return cls(pattern, expression.encode("utf-8", "surrogatepass") + rb"\Z")


@functools.lru_cache(maxsize=100)
def _keeps_ends(key_func: KeyFunction, prefix: str, version: int) -> bool:
    """Tell whether special keys have the beginning and the end that other keys have.

    Both may depend on the caller, such as the tenant of a request, but not whether all keys have
    them.
    """
    before, _, after = key_func(_KEY_PLACE, prefix, version).partition(_KEY_PLACE)
    special = [key_func(key, prefix, version) for key in _SPECIAL_KEYS]
    return all(full.startswith(before) and full.endswith(after) for full in special)


def literal_start(pattern: str) -> str:
    """Return the text that every match of a pattern begins with."""
    text = []
    characters = iter(pattern)
    for character in characters:
        if character in "*?[":
            break
        text.append(next(characters, "") if character == "\\" else character)
    return "".join(text)


def _any_version(template: str) -> str:
    return "*".join(map(escape_glob, template.split(str(_VERSION_PLACE))))


@dataclasses.dataclass(frozen=True, slots=True)
class KeyTemplate:
    """The texts before and after the caller's key in a full key."""

    before: str
    after: str
    full_key: Callable[[str], str]

    @classmethod
    def of(cls, key_func: KeyFunction, prefix: str, version: int) -> KeyTemplate:
        """Derive both texts from a key function.

        Raises:
            CacheLayerError: The key function hides the key, so keys cannot be listed.
        """
        before, found, after = key_func(_KEY_PLACE, prefix, version).partition(_KEY_PLACE)
        if not found or _KEY_PLACE in after:
            raise CacheLayerError(
                "Keys cannot be listed or deleted by pattern: the KEY_FUNCTION of this cache does "
                "not leave the key as it is. Use one that only puts something before or after it."
            )
        return cls(before, after, lambda key: key_func(key, prefix, version))

    def pattern(self, pattern: str) -> str:
        """Return the pattern of full keys for a pattern of the caller's keys.

        Raises:
            CacheLayerError: The key function changes what stands in the pattern, so that the
                pattern would find none of the keys that it means.
        """
        literal = literal_text(pattern)
        if self.full_key(literal) != f"{self.before}{literal}{self.after}":
            raise CacheLayerError(
                f"Keys cannot be listed or deleted by the pattern {pattern!r}: the KEY_FUNCTION of "
                f"this cache does not leave {literal[:100]!r} as it is."
            )
        return f"{escape_glob(self.before)}{pattern}{escape_glob(self.after)}"

    def strip(self, key: str) -> str:
        """Return the caller's key in a full key."""
        return key[len(self.before) : len(key) - len(self.after)]


def tag_key(tag: str) -> str:
    """Return the key of a tag, inside its namespace.

    Raises:
        TypeError: The tag is not a string.
        ValueError: The tag is empty.
    """
    if not isinstance(tag, str):
        raise TypeError(f"A tag is a string, not {tag!r}.")
    if not tag:
        raise ValueError("A tag may not be empty.")
    if not _READABLE_TAG.fullmatch(tag):
        quoted = quote(tag, safe="/@+~:", errors="surrogatepass")
        tag = quoted if len(quoted) <= _LONGEST_TAG else digest(quoted)
    return f"{TAG}{tag}"


def digest(text: str) -> str:
    """Return a digest of 23 characters for a text that is too long for a key."""
    data = text.encode("utf-8", "surrogatepass")
    encoded = urlsafe_b64encode(blake2b(data, digest_size=16).digest())
    return f"#{encoded[:-2].decode()}"

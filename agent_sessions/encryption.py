"""Encrypted texts in the database: how they are marked, and to what they are bound.

A text is bound to its model, its field and the id of its session, a message's also to its role:
in another row, session or field it cannot be decrypted. Rows that were written without a cipher
are read as they are.
"""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum, auto
from functools import cache
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from agent_sessions.ciphers import Cipher
from agent_sessions.conf import settings
from agent_sessions.exceptions import DecryptionFailed, SearchDisabled

#: What an encrypted text begins with.
MARK = "enc:"

#: Characters of an encrypted text that tell its key.
BEGINNING = len(MARK) + 64

#: The fields of a session that are encrypted.
SESSION_FIELDS = frozenset({"title", "context", "metadata"})

NOTE = "(cannot be decrypted)"

logger = logging.getLogger("agent_sessions")


class OnFailure(Enum):
    """What happens as a row is loaded that has a text that cannot be decrypted."""

    #: The row is loaded. Reading the text raises DecryptionFailed.
    LATER = auto()
    #: The row is loaded with a note in place of the text, and an empty object.
    NOTE = auto()
    #: DecryptionFailed is raised.
    RAISE = auto()


_on_failure: ContextVar[OnFailure] = ContextVar(
    "agent_sessions_on_failure", default=OnFailure.LATER
)

_MOST_REPORTED = 100
_reported: set[str] = set()


def is_on() -> bool:
    """Return whether there is a cipher, so that rows may be encrypted."""
    return settings.CIPHER is not None


def encrypts() -> bool:
    """Return whether texts are encrypted as they are written."""
    return settings.CIPHER is not None and settings.ENCRYPT


def is_sealed(stored: object) -> bool:
    """Return whether the value of a column is an encrypted text."""
    return isinstance(stored, str) and stored.startswith(MARK)


def is_current(beginning: object) -> bool:
    """Return whether a column that begins so is as it would be written now."""
    if not encrypts():
        return not is_sealed(beginning)
    if not isinstance(beginning, str) or not beginning.startswith(MARK):
        return False
    look = getattr(cipher(), "is_current", None)
    raw = beginning[len(MARK) : BEGINNING]
    try:
        data = base64.b64decode(raw + "=" * (-len(raw) % 4))
    except ValueError:
        return False
    # Without the method nobody knows: what is encrypted is encrypted again.
    return look is not None and bool(look(data))


def seal(text: str, *belongs_to: object) -> str:
    """Return the text encrypted, bound to what it belongs to."""
    data = cipher().encrypt(text.encode("utf-8", "surrogatepass"), _associated(belongs_to))
    return MARK + base64.b64encode(data).decode("ascii")


def unseal(sealed: str, *belongs_to: object) -> str:
    """Return the text of a sealed one.

    Raises:
        DecryptionFailed: The text cannot be decrypted.
    """
    what = " ".join(map(str, belongs_to))
    if not is_on():
        raise DecryptionFailed(what, "AGENT_SESSIONS_CIPHER is not set")
    try:
        data = base64.b64decode(sealed[len(MARK) :], validate=True)
        return cipher().decrypt(data, _associated(belongs_to)).decode("utf-8", "surrogatepass")
    except (ValueError, LookupError, binascii.Error) as error:
        raise DecryptionFailed(what, str(error)) from None


def sealed_among(changes: Mapping[str, object], fields: AbstractSet[str]) -> AbstractSet[str]:
    """Return which of the fields are changed and belong to a text that may be encrypted.

    Raises:
        ValueError: A field is set to an expression, which only the database could compute.
    """
    sealed = fields & changes.keys() if is_on() else frozenset()
    for name in sorted(sealed):
        if hasattr(changes[name], "resolve_expression"):
            raise ValueError(f"{name} is encrypted: give a value, not an expression.")
    return sealed


def refuse_search() -> None:
    """Raise SearchDisabled if texts are encrypted: an index of them would not be."""
    if is_on():
        raise SearchDisabled


@contextmanager
def when_undecryptable(way: OnFailure) -> Iterator[None]:
    """Load rows in this way where they cannot be decrypted."""
    token = _on_failure.set(way)
    try:
        yield
    finally:
        _on_failure.reset(token)


def on_failure() -> OnFailure:
    """Return what happens as a row is loaded that cannot be decrypted."""
    return _on_failure.get()


def report(failure: DecryptionFailed) -> None:
    """Log what cannot be decrypted: once in a process, and not more rows than one can read."""
    if failure.what in _reported or len(_reported) >= _MOST_REPORTED:
        return
    _reported.add(failure.what)
    logger.error("%s", failure)
    if len(_reported) == _MOST_REPORTED:
        logger.error("Further texts that cannot be decrypted are not logged.")


def cipher() -> Cipher:
    """Return the cipher.

    Raises:
        ImproperlyConfigured: AGENT_SESSIONS_CIPHER names none.
    """
    return _cipher(settings.CIPHER)


@cache
def _cipher(named: Any) -> Cipher:
    try:
        made = import_string(named) if isinstance(named, str) else named
        made = made() if callable(made) else made
    except ImproperlyConfigured:
        raise
    except Exception as error:
        # A project's own class may raise anything, such as a vault that does not answer.
        raise ImproperlyConfigured(f"AGENT_SESSIONS_CIPHER: {error}") from error
    if not (callable(getattr(made, "encrypt", None)) and callable(getattr(made, "decrypt", None))):
        raise ImproperlyConfigured(
            f"AGENT_SESSIONS_CIPHER: {named!r} has no methods encrypt and decrypt."
        )
    found: Cipher = made
    return found


def _forget(*, setting: str, **kwargs: object) -> None:
    if setting.startswith("AGENT_SESSIONS_CIPHER"):
        _cipher.cache_clear()
        _reported.clear()


setting_changed.connect(_forget, dispatch_uid="agent_sessions.encryption")


def _associated(belongs_to: tuple[object, ...]) -> bytes:
    return "\0".join(("agent_sessions", *map(str, belongs_to))).encode("utf-8", "surrogatepass")

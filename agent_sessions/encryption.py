"""Encrypted texts in the database: how they are marked, and to what they are bound.

A text is bound to its model, its field and the id of its session, a message's also to its role:
in another row, session or field it cannot be decrypted. Rows that were written without a cipher
are read as they are.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from agent_sessions.ciphers import Cipher
from agent_sessions.conf import settings
from agent_sessions.exceptions import DecryptionFailed, SearchDisabled

MARK = "enc:"
"""What an encrypted text begins with."""

BEGINNING = len(MARK) + 64
"""Characters of an encrypted text that tell its key."""

SESSION_FIELDS = frozenset({"title", "context", "metadata"})
"""The fields of a session that are encrypted."""

NOTE = "(cannot be decrypted)"

_with_notes: ContextVar[bool] = ContextVar("agent_sessions_with_notes", default=False)


def is_on() -> bool:
    """Return whether texts are encrypted as they are written."""
    return settings.CIPHER is not None


def is_sealed(stored: object) -> bool:
    """Return whether the value of a column is an encrypted text."""
    return isinstance(stored, str) and stored.startswith(MARK)


def is_current(beginning: object) -> bool:
    """Return whether a column that begins so is as it would be written now."""
    if not is_on():
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
    """Return the text of a sealed one. Raises DecryptionFailed."""
    what = " ".join(map(str, belongs_to))
    if not is_on():
        raise DecryptionFailed(what, "AGENT_SESSIONS_CIPHER is not set")
    try:
        data = base64.b64decode(sealed[len(MARK) :], validate=True)
        return cipher().decrypt(data, _associated(belongs_to)).decode("utf-8", "surrogatepass")
    except (ValueError, LookupError, binascii.Error) as error:
        raise DecryptionFailed(what, str(error)) from None


def sealed_among(changes: Mapping[str, object], fields: AbstractSet[str]) -> AbstractSet[str]:
    """Return which of the fields are changed and are to be encrypted again.

    Raises ValueError if one is set to an expression, which only the database could compute.
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
def notes() -> Iterator[None]:
    """Load a note in place of what cannot be decrypted, and an empty object."""
    token = _with_notes.set(True)
    try:
        yield
    finally:
        _with_notes.reset(token)


def shows_notes() -> bool:
    """Return whether what cannot be decrypted is loaded as a note."""
    return _with_notes.get()


def cipher() -> Cipher:
    """Return the cipher. Raises ImproperlyConfigured if the setting names none."""
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


setting_changed.connect(_forget, dispatch_uid="agent_sessions.encryption")


def _associated(belongs_to: tuple[object, ...]) -> bytes:
    return "\0".join(("agent_sessions", *map(str, belongs_to))).encode("utf-8", "surrogatepass")

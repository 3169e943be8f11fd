"""Loads messages from the database with exact content and metadata."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from types import MappingProxyType
from typing import Any, Self

from django.db import models
from django.db.models.base import ModelState
from django.db.models.signals import post_init, pre_init

from agent_sessions import encryption, message_format
from agent_sessions.encryption import OnFailure
from agent_sessions.exceptions import DecryptionFailed
from agent_sessions.message_format import JsonObject

#: Fields whose columns may hold an approximation; the payload then has the exact value.
EXACT = frozenset({"content", "metadata"})

#: Fields of a message that an encrypted payload is bound to.
BOUND = frozenset({"role", "session", "session_id"})


class MayBeUndecryptable:
    """The part of a session or a message that knows which of its texts cannot be decrypted.

    These are deferred, and ``agent_sessions.fields.SealedAttribute`` raises DecryptionFailed for
    them.
    """

    _undecryptable: Mapping[str, tuple[str, str]] = MappingProxyType({})

    @property
    def is_undecryptable(self) -> bool:
        """Whether a text of the row cannot be decrypted, and reading it raises DecryptionFailed."""
        return bool(self._undecryptable)

    def require_decrypted(self) -> Self:
        """Return the row.

        Raises:
            DecryptionFailed: One of its texts cannot be decrypted.
        """
        for arguments in self._undecryptable.values():
            raise DecryptionFailed(*arguments)
        return self

    def readable(self, name: str, otherwise: Any) -> Any:
        """Return the value of a field; ``otherwise`` if it cannot be decrypted."""
        lacks = name in self._undecryptable and name not in self.__dict__
        return otherwise if lacks else getattr(self, name)

    def _leave_out(self, failure: DecryptionFailed, notes: Mapping[str, object]) -> None:
        """Load the row without these fields, or with notes in their place."""
        way = encryption.on_failure()
        if way is OnFailure.RAISE:
            raise failure
        if not self._undecryptable:
            encryption.report(failure)
        arguments = (failure.what, failure.reason)
        self._undecryptable = {**self._undecryptable, **dict.fromkeys(notes, arguments)}
        if way is OnFailure.NOTE:
            self.__dict__.update(notes)
            return
        for name in notes:
            self.__dict__.pop(name, None)

    @contextmanager
    def _reading_again(self, fields: Collection[str] | None) -> Iterator[None]:
        """Read again what could not be decrypted, and raise DecryptionFailed if it still cannot."""
        before = self._undecryptable
        # Django leaves out what is not loaded.
        lacking = [name for name in before if name not in self.__dict__] if fields is None else []
        self.__dict__.update(dict.fromkeys(lacking))
        self._undecryptable = {
            name: reason
            for name, reason in before.items()
            if fields is not None and name not in fields
        }
        is_note = encryption.on_failure() is OnFailure.NOTE
        try:
            with nullcontext() if is_note else encryption.when_undecryptable(OnFailure.RAISE):
                yield
        except BaseException:
            for name in lacking:
                self.__dict__.pop(name, None)
            self._undecryptable = before
            raise


def restore_session(session: RemembersLoaded) -> None:
    """Decrypt the fields of a session that were loaded, where they are encrypted."""
    values = session.__dict__
    sealed = {
        name: values[name] for name in ("context", "metadata") if isinstance(values.get(name), str)
    }
    if values.get("sealed_title") is not None:
        sealed["title"] = values["sealed_title"]
    elif "sealed_title" not in values and encryption.is_on():
        # Without it the title is not known: it is deferred, too.
        values.pop("title", None)
    for name, stored in sealed.items():
        try:
            text = encryption.unseal(stored, "session", name, session.pk)
        except DecryptionFailed as failure:
            session._leave_out(failure, {name: encryption.NOTE if name == "title" else {}})
        else:
            values[name] = text if name == "title" else json.loads(text)


def snapshot(value: object) -> object:
    """Return what a value can be compared with after it was changed in place."""
    # Objects are changed in place.
    return json.dumps(value, default=repr) if isinstance(value, dict | list) and value else value


class RemembersLoaded(MayBeUndecryptable, models.Model):
    """The part of a session that loads it, and remembers what was loaded."""

    _loaded: Mapping[str, object] = MappingProxyType({})

    class Meta:
        abstract = True

    @classmethod
    def from_db(
        cls, db: str | None, field_names: Collection[str], values: Collection[object], **kwargs: Any
    ) -> Self:
        """Remember the loaded values: see ``Session.save()``."""
        session = super().from_db(db, field_names, values, **kwargs)
        restore_session(session)
        session._remember()
        return session

    def refresh_from_db(
        self,
        using: str | None = None,
        fields: Iterable[str] | None = None,
        from_queryset: models.QuerySet[Self] | None = None,
    ) -> None:
        """Load fields again: they count as unchanged.

        Raises:
            DecryptionFailed: A text cannot be decrypted.
        """
        fields = None if fields is None else [*fields]
        if fields is not None and "title" in fields:
            fields.append("sealed_title")
        with self._reading_again(fields):
            super().refresh_from_db(using, fields, from_queryset)
        self._remember(fields)

    def _remember(self, fields: Iterable[str] | None = None) -> None:
        """Remember the values of these fields (by default of all) as those of the row."""
        values = self.__dict__
        if self._undecryptable and encryption.on_failure() is not OnFailure.NOTE:
            # What was given a new text is not what could not be decrypted.
            self._undecryptable = {
                name: reason for name, reason in self._undecryptable.items() if name not in values
            }
        names = (
            [field.attname for field in self._meta.concrete_fields]
            if fields is None
            else [getattr(self._meta.get_field(name), "attname", name) for name in fields]
        )
        known = {name: snapshot(values[name]) for name in names if name in values}
        self._loaded = known if fields is None else {**self._loaded, **known}


class ExactlyLoaded(MayBeUndecryptable, models.Model):
    """The part of ``Message`` that loads exact values."""

    payload: Any
    session_id: Any
    role: Any

    class Meta:
        abstract = True

    @classmethod
    def assemble(
        cls, using: str | None, field_names: Collection[str], values: Collection[object]
    ) -> Self:
        """Return a message with these values, one for each field.

        It does the work of the constructor in a quarter of the time, unless signals or a subclass
        take part.
        """
        if cls._is_watched():
            message = cls(**dict(zip(field_names, values, strict=True)))
        else:
            message = cls.__new__(cls)
            message._state = ModelState()
            message.__dict__.update(zip(field_names, values, strict=True))
        message._state.db = using
        return message

    @classmethod
    def from_rows(
        cls, using: str, field_names: Collection[str], rows: Iterable[Collection[object]]
    ) -> list[Self]:
        """Return a message for each row of all fields, in half the time of ``from_db()``."""
        if cls._is_watched():
            return [cls.from_db(using, field_names, row) for row in rows]
        found = []
        for row in rows:
            message = cls.__new__(cls)
            values = message.__dict__
            values.update(zip(field_names, row, strict=True))
            state = values["_state"] = ModelState()
            state.db, state.adding = using, False
            if values["payload"] is not None:
                message.restore()
            found.append(message)
        return found

    @classmethod
    def from_db(
        cls, db: str | None, field_names: Collection[str], values: Collection[object], **kwargs: Any
    ) -> Self:
        """Load the exact content and metadata in place of the values of their columns.

        Without the payload these are unknown, and deferred, too.
        """
        if len(values) == len(cls._meta.concrete_fields):
            message = cls.assemble(db, field_names, values)
            message._state.adding = False
            if kwargs.get("fetch_mode") is not None:
                message._state.fetch_mode = kwargs["fetch_mode"]
        else:
            message = super().from_db(db, field_names, values, **kwargs)
            if "payload" not in message.__dict__:
                for name in EXACT:
                    message.__dict__.pop(name, None)
        message.restore()
        return message

    @classmethod
    def _is_watched(cls) -> bool:
        """Tell whether signals or a subclass may take part in making a message."""
        return bool(
            # A subclass may have fields, or an __init__ or __setattr__, that do more with a value.
            cls._meta.parents
            or (pre_init.receivers and pre_init.has_listeners(cls))
            or (post_init.receivers and post_init.has_listeners(cls))
        )

    def restore(self) -> None:
        """Take content and metadata from the payload, if it has them."""
        payload = self.__dict__.get("payload")
        if payload is None:
            return
        try:
            if encryption.is_sealed(payload):
                kept = self._unsealed(payload)
            else:
                kept = message_format.unpack(payload)
        except DecryptionFailed as failure:
            notes: dict[str, object] = {"content": encryption.NOTE, "metadata": {}, "payload": None}
            loaded = {name: note for name, note in notes.items() if name in self.__dict__}
            self._leave_out(failure, loaded)
            return
        if "content" in self.__dict__ and ("content" in kept or "absent" in kept):
            self.content = kept.get("content")
        if "metadata" in self.__dict__ and "metadata" in kept:
            self.metadata = kept["metadata"]

    def _unsealed(self, sealed: str) -> JsonObject:
        """Return what an encrypted payload holds; the message keeps its plain payload."""
        text = encryption.unseal(sealed, "message", self.session_id, self.role)
        kept = message_format.unpack(text)
        rest = {name: value for name, value in kept.items() if name not in EXACT}
        if "metadata" in kept and not kept["metadata"]:
            rest["metadata"] = kept["metadata"]
        self.payload = message_format.packed(rest) if rest else None
        return kept

    def refresh_from_db(
        self,
        using: str | None = None,
        fields: Iterable[str] | None = None,
        from_queryset: models.QuerySet[Self] | None = None,
    ) -> None:
        """Load fields again; the payload goes with the content and the metadata.

        Raises:
            DecryptionFailed: A text cannot be decrypted.
        """
        kept: JsonObject = {}
        if fields is not None:
            fields = [*fields]
            # What decrypting takes beside them stays as it is.
            kept = {
                name: self.__dict__[name] for name in (BOUND - {*fields}) & self.__dict__.keys()
            }
            if "session" in fields:
                kept.pop("session_id", None)
            if "payload" not in fields and not EXACT.isdisjoint(fields):
                fields.append("payload")
        elif not EXACT.isdisjoint(self.__dict__):
            # A field that is deferred would stay so.
            self.__dict__.setdefault("payload", None)
        with self._reading_again(fields):
            super().refresh_from_db(using, fields, from_queryset)
        self.__dict__.update(kept)

"""Model fields of the message table. Migrations import them from this module."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.models.query_utils import DeferredAttribute

from agent_sessions import encryption, message_format
from agent_sessions.exceptions import DecryptionFailed

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models.expressions import Expression

    _TitleField = models.CharField[str, str]
    _AnyTextField = models.TextField[Any, Any]
    _AnyJSONField = models.JSONField[Any, Any]
    _NullTextField = models.TextField[str | None, str | None]
else:
    _AnyTextField = _NullTextField = models.TextField
    _AnyJSONField = models.JSONField
    _TitleField = models.CharField


# A text, which is left unchanged, or a number with an exponent.
_TEXT_OR_EXPONENT = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?[eE][+-]?\d+')
_EXPONENT = re.compile(r"\d[eE][+-]?\d")


class ExactEncoder(json.JSONEncoder):
    """Writes numbers so that PostgreSQL returns the stored value.

    JSON columns of PostgreSQL return 1e23 as an integer; written with a fraction it stays a float.
    """

    def encode(self, o: object) -> str:
        """Return the JSON text of the value."""
        text = super().encode(o)
        return _TEXT_OR_EXPONENT.sub(_in_digits, text) if _EXPONENT.search(text) else text


def _in_digits(found: re.Match[str]) -> str:
    if found[0].startswith('"'):
        return found[0]
    digits = format(Decimal(found[0]), "f")
    return digits if "." in digits else f"{digits}.0"


class SealedAttribute(DeferredAttribute):
    """Fetches a text that may be encrypted, not the value of its column.

    Django 6.1 can do so for many rows.
    """

    def __get__(self, instance: Any, cls: Any = None) -> Any:
        """Return the text.

        Raises:
            DecryptionFailed: The text cannot be decrypted.
        """
        # What was loaded is found without this method.
        if instance is not None and (failures := instance._undecryptable):
            name = self.field.attname
            if name in failures and name not in instance.__dict__:
                raise DecryptionFailed(*failures[name])
        return super().__get__(instance, cls)

    def fetch_many(self, instances: Iterable[Any]) -> None:
        """Fetch the field of all the rows that lack it."""
        field: Any = self.field
        name = field.attname
        lacking = [one for one in instances if name not in one.__dict__ and one.pk is not None]
        if not lacking:
            return
        stored = field.model._base_manager.using(lacking[0]._state.db)
        found = stored.only(name, *field.read_with).in_bulk([one.pk for one in lacking])
        for one in lacking:
            if (row := found.get(one.pk)) is None:
                continue
            if name in row.__dict__:
                setattr(one, name, row.__dict__[name])
            elif name in row._undecryptable:
                one._undecryptable = {**one._undecryptable, name: row._undecryptable[name]}


class ContentField(_AnyTextField):
    """The exact content of a message; its column holds the readable text."""

    descriptor_class = SealedAttribute
    read_with = ("payload", "session", "role")

    if TYPE_CHECKING:
        _pyi_private_set_type: Any
        _pyi_private_get_type: Any

    def to_python(self, value: object) -> Any:
        """Return the content; a list of parts stays one."""
        return value if isinstance(value, list | dict) else super().to_python(value)

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        """Return the readable text of the message; nothing where texts are encrypted."""
        if encryption.encrypts():
            return ""
        return model_instance.text  # type: ignore[attr-defined]

    def value_to_string(self, obj: models.Model) -> str:
        """Return the text of the column for a fixture; its payload has the exact content."""
        text: str = self.get_prep_value(obj.text)  # type: ignore[attr-defined]
        return text

    def get_prep_value(self, value: object) -> Any:
        """Return the text of the content, without characters that a database cannot hold."""
        if isinstance(value, str):
            return message_format.clean_text(value)
        if value is None or isinstance(value, list | tuple | dict):
            return message_format.clean_text(message_format.text_of(value))
        return super().get_prep_value(value)


class MetadataField(_AnyJSONField):
    """The exact metadata of a message; its column may hold an approximation."""

    descriptor_class = SealedAttribute
    read_with = ("payload", "session", "role")

    def from_db_value(
        self, value: str | None, expression: Expression, connection: BaseDatabaseWrapper
    ) -> Any:
        """Return the metadata; that of most messages is empty and needs no parsing."""
        return {} if value == "{}" else super().from_db_value(value, expression, connection)

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        """Return the metadata; nothing where texts are encrypted."""
        return {} if encryption.encrypts() else super().pre_save(model_instance, add)

    def value_to_string(self, obj: models.Model) -> Any:
        """Return the value of the column for a fixture; its payload has the exact metadata."""
        value = self.value_from_object(obj)
        return message_format.storable_json(value) if isinstance(value, dict) else value

    def get_db_prep_save(self, value: object, connection: BaseDatabaseWrapper) -> Any:
        """Return the metadata, or the nearest value that a JSON column can hold."""
        if isinstance(value, dict):
            value = message_format.storable_json(value)
        return super().get_db_prep_save({} if value is None else value, connection)


class PayloadField(_NullTextField):
    """The parts of a message that other columns cannot hold, computed when the row is saved."""

    descriptor_class = SealedAttribute
    read_with = ("session", "role")

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        """Return the payload of the message as it is now, encrypted with all of its texts at need.

        The message keeps the plain one.
        """
        payload = message_format.pack(model_instance.as_dict())  # type: ignore[attr-defined]
        setattr(model_instance, self.attname, payload)
        return model_instance.sealed_payload() if encryption.encrypts() else payload  # type: ignore[attr-defined]


class TitleField(_TitleField):
    """The title of a session; its column is empty where texts are encrypted."""

    descriptor_class = SealedAttribute
    read_with = ("sealed_title",)

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        """Return what the column holds."""
        return "" if encryption.encrypts() else super().pre_save(model_instance, add)


class SealedTitleField(_NullTextField):
    """The encrypted title of a session. A column of its own: a title may look like one."""

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        """Return the title encrypted, None where it is plain or empty."""
        title = model_instance.title  # type: ignore[attr-defined]
        sealed = None
        if title and encryption.encrypts():
            sealed = encryption.seal(title, "session", "title", _id_of(self, model_instance))
        setattr(model_instance, self.attname, sealed)
        return sealed

    def value_to_string(self, obj: models.Model) -> str:
        """Return nothing for a fixture, which has the plain title."""
        return ""

    def to_python(self, value: object) -> Any:
        """Return the text; None for the empty text of a fixture."""
        return super().to_python(value) or None


class SessionObjectField(_AnyJSONField):
    """A JSON object of a session; its column holds a string where texts are encrypted."""

    descriptor_class = SealedAttribute
    read_with = ()

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        """Return the object, encrypted at need."""
        value = super().pre_save(model_instance, add)
        if not encryption.encrypts():
            return value
        session_id = _id_of(self, model_instance)
        return encryption.seal(json.dumps(value), "session", self.attname, session_id)


def _id_of(field: models.Field[Any, Any], session: models.Model) -> object:
    """Return the id of a session. A new one of a subclass has its primary key only afterwards."""
    return field.model._meta.pk.value_from_object(session)

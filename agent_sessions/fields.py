"""Model fields of the message table. Migrations name them: they stay here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import models

from agent_sessions import messages

if TYPE_CHECKING:
    _AnyTextField = models.TextField[Any, Any]
    _AnyJSONField = models.JSONField[Any, Any]
    _NullTextField = models.TextField[str | None, str | None]
else:
    _AnyTextField = _NullTextField = models.TextField
    _AnyJSONField = models.JSONField


class ContentField(_AnyTextField):
    """The content of a message, as given; its column holds the readable text of it."""

    if TYPE_CHECKING:
        _pyi_private_set_type: Any
        _pyi_private_get_type: Any

    def to_python(self, value: Any) -> Any:
        """Return the content; a list of parts stays one."""
        return value if isinstance(value, list) else super().to_python(value)

    def value_to_string(self, obj: models.Model) -> Any:
        """Return the content for a fixture, as JSON fields do: not as text."""
        return self.value_from_object(obj)

    def get_prep_value(self, value: Any) -> Any:
        """Return the text of the content, without what a database cannot hold."""
        if isinstance(value, str):
            return messages.clean_text(value)
        if value is None or isinstance(value, list | tuple):
            return messages.clean_text(messages.text_of(value))
        return super().get_prep_value(value)


class MetadataField(_AnyJSONField):
    """The metadata of a message, as given; its column holds an approximation at need."""

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """Return the metadata; that of most messages is empty and needs no parsing."""
        return {} if value == "{}" else super().from_db_value(value, expression, connection)

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        """Return the metadata, or of unstorable ones what a JSON column can hold."""
        if isinstance(value, dict):
            value = messages.storable_json(value)
        return super().get_db_prep_save({} if value is None else value, connection)


class PayloadField(_NullTextField):
    """What the other columns of the message cannot hold, computed as the row is saved."""

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        """Return the payload of the message as it is now."""
        payload = messages.pack(model_instance.as_dict())  # type: ignore[attr-defined]
        setattr(model_instance, self.attname, payload)
        return payload

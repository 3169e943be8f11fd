"""Instances of installed models: field values, found again through the app registry.

Kept are the values of the concrete fields (what is deferred stays deferred), annotations and
other public attributes, the database, whether the row was saved, and related objects that were
loaded through foreign keys. Not kept are prefetched sets, private attributes and cached
properties: they are fetched or computed again.
"""

from __future__ import annotations

from typing import Any, Final

from django.apps import apps
from django.core.exceptions import FieldDoesNotExist
from django.db.models import Choices, Model
from django.db.models.fields.files import FieldFile
from django.utils.functional import cached_property

from cache_layer.codec.types import Kind, Pack, Refused, Unpack
from cache_layer.exceptions import CodecError

MODEL_CODE: Final = 21


def _encode(instance: Model, pack: Pack) -> bytes:
    return pack(_state_of(instance, ()))


def _decode(data: bytes, unpack: Unpack) -> Model:
    return _instance_of(unpack(data))


MODEL: Final = Kind(MODEL_CODE, _encode, _decode)


def _state_of(instance: Model, above: tuple[Model, ...]) -> list[Any]:
    cls = type(instance)
    label = cls._meta.label_lower
    if apps.all_models[cls._meta.app_label].get(cls._meta.model_name or "") is not cls:
        raise Refused(instance, f"{label} in the app registry is another class or missing")
    attributes = instance.__dict__
    names = [field.attname for field in cls._meta.concrete_fields]
    above = (*above, instance)
    foreign_keys: list[Any] = [field for field in cls._meta.concrete_fields if field.is_relation]
    loaded = {
        field.name: field.get_cached_value(instance)
        for field in foreign_keys
        if field.is_cached(instance)
    }
    # A circle of loaded objects is cut where it closes.
    related = {
        name: other and _state_of(other, above)
        for name, other in loaded.items()
        if not any(other is one for one in above)
    }
    return [
        label,
        instance._state.db,
        instance._state.adding,
        {name: _plain(attributes[name]) for name in names if name in attributes},
        [name for name in names if name not in attributes],
        {
            name: value
            for name, value in attributes.items()
            if name not in names
            and not name.startswith("_")
            and not isinstance(getattr(cls, name, None), cached_property)
        },
        related,
    ]


def _plain(value: Any) -> Any:
    """Return what the database holds for a value that a field wraps for Python's convenience."""
    if isinstance(value, Choices):
        return value.value
    return value.name if isinstance(value, FieldFile) else value


def _instance_of(state: list[Any]) -> Model:
    label, db, adding, values, deferred, extra, related = state
    model: type[Model] = apps.get_model(label)
    names = [field.attname for field in model._meta.concrete_fields]
    if set(names) != {*values, *deferred}:
        raise CodecError(f"the fields of {label} have changed")
    loaded = [name for name in names if name in values]
    instance = model.from_db(db, loaded, [values[name] for name in loaded])
    # from_db may be overridden to prepare values that are prepared already.
    instance.__dict__.update(values)
    instance.__dict__.update(extra)
    instance._state.adding = adding
    for name, other in related.items():
        try:
            field: Any = model._meta.get_field(name)
        except FieldDoesNotExist:
            raise CodecError(f"the fields of {label} have changed") from None
        field.set_cached_value(instance, other and _instance_of(other))
    return instance

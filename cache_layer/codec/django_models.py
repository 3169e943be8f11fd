"""Encodes instances of installed models, whose classes the app registry finds again.

It stores the values of the concrete fields (deferred fields stay deferred), annotations and other
public attributes, the database, whether the row was saved, and every related object that was
loaded: by foreign keys, by one-to-one fields from either side, and by ``prefetch_related``. It does
not store private attributes, nor cached properties, which are computed again.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from django.apps import apps
from django.db.models import Choices, Model, QuerySet
from django.db.models.fields.files import FieldFile
from django.utils.functional import cached_property

from cache_layer.codec.types import Composite, Refused, State
from cache_layer.exceptions import CodecError

_PREFETCHED: Final = "_prefetched_objects_cache"


def _state_of(instance: Model) -> object:
    cls = type(instance)
    label = cls._meta.label_lower
    if apps.all_models[cls._meta.app_label].get(cls._meta.model_name or "") is not cls:
        raise Refused(instance, f"{label} in the app registry is another class or missing")
    attributes = instance.__dict__
    names = [field.attname for field in cls._meta.concrete_fields]
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
    ]


def _plain(value: object) -> object:
    """Return the value as the database has it, for a field that wraps the value in Python."""
    if isinstance(value, Choices):
        plain: object = value.value
        return plain
    return value.name if isinstance(value, FieldFile) else value


def _build(state: State) -> Model:
    label, db, adding, values, deferred, extra = state
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
    return instance


def _links_of(instance: Model) -> object:
    related = instance._state.fields_cache
    prefetched = instance.__dict__.get(_PREFETCHED)
    if not related and not prefetched:
        return None
    return [
        related,
        [_prefetched_state(instance, name, found) for name, found in (prefetched or {}).items()],
    ]


def _prefetched_state(instance: Model, name: str, found: QuerySet[Model]) -> object:
    """Return the accessor of a prefetched set, its order and its objects.

    A filtered set is refused: further queries on a decoded set begin with all related objects, so
    the filter would be lost.
    """
    accessor = _accessors(type(instance)).get(name)
    if accessor is None:
        raise Refused(instance, f"what it prefetched as {name!r} has no manager")
    if found.query.where != _related(instance, accessor).query.where:
        raise Refused(
            instance, f"what it prefetched as {accessor!r} is filtered: use Prefetch(to_attr=…)"
        )
    order = [each for each in found.query.order_by if isinstance(each, str)]
    return [accessor, name, order, list(found)]


def _set_links(instance: Model, links: State) -> None:
    related, prefetched = links
    instance._state.fields_cache.update(related)
    found: dict[str, QuerySet[Model]] = {}
    for accessor, name, order, objects in prefetched:
        queryset = _related(instance, accessor)
        if order:
            queryset = queryset.order_by(*order)
        vars(queryset).update(_result_cache=objects, _prefetch_done=True)
        found[name] = queryset
    if found:
        instance.__dict__[_PREFETCHED] = found


def _related(instance: Model, accessor: str) -> QuerySet[Model]:
    """Return a query for every object of a relation; it ignores what was prefetched."""
    known = instance.__dict__.pop(_PREFETCHED, None)
    try:
        queryset: QuerySet[Model] = getattr(instance, accessor).get_queryset()
        return queryset
    finally:
        if known is not None:
            instance.__dict__[_PREFETCHED] = known


@cache
def _accessors(model: type[Model]) -> dict[str, str]:
    """Return the attribute of each related manager, by the name that Django prefetches under."""
    found = {}
    for relation in model._meta.related_objects:
        accessor = relation.get_accessor_name()
        if relation.many_to_many and accessor:
            found[relation.field.related_query_name()] = accessor
        elif accessor:
            found[accessor] = accessor
    for field in (*model._meta.many_to_many, *model._meta.private_fields):
        found[field.name] = field.name
    return found


MODEL: Final = Composite(21, _state_of, _build, _links_of, _set_links)

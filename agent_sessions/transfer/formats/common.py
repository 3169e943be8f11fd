"""The common parts of the readers of other applications' exports."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _

from agent_sessions.message_format import JsonObject, clean_text
from agent_sessions.transfer.conversation import Conversation, keep_extra

_LONGEST_TITLE = 255


def foreign_conversation(
    application: str,
    messages: list[object],
    source_id: str | None,
    rest: JsonObject,
    branches_left_out: int,
) -> Conversation:
    """Return a conversation; ``rest`` has its other keys, of which those with a value are kept."""
    extra = present(rest)
    title = extra.pop("title", None)
    fields: JsonObject = {}
    if isinstance(title, str):
        fields["title"] = clean_text(title)[:_LONGEST_TITLE]
    if title is not None and fields.get("title") != title:
        extra["title"] = title
    source: JsonObject = {"application": application}
    if source_id is not None:
        source["id"] = source_id
    if branches_left_out:
        source["branches_left_out"] = branches_left_out
    fields["metadata"] = {"source": source}
    conversation = Conversation(messages, fields, branches_left_out=branches_left_out)
    if source_id is not None:
        conversation.source_id = f"{application} {source_id}"
    keep_extra(conversation, extra)
    return conversation


def current_branch(
    parents: Mapping[str, str | None], leaf: object, place: str
) -> tuple[list[str], int]:
    """Return the keys from the root to the leaf, and how many other branches there are.

    Without a leaf the only one is taken.

    Raises:
        ValidationError: The keys are no tree, or the leaf is not in it; keyed by ``place``.
    """
    leaves = parents.keys() - {parent for parent in parents.values() if parent is not None}
    if leaf is None and len(leaves) == 1:
        (leaf,) = leaves
    if leaf is None and parents:
        raise ValidationError({place: _("It is not said which of the branches is current.")})
    path: dict[str, None] = {}
    key = leaf
    while key is not None:
        if not isinstance(key, str) or key not in parents:
            raise ValidationError({place: _("There is no message %.60r.") % (key,)})
        if key in path:
            raise ValidationError({place: _("The messages follow each other in a circle.")})
        path[key] = None
        key = parents[key]
    return list(reversed(path)), len(leaves - path.keys())


def present(value: object) -> JsonObject:
    """Return the keys of an object that have a value: neither null nor an empty container."""
    if not isinstance(value, dict):
        return {}
    return {key: item for key, item in value.items() if item is not None and item not in ([], {})}


def known(name: str, moment: datetime | None) -> dict[str, datetime]:
    """Return the time under its name, or nothing where it is not known."""
    return {} if moment is None else {name: moment}


def object_of(value: object, place: str) -> JsonObject:
    """Return the object.

    Raises:
        ValidationError: It is none; keyed by ``place``.
    """
    if not isinstance(value, dict):
        raise ValidationError({place: _("This is not an object.")})
    return value


def list_of(value: object, place: str) -> list[object]:
    """Return the list.

    Raises:
        ValidationError: It is none; keyed by ``place``.
    """
    if not isinstance(value, list):
        raise ValidationError({place: _("This is not a list.")})
    return value


def text_of(value: object, place: str) -> str:
    """Return the text.

    Raises:
        ValidationError: It is none; keyed by ``place``.
    """
    if not isinstance(value, str):
        raise ValidationError({place: _("This is not a string.")})
    return value


def text_or_none(value: object) -> str | None:
    """Return the text if it is one that is not empty."""
    return value if isinstance(value, str) and value else None

"""What querysets write: exact and encrypted texts, however rows are written.

A text may have more than one column, and an encrypted one is bound to its row. So what Django
would write in one statement is completed here, or written row by row. Messages that are written or
deleted here are counted in their sessions, and draw the numbers by which readers learn of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from copy import copy
from typing import Any, TypeVar
from uuid import UUID

from django.db import models, transaction
from django.db.models import F, OuterRef, Subquery

from agent_sessions import encryption
from agent_sessions.ids import key_of
from agent_sessions.loading import BOUND, EXACT
from agent_sessions.message_numbers import (
    AT_ONCE,
    VISIBLE,
    locked_places,
    number_changes,
    number_new,
    refuse_moving,
    remove,
)

Row = TypeVar("Row", bound=models.Model, covariant=True)


class SessionWrites(models.QuerySet[Row]):
    """The part of the queryset of sessions that writes."""

    def update(self, **changes: object) -> int:
        """Update as Django does; a change of the user updates the messages, too.

        Texts that are encrypted are written row by row: each is bound to its row.
        """
        sealed = encryption.sealed_among(changes, encryption.SESSION_FIELDS)
        if sealed:
            return self._update_sealed({name: changes.pop(name) for name in sealed}, changes)
        if "title" in changes:
            # It may have been encrypted before the cipher was taken away.
            changes.setdefault("sealed_title", None)
        if changes.keys().isdisjoint({"user", "user_id"}):
            return super().update(**changes)
        self._for_write = True
        alias = self.db
        message_model = self._message_model()
        owner = self.model._default_manager.using(alias).filter(pk=OuterRef("session_id"))
        with transaction.atomic(using=alias):
            changed = super().update(**changes)
            # The rows are locked now: no append can copy the former user any more.
            stale = message_model._default_manager.using(alias).exclude(
                user_id=F("session__user_id")
            )
            new: Any = changes.get("user", changes.get("user_id"))
            if not hasattr(new, "resolve_expression"):
                stale = stale.filter(session__user_id=key_of(new))
            stale.update(user_id=Subquery(owner.values("user_id")))
        return changed

    update.alters_data = True  # type: ignore[attr-defined]

    def _update_sealed(self, texts: dict[str, object], others: dict[str, Any]) -> int:
        self._for_write = True
        alias = self.db
        every: Any = self.model._base_manager.using(alias)
        with transaction.atomic(using=alias):
            keys = [*self.order_by().values_list("pk", flat=True)]
            for key in keys:
                session = every.only("pk").get(pk=key)
                for name, value in texts.items():
                    setattr(session, name, value)
                session.save(using=alias, update_fields=[*texts])
            if others:
                self.model._default_manager.using(alias).filter(pk__in=keys).update(**others)
        return len(keys)

    def bulk_update(
        self, objs: Iterable[Row], fields: Iterable[str], batch_size: int | None = None
    ) -> int:
        """Update as Django does; texts that are encrypted row by row."""
        objs, fields = [*objs], [*fields]
        if not encryption.is_on() or encryption.SESSION_FIELDS.isdisjoint(fields):
            return super().bulk_update(objs, fields, batch_size)
        self._for_write = True
        with transaction.atomic(using=self.db):
            for session in objs:
                session.save(using=self.db, update_fields=fields)
        return len(objs)

    bulk_update.alters_data = True  # type: ignore[attr-defined]

    def bulk_create(
        self,
        objs: Iterable[Row],
        batch_size: int | None = None,
        ignore_conflicts: bool = False,
        update_conflicts: bool = False,
        update_fields: Collection[str] | None = None,
        unique_fields: Collection[str] | None = None,
    ) -> list[Row]:
        """Create as Django does; a conflict updates the encrypted title with the title.

        Raises:
            ValueError: An encrypted text would be written to a row of another id.
        """
        if update_conflicts and update_fields is not None:
            update_fields = _names(self.model, update_fields)
            texts = sorted(encryption.SESSION_FIELDS & update_fields)
            if (
                encryption.encrypts()
                and texts
                and _names(self.model, unique_fields or ()) != {"id"}
            ):
                raise ValueError(
                    f"{texts[0]} is encrypted and bound to the id: name the id in unique_fields."
                )
            if "title" in update_fields:
                update_fields.add("sealed_title")
        return super().bulk_create(
            objs, batch_size, ignore_conflicts, update_conflicts, update_fields, unique_fields
        )

    bulk_create.alters_data = True  # type: ignore[attr-defined]

    def _message_model(self) -> Any:
        return self.model._meta.get_field("messages").related_model


class MessageWrites(models.QuerySet[Row]):
    """The part of the queryset of messages that writes.

    Counters, numbers and readers follow, as with the operations of the repository, which also
    look at the owner and send signals.
    """

    def update(self, **changes: object) -> int:
        """Update as Django does; content and metadata row by row, as each has its payload.

        Readers learn of the changes.

        Raises:
            ValueError: Messages would change their session or their number.
        """
        refuse_moving(changes)
        if VISIBLE.isdisjoint(changes):
            return super().update(**changes)
        self._for_write = True
        every: Any = self.model._default_manager.using(self.db)
        changed = 0
        places = [*self.order_by().values_list("pk", "session_id")]
        keys = [pk for pk, _ in places]
        with transaction.atomic(using=self.db):
            number_changes(self, keys, (session_id for _, session_id in places))
            for start in range(0, len(keys), AT_ONCE):
                found = every.filter(pk__in=keys[start : start + AT_ONCE])
                changed += found._write(dict(changes))
        return changed

    update.alters_data = True  # type: ignore[attr-defined]

    def _write(self, changes: dict[str, object]) -> int:
        if "payload" in changes:
            return super().update(**changes)
        exact_names = EXACT | encryption.sealed_among(changes, BOUND | EXACT)
        exact = {
            name: value
            for name, value in changes.items()
            if name in exact_names and not hasattr(value, "resolve_expression")
        }
        if not exact:
            return super().update(**changes)
        others = {name: value for name, value in changes.items() if name not in exact}
        every: Any = self.model._default_manager.using(self.db)
        keys = [*self.order_by().values_list("pk", flat=True)]
        if others:
            super().update(**others)
        messages = [*every.filter(pk__in=keys)]
        for message in messages:
            for name, value in exact.items():
                setattr(message, name, value)
        written: int = every.all()._bulk_write(messages, exact, None)
        return written

    def bulk_update(
        self, objs: Iterable[Row], fields: Iterable[str], batch_size: int | None = None
    ) -> int:
        """Update as Django does; the payload goes with the content and the metadata.

        Readers learn of the changes.

        Raises:
            ValueError: Messages would change their session or their number.
        """
        objs, fields = [*objs], [*fields]
        refuse_moving(fields)
        if VISIBLE.isdisjoint(fields):
            return super().bulk_update(objs, fields, batch_size)
        self._for_write = True
        keys = [message.pk for message in objs]
        every: Any = self.model._base_manager.using(self.db)
        session_ids: set[UUID] = set()
        for start in range(0, len(keys), AT_ONCE):
            rows = every.filter(pk__in=keys[start : start + AT_ONCE])
            session_ids.update(rows.values_list("session_id", flat=True))
        with transaction.atomic(using=self.db):
            revisions = number_changes(self, keys, session_ids)
            for message in objs:
                if message.pk in revisions:
                    message.revision = revisions[message.pk]  # type: ignore[attr-defined]
            return self._bulk_write(objs, fields, batch_size)

    bulk_update.alters_data = True  # type: ignore[attr-defined]

    def _bulk_write(
        self, objs: Iterable[Row], fields: Iterable[str], batch_size: int | None
    ) -> int:
        given, fields = [*objs], [*fields]
        objs = given
        bound = encryption.is_on() and not (BOUND | EXACT).isdisjoint(fields)
        sealed = bound and encryption.encrypts()
        if bound and not sealed:
            # Each column is needed for what one encrypted payload held.
            fields += sorted(EXACT - {*fields})
        if "payload" not in fields and (bound or not EXACT.isdisjoint(fields)):
            payload: Any = self.model._meta.get_field("payload")
            for message in objs:
                payload.pre_save(message, False)
            fields.append("payload")
        if "content" in fields:
            # Django does not ask the field, so the text is that of the column.
            objs = [copy(message) for message in objs]
            for message in objs:
                vars(message)["content"] = "" if sealed else message.text  # type: ignore[attr-defined]
        if sealed:
            originals: Any = given
            objs = objs if objs is not given else [copy(message) for message in objs]
            for message, original in zip(objs, originals, strict=True):
                vars(message)["payload"] = original.sealed_payload()
                vars(message)["metadata"] = {}
        # Django's own calls update(), which would number the messages again.
        plain: models.QuerySet[Row] = models.QuerySet(self.model, using=self.db)
        return plain.bulk_update(objs, fields, batch_size)

    def insert(self, objs: Iterable[Row]) -> list[Row]:
        """Insert new rows; their numbers and the counters of the session are up to the caller."""
        return super().bulk_create(objs)

    insert.alters_data = True  # type: ignore[attr-defined]

    def bulk_create(
        self,
        objs: Iterable[Row],
        batch_size: int | None = None,
        ignore_conflicts: bool = False,
        update_conflicts: bool = False,
        update_fields: Collection[str] | None = None,
        unique_fields: Collection[str] | None = None,
    ) -> list[Row]:
        """Create as Django does; a conflict updates the payload with the content and the metadata.

        The messages are counted in their sessions, and those without a number get the next one.

        Raises:
            ValueError: A part of a message would be updated whose other parts, stored with it in
                one text, are not; conflicts are ignored, and what is ignored cannot be counted;
                they are not found by the id, or by session and sequence; or a message would change
                its session or its number.
        """
        objs = [*objs]
        if ignore_conflicts:
            raise ValueError(
                "What is ignored cannot be counted: add_messages() of the repository adds messages "
                "with an idempotency_key at most once."
            )
        if update_conflicts and update_fields is not None:
            update_fields = _names(self.model, update_fields)
            needed = EXACT | ({"role", "session"} if encryption.is_on() else frozenset())
            if update_fields & (needed | {"payload"}):
                given = update_fields | _names(self.model, unique_fields or ())
                if missing := sorted(needed - given):
                    raise ValueError(
                        f"{' and '.join(sorted(needed))} of a message are stored together: name "
                        f"{' and '.join(missing)} in update_fields, too."
                    )
                update_fields.add("payload")
            update_fields.add("revision")
        if not objs:
            return objs
        self._for_write = True
        with transaction.atomic(using=self.db):
            known = self._conflicting(objs, unique_fields) if update_conflicts else []
            number_new(objs, self.db, known)
            return super().bulk_create(
                objs, batch_size, ignore_conflicts, update_conflicts, update_fields, unique_fields
            )

    bulk_create.alters_data = True  # type: ignore[attr-defined]

    def _conflicting(self, objs: list[Row], unique_fields: Collection[str] | None) -> list[Row]:
        """Lock the sessions, and return which of the messages are stored already."""
        given: list[Any] = [*objs]
        unique = _names(self.model, unique_fields or ())
        if unique not in ({"id"}, {"session", "sequence"}):
            raise ValueError("Name the id in unique_fields, or session and sequence.")
        locked_places(self.model, (message.session_id for message in given), self.db)
        every: Any = self.model._default_manager.using(self.db)
        if unique == {"id"}:
            rows = every.filter(pk__in=[message.pk for message in given])
            stored = {pk: place for pk, *place in rows.values_list("pk", "session_id", "sequence")}
            known = [message for message in given if message.pk in stored]
            for message in known:
                session_id, sequence = stored[message.pk]
                if message.sequence is None:
                    message.sequence = sequence
                refuse_moving(
                    ["session"] * (message.session_id != session_id)
                    + ["sequence"] * (message.sequence != sequence)
                )
            return known
        rows = every.filter(
            session_id__in={message.session_id for message in given},
            sequence__in={message.sequence for message in given},
        )
        places = {*rows.values_list("session_id", "sequence")}
        return [message for message in given if (message.session_id, message.sequence) in places]

    def delete(self) -> tuple[int, dict[str, int]]:
        """Delete as Django does; counters of the sessions, and readers, follow."""
        self._for_write = True
        places: dict[UUID, list[Any]] = {}
        for pk, session_id in self.order_by().values_list("pk", "session_id"):
            places.setdefault(session_id, []).append(pk)
        every: Any = self.model._default_manager.using(self.db)
        deleted: Counter[str] = Counter()
        with transaction.atomic(using=self.db):
            last_numbers = locked_places(self.model, places, self.db)
            for session_id, last in last_numbers.items():
                keys, number = places[session_id], last
                for start in range(0, len(keys), AT_ONCE):
                    batch = every.filter(pk__in=keys[start : start + AT_ONCE])
                    removed = remove(batch, session_id, number)
                    number = removed.number
                    deleted.update(removed.rows)
        self._result_cache = None
        return sum(deleted.values()), dict(deleted)

    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]


def _names(model: type[models.Model], fields: Iterable[str]) -> set[str]:
    """Return the names of fields, some of which are given as `pk` or with `_id`."""
    options = model._meta
    return {(options.pk if name == "pk" else options.get_field(name)).name for name in fields}

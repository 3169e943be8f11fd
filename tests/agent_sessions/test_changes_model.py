"""Random sequences of operations, against a conversation in memory and what a follower has seen."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest
from django.db import connection

from agent_sessions import SessionChanged, SyncSessionRepository
from agent_sessions.models import DeletedMessage, Message, Session
from agent_sessions.repository import ChangeKind
from tests.agent_sessions.data import say

WORDS = ["amber", "birch", "cedar", "daisy", "ebony"]


@dataclass
class Conversation:
    """The conversation as it should be: text by number, and the last number that was given out."""

    texts: dict[int, str] = field(default_factory=dict)
    times: dict[int, datetime] = field(default_factory=dict)
    last: int = 0

    def append(self, *texts: str) -> list[int]:
        numbers = list(range(self.last + 1, self.last + len(texts) + 1))
        self.texts.update(zip(numbers, texts, strict=True))
        self.last += len(texts)
        return numbers

    def delete(self, *numbers: int) -> None:
        for number in numbers:
            del self.texts[number]
        self.last += len(numbers)

    def change(self, number: int, text: str) -> None:
        if self.texts[number] != text:
            self.texts[number] = text
            self.last += 1


@dataclass
class Follower:
    """Follows the changes, some at a time, and remembers what it has seen."""

    repository: Any
    session_id: Any
    texts: dict[int, str] = field(default_factory=dict)
    numbers: list[int] = field(default_factory=list)
    sees: Any = None

    def follow(self, limit: int | None) -> bool:
        after = self.numbers[-1] if self.numbers else 0
        changes = self.repository.get_changes(self.session_id, after=after, limit=limit)
        for change in changes:
            self.numbers.append(change.number)
            if change.kind is ChangeKind.DELETED:
                # One that was deleted before it was read was not seen.
                self.texts.pop(change.sequence, None)
                continue
            assert (change.kind is ChangeKind.ADDED) == (change.sequence not in self.texts)
            self.texts[change.sequence] = change.message.content
        return bool(changes)


def by_orm(session: Session, number: int) -> Any:
    return Message.objects.filter(session=session, sequence=number)


def step(
    rng: random.Random, repository: SyncSessionRepository, session: Session, model: Conversation
) -> None:
    """Do one operation to the session and to the model."""
    numbers = sorted(model.texts)
    text, other = rng.choices(WORDS, k=2)
    some = rng.choice(numbers) if numbers else 0
    match rng.randrange(14 if numbers else 4):
        case 0 | 1:
            added = [repository.add_message_to_session(session.pk, say(text))]
            assert [each.sequence for each in added] == model.append(text)
        case 2:
            added = repository.add_messages(session.pk, [say(text), say(other)])
            assert [each.sequence for each in added] == model.append(text, other)
        case 3:
            made = session.messages.create(role="user", content=text)
            assert [made.sequence] == model.append(text)
        case 4 | 5:
            popped = repository.pop_message(session.pk)
            assert popped is not None
            assert (popped.sequence, popped.content) == (numbers[-1], model.texts[numbers[-1]])
            model.delete(numbers[-1])
        case 6:
            repository.delete_message(session.pk, some)
            model.delete(some)
        case 7:
            by_orm(session, some).get().delete()
            model.delete(some)
        case 8:
            session.messages.filter(sequence__gte=some).delete()
            model.delete(*(number for number in numbers if number >= some))
        case 9:
            changed = repository.update_message(session.pk, some, say(text))
            model.change(some, text)
            assert changed.content == text
        case 10:
            message = by_orm(session, some).get()
            if message.content != text:
                message.content = text
                message.save()
            model.change(some, text)
        case 11:
            by_orm(session, some).exclude(content=text).update(content=text)
            model.change(some, text)
        case 12:
            with pytest.raises(SessionChanged):
                repository.replace_tail(session.pk, some, [say(text)], numbers[-1] + 1)
            added = repository.replace_tail(session.pk, some, [say(text)], numbers[-1])
            model.delete(*(number for number in numbers if number > some))
            assert [each.sequence for each in added] == model.append(text)
        case 13 if rng.random() < 0.3:
            assert repository.clear_messages(session.pk) == len(numbers)
            model.delete(*numbers)


def check(repository: SyncSessionRepository, session: Session, model: Conversation) -> None:
    stored = repository.get(session.pk)
    found = repository.get_messages(session.pk, limit=None)
    assert {each.sequence: each.content for each in found} == model.texts
    assert [each.sequence for each in found] == sorted(model.texts)
    assert (stored.message_count, stored.last_sequence) == (len(model.texts), model.last)
    assert stored.last_message_at == (found[-1].created_at if found else None)
    assert repository.get_session_stats(session.user_id).total_messages == len(model.texts)
    for word in WORDS:
        hits = repository.search_sessions(session.user_id, word, excerpts=100)
        there = [number for number in sorted(model.texts) if model.texts[number] == word]
        assert [hit.pk for hit in hits] == ([session.pk] if there else [])
        assert [piece.sequence for hit in hits for piece in hit.excerpts] == there


@pytest.mark.django_db
@pytest.mark.parametrize("seed", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
def test_random_operations_agree_with_a_conversation_in_memory(
    repository: Any, session: Session, seed: int
) -> None:
    rng = random.Random(seed)
    model = Conversation()
    live, late = (Follower(repository, session.pk) for _ in range(2))
    for number in range(80):
        step(rng, repository, session, model)
        live.follow(None)
        assert live.texts == model.texts
        if rng.random() < 0.3:
            late.follow(rng.randint(1, 4))
        if number % 10 == 0:
            check(repository, session, model)
    while late.follow(3):
        pass
    for follower in (live, late):
        assert follower.texts == model.texts
        assert follower.numbers == sorted(set(follower.numbers))
    check(repository, session, model)
    assert repository.verify_counters() == []
    fresh = Follower(repository, session.pk)
    fresh.follow(None)
    # What nobody has seen yet is seen once, as it is.
    assert (fresh.texts, fresh.numbers) == (model.texts, sorted(model.texts))


@pytest.mark.django_db(transaction=True)
def test_followers_of_many_writers_miss_nothing_and_repeat_nothing(
    repository: Any, session: Session
) -> None:
    repository.add_messages(session.pk, [say(str(number)) for number in range(20)])
    errors: list[BaseException] = []
    popped: list[int] = []
    writing = True

    def write(seed: int) -> None:
        rng = random.Random(seed)
        try:
            for _ in range(15 if connection.vendor == "postgresql" else 5):
                kind = rng.randrange(4)
                if kind == 0:
                    message = repository.pop_message(session.pk)
                    popped.extend([message.sequence] if message else [])
                elif kind == 1:
                    repository.add_message_to_session(session.pk, say(str(rng.random())))
                else:
                    some = rng.randint(1, 20)
                    try:
                        if kind == 2:
                            repository.update_message(session.pk, some, say(str(rng.random())))
                        else:
                            repository.delete_message(session.pk, some)
                    except Message.DoesNotExist:
                        pass
        except BaseException as error:  # noqa: BLE001
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]
    follower = Follower(repository, session.pk)
    for thread in threads:
        thread.start()
    while writing:
        writing = any(thread.is_alive() for thread in threads)
        follower.follow(3)
    for thread in threads:
        thread.join(60)
    while follower.follow(7):
        pass
    assert errors == []
    stored = {
        each.sequence: each.content for each in repository.get_messages(session.pk, limit=None)
    }
    assert follower.texts == stored
    assert follower.numbers == sorted(set(follower.numbers))
    assert len(popped) == len(set(popped))
    assert repository.verify_counters() == []
    given_out = set(stored) | {each.sequence for each in DeletedMessage.objects.all()}
    assert len(given_out) == len(stored) + DeletedMessage.objects.count()

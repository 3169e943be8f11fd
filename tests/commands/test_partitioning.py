from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from agent_sessions import Session, SyncSessionRepository
from agent_sessions.models import Message
from agent_sessions.postgresql.partitioning import is_partitioned

SAY = {"role": "user", "content": "hello"}


def details() -> dict[str, Any]:
    with connection.cursor() as cursor:
        found: dict[str, Any] = connection.introspection.get_constraints(
            cursor, Message._meta.db_table
        )
    return found


@pytest.mark.django_db
def test_only_postgresql_divides_tables():
    if connection.vendor == "postgresql":
        pytest.skip("This is PostgreSQL.")
    with pytest.raises(CommandError, match="Only PostgreSQL"):
        call_command("partition_messages", partitions=2)
    assert not is_partitioned(connection)


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
class TestPartitioning:
    @pytest.fixture(autouse=True)
    def in_one_piece(self, migrated_again: None) -> Iterator[None]:
        self.make_again()
        yield
        self.make_again()

    def make_again(self) -> None:
        call_command("migrate", "agent_sessions", "zero", verbosity=0)
        call_command("migrate", "agent_sessions", verbosity=0)

    def test_a_filled_table(self, django_user_model: Any) -> None:
        repository = SyncSessionRepository()
        user = django_user_model.objects.create_user("ada")
        sessions = [repository.create(Session(user=user, agent_id="a")) for _number in range(20)]
        for session in sessions:
            repository.add_messages(session.pk, [SAY, {**SAY, "idempotency_key": "k"}, SAY])
        rows = list(Message.objects.order_by("pk").values_list())
        before = details()
        with connection.cursor() as cursor:
            cursor.execute("GRANT SELECT, INSERT ON agent_sessions_message TO pg_monitor")
        deleted = repository.add_message_to_session(sessions[0].pk, SAY).pk
        Message.objects.get(pk=deleted).delete()

        call_command("partition_messages", partitions=3)

        assert is_partitioned(connection)
        assert list(Message.objects.order_by("pk").values_list()) == rows
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM agent_sessions_message GROUP BY tableoid")
            assert len(cursor.fetchall()) == 3
            cursor.execute(
                "SELECT has_table_privilege('pg_monitor', 'agent_sessions_message', 'SELECT'), "
                "has_sequence_privilege('pg_monitor', 'agent_sessions_message_id_seq', 'USAGE')"
            )
            assert cursor.fetchone() == (True, True)
        after = details()
        assert after.keys() == before.keys()
        for name in before.keys() - {"agent_sessions_message_pkey"}:
            assert after[name] == {**before[name], "definition": after[name]["definition"]}

        added = repository.add_message_to_session(sessions[0].pk, SAY)
        assert added.pk > deleted > max(row[0] for row in rows)
        # The message that was deleted had the number 4, and its deletion 5.
        assert added.sequence == 6
        repository.delete(sessions[1].pk)
        assert Message.objects.count() == 58
        with pytest.raises(CommandError, match="already"):
            call_command("partition_messages", partitions=3)

    @pytest.mark.parametrize("number", [0, 1_001])
    def test_a_number_out_of_range_is_refused(self, number: int) -> None:
        with pytest.raises(CommandError, match="1 to 1,000"):
            call_command("partition_messages", partitions=number)

    def test_another_table_that_refers_to_messages(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE note (message bigint REFERENCES agent_sessions_message)")
        try:
            with pytest.raises(CommandError, match="note"):
                call_command("partition_messages", partitions=2)
        finally:
            with connection.cursor() as cursor:
                cursor.execute("DROP TABLE note")
        assert not is_partitioned(connection)

"""Divides the table of messages on PostgreSQL into partitions; see docs/partitioning.md."""

from __future__ import annotations

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

MOST_PARTITIONS = 1_000


class CannotPartition(Exception):  # noqa: N818
    """The table of messages cannot be divided as it is."""


def is_partitioned(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether the table of messages is divided."""
    if connection.vendor != "postgresql":
        return False
    with connection.cursor() as cursor:
        return _is_partitioned(cursor)


def partition_messages(connection: BaseDatabaseWrapper, partitions: int) -> None:
    """Divide the table of messages by the hash of the session, with all its rows.

    One transaction: nobody reads or writes messages meanwhile, and after a failure everything is as
    before. Constraints, indexes, triggers and privileges are made again under their names; only the
    primary key becomes (id, session_id), because PostgreSQL wants the session in every unique
    index.

    Args:
        connection: The connection to the database.
        partitions: The number of partitions, 1 to 1,000.

    Raises:
        CannotPartition: This is not PostgreSQL, the table is divided already, another table refers
            to it, or the number is out of range.
    """
    if connection.vendor != "postgresql":
        raise CannotPartition("Only PostgreSQL divides tables.")
    if not 1 <= partitions <= MOST_PARTITIONS:
        raise CannotPartition(f"There can be 1 to {MOST_PARTITIONS:,} partitions.")
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        cursor.execute("LOCK TABLE agent_sessions_message IN ACCESS EXCLUSIVE MODE")
        if _is_partitioned(cursor):
            raise CannotPartition("The table of messages is divided already.")
        if referring := _column(cursor, _REFERRING):
            raise CannotPartition(
                f"These tables refer to messages by id, which is not unique by itself in a "
                f"divided table: {', '.join(referring)}."
            )
        again = _column(cursor, _CONSTRAINTS) + _column(cursor, _INDEXES)
        again += _column(cursor, _TRIGGERS) + _column(cursor, _PRIVILEGES)
        again += _column(cursor, _PRIVILEGES_OF_SEQUENCE)
        columns = ", ".join(_column(cursor, _COLUMNS))
        # Not behind the last row alone: the id of one that was deleted is not given out again.
        cursor.execute(
            "SELECT GREATEST(1, (SELECT MAX(id) + 1 FROM agent_sessions_message), "
            "nextval(pg_get_serial_sequence('agent_sessions_message', 'id')))"
        )
        (next_id,) = cursor.fetchone()
        cursor.execute("ALTER TABLE agent_sessions_message RENAME TO agent_sessions_message_whole")
        cursor.execute(
            "CREATE TABLE agent_sessions_message (LIKE agent_sessions_message_whole "
            "INCLUDING ALL EXCLUDING IDENTITY EXCLUDING INDEXES) PARTITION BY HASH (session_id)"
        )
        for number in range(partitions):
            cursor.execute(
                f"CREATE TABLE agent_sessions_message_p{number} PARTITION OF "
                "agent_sessions_message "
                f"FOR VALUES WITH (MODULUS {partitions}, REMAINDER {number})"
            )
        cursor.execute(
            f"INSERT INTO agent_sessions_message ({columns}) "  # noqa: S608
            f"SELECT {columns} FROM agent_sessions_message_whole"
        )
        cursor.execute("DROP TABLE agent_sessions_message_whole")
        cursor.execute(
            "ALTER TABLE agent_sessions_message "
            "ADD CONSTRAINT agent_sessions_message_pkey PRIMARY KEY (id, session_id)"
        )
        # Identity columns of divided tables exist from PostgreSQL 17 on.
        cursor.execute(
            f"CREATE SEQUENCE agent_sessions_message_id_seq START {next_id} "
            "OWNED BY agent_sessions_message.id"
        )
        cursor.execute(
            "ALTER TABLE agent_sessions_message "
            "ALTER COLUMN id SET DEFAULT nextval('agent_sessions_message_id_seq')"
        )
        for statement in again:
            cursor.execute(statement)
        for statement in _column(cursor, _INDEXES_OF_PARTITIONS):
            cursor.execute(statement)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE agent_sessions_message")


_TABLE = "'agent_sessions_message'::regclass"
_REFERRING = (
    f"SELECT DISTINCT conrelid::regclass::text FROM pg_constraint "  # noqa: S608
    f"WHERE contype = 'f' AND confrelid = {_TABLE}"
)
_CONSTRAINTS = (
    "SELECT format('ALTER TABLE agent_sessions_message ADD CONSTRAINT %I %s', conname, "  # noqa: S608
    f"pg_get_constraintdef(oid)) FROM pg_constraint WHERE conrelid = {_TABLE} "
    "AND contype IN ('u', 'f') ORDER BY contype DESC"
)
_INDEXES = (
    f"SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = {_TABLE} AND indisvalid "  # noqa: S608
    "AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)"
)
# Unlike an identity column, a sequence by itself asks whoever inserts for a privilege of its own.
_PRIVILEGES_OF_SEQUENCE = (
    "SELECT DISTINCT format('GRANT USAGE ON SEQUENCE agent_sessions_message_id_seq TO %s', "  # noqa: S608
    "CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END) "
    f"FROM pg_class, aclexplode(relacl) WHERE pg_class.oid = {_TABLE} AND grantee <> relowner "
    "AND privilege_type = 'INSERT'"
)
# PostgreSQL names them after their columns: nobody would know which index a plan means.
_INDEXES_OF_PARTITIONS = (
    "SELECT format('ALTER INDEX %s RENAME TO %I', part.indexrelid::regclass, "  # noqa: S608
    "whole.indexrelid::regclass || substring(part.indrelid::regclass::text FROM '_p[0-9]+$')) "
    "FROM pg_inherits JOIN pg_index part ON part.indexrelid = inhrelid "
    f"JOIN pg_index whole ON whole.indexrelid = inhparent WHERE whole.indrelid = {_TABLE}"
)
_TRIGGERS = (
    f"SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = {_TABLE} AND NOT tgisinternal"  # noqa: S608
)
_PRIVILEGES = (
    "SELECT format('GRANT %s ON agent_sessions_message TO %s', privilege_type, "  # noqa: S608
    "CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END) "
    f"FROM pg_class, aclexplode(relacl) WHERE pg_class.oid = {_TABLE} AND grantee <> relowner"
)
_COLUMNS = (
    f"SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = {_TABLE} "  # noqa: S608
    "AND attnum > 0 AND NOT attisdropped AND attgenerated = ''"
)


def _is_partitioned(cursor: CursorWrapper) -> bool:
    cursor.execute(f"SELECT relkind = 'p' FROM pg_class WHERE oid = {_TABLE}")  # noqa: S608
    found = cursor.fetchone()
    return bool(found and found[0])


def _column(cursor: CursorWrapper, query: str) -> list[str]:
    cursor.execute(query)
    return [value for (value,) in cursor.fetchall()]

r"""The search index of messages on PostgreSQL, and the spaced text that it holds.

One index of trigrams answers for whole words, beginnings and parts of words, in any script. The
user's key in front of the text keeps one user's search from reading the matches of others. The
index needs the extensions pg_trgm and btree_gin. A database owner may create them; where the
migration may not, search answers without the index (slower) and a check of the database tells what
is missing.

The index holds each text in upper case and with more spaces (``SPACED_SQL``): around the text and
each sign beyond ASCII, so that it is known what can stand beside a word; behind a Latin letter
where another script goes on, so that it is known what can follow a letter; around Chinese, Japanese
and Korean, with a 0 before each character, so that one character (0X0) has a trigram of its own,
and so have two side by side (X0Y). A word of a search term is spaced likewise (``spaced()``): what
is part of a text is part of the spaced text.

A change of ``SPACED_SQL`` takes a new ``NAME``: nothing compares the index of a database with the
text here. The classes of characters are for regular expressions of Python and of PostgreSQL alike.
"""

from __future__ import annotations

import re

from django.apps.registry import Apps
from django.db import DatabaseError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.backends.utils import CursorWrapper

#: Chinese and Japanese characters.
IDEOGRAPHS = (
    r"\u3005-\u3007"  # signs of repetition and zero, which stand for a character
    r"\u3041-\u3096\u309d-\u309f"  # hiragana
    r"\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"  # katakana
    r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese characters
    r"\uff66-\uff9d"  # katakana of half width
)

#: Korean syllables.
HANGUL = r"\uac00-\ud7a3"

#: Characters of which two say as much as a word.
SYLLABLES = IDEOGRAPHS + HANGUL

#: What ends a word, beyond ASCII: neither letters nor digits.
SIGNS = (
    r"\u0080-\u00a9\u00ab-\u00b1\u00b4\u00b6-\u00b8\u00bb\u00bf\u00d7\u00f7"  # Latin-1
    r"\u037e\u0387"  # Greek
    r"\u055a-\u055f\u0589\u058a"  # Armenian
    r"\u05be\u05c0\u05c3\u05c6\u05f3\u05f4"  # Hebrew
    r"\u0600-\u060f\u061b-\u061f\u066a-\u066d\u06d4"  # Arabic
    r"\u0964\u0965\u0970"  # Devanagari
    r"\u10fb"  # Georgian
    r"\u1360-\u1368"  # Ethiopic
    r"\u2000-\u206f"  # spaces, dashes and quotation marks
    r"\u20a0-\u20cf"  # currencies
    r"\u2190-\u245f\u2500-\u2775\u2794-\u2bff"  # arrows, mathematics, lines, pictures, braille
    r"\u2e00-\u2e2e\u2e30-\u3004\u3008-\u3020\u3030\u303d-\u303f"  # Chinese and Japanese
    r"\u309b\u309c\u30a0\u30fb"  # marks between kana
    r"\u4dc0-\u4dff"  # hexagrams
    r"\ufe00-\ufe19\ufe30-\ufe6f"  # variants, vertical and small forms
    r"\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65\uffe0-\ufffd"  # full and half width
    r"\U0001f000-\U0001f0ff\U0001f10d-\U0001fbef"  # emoji and game pieces
)

#: The letters beyond ASCII of most languages that are written in Latin letters.
LATIN = r"\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u017f"

_ASCII = r"\u0001-\u007f"
_LATIN_LETTERS_AND_MARKS = r"\u00c0-\u017f\u0300-\u036f"
_AFTER_A_LATIN_LETTER = rf"(?<=[0-9A-Za-z{LATIN}])(?=[^{_ASCII}{_LATIN_LETTERS_AND_MARKS}])"
_AFTER_A_SYLLABLE = rf"(?<=[{SYLLABLES}])(?=[^{SYLLABLES}])"
_BEFORE_A_SYLLABLE = rf"(?<=[^{SYLLABLES}])(?=[{SYLLABLES}])"
_BORDERS = f"[{SIGNS}]|{_AFTER_A_LATIN_LETTER}|{_AFTER_A_SYLLABLE}|{_BEFORE_A_SYLLABLE}"

#: The text that the index holds, for ``.format(column=…)``.
SPACED_SQL = (
    r"regexp_replace(regexp_replace(' ' || UPPER({column}::text) || ' ', "
    rf"'{_BORDERS}', ' \& ', 'g'), '[{SYLLABLES}]', '0\&', 'g')"
)

NAME = "agent_message_text"
TABLE = '"agent_sessions_message"'
EXTENSIONS = ("pg_trgm", "btree_gin")
#: In the schema that everybody sees: the tenant who came first may leave with theirs.
EXTENSIONS_SQL = " ".join(
    f"CREATE EXTENSION IF NOT EXISTS {name} SCHEMA public;" for name in EXTENSIONS
)

_BORDER, _SYLLABLE = re.compile(_BORDERS), re.compile(f"[{SYLLABLES}]")


def spaced(text: str) -> str:
    """Return a word as it stands in the spaced text of the index, but for its case."""
    return _SYLLABLE.sub(r"0\g<0>", _BORDER.sub(r" \g<0> ", text))


def create(connection: BaseDatabaseWrapper, concurrently: bool = False) -> None:
    """Create the extensions and the index where they are missing.

    ``concurrently`` does not block writers while a filled table is indexed; it cannot run inside a
    transaction. The partitions of a partitioned table are then indexed one by one.

    Raises:
        DatabaseError: The database does not allow it.
    """
    with connection.cursor() as cursor:
        _create_extensions(cursor)
        if not is_missing(connection):
            return
        partitions = _partitions(cursor) if concurrently else []
        for number, partition in partitions:
            _create(cursor, f"{NAME}_{number}", partition, concurrently=True)
        # On a table with partitions this takes up their indexes and builds nothing.
        _create(cursor, NAME, TABLE, concurrently and not partitions)


def is_missing(connection: BaseDatabaseWrapper) -> bool:
    """Return whether the index is not there, or not valid."""
    with connection.cursor() as cursor:
        index = _find(cursor, TABLE, NAME)
    return index is None or not index[1]


def create_if_possible(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Create the index in a migration; go on without it where that is not allowed."""
    connection = schema_editor.connection
    if connection.vendor != "postgresql":
        return
    try:
        with transaction.atomic(using=connection.alias):
            create(connection)
    except DatabaseError:
        # The database check names what is missing and how to add it.
        return


def drop(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Drop the index as the migration is unapplied; the extensions may have other users."""
    if schema_editor.connection.vendor == "postgresql":
        with schema_editor.connection.cursor() as cursor:
            if found := _find(cursor, TABLE, NAME):
                cursor.execute(f"DROP INDEX {found[0]}")


def _create_extensions(cursor: CursorWrapper) -> None:
    cursor.execute("SELECT to_regnamespace('public') IS NOT NULL")
    (has_public,) = cursor.fetchone()
    cursor.execute(EXTENSIONS_SQL if has_public else EXTENSIONS_SQL.replace(" SCHEMA public", ""))


def _create(cursor: CursorWrapper, name: str, table: str, concurrently: bool) -> None:
    how = "CONCURRENTLY" if concurrently else ""
    found = _find(cursor, table, name)
    if found and not found[1]:
        # What an interrupted build leaves behind would count as present.
        cursor.execute(f"DROP INDEX {how} {found[0]}")
    # The search path may leave out the schema of the extension.
    cursor.execute(
        "SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'pg_trgm'"
    )
    (schema,) = cursor.fetchone()
    text = SPACED_SQL.format(column='"content"')
    cursor.execute(
        f"CREATE INDEX {how} IF NOT EXISTS {name} ON {table} "
        f'USING gin ("user_id", ({text}) {schema}.gin_trgm_ops)'
    )


def _find(cursor: CursorWrapper, table: str, name: str) -> tuple[str, bool] | None:
    """Return the index's name, as a statement takes it, and whether it is valid.

    Names of indexes are names in a schema. Where the search path has several schemas with these
    tables, a name alone may mean the index of another table.
    """
    cursor.execute(
        "SELECT indexrelid::regclass::text, indisvalid FROM pg_index "
        "JOIN pg_class ON pg_class.oid = indexrelid "
        "WHERE indrelid = to_regclass(%s) AND relname = %s",
        [table, name],
    )
    found: tuple[str, bool] | None = cursor.fetchone()
    return found


def _partitions(cursor: CursorWrapper) -> list[tuple[int, str]]:
    cursor.execute(
        "SELECT relid::oid::bigint, relid::text FROM pg_partition_tree(%s) "
        "WHERE isleaf ORDER BY relid::text",
        [TABLE],
    )
    return [(int(number), str(name)) for number, name in cursor.fetchall()]

"""Operations of our migrations, which name them: they stay here."""

from __future__ import annotations

from typing import Any

from django.db import router
from django.db.migrations.operations import AddIndex, RemoveIndex
from django.db.migrations.operations.base import Operation

from agent_sessions.postgresql import append_function
from agent_sessions.postgresql.indexes import find_index


class CreateAppendFunction(Operation):
    """Create the function that appends messages, on PostgreSQL."""

    reduces_to_sql = True
    reversible = True

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Leave the models as they are."""

    def database_forwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        """Create the function."""
        self._execute(append_function.CREATE, app_label, schema_editor)

    def database_backwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        """Drop the function."""
        self._execute(append_function.DROP, app_label, schema_editor)

    def describe(self) -> str:
        """Say what the operation does."""
        return "Create the function that appends messages"

    def _execute(self, statement: str, app_label: str, schema_editor: Any) -> None:
        connection = schema_editor.connection
        if connection.vendor == "postgresql" and router.allow_migrate(
            connection.alias, app_label, model_name="message"
        ):
            schema_editor.execute(statement, params=None)


class _WithoutBlocking:
    """A schema editor whose changes of indexes let writers go on, where the database can."""

    def __init__(self, editor: Any) -> None:
        self.connection = editor.connection
        self._editor = editor
        self._options = {"concurrently": True} if self.connection.vendor == "postgresql" else {}

    def add_index(self, model: Any, index: Any) -> None:
        if self._options:
            # What an interrupted build leaves behind is invalid and has the name.
            self.remove_index(model, index)
        self._editor.add_index(model, index, **self._options)

    def remove_index(self, model: Any, index: Any) -> None:
        if not self._options or self._editor.collect_sql or self._has(model, index):
            self._editor.remove_index(model, index, **self._options)

    def _has(self, model: Any, index: Any) -> bool:
        # The statement takes a name alone, which may mean an index in another schema.
        table = self.connection.ops.quote_name(model._meta.db_table)
        with self.connection.cursor() as cursor:
            return find_index(cursor, table, index.name) is not None


class AddIndexWithoutBlocking(AddIndex):
    """Add an index while others write. The migration needs ``atomic = False``."""

    atomic = False

    def database_forwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        """Add the index."""
        editor: Any = _WithoutBlocking(schema_editor)
        super().database_forwards(app_label, editor, from_state, to_state)

    def database_backwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        """Remove the index."""
        editor: Any = _WithoutBlocking(schema_editor)
        super().database_backwards(app_label, editor, from_state, to_state)


class RemoveIndexWithoutBlocking(RemoveIndex):
    """Remove an index while others write. The migration needs ``atomic = False``."""

    atomic = False

    def database_forwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        """Remove the index."""
        editor: Any = _WithoutBlocking(schema_editor)
        super().database_forwards(app_label, editor, from_state, to_state)

    def database_backwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        """Add the index again."""
        editor: Any = _WithoutBlocking(schema_editor)
        super().database_backwards(app_label, editor, from_state, to_state)

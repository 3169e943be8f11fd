"""Export and import of conversations as JSON Lines, in the chat fine-tuning format.

A line is one session: `{"messages": [{"role": …, "content": …}, …]}` and, where the session has
them, `title`, `agent_id` (read also as `agent`), `metadata`, `context` and `status`; its `id` and
its times; and the times of its messages. An imported export is exported equal. Memory grows
neither with the file nor with an exported session.

Exports of ChatGPT, Claude and ShareGPT are read too, and gzip and zip.
"""

from agent_sessions.transfer.exporter import export_sessions
from agent_sessions.transfer.formats import AUTO, FORMATS
from agent_sessions.transfer.importer import Importer, Outcome, Result
from agent_sessions.transfer.inputs import Input, UnreadableInput
from agent_sessions.transfer.lines import (
    BYTES_PER_ITEM,
    DEFAULT_MAX_LINE_BYTES,
    Line,
    printable,
    read_lines,
)

__all__ = [
    "AUTO",
    "BYTES_PER_ITEM",
    "DEFAULT_MAX_LINE_BYTES",
    "FORMATS",
    "Importer",
    "Input",
    "Line",
    "Outcome",
    "Result",
    "UnreadableInput",
    "export_sessions",
    "printable",
    "read_lines",
]

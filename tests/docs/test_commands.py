"""The management commands are documented, and explain themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.core.management import load_command_class

from tests.docs.test_code_blocks import DOCUMENTS, ROOT

FOLDER = ROOT / "agent_sessions" / "management" / "commands"
COMMANDS = sorted(path.stem for path in FOLDER.glob("[a-z]*.py"))


def naming(name: str) -> list[Path]:
    return [document for document in DOCUMENTS if name in document.read_text(encoding="utf-8")]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_document_names_the_command(name: str) -> None:
    assert naming(name)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_and_its_options_have_a_help_text(name: str) -> None:
    command = load_command_class("agent_sessions", name)
    assert command.help
    parser = command.create_parser("manage.py", name)
    actions = [action for group in parser._action_groups for action in group._group_actions]
    assert [action.dest for action in actions if not action.help] == []

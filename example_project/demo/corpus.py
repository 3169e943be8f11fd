"""Real conversations in many languages: the package chatterbot-corpus as lines to import."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from agent_sessions.transfer import Line

# Every scalar stays the text it is: the word "yes" is an answer, not a boolean.
_Loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


class CorpusMissingError(Exception):
    """The package with the conversations is not installed."""


@dataclass(frozen=True)
class CorpusFile:
    """One subject in one language."""

    language: str
    subject: str
    path: Path

    @property
    def source(self) -> str:
        """Its name for the importer."""
        return f"chatterbot-corpus/{self.language}/{self.subject}"

    def lines(self) -> Iterator[Line]:
        """Its conversations, one a line, the two sides taking turns."""
        document = yaml.load(self.path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506
        conversations = [
            turns for turns in document.get("conversations", []) if isinstance(turns, list)
        ]
        for number, turns in enumerate(conversations, 1):
            data = json.dumps(
                {
                    "messages": [
                        {"role": "assistant" if place % 2 else "user", "content": turn}
                        for place, turn in enumerate(turns)
                    ],
                    "title": str(turns[0])[:80] if turns else "",
                    "agent_id": f"chatterbot-{self.language}",
                    "metadata": {"language": self.language, "subject": self.subject},
                },
                ensure_ascii=False,
            ).encode()
            yield Line(number, data, len(data))


def corpus_files() -> list[CorpusFile]:
    """Every file of the corpus, by language and subject. Raises CorpusMissingError."""
    package = find_spec("chatterbot_corpus")
    if package is None or not package.submodule_search_locations:
        raise CorpusMissingError
    data = Path(package.submodule_search_locations[0]) / "data"
    return [CorpusFile(path.parent.name, path.stem, path) for path in sorted(data.glob("*/*.yml"))]

"""docs/architecture.md shows the modules that exist and the layers that are checked."""

from __future__ import annotations

import configparser
import re

from tests.docs.test_code_blocks import ROOT, blocks

PAGE = ROOT / "docs" / "architecture.md"
ENTRY = re.compile(r"^( *)([\w]+)(/?)")


def text_blocks() -> list[str]:
    return [block.code for block in blocks(PAGE) if block.language == "text"]


def modules_of_the_page() -> set[str]:
    (tree,) = (code for code in text_blocks() if code.startswith("cache_layer/"))
    found, parents = set(), [""] * 10
    for line in tree.splitlines():
        match = ENTRY.match(line)
        assert match, line
        depth = len(match[1]) // 2
        parents[depth] = match[2]
        found.add("/".join(parents[: depth + 1]) + match[3])
    return found


def modules_of_the_code() -> set[str]:
    found = set()
    for package in ("cache_layer", "agent_sessions"):
        for file in (ROOT / package).rglob("*.py"):
            path = file.relative_to(ROOT)
            if "migrations" in path.parts or "commands" in path.parts:
                continue
            is_package = path.name == "__init__.py"
            found.add(f"{path.parent}/" if is_package else str(path.with_suffix("")))
    return found


def layers_of_the_code() -> dict[str, list[str]]:
    configuration = configparser.ConfigParser()
    configuration.read(ROOT / "setup.cfg")
    contracts = (
        configuration[name]
        for name in configuration.sections()
        if name.startswith("importlinter:contract")
    )
    return {
        contract["containers"].strip(): [
            # Optional layers stand in parentheses.
            line.strip()
            for line in contract["layers"].strip().splitlines()
            if not line.strip().startswith("(")
        ]
        for contract in contracts
        if contract["type"] == "layers"
    }


def test_the_tree_lists_every_module() -> None:
    assert modules_of_the_page() == modules_of_the_code()


def test_the_layers_are_those_of_the_contracts() -> None:
    (shown,) = (code for code in text_blocks() if code.startswith("cache_layer\n"))
    layers = {
        name: [line.strip() for line in lines]
        for name, *lines in (part.splitlines() for part in shown.strip().split("\n\n"))
    }
    assert layers == layers_of_the_code()

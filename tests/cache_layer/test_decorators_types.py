from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
from cache_layer import cache_invalidate, cached

@cached(ttl=300)
def plain(x: int, *, flag: bool = False) -> str:
    return str(x)

@cached(ttl=300)
async def awaited(x: int) -> list[str]:
    return []

class Service:
    @cached()
    def method(self, x: int) -> bytes:
        return b""

@cache_invalidate("a:*")
async def update(x: int) -> float:
    return 1.0

async def use(service: Service) -> None:
    reveal_type(plain(1, flag=True))
    reveal_type(plain.refresh(1))
    reveal_type(await awaited(1))
    reveal_type(await awaited.invalidate(x=1))
    reveal_type(service.method(1))
    reveal_type(service.method.invalidate(1))
    reveal_type(await update(1))
    plain("a")
    plain.cache_key()
    service.method("a")
"""

EXPECTED = [
    'Revealed type is "str"',
    'Revealed type is "str"',
    'Revealed type is "list[str]"',
    'Revealed type is "bool"',
    'Revealed type is "bytes"',
    'Revealed type is "bool"',
    'Revealed type is "float"',
    'Argument 1 to "__call__" of "CachedFunction" has incompatible type "str"; expected "int"',
    'Missing positional argument "x" in call to "cache_key" of "CachedFunction"',
    'Argument 1 to "__call__" of "CachedFunction" has incompatible type "str"; expected "int"',
]


@pytest.mark.slow
def test_the_decorators_keep_the_types_of_the_function(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "mypy.ini").write_text("[mypy]\nstrict = true\nfollow_untyped_imports = true\n")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--config-file", str(tmp_path / "mypy.ini")),
            *("--no-error-summary", "--hide-error-context", str(tmp_path / "program.py")),
        ],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if "program.py" in line]
    found = [line.split(": ", 2)[2].replace("builtins.", "") for line in lines]
    assert len(found) == len(EXPECTED), done.stdout
    for line, expected in zip(found, EXPECTED, strict=True):
        assert expected in line

"""The `curl` lines and the TypeScript of docs/ run against a server, as a reader runs them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission

from agent_sessions.models import Session
from agent_sessions.repository import SyncSessionRepository
from tests import services
from tests.docs.test_code_blocks import DOCUMENTS, blocks, identify

ADDRESS = "http://localhost:8000"
CLAIM = re.compile(r"# (\d{3})$")
PACKAGES = Path(__file__).with_name("package.json")
COMPILER_OPTIONS = {
    "strict": True,
    "noUncheckedIndexedAccess": True,
    "exactOptionalPropertyTypes": True,
    "target": "es2022",
    "module": "esnext",
    "moduleResolution": "bundler",
    "lib": ["es2022", "dom", "dom.iterable"],
    "types": [],
    "outDir": "out",
}


def shell_lines(document: Path, command: str) -> list[tuple[str, str]]:
    """The lines that begin with the command, and where they stand."""
    return [
        (f"{identify(document)}:{block.line}", line.strip())
        for block in blocks(document)
        if block.language == "sh"
        for line in block.code.replace("\\\n", " ").splitlines()
        if line.startswith(f"{command} ")
    ]


def typescript(document: Path) -> str:
    """The blocks of a page as one program; the compiler names the lines of the page."""
    program = ""
    for block in blocks(document):
        if block.language == "ts":
            program += "\n" * (block.line - 1 - program.count("\n")) + block.code
    return program


@pytest.fixture
def address(live_server: Any) -> str:
    """The server that the pages call localhost:8000, with the users they name."""
    create = get_user_model().objects.create_user  # type: ignore[attr-defined]
    ada = create("ada", password="secret")
    for _ in range(45):
        # More than one page of the list.
        SyncSessionRepository().create(Session(user=ada, agent_id="code_agent"))
    create("support", password="secret", is_staff=True).user_permissions.set(
        Permission.objects.filter(
            content_type__app_label="agent_sessions", codename__startswith="view_"
        )
    )
    url: str = live_server.url
    return url


# The reader's own shell expands and quotes; only where curl's answer goes is ours to say.
REPORTING = (
    'curl() { command curl "$@" --silent --show-error --max-time 20'
    ' --output "$BODY" --dump-header "$HEAD" --write-out "%{http_code}"; }'
)


class Shell:
    """Runs curl lines; remembers what the page calls $SESSION, $ETAG and $USER_ID."""

    def __init__(self, address: str, folder: Path) -> None:
        self.address = address
        self.body, self.head = folder / "body", folder / "head"
        key = get_user_model().objects.get(username="ada").pk
        self.variables = {
            "BODY": str(self.body),
            "HEAD": str(self.head),
            "USER_ID": str(key),
        }

    def curl(self, line: str) -> str:
        """Run the line; return the status of the answer."""
        done = subprocess.run(
            ["sh", "-uc", f"{REPORTING}\n{line.replace(ADDRESS, self.address)}"],
            env={**os.environ, **self.variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        headers = dict(re.findall(r"^([\w-]+): (.*?)\r?$", self.head.read_text(), re.MULTILINE))
        if "Location" in headers:
            self.variables["SESSION"] = headers["Location"]
        if "ETag" in headers:
            self.variables["ETAG"] = headers["ETag"]
        return done.stdout


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "document", [page for page in DOCUMENTS if shell_lines(page, "curl")], ids=identify
)
def test_curl_gets_the_status_that_the_page_claims(
    document: Path, address: str, tmp_path: Path
) -> None:
    if shutil.which("curl") is None:
        services.missing("curl", "install the program curl")
    shell = Shell(address, tmp_path)
    for where, line in shell_lines(document, "curl"):
        claim = CLAIM.search(line)
        assert claim, f"{where}: no status is claimed: {line}"
        status = shell.curl(line)
        assert status == claim[1], f"{where}: {line}\n{status}: {shell.body.read_text()}"


@pytest.fixture(scope="session")
def node_modules(request: pytest.FixtureRequest) -> Path:
    """The packages of package.json, installed once and kept beside pytest's own cache."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        services.missing("Node.js", "install the programs node and npm")
    wanted = PACKAGES.read_bytes()
    cache = request.config.cache
    assert cache is not None
    folder = cache.mkdir("node") / hashlib.sha256(wanted).hexdigest()[:16]
    if not folder.exists():
        fresh = Path(tempfile.mkdtemp(dir=folder.parent))
        (fresh / "package.json").write_bytes(wanted)
        done = subprocess.run(
            ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"],
            cwd=fresh,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            shutil.rmtree(fresh)
            services.missing("the npm packages", f"npm install failed: {done.stderr[-500:]}")
        try:
            fresh.rename(folder)
        except OSError:
            # Another process of this run was quicker.
            shutil.rmtree(fresh)
    return folder / "node_modules"


def node(program: str, *arguments: str, folder: Path) -> None:
    """Run a program of Node's; demand success, and silence on stderr."""
    done = subprocess.run(
        ["node", program, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), f"{done.stdout}{done.stderr}"


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("document", [page for page in DOCUMENTS if typescript(page)], ids=identify)
def test_typescript_is_sound_and_runs(
    document: Path, address: str, node_modules: Path, tmp_path: Path
) -> None:
    """The blocks of a page are one program: `console.assert` is how they say what comes out."""
    (tmp_path / "node_modules").symlink_to(node_modules)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "tsconfig.json").write_text(
        json.dumps({"compilerOptions": COMPILER_OPTIONS, "files": ["page.ts"]})
    )
    commands = [
        shlex.split(line.replace(ADDRESS, address)) for _where, line in shell_lines(document, "npx")
    ]
    assert commands, "the page does not generate its types"
    for _npx, name, *arguments in commands:
        cli = node_modules / name / "bin" / "cli.js"
        done = subprocess.run(
            ["node", str(cli), *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    (tmp_path / "page.ts").write_text(
        typescript(document).replace(ADDRESS, address), encoding="utf-8"
    )
    node(str(node_modules / "typescript" / "bin" / "tsc"), folder=tmp_path)
    node("out/page.js", folder=tmp_path)

"""`demo`: the whole product on this machine, with real conversations, by one command."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import BaseCommand, CommandError, CommandParser, call_command
from django.db import connection
from tqdm import tqdm

from agent_sessions.transfer import Importer, Outcome
from example_project.demo import probes
from example_project.demo.corpus import CorpusMissingError, corpus_files
from example_project.demo.processes import Children

USER = "demo"


class Command(BaseCommand):
    """Prepare, start the processes, wait."""

    help = (
        "Migrate, load conversations in many languages, run web server, Celery worker and beat, "
        "print the addresses and the login. Needs no service; DATABASE_URL, REDIS_URL and "
        "CELERY_BROKER_URL put real ones in. Ctrl-C ends it; run it again as often as you like."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--port", type=int, default=8000, help="Default: %(default)s.")
        parser.add_argument("--no-input", action="store_false", dest="interactive")
        parser.add_argument(
            "--conversations", type=int, metavar="N", help="Load at most N. Default: all."
        )
        parser.add_argument(
            "--check",
            action="store_true",
            help="Start everything, see that it works, and end.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        # SIGINT too: started in the background of a script it would be ignored.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _interrupt)
        port = options["port"]
        _require_free(port)
        if options["interactive"]:
            self._confirm()
        try:
            call_command("migrate", verbosity=0, interactive=False, skip_checks=True)
            login = self._user()
            self._load(options["conversations"])
            with Children(_environment(options["check"])) as children:
                self._start(children, port)
                self._wait_for_pages(children, port)
                self._greet(port, login)
                if options["check"]:
                    self._check(children, port, login)
                else:
                    self._stay(children)
        except KeyboardInterrupt:
            self.stdout.write("\nThe demo has ended.")
        except probes.NotWorkingError as error:
            raise CommandError(str(error)) from error

    def _confirm(self) -> None:
        """The demo's own database may be filled without asking, any other may not."""
        database = connection.settings_dict
        if connection.vendor == "sqlite" and Path(database["NAME"]).parent == settings.DATA_DIR:
            return
        if not sys.stdin.isatty():
            raise CommandError("Give --no-input to fill the database that DATABASE_URL names.")
        question = (
            f"Add a superuser {USER!r} and demo conversations to the database "
            f"{database['NAME']} at {database['HOST'] or 'this machine'}? [y/N] "
        )
        if input(question).strip().lower() not in {"y", "yes"}:
            raise CommandError("Nothing was changed.")

    def _user(self) -> tuple[str, str]:
        """The demo user, with a password that only this installation knows."""
        keep = Path(settings.DATA_DIR) / "password"
        if not keep.exists():
            keep.parent.mkdir(parents=True, exist_ok=True)
            keep.touch(mode=0o600)
            keep.write_text(secrets.token_urlsafe(9))
        password = keep.read_text()
        users = get_user_model()._default_manager
        user, _created = users.get_or_create(
            username=USER, defaults={"is_staff": True, "is_superuser": True}
        )
        if not user.check_password(password):
            user.set_password(password)
            user.save(update_fields=["password"])
        self.user = user
        return USER, password

    def _load(self, limit: int | None) -> None:
        try:
            files = corpus_files()
        except CorpusMissingError:
            raise CommandError(
                "The conversations are missing: pip install 'django-agent-sessions[demo]'"
            ) from None
        lines = [(file, line) for file in files for line in file.lines()][:limit]
        by_file: dict[str, list[Any]] = {}
        for file, line in lines:
            by_file.setdefault(file.source, []).append(line)
        added = 0
        with tqdm(total=len(lines), unit=" conversations", file=sys.stderr, disable=None) as bar:
            for source, file_lines in by_file.items():
                for result in Importer(self.user.pk, source).run(file_lines):
                    added += result.outcome is Outcome.IMPORTED
                    bar.update()
        self.stdout.write(f"{len(lines)} conversations loaded, {added} of them new.")

    def _start(self, children: Children, port: int) -> None:
        celery = ("celery", "--quiet", "--app", "example_project")
        log = ("--loglevel", "ERROR")
        children.start(
            "web server",
            *("uvicorn", "example_project.asgi:application"),
            *("--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"),
        )
        children.start("worker", *celery, "worker", *log, "--pool", "solo", "--without-mingle")
        schedule = str(Path(settings.DATA_DIR) / "celerybeat-schedule")
        children.start("beat", *celery, "beat", *log, "--schedule", schedule, "--pidfile", "")

    def _wait_for_pages(self, children: Children, port: int) -> None:
        def answers() -> bool:
            _require_running(children)
            return probes.fetch(port, "/")[0] == 200

        probes.wait_until("The web server answers", answers, 60)

    def _greet(self, port: int, login: tuple[str, str]) -> None:
        address = f"http://127.0.0.1:{port}"
        database = connection.vendor if connection.vendor != "sqlite" else "SQLite"
        redis = "Redis" if settings.CACHES["default"].get("LOCATION") else "memory"
        broker = settings.CELERY_BROKER_URL.partition(":")[0]
        self.stdout.write(
            f"\n  Start      {address}/\n"
            f"  Admin      {address}/admin/\n"
            f"  API        {address}/api/v1/sessions/\n"
            f"  API docs   {address}/api/docs/\n\n"
            f"  Login      {login[0]}\n"
            f"  Password   {login[1]}\n\n"
            f"  Database {database}, cache {redis}, broker {broker}. Ctrl-C ends the demo.\n"
        )
        self.stdout.flush()

    def _check(self, children: Children, port: int, login: tuple[str, str]) -> None:
        probes.check_pages(port, login)
        session = probes.expired_session(self.user.pk)

        def completed() -> bool:
            _require_running(children)
            return probes.is_completed(session)

        probes.wait_until("Worker and beat complete an expired session", completed, 60)
        self.stdout.write("Everything works.")

    def _stay(self, children: Children) -> None:
        while True:
            _require_running(children)
            time.sleep(0.5)


def _environment(check: bool) -> dict[str, str]:
    """What the children get beside the command's own environment."""
    seconds = "1" if check else "30"
    return {
        "DJANGO_SETTINGS_MODULE": os.environ["DJANGO_SETTINGS_MODULE"],
        "SESSION_CLEANUP_SECONDS": os.environ.get("SESSION_CLEANUP_SECONDS", seconds),
        # Celery warns of the superuser in containers; a demo may be run there.
        "C_FORCE_ROOT": "1",
    }


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise CommandError(
                f"Port {port} is taken ({error.strerror}). Give another: --port {port + 1}"
            ) from error


def _require_running(children: Children) -> None:
    if ended := children.ended():
        raise CommandError(f"Ended unasked: {', '.join(ended)}.")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt

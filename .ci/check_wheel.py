"""Use the installed wheel as a new project would: migrate, one conversation, one cache call."""

import sys
import tempfile
import zipfile
from pathlib import Path

names = set(zipfile.ZipFile(sys.argv[1]).namelist())
for wanted in ("agent_sessions/py.typed", "cache_layer/py.typed"):
    if wanted not in names:
        sys.exit(f"{wanted} is not in the wheel")
for name in names:
    if name.split("/")[0] not in {"agent_sessions", "cache_layer"} and ".dist-info/" not in name:
        sys.exit(f"{name} does not belong in the wheel")

import django
from django.conf import settings

directory = tempfile.mkdtemp()
settings.configure(
    SECRET_KEY="only-here-" + "0" * 50,
    USE_TZ=True,
    DATABASES={
        "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{directory}/db.sqlite3"}
    },
    CACHES={"default": {"BACKEND": "cache_layer.backends.ResilientCache"}},
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "agent_sessions",
        "cache_layer",
    ],
)
django.setup()

from asgiref.sync import async_to_sync
from django.contrib.auth import get_user_model
from django.core.management import call_command

import agent_sessions
from agent_sessions.models import Session
from agent_sessions.repository import SessionRepository
from cache_layer import get_cache

if not Path(agent_sessions.__file__).is_relative_to(sys.prefix):
    sys.exit(f"not the installed package: {agent_sessions.__file__}")
call_command("migrate", verbosity=0)
call_command("check", fail_level="ERROR")
user = get_user_model().objects.create_user("someone")


async def main() -> None:
    repository = SessionRepository()
    session = await repository.create(Session(user=user, agent_id="agent", title="Hello"))
    await repository.add_message_to_session(session.id, {"role": "user", "content": "Hi"})
    loaded = await repository.get_session_with_messages(session.id)
    if [message.content for message in loaded.messages] != ["Hi"]:
        sys.exit("the message did not come back")
    cache = await get_cache("users")
    await cache.set("user:1", {"name": "John"})
    if await cache.get("user:1") != {"name": "John"}:
        sys.exit("the cached value did not come back")


async_to_sync(main)()
print(f"{Path(sys.argv[1]).name}: {len(names)} files, installed and used")

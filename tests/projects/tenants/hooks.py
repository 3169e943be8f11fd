"""The tour is one tenant's; a second one comes, and the first one goes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management import call_command
from django.db import connection

from agent_sessions.models import Session
from agent_sessions.repository import SyncSessionRepository


def add_tenant(name: str, domain: str) -> Any:
    from tests.projects.tenants.customers.models import Customer, Domain

    tenant = Customer.objects.create(schema_name=name, name=name)
    Domain.objects.create(domain=domain, tenant=tenant, is_primary=True)
    return tenant


def prepare() -> None:
    connection.set_schema_to_public()
    call_command("migrate_schemas", shared=True, verbosity=0)
    if os.environ.get("PUBLIC_FIRST") == "1":
        add_tenant("public", "public.example.org")
    add_tenant("acme", "testserver")


@contextmanager
def around(name: str) -> Iterator[None]:
    from django_tenants.utils import schema_context

    with schema_context("acme"):
        yield


def found_by_index(schema: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_indexes WHERE schemaname = %s "
            "AND tablename = 'agent_sessions_message' AND indexdef LIKE '%%gin%%'",
            [schema],
        )
        return bool(cursor.fetchone()[0])


def after(tour: Any) -> None:
    from django.contrib.auth import get_user_model
    from django_tenants.utils import schema_context

    from tests.projects.tenants.customers.models import Customer

    globex = add_tenant("globex", "globex.example.org")
    assert found_by_index("acme") == found_by_index("globex") == True  # noqa: E712
    with schema_context("globex"):
        assert Session.objects.count() == 0
        user = get_user_model()._default_manager.create_user("eve")
        repository = SyncSessionRepository().for_user(user)
        session = repository.create(Session(agent_id="a"))
        repository.add_message_to_session(session.pk, {"role": "user", "content": "hello world"})
    connection.set_schema_to_public()
    Customer.objects.get(schema_name="acme").delete(force_drop=True)
    assert found_by_index("globex")
    with schema_context("globex"):
        assert repository.search_sessions("orl") == [session]
    assert globex.pk
    print("ok tenants come and go")

"""The address has the tenant. Everybody belongs to two of them, and the tour is in one."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied


def tenant_of(request: Any) -> str:
    tenant: str = request.resolver_match.kwargs["tenant"]
    if tenant not in ("acme", "globex"):
        raise PermissionDenied
    return tenant


def after(tour: Any) -> None:
    here, elsewhere = "/acme/api/v7/agents/", "/globex/api/v7/agents/"
    made = tour.ask("sessions/", {"agent_id": "helper"}).json()["id"]
    tour.api = elsewhere
    assert tour.ask("sessions/").json()["results"] == []
    tour.ask(f"sessions/{made}/", status=404)
    body = {"session_ids": [made], "status": "paused"}
    tour.ask("sessions/bulk-status/", body, status=404)
    tour.ask("sessions/erase/", {"confirm": True}, status=200)
    tour.api = here
    assert tour.ask(f"sessions/{made}/").json()["status"] == "active"
    tour.api = "/initech/api/v7/agents/"
    tour.ask("sessions/", status=403)
    print("ok two tenants")

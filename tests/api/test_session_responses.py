from __future__ import annotations

import json
import uuid
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.utils.timezone import override
from drf_spectacular.generators import SchemaGenerator
from jsonschema import Draft202012Validator, FormatChecker
from rest_framework.renderers import JSONRenderer
from rest_framework.test import APIClient

from agent_sessions.api.serializers import (
    FoundSessionSerializer,
    SessionSerializer,
    SessionSummarySerializer,
    represent_session,
    summarize_session,
)
from agent_sessions.models import Session
from agent_sessions.repository import SyncSessionRepository
from tests.api.conftest import API, say, url

pytestmark = pytest.mark.django_db
SESSIONS = f"{API}sessions/"


def create(api: APIClient, **body: Any) -> dict[str, Any]:
    response = api.post(SESSIONS, {"agent_id": "a", **body}, format="json")
    assert response.status_code == 201, response.content
    result: dict[str, Any] = response.json()
    return result


def test_answers_are_what_the_serializers_describe(session: Session) -> None:
    say(session, "one")
    session.refresh_from_db()
    for moment in (session.created_at, session.created_at.replace(microsecond=0)):
        session.created_at = moment
        with override(ZoneInfo("Asia/Kathmandu")):
            assert represent_session(session) == SessionSerializer(session).data
            assert summarize_session(session) == SessionSummarySerializer(session).data


def test_what_search_answers_is_what_the_serializer_and_the_schema_describe(
    api: APIClient, owner: Any, session: Session
) -> None:
    say(session, "no match", "before " * 60 + "Python 🐍 <b>\x00\ud83d" + " behind" * 60)
    SyncSessionRepository().create(
        Session(user=owner, agent_id="a", title="python", expires_at=None, metadata={"a": [1]})
    )
    body = api.get(f"{SESSIONS}search/?q=python").json()
    found = SyncSessionRepository().search_sessions(owner.pk, "python")
    assert sorted(len(each.excerpts) for each in found) == [0, 1]
    described = FoundSessionSerializer(found, many=True).data
    assert body == {"results": json.loads(JSONRenderer().render(described))}

    schema = SchemaGenerator().get_schema(public=True)
    (answer,) = (
        operation["responses"]["200"]["content"]["application/json"]["schema"]
        for path in schema["paths"].values()
        for operation in path.values()
        if operation["operationId"] == "searchSessions"
    )
    validator = Draft202012Validator(
        {**_closed(answer), "components": _closed(schema["components"])},
        format_checker=FormatChecker(),
    )
    validator.validate(body)
    excerpt = next(each["excerpts"][0] for each in body["results"] if each["excerpts"])
    assert excerpt["begins_inside"] is excerpt["ends_inside"] is True
    for wrong in (
        {"results": [{**body["results"][0], "more": 1}]},
        {"results": [{**body["results"][0], "excerpts": [{**excerpt, "segments": [{}]}]}]},
    ):
        assert not validator.is_valid(wrong)


def _closed(schema: Any) -> Any:
    """Return the schema with no other properties than those it names."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(inner) for name, inner in schema.items()}
    if closed.get("type") == "object" and "properties" in closed:
        closed["additionalProperties"] = False
    return closed


@pytest.mark.parametrize("path", ["x", "0", "00000000", "%00", "🦊", "a" * 5000])
def test_what_is_no_id_is_the_404_of_an_unknown_id(api: APIClient, path: str) -> None:
    unknown = api.get(url(uuid.uuid4()))
    malformed = api.get(url(path))
    assert (unknown.status_code, malformed.status_code) == (404, 404)
    assert malformed.content == unknown.content


def test_other_spellings_of_an_id_are_not_the_id(api: APIClient, session: Session) -> None:
    for spelling in (session.pk.hex, f"{{{session.pk}}}", f"urn:uuid:{session.pk}"):
        assert api.get(url(spelling)).status_code == 404
    assert api.get(url(str(session.pk).upper())).status_code == 200


def test_the_schema_says_that_a_change_has_no_other_fields() -> None:
    schema = SchemaGenerator().get_schema(public=True)
    (request,) = (
        operation["requestBody"]["content"]["application/json"]["schema"]
        for path in schema["paths"].values()
        for operation in path.values()
        if operation["operationId"] == "changeSession"
    )
    validator = Draft202012Validator({**request, "components": schema["components"]})
    assert validator.is_valid({"title": "A", "status": "paused"})
    assert not validator.is_valid({"titel": "A"})


@pytest.mark.parametrize(
    "body",
    [
        {"role": "activity", "content": {}},
        {"role": "assistant", "content": {}},
        {"role": "assistant", "content": {}, "messages": [{"role": "user", "content": "?"}]},
        {"messages": [{"role": "user", "content": "?"}], "note": {}},
        {"role": "assistant", "content": None, "refusal": "No."},
        {"role": "user", "content": None, "name": "x"},
        {"role": "tool", "content": None, "name": "x"},
        {"role": "wizard", "content": "x"},
    ],
    ids=json.dumps,
)
def test_the_schema_accepts_the_messages_that_the_api_accepts(
    api: APIClient, session: Session, body: Any
) -> None:
    schema = SchemaGenerator().get_schema(public=True)
    described = {"$ref": "#/components/schemas/AppendRequest", "components": schema["components"]}
    answer = api.post(url(session, "messages"), body, format="json")
    assert (answer.status_code == 201) == Draft202012Validator(described).is_valid(body)

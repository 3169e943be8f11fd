from __future__ import annotations

import itertools
import subprocess
import sys
from http.cookies import SimpleCookie
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.core.cache import cache
from django.db import connection
from django.db.models import Count, F, TextChoices
from django.http import (
    FileResponse,
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponsePermanentRedirect,
    HttpResponseRedirect,
    JsonResponse,
    StreamingHttpResponse,
)
from django.template import engines
from django.template.response import SimpleTemplateResponse, TemplateResponse
from django.test import RequestFactory, override_settings
from django.test.utils import CaptureQueriesContext
from django.views.decorators.cache import cache_page

from cache_layer.codec import CodecError, SafeSerializer, UnsupportedValueError, register
from tests.cache_layer.test_codec import resigned

codec = SafeSerializer({})


def round_trip(value: Any) -> Any:
    return codec.loads(codec.dumps(value))


class Word(TextChoices):
    ONE = "one"


# --- model instances -----------------------------------------------------------------------------


@pytest.mark.django_db
def test_an_instance_comes_back_with_its_values_and_state() -> None:
    user = get_user_model().objects.create_user(username="a", password="x")
    found = round_trip({"users": [user]})["users"][0]
    assert type(found) is type(user)
    assert found == user
    for field in user._meta.concrete_fields:
        assert getattr(found, field.attname) == getattr(user, field.attname)
        assert type(getattr(found, field.attname)) is type(getattr(user, field.attname))
    assert found._state.adding is False
    assert found._state.db == "default"
    found.first_name = "changed"
    found.save()
    user.refresh_from_db()
    assert user.first_name == "changed"


def test_an_unsaved_instance_stays_unsaved() -> None:
    found = round_trip(Group(name="new"))
    assert (found.pk, found.name, found._state.adding, found._state.db) == (None, "new", True, None)


@pytest.mark.django_db
def test_deferred_fields_stay_deferred() -> None:
    Group.objects.create(name="a")
    found = round_trip(Group.objects.defer("name").get())
    assert found.get_deferred_fields() == {"name"}
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert found.name == "a"
    assert len(queries) == 1


@pytest.mark.django_db
def test_related_objects_that_were_loaded_stay_loaded() -> None:
    kind = ContentType.objects.create(app_label="x", model="y")
    Permission.objects.create(name="p", codename="c", content_type=kind)
    with_it = round_trip(Permission.objects.select_related("content_type").get(codename="c"))
    without = round_trip(Permission.objects.get(codename="c"))
    with CaptureQueriesContext(connection) as queries:
        assert with_it.content_type == kind
        assert len(queries) == 0
        assert without.content_type_id == kind.pk
        assert len(queries) == 0
        assert without.content_type == kind
        assert len(queries) == 1


@pytest.mark.django_db
def test_annotations_and_circles_of_related_objects_stay() -> None:
    Group.objects.create(name="a")
    assert round_trip(Group.objects.annotate(n=Count("user")).get()).n == 0  # type: ignore[attr-defined]
    kind = ContentType.objects.create(app_label="x", model="y")
    permission = Permission(name="p", codename="c", content_type=kind)
    kind.favourite = permission  # type: ignore[attr-defined]
    found = round_trip(permission)
    assert found.content_type.favourite is found
    kind.favourite = kind  # type: ignore[attr-defined]
    with pytest.raises(UnsupportedValueError, match="contains itself"):
        round_trip(permission)


def test_choices_members_in_fields_become_plain_and_what_is_no_value_is_refused() -> None:
    found = round_trip(Group(name=Word.ONE))
    assert type(found.name) is str
    assert found.name == "one"
    with pytest.raises(UnsupportedValueError, match=r"at value\[0\]\.name"):
        codec.dumps([Group(name=F("id"))])


def test_a_changed_or_missing_model_is_a_miss() -> None:
    data = codec.dumps(Group(name="a"))
    for old, new in ((b"auth.group", b"auth.grope"), (b"auth.group", b"gone.group")):
        with pytest.raises(CodecError, match="corrupt"):
            codec.loads(resigned(data, old, new))
    with pytest.raises(CodecError, match=r"fields of auth\.group have changed"):
        codec.loads(resigned(data, b"\xa4name", b"\xa4nome"))


# --- responses -----------------------------------------------------------------------------------


def make_response() -> HttpResponse:
    response = HttpResponse(
        b"\xff\x00", status=418, reason="Teapot", content_type="text/x; charset=latin-1"
    )
    response["X-Odd"] = "grüße"
    response["ETag"] = '"1"'
    response.set_cookie("a", 'quoted "value"; really', max_age=60, httponly=True, samesite="Lax")
    response.set_signed_cookie("s", "käse")
    response.delete_cookie("gone")
    response.xframe_options_exempt = True  # type: ignore[attr-defined]
    return response


@pytest.mark.parametrize(
    "make",
    [
        make_response,
        HttpResponse,
        lambda: JsonResponse({"a": [1]}),
        lambda: HttpResponseRedirect("/a/?b=ü"),
        lambda: HttpResponsePermanentRedirect("https://example.com/"),
        lambda: HttpResponseNotAllowed(["GET", "HEAD"]),
    ],
)
def test_a_response_comes_back_whole(make: Any) -> None:
    response = make()
    found = round_trip(response)
    assert type(found) is type(response)
    assert found.serialize() == response.serialize()
    assert found.cookies == response.cookies
    assert isinstance(found.cookies, SimpleCookie)
    assert found.charset == response.charset
    assert (found.status_code, found.reason_phrase) == (
        response.status_code,
        response.reason_phrase,
    )
    assert vars(found).keys() == vars(response).keys()
    found.set_cookie("more", "1")
    found["X-More"] = "1"
    found.content = b"new"
    assert found.getvalue() == b"new"


@override_settings(
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
)
@pytest.mark.parametrize(
    "make",
    [Group.objects.all, lambda: iter([1]), lambda: (x for x in [1]), {"a": 1}.keys, {}.items],
)
def test_what_is_iterated_over_is_refused_with_the_remedy(make: Any) -> None:
    with pytest.raises(UnsupportedValueError, match="a list of its items can"):
        codec.dumps(make())


def test_rendered_templates_are_kept_and_unrendered_ones_refused() -> None:
    template = engines.all()[0].from_string("<p>{{ x }}</p>")
    responses: list[SimpleTemplateResponse] = [
        SimpleTemplateResponse(template, {"x": 1}),
        TemplateResponse(HttpRequest(), template, {"x": 1}),
    ]
    for response in responses:
        with pytest.raises(UnsupportedValueError, match="rendered first"):
            codec.dumps(response)
        response.render()
        found = round_trip(response)
        assert type(found) is type(response)
        assert found.is_rendered
        assert found.render().content == b"<p>1</p>"


def test_what_can_be_read_only_once_is_refused() -> None:
    for response in (StreamingHttpResponse(iter([b"x"])), FileResponse(iter([b"x"]))):
        with pytest.raises(UnsupportedValueError, match="only once"):
            codec.dumps(response)


def test_a_response_class_of_ones_own_is_refused_rather_than_changed() -> None:
    class Mine(HttpResponse):
        pass

    with pytest.raises(UnsupportedValueError, match="Mine"):
        codec.dumps(Mine())


def test_a_registered_response_class_of_ones_own_comes_back_whole() -> None:
    class Teapot(HttpResponse):
        status_code = 418

        def __init__(self, lid: str) -> None:
            super().__init__("short and stout")
            self.lid = lid

    register(Teapot, name="teapot")
    made = Teapot("on")
    made.set_cookie("a", "b")
    found = round_trip(made)
    assert type(found) is Teapot
    assert (found.lid, found.serialize()) == ("on", made.serialize())
    assert found.cookies == made.cookies


def test_cache_page_works_over_the_backend() -> None:
    numbers = itertools.count()

    @cache_page(60, key_prefix="page")
    def view(request: HttpRequest) -> HttpResponse:
        response = HttpResponse(f"call {next(numbers)}")
        response.set_cookie("a", "b")
        return response

    cache.clear()
    first = view(RequestFactory().get("/page"))
    second = view(RequestFactory().get("/page"))
    assert first.content == second.content == b"call 0"
    assert second.cookies["a"].value == "b"
    assert second["Cache-Control"] == "max-age=60"
    cache.clear()


def test_rest_framework_responses_are_known_only_where_it_is_loaded() -> None:
    # Its module must not be loaded by the codec, so this looks from a fresh process.
    program = """
import sys
import django
from django.conf import settings
apps = ["django.contrib.contenttypes", "django.contrib.auth"]
settings.configure(SECRET_KEY="x", INSTALLED_APPS=apps)
django.setup()
from cache_layer.codec import CodecError, SafeSerializer
codec = SafeSerializer({})
assert "rest_framework" not in sys.modules
from rest_framework import response, renderers
from rest_framework.exceptions import ErrorDetail
from rest_framework.utils.serializer_helpers import ReturnList
made = response.Response({"a": ReturnList([1], serializer=None), "e": [ErrorDetail("no", "code")]})
made.accepted_renderer = renderers.JSONRenderer()
made.accepted_media_type = "application/json"
made.renderer_context = {}
made.render()
data = codec.dumps(made)
found = codec.loads(data)
assert type(found) is response.Response and found.content == made.content, found.content
assert found.data == made.data and type(found.data["a"]) is list
del sys.modules["rest_framework.response"]
try:
    codec.loads(data)
except CodecError:
    print("a miss")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == ("a miss\n", 0), done.stderr

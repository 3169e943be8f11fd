"""Encodes Django's responses (and REST framework's, if loaded), which ``cache_page`` stores."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from http.cookies import Morsel, SimpleCookie
from typing import Any, Final

from django.http import response as http
from django.template.response import SimpleTemplateResponse, TemplateResponse

from cache_layer.codec.types import Composite, Refused, State
from cache_layer.exceptions import CodecError

# Attributes of the finished request, of the handler or of the test client.
_NOT_KEPT: Final = frozenset(
    {
        "headers",
        "cookies",
        "_resource_closers",
        "_handler_class",
        "_request",
        "_post_render_callbacks",
        "template_name",
        "context_data",
        "accepted_renderer",
        "renderer_context",
        "client",
        "context",
        "exc_info",
        "json",
        "request",
        "resolver_match",
        "templates",
        "wsgi_request",
    }
)
_REST_MODULE: Final = "rest_framework.response"


def _parts(response: http.HttpResponse) -> list[object]:
    if response.streaming:
        raise Refused(response, "a streaming response can be read only once")
    if isinstance(response, SimpleTemplateResponse) and not response.is_rendered:
        raise Refused(response, "it must be rendered first")
    attributes = {k: v for k, v in vars(response).items() if k not in _NOT_KEPT}
    if "data" in attributes:
        attributes["data"] = _plain(attributes["data"])
    cookies = [
        [morsel.key, morsel.value, morsel.coded_value, {k: v for k, v in morsel.items() if v != ""}]
        for morsel in response.cookies.values()
    ]
    return [attributes, [list(item) for item in response.headers.items()], cookies]


def _from_parts(cls: type[http.HttpResponse], parts: State) -> http.HttpResponse:
    attributes, headers, cookies = parts
    response = cls.__new__(cls)
    vars(response).update(attributes)
    vars(response).update(_resource_closers=[], _handler_class=None)
    response.headers = http.ResponseHeaders({})
    for header, value in headers:
        response.headers[header] = value
    response.cookies = SimpleCookie()
    for key, value, coded_value, extra in cookies:
        morsel: Morsel[str] = Morsel()
        morsel.set(key, value, coded_value)
        morsel.update(extra)
        # SimpleCookie's own assignment would quote the value a second time.
        dict.__setitem__(response.cookies, key, morsel)
    return response


def response_codec(
    cls: type[http.HttpResponse],
) -> tuple[Callable[[http.HttpResponse], object], Callable[[State], object]]:
    """Return the codec for responses of a project's own class."""
    return _parts, lambda parts: _from_parts(cls, parts)


def is_known_response(cls: type) -> bool:
    """Tell whether a class is one of Django's responses, or REST framework's."""
    return _classes().get(cls.__name__) is cls


def _state_of(response: http.HttpResponseBase) -> object:
    if not isinstance(response, http.HttpResponse):
        raise Refused(response, "a streaming response can be read only once")
    if not is_known_response(type(response)):
        raise Refused(response)
    return [type(response).__name__, _parts(response)]


def _build(state: State) -> http.HttpResponse:
    name, parts = state
    cls = _classes().get(name)
    if cls is None:
        raise CodecError(f"there is no response class {name!r}")
    return _from_parts(cls, parts)


RESPONSE: Final = Composite(22, _state_of, _build)


@cache
def _django_classes() -> dict[str, type[http.HttpResponse]]:
    named: dict[str, object] = {
        **vars(http),
        "SimpleTemplateResponse": SimpleTemplateResponse,
        "TemplateResponse": TemplateResponse,
    }
    return {
        name: cls
        for name, cls in named.items()
        if isinstance(cls, type) and issubclass(cls, http.HttpResponse)
    }


def _classes() -> dict[str, type[http.HttpResponse]]:
    rest = sys.modules.get(_REST_MODULE)
    return _django_classes() if rest is None else {**_django_classes(), "Response": rest.Response}


def _plain(data: object) -> Any:
    """Strip REST framework's dict, list and str subclasses, as its own pickling does."""
    if isinstance(data, dict):
        return {key: _plain(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_plain(item) for item in data]
    if isinstance(data, str):
        return data[:] if type(data) is not str else data
    return data

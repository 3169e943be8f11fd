"""Django's responses (and REST framework's, where it is loaded), as ``cache_page`` stores them."""

from __future__ import annotations

import sys
from functools import cache
from http.cookies import Morsel, SimpleCookie
from typing import Any, Final

from django.http import response as http
from django.template.response import SimpleTemplateResponse, TemplateResponse

from cache_layer.codec.types import Kind, Pack, Refused, Unpack
from cache_layer.exceptions import CodecError

RESPONSE_CODE: Final = 22

# What belongs to the request that is over, to the handler or to the test client.
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


def _encode(response: http.HttpResponse, pack: Pack) -> bytes:
    cls = type(response)
    name = cls.__name__
    if response.streaming:
        raise Refused(response, "a streaming response can be read only once")
    if _classes().get(name) is not cls:
        raise Refused(response)
    if isinstance(response, SimpleTemplateResponse) and not response.is_rendered:
        raise Refused(response, "it must be rendered first")
    attributes = {k: v for k, v in vars(response).items() if k not in _NOT_KEPT}
    if "data" in attributes:
        attributes["data"] = _plain(attributes["data"])
    cookies = [
        [morsel.key, morsel.value, morsel.coded_value, {k: v for k, v in morsel.items() if v != ""}]
        for morsel in response.cookies.values()
    ]
    return pack([name, attributes, [list(item) for item in response.headers.items()], cookies])


def _decode(data: bytes, unpack: Unpack) -> http.HttpResponse:
    name, attributes, headers, cookies = unpack(data)
    cls = _classes().get(name)
    if cls is None:
        raise CodecError(f"there is no response class {name!r}")
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


RESPONSE: Final = Kind(RESPONSE_CODE, _encode, _decode)


@cache
def _django_classes() -> dict[str, type[http.HttpResponse]]:
    named: dict[str, Any] = {
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


def _plain(data: Any) -> Any:
    """Strip REST framework's dict, list and str subclasses, as its own pickling does."""
    if isinstance(data, dict):
        return {key: _plain(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_plain(item) for item in data]
    if isinstance(data, str):
        return data[:] if type(data) is not str else data
    return data

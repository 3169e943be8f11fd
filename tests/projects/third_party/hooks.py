"""Each of the apps does what it is for."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import authenticate
from django.test import RequestFactory


def after(tour: Any) -> None:
    import waffle
    from axes.utils import reset
    from constance import config
    from django_ratelimit.core import is_ratelimited
    from waffle.models import Switch

    request = RequestFactory().post("/login/")
    for _ in range(4):
        assert authenticate(request, username="bob", password="wrong") is None
    # Locked out after three.
    assert authenticate(request, username="bob", password="secret-2") is None
    reset(username="bob")
    Switch.objects.create(name="new", active=True)
    assert waffle.switch_is_active("new")
    Switch.objects.get(name="new").delete()
    assert not waffle.switch_is_active("new")
    config.GREETING = "good day"
    assert config.GREETING == "good day"
    found = [
        is_ratelimited(request, group="g", key="ip", rate="2/h", increment=True) for _ in range(4)
    ]
    assert found == [False, False, True, True]
    print("ok third parties")

"""Declares the Django settings of both apps, and the rules that the system checks apply."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import ClassVar, Final, NamedTuple

from django.conf import settings as django_settings
from django.core import checks
from django.core.signals import setting_changed


class _Setting:
    """Reads one Django setting. A default is kept on the instance, where Python finds it first.

    Django finds a setting that exists quickly and one that does not slowly.
    """

    def __init__(self, name: str, default: object) -> None:
        self.name = name
        self.default = default

    def __get__(self, instance: AppSettings | None, owner: type[AppSettings]) -> object:
        if instance is None:
            return self.default
        try:
            return getattr(django_settings, owner.prefix + self.name)
        except AttributeError:
            vars(instance)[self.name] = self.default
            return self.default


class AppSettings:
    """The Django settings of one app.

    A subclass names its prefix and annotates one attribute for each setting: the name, the type and
    the default. Attributes of the class are the defaults. Attributes of an instance are read from
    Django's settings at each access, so ``override_settings`` works on them.
    """

    prefix: ClassVar[str]
    defaults: ClassVar[Mapping[str, object]]

    def __init_subclass__(cls, *, prefix: str) -> None:
        cls.prefix = prefix
        cls.defaults = {name: vars(cls)[name] for name in cls.__annotations__}
        for name, default in cls.defaults.items():
            setattr(cls, name, _Setting(name, default))

    def __init__(self) -> None:
        setting_changed.connect(self._forget)

    def _forget(self, *, setting: str, **kwargs: object) -> None:
        vars(self).pop(setting.removeprefix(self.prefix), None)


class Rule(NamedTuple):
    """The values that a setting may have, described in words and by a test."""

    allowed: str
    is_met_by: Callable[[object], bool]

    def or_none(self) -> Rule:
        """Return the rule that allows None as well."""
        return Rule(f"{self.allowed}, or None", lambda v: v is None or self.is_met_by(v))


def is_count(value: object) -> bool:
    """Tell whether a value is a whole number from 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def is_amount(value: object) -> bool:
    """Tell whether a value is a number above 0 and below ten million."""
    # The comparison refuses infinity and NaN, too.
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e7


COUNT: Final = Rule("a whole number from 1", is_count)
SECONDS: Final = Rule("a number of seconds above 0", is_amount)


def wrong_values(
    app: str, settings: AppSettings, rules: Mapping[str, tuple[str, Rule]]
) -> Iterator[checks.CheckMessage]:
    """Yield an error for each setting whose value its rule does not allow.

    Args:
        app: The label of the app, which the ids of its checks begin with.
        settings: The settings to look at.
        rules: The number of the check and the rule of each setting, by name without prefix.
    """
    for name, (number, rule) in rules.items():
        value = getattr(settings, name)
        if not rule.is_met_by(value):
            yield checks.Error(
                f"{settings.prefix}{name} is {value!r}: it must be {rule.allowed}.",
                hint=f"The default is {settings.defaults[name]!r}.",
                id=f"{app}.{number}",
            )


def unknown_names(app: str, settings: AppSettings) -> Iterator[checks.CheckMessage]:
    """Yield a warning (W001) for each Django setting with the app's prefix that is not its own."""
    known = [settings.prefix + name for name in settings.defaults]
    for name in dir(django_settings):
        if name.startswith(settings.prefix) and name not in known:
            close = get_close_matches(name, known, n=1)
            yield checks.Warning(
                f"{name} is not a setting of {app}.",
                hint=f"Did you mean {close[0]}?" if close else f"Settings: {', '.join(known)}.",
                id=f"{app}.W001",
            )

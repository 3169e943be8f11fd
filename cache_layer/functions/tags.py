"""Tags: names under which results are invalidated together, at the cost of one key."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote

from cache_layer.functions.arguments import CallKeys, digest
from cache_layer.functions.templates import Template, as_written

_LONGEST: Final = 100
_READABLE: Final = re.compile(rf"[A-Za-z0-9_./@+~:-]{{1,{_LONGEST}}}")


def tag_key(tag: str) -> str:
    """Return the key of a tag, inside its namespace.

    :raises TypeError: the tag is not a string.
    :raises ValueError: it is empty.
    """
    if not isinstance(tag, str):
        raise TypeError(f"A tag is a string, not {tag!r}.")
    if not tag:
        raise ValueError("A tag may not be empty.")
    if not _READABLE.fullmatch(tag):
        quoted = quote(tag, safe="/@+~:", errors="surrogatepass")
        tag = quoted if len(quoted) <= _LONGEST else digest(quoted)
    return f"@tag:{tag}"


class TagTemplates:
    """The ``tags=`` of a decorator, with ``{argument}`` placeholders.

    :raises TypeError: they are not a list of strings.
    :raises ValueError: one is empty or not well formed, or names no argument of the function.
    """

    def __init__(self, function: Callable[..., Any], keys: CallKeys, tags: Iterable[str]) -> None:
        if isinstance(tags, str):
            raise TypeError(f"tags is a list of strings: write [{tags!r}].")
        tags = list(tags)
        for tag in tags:
            tag_key(tag)
        made = [Template(function, keys.names, "tag", tag) for tag in tags]
        #: The keys of those that are the same for every call.
        self.fixed: Final = tuple(tag_key(each.filled({}, str)) for each in made if not each.varies)
        self._varying = [each for each in made if each.varies]
        self.vary: Final = bool(self._varying)

    def __bool__(self) -> bool:
        return bool(self.fixed or self._varying)

    def keys(self, arguments: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the keys of those tags of a call that its arguments are in.

        :raises UnstableArgumentError: an argument has no stable form.
        """
        # Quoted as in a key, where arguments leave nothing of a tag.
        filled = [each.filled(arguments, as_written) or "''" for each in self._varying]
        return tuple(map(tag_key, filled))

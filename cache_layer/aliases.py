"""Names for what a type checker cannot know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

#: What somebody stores and is given back: only they know its type.
Value = Any
#: Options as somebody wrote them in the settings, not checked yet.
Options = Mapping[str, Any]
#: A user's function.
Function = Callable[..., Any]

"""Names for types that only the caller knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

#: A value that a caller stores and reads back; only the caller knows its type.
Value = Any
#: The OPTIONS of a ``CACHES`` entry, as written in the settings and not checked yet.
Options = Mapping[str, Any]
#: A user's function.
Function = Callable[..., Any]
#: Called with the name of an operation; the call to Redis happens within the context manager.
Observe = Callable[[str], AbstractContextManager[object]]

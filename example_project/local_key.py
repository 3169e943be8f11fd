"""A secret key of its own for an installation that was given none."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from django.core.management.utils import get_random_secret_key


def local_secret_key(path: Path) -> str:
    """The key kept at `path`, readable by its owner only; made at the first call.

    Processes that start together get the same key: the file appears complete, and only once.
    """
    try:
        return path.read_text()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
    # mkstemp gives mode 0600.
    descriptor, name = tempfile.mkstemp(dir=path.parent)
    draft = Path(name)
    with os.fdopen(descriptor, "w") as file:
        file.write(get_random_secret_key())
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return path.read_text()

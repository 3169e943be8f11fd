"""A broker that is a directory, so that worker and beat run on a machine without any broker.

For development and demonstration on one machine: Celery's file system transport, made safe for
a reader that looks while a writer writes.
"""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

from kombu.transport import filesystem
from kombu.utils.json import dumps


class Channel(filesystem.Channel):
    """The file system channel with directories made on demand and messages that appear whole."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for folder in (self.data_folder_in, self.data_folder_out, self.control_folder):
            Path(folder).mkdir(parents=True, exist_ok=True)

    def _put(  # type: ignore[override]
        self, queue: str, payload: dict[str, Any], **kwargs: Any
    ) -> None:
        name = f"{time.monotonic_ns() // 1_000_000:015d}_{uuid.uuid4()}.{queue}.msg"
        folder = Path(self.data_folder_out)
        # Stock transport writes under the final name: a worker that polls meanwhile takes the
        # half message away and dies of it.
        draft = folder / f"{name}.draft"
        draft.write_text(dumps(payload))
        draft.rename(folder / name)


class Transport(filesystem.Transport):
    """Celery's name for the above: `broker_transport = "example_project.broker:Transport"`."""

    Channel = Channel

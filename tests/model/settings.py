"""What is explored: three clients each time, and what may go wrong."""

from __future__ import annotations

from tests.model.base import Setting
from tests.model.state import A, B

SETTINGS = {
    setting.name: setting
    for setting in (
        # One process, and every fault once.
        Setting("keys", [(A, ["call"]), (A, ["invalidate"]), (A, ["call"])], outage=1),
        Setting("tags", [(A, ["call"]), (A, ["invalidate the tag"]), (A, ["call"])], outage=1),
        # Two processes. One of them loses Redis, or both do.
        Setting(
            "processes",
            [(A, ["call"]), (A, ["invalidate"]), (B, ["call"])],
            outage=1,
            evictions=0,
            cancellations=0,
        ),
        Setting(
            "both",
            [(A, ["call"]), (A, ["invalidate"]), (B, ["call"])],
            restarts=0,
            evictions=0,
            cancellations=0,
        ),
        # Without tags: values that are set, deletions that a cancellation ends.
        Setting(
            "writes",
            [(A, ["set", "plain delete"]), (A, ["call"]), (B, ["call"])],
            tagged=False,
            outage=1,
            restarts=0,
        ),
        # A process that begins after a restart.
        Setting(
            "start",
            [(A, ["invalidate"]), (A, ["call"]), (B, ["call"])],
            outage=0,
            begins=True,
            saves=1,
            evictions=0,
            cancellations=0,
        ),
        # The near cache: of a reader, and of the process that invalidates.
        Setting(
            "near",
            [(A, ["call"]), (A, ["call"]), (B, ["invalidate"])],
            near=True,
            outage=1,
            restarts=0,
            evictions=0,
            cancellations=0,
        ),
        Setting(
            "near own",
            [(A, ["call"]), (A, ["invalidate"]), (A, ["call"])],
            near=True,
            outage=0,
            restarts=0,
            cancellations=0,
        ),
    )
}

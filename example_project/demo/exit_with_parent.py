"""Run a module that ends with its parent: `python -m example_project.demo.exit_with_parent NAME`.

The parent holds the other end of standard input. However it goes, also by SIGKILL, that pipe
closes, and everything in this process group ends.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

_PATIENCE_SECONDS = 5


def main() -> None:
    pipe = os.dup(sys.stdin.fileno())
    sys.stdin = open(os.devnull)  # noqa: PTH123, SIM115
    threading.Thread(target=_end_with_parent, args=[pipe], daemon=True).start()
    module = sys.argv[1]
    sys.argv = [module, *sys.argv[2:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _end_with_parent(pipe: int) -> None:
    while os.read(pipe, 1024):
        pass
    os.killpg(0, signal.SIGTERM)
    time.sleep(_PATIENCE_SECONDS)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()

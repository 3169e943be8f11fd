"""After the tour a worker with two forked processes gets tasks that run out of time."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import defaultdict
from typing import Any

from agent_sessions.models import Session
from agent_sessions.repository import SyncSessionRepository

ROUNDS = 8
WORKER = ("-m", "celery", "--app", "tests.projects.prefork.worker", "worker")
OPTIONS = ("--pool", "prefork", "--concurrency", "2", "--loglevel", "WARNING")


def after(tour: Any) -> None:
    worker = subprocess.Popen(
        [sys.executable, *WORKER, *OPTIONS],
        env={**os.environ, "C_FORCE_ROOT": "1"},
        start_new_session=True,
    )
    try:
        use_up_the_time_of_tasks(tour.owner)
    finally:
        worker.terminate()
        try:
            worker.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()


def use_up_the_time_of_tasks(owner: Any) -> None:
    from tests.projects.prefork.worker import append, call_a_cached_function, use_the_cache

    repository = SyncSessionRepository().for_user(owner)
    appends, others = [], []
    for _ in range(ROUNDS):
        limit = {"soft_time_limit": random.uniform(0.3, 0.8)}
        session = repository.create(Session(agent_id="prefork"))
        appends.append(append.apply_async((str(session.pk), owner.pk), **limit))
        others.append(use_the_cache.apply_async((20,), **limit))
        others.append(call_a_cached_function.apply_async((), **limit))
    # A task that has missed its soft limit is killed after a minute, which is raised here.
    appended = [answer for each in appends if (answer := each.get(timeout=200))]
    used = [answer for each in others if (answer := each.get(timeout=200))]
    assert sum(done for done, _places in appended) > 0
    assert used
    assert SyncSessionRepository().verify_counters() == []
    users_of = defaultdict(set)
    for process, backend, client in [*used, *(places for _done, places in appended)]:
        users_of["backend", backend].add(process)
        users_of["client", client].add(process)
    assert all(len(processes) == 1 for processes in users_of.values()), users_of
    print("ok tasks out of time")

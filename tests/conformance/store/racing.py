"""What several processes do at the same moment. A module of its own, for a spawned process has to import it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from platformctl.errors import Conflict
from platformctl.hub.store import CaMaterial, SatelliteRecord, Store, update_satellite

Opener = Callable[[], Store]
_barrier: Any = None


def race(work: Callable[[Store, int], Any], opener: Opener, processes: int = 4) -> list[Any]:
    """What each of several new processes gave; all begin with `work` at once, each with its own opening and number."""
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(processes)
    with ProcessPoolExecutor(processes, mp_context=spawn, initializer=_meet_at, initargs=(barrier,)) as pool:
        return [task.result(timeout=45) for task in [pool.submit(_run, work, opener, n) for n in range(processes)]]


def _meet_at(barrier: Any) -> None:
    global _barrier
    _barrier = barrier


def _run(work: Callable[[Store, int], Any], opener: Opener, number: int) -> Any:
    _barrier.wait(timeout=40)
    store = opener()
    try:
        return work(store, number)
    finally:
        store.close()


def consume_all(store: Store, number: int) -> list[bool]:
    return [store.consume_join_token(f"jt-{n}", 1000.0) for n in range(50)]


def create_ca(store: Store, number: int, *, calls: Path) -> bytes:
    def factory() -> CaMaterial:
        (calls / str(number)).touch()
        return CaMaterial(b"certificate of %d" % number, b"key of %d" % number)

    return store.get_or_create_ca(factory).key_pem


def creating_ca(calls: Path) -> Callable[[Store, int], bytes]:
    return partial(create_ca, calls=calls)


def create_satellites(store: Store, number: int) -> list[bool]:
    won = []
    for n in range(20):
        try:
            store.put_satellite(SatelliteRecord(f"sat-{n}", {}, "active", f"sha256:{number}", (), 0.0))
            won.append(True)
        except Conflict:
            won.append(False)
    return won


def add_labels(store: Store, number: int) -> None:
    def add(record: SatelliteRecord | None, n: int) -> SatelliteRecord:
        assert record is not None
        return replace(record, labels={**record.labels, f"p{number}-{n}": "x"})

    for n in range(5):
        update_satellite(store, "sat-0", partial(add, n=n))


def move_version(store: Store, number: int) -> None:
    for n in range(25):
        store.put_setting(f"key-{number}", str(n))

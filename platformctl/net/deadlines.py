"""One timer for all connections: they carry a deadline as a plain number, and one sweep looks at all of them.

Setting a deadline is one attribute store, so a request costs no timer object; the price is the granularity of the
sweep.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Final, Protocol

NEVER: Final = math.inf
GRANULARITY: Final = 0.25


class Timed(Protocol):
    """`deadline`: monotonic seconds; `on_deadline` is called once it has passed, and sets the next one."""

    deadline: float

    def on_deadline(self, now: float) -> None: ...


class Deadlines:
    """All timed objects of a process. `members` is public: adding and discarding is the caller's, at connect and
    close.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.members: set[Timed] = set()
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(GRANULARITY, self._run, loop)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def sweep(self, now: float) -> None:
        """Call `on_deadline` of everything that is due at `now`."""
        for timed in [m for m in self.members if m.deadline <= now]:
            timed.on_deadline(now)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            self.sweep(self._clock())
        finally:
            self.start(loop)

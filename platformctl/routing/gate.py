"""`Gate`: how many exchanges a service takes at a time, and who waits.

Rules:
1. With `concurrency` 0 everybody enters and nobody waits.
2. Nobody overtakes: whoever comes while others wait, waits behind them.
3. At most `queue` wait, each for at most `queue_timeout` seconds; the next one is refused at once.
4. A slot that becomes free goes to the one that waited longest; that waiter has entered, and must `leave` in the end.

The gate moves nothing by itself: the caller gives it waiters (any hashable object), dispatches those that it gets
back from `leave` and `admit`, and refuses those that `expire` and `clear` return.
"""

from __future__ import annotations

from collections import OrderedDict

from platformctl.errors import LocalMisuse
from platformctl.routing.spec import Limits

__all__ = ["Gate"]


class Gate:
    __slots__ = ("_waiting", "active", "concurrency", "queue", "queue_timeout")

    def __init__(self, limits: Limits) -> None:
        self.active = 0
        self.concurrency = limits.concurrency
        self.queue = limits.queue
        self.queue_timeout = limits.queue_timeout
        # Ordered, for the oldest is at the front, and keyed, for a client that goes away is taken out of the middle.
        self._waiting: OrderedDict[object, float] = OrderedDict()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def try_enter(self) -> bool:
        """Take a slot if one is free (rule 2). True: the caller has entered and must `leave`."""
        if self.concurrency and (self.active >= self.concurrency or self._waiting):
            return False
        self.active += 1
        return True

    def enqueue(self, waiter: object, now: float) -> bool:
        """Wait for a slot. False: the queue is full, answer 503 with Retry-After."""
        if len(self._waiting) >= self.queue:
            return False
        if waiter in self._waiting:
            raise LocalMisuse("the waiter is in the queue already")
        self._waiting[waiter] = now
        return True

    def leave(self) -> object | None:
        """Give the slot back. The result, if any, has entered in its place: dispatch it."""
        if self.active == 0:
            raise LocalMisuse("leave without enter")
        self.active -= 1
        return self.admit() if self._waiting else None

    def admit(self) -> object | None:
        """Let the oldest waiter in if there is room. Call until None after the limits were raised."""
        if not self._waiting or (self.concurrency and self.active >= self.concurrency):
            return None
        waiter, _ = self._waiting.popitem(last=False)
        self.active += 1
        return waiter

    def remove(self, waiter: object) -> bool:
        """Forget a waiter whose client went away. False: it was not waiting (entered or expired before)."""
        return self._waiting.pop(waiter, None) is not None

    def next_expiry(self) -> float | None:
        """When `expire` has something to do next; None while nobody waits."""
        for since in self._waiting.values():
            return since + self.queue_timeout
        return None

    def expire(self, now: float) -> list[object]:
        """Remove and return those that waited too long, oldest first. Answer each 503 with Retry-After."""
        expired: list[object] = []
        for waiter, since in self._waiting.items():
            if since + self.queue_timeout > now:
                break
            expired.append(waiter)
        for waiter in expired:
            del self._waiting[waiter]
        return expired

    def clear(self) -> list[object]:
        """Remove and return all waiters: the service is gone. Those inside still `leave`."""
        waiters = list(self._waiting)
        self._waiting.clear()
        return waiters

    def resize(self, limits: Limits) -> None:
        """Apply a new spec's limits. Nobody inside is put out, and nobody who waits is sent away."""
        self.concurrency = limits.concurrency
        self.queue = limits.queue
        self.queue_timeout = limits.queue_timeout

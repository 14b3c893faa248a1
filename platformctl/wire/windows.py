"""Flow-control windows, one class for streams and sessions.

Policy:
1. A window starts at `size` bytes of credit. Every received byte takes one; a sender that takes more than it was given
   has broken the protocol.
2. Bytes count as consumed when they have left this process, not when they were received; so what is buffered for a slow
   reader is never more than the window.
3. Consumed bytes are given back when they add up to half the window: few WINDOW frames, and never a full stop.
4. A window that was emptied and refilled within two round trips is the bottleneck: it doubles, up to `cap`
   (the bandwidth-delay product is not known, so it is found by growing; RFC 9000 4.2 gives the same reason).
5. A window never shrinks; the reader that stops simply stops giving back.
"""

from __future__ import annotations

from typing import Final

INITIAL: Final = 256 * 1024
STREAM_CAP: Final = 4 * 1024 * 1024
SESSION_INITIAL: Final = 8 * 1024 * 1024
SESSION_CAP: Final = 32 * 1024 * 1024
# Below this a round trip measures the scheduler, not the path.
MIN_RTT: Final = 0.002


class ReceiveWindow:
    """What the peer may still send, and when to give credit back. Sizes in bytes, times in seconds."""

    __slots__ = ("cap", "consumed_in_epoch", "credit", "epoch", "held", "owed", "size")

    def __init__(self, size: int, cap: int) -> None:
        self.size = size
        self.cap = cap
        self.credit = size
        self.held = 0  # received, not yet consumed
        self.owed = 0  # consumed, not yet given back
        self.epoch = -1.0
        self.consumed_in_epoch = 0

    def take(self, n: int) -> bool:
        """Account for `n` received bytes; False when the peer had no credit for them."""
        if n > self.credit:
            return False
        self.credit -= n
        self.held += n
        return True

    def give_back(self, n: int, now: float, rtt: float) -> int:
        """Account for `n` consumed bytes; the credit to announce now, 0 for none yet."""
        self.held -= n
        self.owed += n
        if self.owed * 2 < self.size:
            return 0
        grown = self._grow(now, rtt)
        credit = self.owed + grown
        self.owed = 0
        self.credit += credit
        return credit

    def _grow(self, now: float, rtt: float) -> int:
        self.consumed_in_epoch += self.owed
        if self.epoch < 0.0:
            self.epoch = now
            self.consumed_in_epoch = 0
            return 0
        if self.consumed_in_epoch < self.size:
            return 0
        fast = now - self.epoch <= 2.0 * max(rtt, MIN_RTT)
        self.epoch = now
        self.consumed_in_epoch = 0
        if not fast or self.size >= self.cap:
            return 0
        grown = min(self.size, self.cap - self.size)
        self.size += grown
        return grown

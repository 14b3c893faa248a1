"""SIGTERM and SIGHUP end a command as Ctrl-C does: what it started is stopped first."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

__all__ = ["ends_like_ctrl_c", "uninterrupted"]


def _interrupt(number: int, frame: FrameType | None) -> None:
    # What Ctrl-C would do just now: under `asyncio.run` it cancels the main task, which is how tasks end in good order.
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):  # ignored, as for a background job of a shell script
        raise KeyboardInterrupt
    handler(signal.SIGINT, frame)


@contextlib.contextmanager
def ends_like_ctrl_c() -> Iterator[None]:
    """Within, SIGTERM and SIGHUP do in the main thread what Ctrl-C does: KeyboardInterrupt or a cancelled task."""
    former = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Within, a second Ctrl-C changes nothing: half-stopped processes would be left behind."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    former = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)

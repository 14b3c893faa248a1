"""Running an event loop the way every runtime of ours does: uvloop where it is there, signals, and a lag probe."""

from __future__ import annotations

import asyncio
import gc
import signal
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

try:
    from uvloop import run as run_loop
except ImportError:  # no wheel for this platform: asyncio's own loop works, only slower
    run_loop = asyncio.run  # type: ignore[assignment]

LAG_PROBE_SECONDS: Final = 0.5


def run(main: Coroutine[Any, Any, int]) -> int:
    """Run `main` to its end; its result is the exit code."""
    # Objects of start-up live for ever: taken out of the collector's sight, its runs stay short (PEP 556's measurements
    # and Instagram's gc.freeze report the same effect). Reference counting frees what requests make.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    return run_loop(main)


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM or SIGINT sets."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def probe_lag(observe: Callable[[float], None]) -> None:
    """Tell `observe` again and again how late a timer ran, in seconds."""
    while True:
        due = time.monotonic() + LAG_PROBE_SECONDS
        await asyncio.sleep(LAG_PROBE_SECONDS)
        observe(max(0.0, time.monotonic() - due))

"""Watch files by polling `stat`, so that every way of replacing a file is seen.

inotify misses what matters here: Kubernetes replaces a mounted Secret by swapping the symlink `..data`, editors rename
a new file over the old one, and network file systems tell nobody. `stat` follows symlinks, so device, inode, size and
mtime of what the path means *now* change in all three cases; a look costs microseconds.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

__all__ = ["FileWatch", "fingerprint"]

log = logging.getLogger(__name__)

Stamp = tuple[int, int, int, int] | None


def fingerprint(path: Path) -> Stamp:
    """What identifies the content behind `path` without reading it; None when there is no file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class FileWatch:
    """Calls `on_change` when one of `paths` changed, appeared or vanished since the last look.

    `run()` is the loop and belongs in the owner's task group; `poke()` forces the callback at once (SIGHUP). A callback
    that raises is logged and does not end the watch: the next change may be the repair.
    """

    def __init__(self, paths: Iterable[Path | str], on_change: Callable[[], Awaitable[None]], *, interval: float = 0.5):
        self._paths = [Path(p) for p in paths]
        self._on_change = on_change
        self._interval = interval
        self._poked = asyncio.Event()
        self._seen = self._look()

    def poke(self) -> None:
        """Reload now, changed or not. Safe to call from a signal handler of the loop."""
        self._poked.set()

    async def check(self) -> bool:
        """One look; True if the callback was called."""
        forced = self._poked.is_set()
        self._poked.clear()
        now = self._look()
        if now == self._seen and not forced:
            return False
        # Remembered before the callback: a change during it is seen by the next look.
        self._seen = now
        try:
            await self._on_change()
        except Exception:
            log.exception("reload failed", extra={"files": [str(p) for p in self._paths]})
        return True

    async def run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._interval):
                    await self._poked.wait()
            except TimeoutError:
                pass
            await self.check()

    def _look(self) -> list[Stamp]:
        return [fingerprint(p) for p in self._paths]

"""What a replica does beside requests: follows the store, tells that it lives, renews its certificates.

Whatever waits for a disk runs in one thread of its own, with its own connection to the store: a store that hangs or
fails costs no request anything. What it brought is taken over in the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from platformctl.errors import ConfigError, PlatformError, StoreError
from platformctl.hub.access_source import AccessSource
from platformctl.hub.presence import HEARTBEAT_SECONDS, Holds, Presence, Seen
from platformctl.hub.serving import ServingCertificates
from platformctl.hub.store import Store

log = logging.getLogger("platformctl.hub.upkeep")

REFRESH_SECONDS: Final = 0.25
LEAVE_SECONDS: Final = 2.0

R = TypeVar("R")


class Upkeep:
    """Attributes:
    seen: the running replicas as last seen.
    problem: what is wrong with the store; "" when nothing is.
    """

    def __init__(
        self,
        store: Store,
        access: AccessSource,
        certificates: ServingCertificates,
        *,
        holds: Callable[[], Holds],
        on_seen: Callable[[Seen], None],
    ) -> None:
        self.seen = Seen()
        self.problem = ""
        self._store = store
        self._access = access
        self._certificates = certificates
        self._holds = holds
        self._on_seen = on_seen
        self._presence: Presence | None = None
        self._news = False
        self._next_beat = 0.0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="upkeep")

    async def appear(self, presence: Presence) -> None:
        """The first heartbeat. Raises StoreError."""
        self._presence = presence
        await self._beat(presence)

    async def run(self) -> None:
        """For ever. Trouble is remembered and logged once; it ends with its cause."""
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                await self._turn()
                self._say("")
            except StoreError as e:
                self._say(e.message)
            except PlatformError as e:
                log.error("upkeep failed", extra={"reason": e.message})
            except Exception:
                log.exception("upkeep failed")

    def tell(self) -> None:
        """A tunnel came or went: the other replicas want to know."""
        self._news = True

    async def leave(self) -> None:
        """Tell the others that this replica goes; not at any price."""
        presence, self._presence = self._presence, None
        if presence is None:
            return
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                await self._apart(presence.leave)
        except (StoreError, TimeoutError) as e:
            log.warning("cannot tell the other replicas", extra={"reason": str(e) or "the store does not answer"})

    async def reload_policy(self) -> None:
        """The policy file may have changed. Ten thousand rules compile in seconds, so not in the event loop."""
        try:
            policy = await asyncio.to_thread(self._access.read_policy)
        except ConfigError as e:
            self._access.refuse_policy(e)
            return
        self._access.apply_policy(policy)

    def close(self) -> None:
        """Nothing more is done, and the store's connection is closed; in its own thread, for it may hang there."""
        self._thread.submit(self._store.close)
        self._thread.shutdown(wait=False)

    async def _turn(self) -> None:
        snapshot = await self._apart(lambda: self._access.read(self._store))
        if snapshot is not None:
            self._access.apply(snapshot)
        if self._presence is not None and (snapshot is not None or self._news or time.monotonic() >= self._next_beat):
            await self._beat(self._presence)
        satellites = self._access.active()
        await self._apart(lambda: self._certificates.issue(satellites, time.time()))

    async def _beat(self, presence: Presence) -> None:
        self._news = False
        holds = self._holds()
        seen = await self._apart(lambda: presence.exchange(holds, time.time(), time.monotonic()))
        self._next_beat = time.monotonic() + HEARTBEAT_SECONDS
        if self._presence is presence:  # not left meanwhile
            self.seen = seen
            self._on_seen(seen)

    def _say(self, problem: str) -> None:
        if problem != self.problem:
            self.problem = problem
            if problem:
                log.error("the store is in trouble; traffic goes on", extra={"reason": problem})
            else:
                log.info("the store works again")

    async def _apart(self, work: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

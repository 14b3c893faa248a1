"""Keeps one tunnel: dials one address of the hub, waits until the tunnel ends or is to be replaced, and dials again.

How long it waits before the next attempt (full jitter, net/backoff.py):

1. Nothing answers there, or a tunnel that worked was lost: at most QUICK_CAP, so that a route is back within two
   seconds of its hub or network. A thousand agents come back spread over that window.
2. Something answers and refuses: up to SLOW_CAP.
3. The hub says when to come back, or to stay away: not earlier than that. Only a new certificate is a reason to try.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from typing import TYPE_CHECKING, Final

from picows import WSError, ws_connect

from platformctl.errors import PlatformError, excerpt
from platformctl.net.backoff import Backoff
from platformctl.net.dial import dial
from platformctl.net.link import CLOSE_SECONDS
from platformctl.satellite.tunnel import AgentTunnel
from platformctl.wire import frames

if TYPE_CHECKING:
    from platformctl.satellite.agent import Agent

log = logging.getLogger("platformctl.satellite.keeper")

# A lost SYN is sent again by the kernel after one second, and after three: it is quicker to start anew between them.
CONNECT_SECONDS: Final = 1.3
GREETING_SECONDS: Final = 10.0
QUICK_CAP: Final = 1.5
SLOW_CAP: Final = 30.0
# A tunnel that ended sooner than this was no good: the hub accepts and drops.
LASTING_SECONDS: Final = 2.0
# Asked to stay away (revoked, or a newer agent runs with this identity): try again, but seldom.
UNWELCOME_SECONDS: Final = 30.0
UNWELCOME: Final = frozenset({frames.UNAUTHORIZED, frames.SUPERSEDED, frames.VERSION})


class Unreachable(Exception):
    """Nothing answers at the address."""


class Keeper:
    """`tunnel` is the newest one that was accepted; it may have ended."""

    def __init__(self, agent: Agent, url: str, lane: int) -> None:
        self.url = url
        self.lane = lane
        self.tunnel: AgentTunnel | None = None
        self._agent = agent
        self._quick = Backoff(agent.jitter, cap=QUICK_CAP)
        self._slow = Backoff(agent.jitter, base=1.0, cap=SLOW_CAP)
        self._rolled = asyncio.Event()

    def roll(self) -> None:
        """The certificate is a new one: open a tunnel with it, then let the old one go."""
        self._rolled.set()
        if self.tunnel is not None:
            self.tunnel.replace.set()

    async def run(self, wait: float = 0.0) -> None:
        """Until cancelled. The tunnel that is up then is the caller's. `wait`: seconds before the first attempt."""
        while True:
            await self._pause(wait)
            self._rolled.clear()
            started = time.monotonic()
            try:
                tunnel = await self._open()
            except Unreachable as e:
                self._report(e)
                wait = self._quick.next_delay() - (time.monotonic() - started)
            except (OSError, WSError, TimeoutError, PlatformError) as e:
                self._report(e)
                wait = self._slow.next_delay()
            except Exception as e:
                log.exception("dialling the hub failed", extra={"url": self.url})
                self._report(e)
                wait = self._slow.next_delay()
            else:
                wait = await self._stay(tunnel)
            self._agent.reconnects += 1

    async def _stay(self, tunnel: AgentTunnel) -> float:
        """Wait until this tunnel has to be replaced; seconds until the first attempt to."""
        if tunnel.ready:
            old, self.tunnel = self.tunnel, tunnel
            # A replica that drains closes by itself when its last request is answered.
            if old is not None and old.goaway is None:
                old.leave()
            if self._rolled.is_set():
                return 0.0
        since = time.monotonic()
        self._slow.connected(since)
        await tunnel.replace.wait()
        if self._rolled.is_set():
            return 0.0
        now = time.monotonic()
        self._slow.disconnected(now)
        backoff = self._quick if tunnel.welcomed and now - since >= LASTING_SECONDS else self._slow
        if tunnel.goaway is not None:
            code = tunnel.goaway.get("code")
            if code in UNWELCOME:
                reason = excerpt(str(tunnel.goaway.get("reason", "")), 200)
                self._agent.problem = f"{self.url}: the hub refuses this agent: {reason}"
                log.error("the hub refuses this agent", extra={"url": self.url, "reason": reason})
                tunnel.leave()
                backoff = self._slow
                backoff.retry_after(UNWELCOME_SECONDS)
            else:
                backoff = self._quick
                backoff.retry_after(tunnel.retry_after)
        return backoff.next_delay()

    async def _pause(self, seconds: float) -> None:
        if seconds <= 0.0:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._rolled.wait()
        except TimeoutError:
            pass

    async def _open(self) -> AgentTunnel:
        """A tunnel that was accepted, or ended at once with the hub's reason for it.

        Raises:
            Unreachable: no TCP connection.
            OSError, WSError, TimeoutError, PlatformError: what answered is not our hub, or does not want us.
        """
        context = self._agent.context()
        tunnel = AgentTunnel(self._agent, self.url, self.lane)
        try:
            connection = await dial(self.url, CONNECT_SECONDS)
        except (OSError, TimeoutError) as e:
            raise Unreachable(str(e) or "no answer") from e
        try:
            async with asyncio.timeout(GREETING_SECONDS):
                await ws_connect(
                    lambda: tunnel.link,
                    f"{self.url}/tunnel",
                    ssl_context=context,
                    ssl_shutdown_timeout=CLOSE_SECONDS,
                    websocket_handshake_timeout=GREETING_SECONDS,
                    enable_auto_ping=False,
                    enable_auto_pong=False,
                    max_frame_size=2 * frames.MAX_MESSAGE,
                    max_redirects=0,
                    extra_headers={"Sec-WebSocket-Protocol": frames.SUBPROTOCOL},
                    socket_factory=lambda _: connection,
                    logger_name="tunnel",
                )
                await tunnel.settled.wait()
        except BaseException:
            tunnel.link.close("the greeting was not finished")
            raise
        return tunnel

    def _report(self, error: Exception) -> None:
        reason = str(error) or type(error).__name__
        if isinstance(error, ssl.SSLError):
            reason = f"TLS: {error.reason or error}"
        self._agent.problem = f"{self.url}: {excerpt(reason, 200)}"
        log.warning("cannot connect to the hub", extra={"url": self.url, "reason": self._agent.problem})

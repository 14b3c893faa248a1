"""The agent's half of a tunnel: greeting, opened streams, drain."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from platformctl.net.link import Link
from platformctl.wire import frames
from platformctl.wire.session import AGENT, DEFAULT_MAX_STREAMS
from platformctl.wire.stream import Stream

if TYPE_CHECKING:
    from platformctl.satellite.agent import Agent

log = logging.getLogger("platformctl.satellite.tunnel")


class AgentTunnel:
    """One tunnel to one hub replica (a LinkOwner).

    Attributes:
        hub: the replica's id, from WELCOME.
        ready: WELCOME has come.
        leaving: we asked the hub to open nothing more here.
        goaway: the hub's GOAWAY, if it sent one.
        ended: set when the connection is gone.
    """

    def __init__(self, agent: Agent, url: str, lane: int) -> None:
        self.agent = agent
        self.url = url
        self.lane = lane
        self.hub = ""
        self.ready = False
        self.leaving = False
        self.goaway: dict[str, Any] | None = None
        self.ended = asyncio.Event()
        self.link = Link(AGENT, self, ping_interval=5.0, max_streams=DEFAULT_MAX_STREAMS + 64)
        self.session = self.link.session

    def on_up(self, link: Link) -> None:
        agent = self.agent
        agent.tunnels.add(self)
        self.session.send_control(
            frames.HELLO,
            {
                "versions": list(frames.VERSIONS),
                "satellite": agent.name,
                "instance": agent.instance,
                "agent_version": agent.version,
                "labels": agent.labels,
                "lane": self.lane,
            },
        )

    def on_control(self, kind: int, message: dict[str, Any]) -> None:
        if kind == frames.WELCOME:
            self._on_welcome(message)
        elif kind == frames.REPLICAS:
            self.agent.set_replicas(message.get("replicas"))
        elif kind == frames.GOAWAY:
            self._on_goaway(message)
        elif kind == frames.REGISTERED:
            for refused in list(message.get("refused") or [])[:20]:
                log.error("the hub refused a service", extra={"hub": self.hub, "refused": refused})

    def _on_welcome(self, message: dict[str, Any]) -> None:
        self.hub = str(message.get("hub", ""))[:128]
        interval = message.get("ping_interval")
        if isinstance(interval, (int, float)) and 0.1 <= interval <= 60.0:
            self.session.ping_interval = float(interval)
        self.ready = True
        log.info("tunnel up", extra={"hub": self.hub, "url": self.url, "lane": self.lane})
        self.agent.set_replicas(message.get("replicas"))
        self.agent.welcomed(self)

    def _on_goaway(self, message: dict[str, Any]) -> None:
        self.goaway = message
        log.info("the hub sent GOAWAY", extra={"hub": self.hub, "reason": str(message.get("reason", ""))[:200]})
        if self.leaving:
            # The acknowledgement: nothing more will be opened here. Streams that run have their time.
            self._close_when_idle()

    def on_open(self, stream: Stream, payload: bytes, end: bool) -> None:
        self.agent.services.open(stream, payload, end)

    def on_rtt(self, seconds: float) -> None:
        """The session keeps the smoothed value; metrics read it there."""

    def on_received(self) -> None:
        """Responses are flushed by the session's own tick."""

    def on_down(self, reason: str) -> None:
        if self.ready or reason:
            log.info("tunnel down", extra={"hub": self.hub, "url": self.url, "reason": reason})
        self.ready = False
        self.ended.set()
        self.agent.tunnel_ended(self)

    def leave(self) -> None:
        """Drain this tunnel: GOAWAY, wait for the hub's, finish the streams, close."""
        if self.leaving or self.session.closed:
            return
        self.leaving = True
        if not self.ready:
            self.link.close("not needed any more")
            return
        self.session.goaway(frames.NO_ERROR, "draining")
        if self.goaway is not None:
            self._close_when_idle()

    def _close_when_idle(self) -> None:
        if self.session.closed:
            return
        if self.session.streams:
            asyncio.get_running_loop().call_later(0.05, self._close_when_idle)
        else:
            self.link.close("drained")

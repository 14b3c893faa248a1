"""The agent's half of a tunnel: greeting, opened streams, drain."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from platformctl.errors import SessionError
from platformctl.net.link import Link
from platformctl.wire import frames
from platformctl.wire.session import AGENT, DEFAULT_MAX_STREAMS
from platformctl.wire.stream import Stream

if TYPE_CHECKING:
    from platformctl.satellite.agent import Agent

log = logging.getLogger("platformctl.satellite.tunnel")

MAX_REPLICAS: Final = 64
DRAIN_STEP: Final = 0.02


class AgentTunnel:
    """One tunnel to one hub replica (a LinkOwner).

    Attributes:
        hub: the replica's id, from WELCOME.
        replicas: the hub's replicas as this one told them: id -> URL.
        welcomed: WELCOME has come.
        ready: it has, and the tunnel is up.
        leaving: we asked the hub to open nothing more here.
        goaway: the hub's GOAWAY, if it sent one by itself.
        settled: set when the tunnel is ready, or has ended.
        replace: set when another tunnel should take this one's place.
    """

    def __init__(self, agent: Agent, url: str, lane: int) -> None:
        self.agent = agent
        self.url = url
        self.lane = lane
        self.hub = ""
        self.replicas: dict[str, str] = {}
        self.welcomed = False
        self.ready = False
        self.leaving = False
        self.goaway: dict[str, Any] | None = None
        self.settled = asyncio.Event()
        self.replace = asyncio.Event()
        self.link = Link(AGENT, self, ping_interval=5.0, max_streams=DEFAULT_MAX_STREAMS + 64)
        self.session = self.link.session

    @property
    def retry_after(self) -> float:
        """Seconds that the hub's GOAWAY asks us to wait."""
        value = self.goaway.get("retry_after") if self.goaway is not None else None
        return float(value) if isinstance(value, (int, float)) else 0.0

    def on_up(self, link: Link) -> None:
        agent = self.agent
        if agent.draining:
            link.close("not needed any more")
            return
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
                "lanes": agent.lanes,
            },
        )

    def on_control(self, kind: int, message: dict[str, Any]) -> None:
        if kind == frames.WELCOME:
            self._on_welcome(message)
        elif kind == frames.REPLICAS:
            self._on_replicas(message.get("replicas"))
        elif kind == frames.GOAWAY:
            self._on_goaway(message)
        elif kind == frames.REGISTERED:
            refused = message.get("refused")
            for each in refused[:20] if isinstance(refused, list) else ():
                log.error("the hub refused a service", extra={"hub": self.hub, "refused": each})

    def _on_welcome(self, message: dict[str, Any]) -> None:
        if message.get("version") not in frames.VERSIONS:
            raise SessionError(frames.VERSION, f"WELCOME with version {message.get('version')!r:.20}")
        self.hub = str(message.get("hub", ""))[:128]
        interval = message.get("ping_interval")
        if isinstance(interval, (int, float)) and 0.1 <= interval <= 60.0:
            self.session.ping_interval = float(interval)
        self.welcomed = self.ready = True
        log.info("tunnel up", extra={"hub": self.hub, "url": self.url, "lane": self.lane})
        self._on_replicas(message.get("replicas"))
        self.agent.welcomed(self)
        self.settled.set()

    def _on_replicas(self, value: object) -> None:
        if not isinstance(value, list):
            return
        replicas: dict[str, str] = {}
        for item in value[:MAX_REPLICAS]:
            name, url = (item.get("id"), item.get("url")) if isinstance(item, dict) else (None, None)
            if isinstance(name, str) and isinstance(url, str) and url.startswith("wss://"):
                replicas[name] = url.rstrip("/")
        if replicas != self.replicas:
            self.replicas = replicas
            self.agent.wake()

    def _on_goaway(self, message: dict[str, Any]) -> None:
        if message.get("final") is True and self.leaving:
            return  # the answer to ours; `session.drained` knows
        self.goaway = message
        log.info("the hub sent GOAWAY", extra={"hub": self.hub, "reason": str(message.get("reason", ""))[:200]})
        self.replace.set()
        self.agent.wake()

    def on_open(self, stream: Stream, payload: bytes, end: bool) -> None:
        self.agent.services.open(stream, payload, end)

    def on_rtt(self, seconds: float) -> None:
        """The session keeps the smoothed value; metrics read it there."""

    def on_received(self) -> None:
        """Responses are flushed by the session's own tick."""

    def on_down(self, reason: str) -> None:
        log.info("tunnel down", extra={"hub": self.hub, "url": self.url, "reason": reason})
        self.ready = False
        self.settled.set()
        self.replace.set()
        self.agent.tunnel_ended(self)

    def leave(self) -> None:
        """Drain this tunnel: GOAWAY, wait for the hub's answer, finish the streams, close."""
        if self.leaving or self.session.closed:
            return
        self.leaving = True
        if not self.ready:
            self.link.close("not needed any more")
            return
        self.session.goaway(frames.NO_ERROR, "draining")
        self._close_when_drained()

    def _close_when_drained(self) -> None:
        if self.session.closed:
            return
        if self.session.drained:
            self.link.close("drained")
        else:
            asyncio.get_running_loop().call_later(DRAIN_STEP, self._close_when_drained)

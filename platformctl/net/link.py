"""One tunnel connection: a picows WebSocket carrying a wire Session. Both roles use this class.

Everything that became ready in one loop tick goes out as one message. While the transport is blocked only control
frames follow; data stays in its streams, bounded by credit. Reading never waits for writing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from typing import Any, Final, Protocol

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

from platformctl.errors import SessionError, WireError
from platformctl.wire import frames
from platformctl.wire.session import AGENT, Session
from platformctl.wire.stream import Stream

log = logging.getLogger("platformctl.link")

# The kernel gives up on unacknowledged data after this; PING finds the rest (SPEC.md, "Liveness").
USER_TIMEOUT_MS: Final = 10_000
WRITE_HIGH: Final = 512 * 1024
TICK: Final = 0.25
VIEW_FROM: Final = 16 * 1024
# Room for the WebSocket header in front of a message that is masked where it lies (RFC 6455 5.2: at most 14 bytes).
HEADROOM: Final = bytes(14)
# A handshake that is not finished by then never will be.
GREETING_SECONDS: Final = 10.0
READ_BUFFER: Final = 64 * 1024
# What control frames may add to a transport that is blocked; beyond that the session counts them, and gives up.
BLOCKED_ROOM: Final = 256 * 1024
# How long a closed tunnel may take to send what it still has.
CLOSE_SECONDS: Final = 5.0

_TCP_USER_TIMEOUT: Final = getattr(socket, "TCP_USER_TIMEOUT", None)


class LinkOwner(Protocol):
    """The hub's or the agent's half of a tunnel."""

    def on_up(self, link: Link) -> None: ...
    def on_control(self, kind: int, message: dict[str, Any]) -> None: ...
    def on_open(self, stream: Stream, payload: bytes, end: bool) -> None: ...
    def on_rtt(self, seconds: float) -> None: ...
    def on_received(self) -> None: ...
    def on_down(self, reason: str) -> None: ...


class Link(WSListener):
    """A WebSocket listener for picows, and the owner of a Session.

    Attributes:
        session: the protocol engine; its streams are opened and answered through it.
        reason: why the link ended, for logs and hints; empty while it lives.
    """

    def __init__(self, role: int, owner: LinkOwner, *, ping_interval: float, max_streams: int) -> None:
        super().__init__()
        self.owner = owner
        self.session = Session(role, self, time.monotonic(), ping_interval=ping_interval, max_streams=max_streams)
        self.reason = ""
        self.transport: WSTransport | None = None
        self._loop = asyncio.get_running_loop()
        self._scheduled = False
        self._dirty = False
        self._masks = role == AGENT  # a WebSocket client masks what it sends
        self._blocked = False
        self._receiving = False
        self._tick_timer: asyncio.TimerHandle | None = None
        self._greeting_by = time.monotonic() + GREETING_SECONDS
        self._abort_timer: asyncio.TimerHandle | None = None
        self._ended = False

    # ---- picows --------------------------------------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        if self._ended:  # it was given up while it was being made
            transport.disconnect(False)
            return
        underlying = transport.underlying_transport
        underlying.set_write_buffer_limits(WRITE_HIGH)
        sock = underlying.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if _TCP_USER_TIMEOUT is not None:
                    sock.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
        self._tick_timer = self._loop.call_later(TICK, self._tick)
        self.owner.on_up(self)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is not WSMsgType.BINARY or not frame.fin:
            if frame.msg_type is WSMsgType.CLOSE:
                self.close("the peer closed the tunnel")
            elif frame.msg_type is WSMsgType.PING:
                if not self._blocked:  # whoever asks and does not read gets no answers to keep
                    transport.send_pong(frame.get_payload_as_bytes())
            elif frame.msg_type is not WSMsgType.PONG:
                self.fail(WireError(frames.PROTOCOL, "only whole binary messages are allowed"))
            return
        self._receiving = True
        try:
            # A long message carries bodies: as a view it is handed to the other side's transport without a copy. Short
            # ones are cheaper as bytes.
            if frame.payload_size > VIEW_FROM:
                payload: bytes | memoryview = frame.get_payload_as_memoryview()
            else:
                payload = frame.get_payload_as_bytes()
            self.session.receive(payload, time.monotonic())
        except WireError as e:
            self.fail(e)
        finally:
            self._receiving = False
        self.owner.on_received()
        if self._dirty and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        self._end("the connection was lost")

    def pause_writing(self) -> None:
        self._blocked = True

    def resume_writing(self) -> None:
        self._blocked = False
        self._flush()

    # ---- session owner -------------------------------------------------------------------------------------------

    def on_dirty(self) -> None:
        self._dirty = True
        if not self._scheduled and not self._receiving:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def on_control(self, kind: int, message: dict[str, Any]) -> None:
        self.owner.on_control(kind, message)

    def on_open(self, stream: Stream, payload: bytes, end: bool) -> None:
        self.owner.on_open(stream, payload, end)

    def on_rtt(self, seconds: float) -> None:
        self.owner.on_rtt(seconds)

    # ---- life ----------------------------------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        return self.transport is not None and not self.session.closed

    @property
    def is_gone(self) -> bool:
        """Whether the connection is closed, and all that was written has been handed to the kernel."""
        return self.transport is None or self.transport.is_disconnected

    def fail(self, error: WireError) -> None:
        """The peer broke the protocol: say so, and leave."""
        if self._ended:
            return
        log.warning("tunnel protocol error", extra={"error": str(error), "wire_code": error.error})
        self.session.goaway(error.error, str(error))
        self.close(f"protocol error: {error}", WSCloseCode.PROTOCOL_ERROR)

    def close(self, reason: str, code: WSCloseCode = WSCloseCode.OK) -> None:
        """End the tunnel now: a GOAWAY that was said goes out, every open stream is reset."""
        if self._ended:
            return
        transport = self.transport
        if transport is not None and not transport.is_disconnected:
            self._flush()
            with contextlib.suppress(OSError, RuntimeError):
                transport.send_close(code)
            # A peer that reads nothing would keep the connection for as long as it likes.
            self._abort_timer = self._loop.call_later(CLOSE_SECONDS, transport.disconnect, False)
            transport.disconnect()
        self._end(reason)

    def _end(self, reason: str) -> None:
        if self._ended:
            return
        self._ended = True
        self.reason = self.reason or reason
        if self._tick_timer is not None:
            self._tick_timer.cancel()
            self._tick_timer = None
        # The owner first: a stream that is reset may be opened anew, and must not come back here.
        self.owner.on_down(self.reason)
        self.session.lost(frames.TUNNEL_LOST)
        self.owner.on_received()

    def _tick(self) -> None:
        self._tick_timer = self._loop.call_later(TICK, self._tick)
        now = time.monotonic()
        if not self.session.greeted and now > self._greeting_by:
            self.fail(SessionError(frames.PROTOCOL, "no greeting in time"))
        elif not self.session.tick(now):
            self._dead("the peer reads nothing" if self.session.overloaded else "the peer does not answer PING")

    def _dead(self, reason: str) -> None:
        self._end(reason)
        if self.transport is not None:
            self.transport.disconnect(graceful=False)

    def _flush(self) -> None:
        self._scheduled = False
        self._dirty = False
        transport = self.transport
        session = self.session
        if transport is None or session.closed:
            return
        if self._blocked:
            if transport.underlying_transport.get_write_buffer_size() < WRITE_HIGH + BLOCKED_ROOM:
                self._send(transport, session.data_to_send(True))
            return
        self._send(transport, session.data_to_send())
        if session.has_more and not self._blocked and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _send(self, transport: WSTransport, parts: list[bytes | memoryview]) -> None:
        if not parts:
            return
        if self._masks:
            message = bytearray().join((HEADROOM, *parts))
            transport.send_reuse_external_bytearray(WSMsgType.BINARY, message, len(HEADROOM))
        else:
            transport.send(WSMsgType.BINARY, b"".join(parts))

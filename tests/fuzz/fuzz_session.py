"""Fuzz one end of a tunnel, as a hostile peer would: only WireError may come out, and the books must hold.

An input is a byte of options and messages, each with a length of two bytes. The options choose the role, whether the
greeting is done, and whether messages are raw bytes or a shorthand for frames (so that the fuzzer reaches deep states).
Differential: a second session gets the same frames, one to a message and as views; it must see and say the same.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[2])]
    from tests.fuzz import harness

    harness.run("tests.fuzz.fuzz_session")

from platformctl.errors import WireError
from platformctl.wire import frames
from platformctl.wire.session import AGENT, HUB, Session
from platformctl.wire.stream import Stream

KINDS = (*frames.NAMES, 0, 99)
REQUEST = frames.open_prefix(frames.KIND_HTTP, b"api", frames.UNKNOWN_LENGTH) + b"GET / HTTP\r\n"
RESPONSE = frames.head_payload(200, frames.UNKNOWN_LENGTH, b"A: b\r\n")
JSON = b'{"versions":[1],"services":[],"final":true,"code":0}'


class End:
    """An owner and the sink of all its streams: slow on every third stream, parked on every second of those."""

    def __init__(self, role: int) -> None:
        self.events: list[tuple[object, ...]] = []
        self.ended: set[tuple[int, str]] = set()
        self.streams: list[Stream] = []
        self.session = Session(role, self, 0.0, max_streams=8)

    def on_control(self, kind: int, message: dict[str, Any]) -> None:
        self.events.append(("control", kind, repr(message)))

    def on_dirty(self) -> None:
        """The fuzzer flushes when it likes."""

    def on_rtt(self, seconds: float) -> None:
        assert seconds >= 0.0

    def on_open(self, stream: Stream, payload: bytes, end: bool) -> None:
        self.events.append(("open", stream.id, payload, end))
        self.streams.append(stream)
        stream.sink = self
        frames.parse_open(payload)
        if stream.id % 4 == 0:
            stream.reset(frames.UNKNOWN_SERVICE)
            return
        if stream.id % 6 == 0:
            stream.park()
        stream.send_head(RESPONSE)
        stream.send_data(b"x" * (5000 if stream.id % 2 else 5), stream.id % 3 == 0)

    def on_head(self, stream: Stream, payload: bytes, flags: int) -> None:
        self.events.append(("head", stream.id, payload, flags))
        if flags & frames.FLAG_END:
            self.end(stream)
        if not flags & frames.FLAG_TRAILERS:
            frames.parse_head(payload)

    def on_data(self, stream: Stream, data: bytes | memoryview, end: bool) -> None:
        assert 0 <= len(data) <= frames.MAX_DATA
        self.events.append(("data", stream.id, bytes(data), end))
        assert (stream.id, "peer") not in self.ended
        if end:
            self.end(stream)
        if stream.id % 3:
            stream.consumed(len(data))

    def on_reset(self, stream: Stream, code: int) -> None:
        self.events.append(("reset", stream.id, code))
        assert (stream.id, "reset") not in self.ended
        self.ended |= {(stream.id, "reset"), (stream.id, "peer")}

    def on_writable(self, stream: Stream) -> None:
        self.events.append(("writable", stream.id))

    def end(self, stream: Stream) -> None:
        assert (stream.id, "peer") not in self.ended, "a half ended twice"
        self.ended.add((stream.id, "peer"))

    def start(self, greeted: bool) -> None:
        session = self.session
        if not greeted:
            return
        hello = frames.HELLO if session.role == HUB else frames.WELCOME
        session.receive(frames.control(hello, {}), 1.0)
        session.tick(1.0)
        if session.role == HUB:
            for i in range(6):
                stream = session.open(REQUEST, i == 0, self)
                self.streams.append(stream)
                if i == 5:
                    stream.park()
                elif i:
                    stream.send_data(b"y" * 3000 * i)
            self.streams[3].reset(frames.CANCELLED)

    def check(self, received: int) -> None:
        session = self.session
        window = session.window
        assert window.credit + window.held + window.owed == window.size
        assert 0 <= window.held <= window.size
        assert session.send_credit >= 0
        assert session.parked_bytes == sum(stream.prepaid for stream in self.streams)
        assert window.held == sum(stream.window.held - stream.prepaid for stream in self.streams)
        for stream in session.streams.values():
            assert stream.send_credit >= 0
            assert 0 <= stream.window.held <= stream.window.size
        # What waits to be sent grows with what came in, never beyond a small multiple of it.
        assert session.out_bytes + session._control_bytes <= 200_000 + 2 * received
        assert len(session.streams) <= 8

    def says(self) -> bytes:
        return b"".join(self.session.data_to_send())


def messages(data: bytes) -> Iterator[bytes]:
    position = 1
    while position + 2 <= len(data):
        size = int.from_bytes(data[position : position + 2], "big")
        yield data[position + 2 : position + 2 + size]
        position += 2 + size


def expand(shorthand: bytes) -> bytes:
    """Frames from four bytes each: kind, flags, stream, size of the payload."""
    made = []
    for i in range(0, len(shorthand) - 3, 4):
        which, flags, stream, size = shorthand[i : i + 4]
        kind = KINDS[which % len(KINDS)]
        if kind == frames.OPEN:
            payload = REQUEST
        elif kind == frames.HEAD:
            payload = b"A: b\r\n" if flags & frames.FLAG_TRAILERS else RESPONSE
        elif kind == frames.DATA:
            payload = b"z" * (size * 130)
        elif kind in (frames.RESET, frames.WINDOW):
            payload = frames.U32.pack(size * size)
        elif kind in (frames.PING, frames.PONG):
            payload = size.to_bytes(8, "big")
        else:
            payload = JSON[:size] if size < len(JSON) // 2 else JSON
        made.append(frames.frame(kind, flags % 16, stream % 16, b"" if kind == frames.END else payload))
    return b"".join(made)


def pieces(message: bytes) -> Iterator[bytes]:
    """Each whole frame alone; what is not a whole frame as it is."""
    position = 0
    while position < len(message):
        end = len(message)
        if end - position >= frames.HEADER_SIZE:
            end = min(end, position + frames.HEADER_SIZE + int.from_bytes(message[position : position + 4], "big"))
        yield message[position:end]
        position = end


def one_input(data: bytes) -> None:
    if not data:
        return
    options = data[0]
    first, second = End(options & 1), End(options & 1)
    for end in (first, second):
        end.start(bool(options & 2))
    received = 0
    for number, raw in enumerate(messages(data)):
        message = expand(raw) if options & 4 else raw
        if len(message) > frames.MAX_MESSAGE:
            return
        received += len(message)
        outcome = deliver(first, [message], number)
        assert outcome == deliver(second, [memoryview(piece) for piece in pieces(message)], number)
        assert first.events == second.events
        if outcome:
            break
        first.check(received)
        second.check(received)
        if options & 8:
            assert first.says() == second.says()
    for end in (first, second):
        end.session.lost(frames.TUNNEL_LOST)
        assert not end.session.streams
        assert end.says() == b""


def deliver(end: End, portions: list[Any], number: int) -> tuple[int, str]:
    """(error code, text) of the WireError that ended the session, or () while it lives."""
    try:
        for portion in portions:
            end.session.receive(portion, 1.0 + number)
    except WireError as e:
        return e.error, str(e)
    return ()  # type: ignore[return-value]


assert (HUB, AGENT) == (0, 1)

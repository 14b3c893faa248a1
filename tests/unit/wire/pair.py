"""Two real sessions joined in memory: what one sends, the other receives, when the test says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from platformctl.wire import frames
from platformctl.wire.session import AGENT, HUB, Session
from platformctl.wire.stream import Stream

Event = tuple[Any, ...]
REQUEST = frames.open_prefix(frames.KIND_HTTP, b"api", frames.UNKNOWN_LENGTH) + b"POST / HTTP\r\n"
RESPONSE = frames.head_payload(200, frames.UNKNOWN_LENGTH, b"Server: test\r\n")


class Recorder:
    """A sink that writes down what it gets, and passes bytes on at once unless it is `slow`."""

    def __init__(self, slow: bool = False) -> None:
        self.slow = slow
        self.events: list[Event] = []
        self.body = bytearray()
        self.held = 0
        self.ends = 0
        self.resets: list[int] = []
        self.writable = 0
        self.on_data_hook: Callable[[Stream], None] | None = None
        self.on_writable_hook: Callable[[Stream], None] | None = None
        self.on_reset_hook: Callable[[Stream], None] | None = None

    def on_head(self, stream: Stream, payload: bytes, flags: int) -> None:
        self.events.append(("head", payload, flags))
        self.ends += flags & frames.FLAG_END

    def on_data(self, stream: Stream, data: bytes | memoryview, end: bool) -> None:
        self.events.append(("data", bytes(data), end))
        self.body += data
        self.ends += end
        if self.slow:
            self.held += len(data)
        else:
            stream.consumed(len(data))
        if self.on_data_hook:
            self.on_data_hook(stream)

    def on_reset(self, stream: Stream, code: int) -> None:
        self.events.append(("reset", code))
        self.resets.append(code)
        if self.on_reset_hook:
            self.on_reset_hook(stream)

    def on_writable(self, stream: Stream) -> None:
        self.writable += 1
        if self.on_writable_hook:
            self.on_writable_hook(stream)


class Side:
    """An owner: keeps control messages, opened streams and round trips."""

    def __init__(self, slow: bool = False) -> None:
        self.slow = slow
        self.controls: list[tuple[int, dict[str, Any]]] = []
        self.opened: list[tuple[Stream, bytes, bool]] = []
        self.dirty = 0
        self.rtts: list[float] = []
        self.on_control_hook: Callable[[int], None] | None = None
        self.on_open_hook: Callable[[Stream], None] | None = None

    def on_control(self, kind: int, message: dict[str, Any]) -> None:
        self.controls.append((kind, message))
        if self.on_control_hook:
            self.on_control_hook(kind)

    def on_open(self, stream: Stream, payload: bytes, end: bool) -> None:
        stream.sink = Recorder(self.slow)
        self.opened.append((stream, payload, end))
        if self.on_open_hook:
            self.on_open_hook(stream)

    def on_dirty(self) -> None:
        self.dirty += 1

    def on_rtt(self, seconds: float) -> None:
        self.rtts.append(seconds)


class Pair:
    """A hub's session and an agent's, greeted unless told otherwise. `now` is the clock of both."""

    def __init__(self, *, greeted: bool = True, slow_agent: bool = False, **options: Any) -> None:
        self.now = 100.0
        self.hub_side = Side()
        self.agent_side = Side(slow_agent)
        self.hub = Session(HUB, self.hub_side, self.now, **options)
        self.agent = Session(AGENT, self.agent_side, self.now, **options)
        if greeted:
            self.agent.send_control(frames.HELLO, {"versions": [1]})
            self.to_hub()
            self.hub.send_control(frames.WELCOME, {"version": 1})
            self.to_agent()

    def to_agent(self, control_only: bool = False) -> bytes:
        message = b"".join(self.hub.data_to_send(control_only))
        if message:
            self.agent.receive(message, self.now)
        return message

    def to_hub(self, control_only: bool = False) -> bytes:
        message = b"".join(self.agent.data_to_send(control_only))
        if message:
            self.hub.receive(message, self.now)
        return message

    def settle(self) -> None:
        """Deliver until nothing is left to deliver."""
        while self.to_agent() or self.to_hub():
            pass

    def all_to_hub(self) -> None:
        """Deliver what the agent has to say, while the hub says nothing."""
        while self.to_hub():
            pass

    def open(self, *, end: bool = False, slow: bool = False, payload: bytes = REQUEST) -> tuple[Stream, Recorder]:
        """Open a stream at the hub; (stream, its sink)."""
        sink = Recorder(slow)
        return self.hub.open(payload, end, sink), sink

    def exchange(self, *, end: bool = False, slow: bool = False) -> tuple[Stream, Recorder, Stream, Recorder]:
        """Open a stream and deliver it; (hub's stream and sink, agent's stream and sink)."""
        stream, sink = self.open(end=end, slow=slow)
        self.settle()
        peer = self.agent_side.opened[-1][0]
        recorder = peer.sink
        assert isinstance(recorder, Recorder)
        return stream, sink, peer, recorder


def parse(message: bytes) -> list[tuple[str, int, int, bytes]]:
    """(frame name, flags, stream, payload) of each frame in a message."""
    found = []
    position = 0
    while position < len(message):
        length, kind, flags, stream = frames.HEADER.unpack_from(message, position)
        position += frames.HEADER_SIZE
        found.append((frames.NAMES[kind], flags, stream, message[position : position + length]))
        position += length
    return found


def check_books(sender: Session, receiver: Session) -> None:
    """Nothing is on its way: what one end may send is what the other one expects, session and streams."""
    assert sender.send_credit == receiver.window.credit
    assert sender.send_credit >= 0
    window = receiver.window
    assert window.credit + window.held + window.owed == window.size
    held = 0
    for stream in sender.streams.values():
        peer = receiver.streams.get(stream.id)
        if peer is not None:
            assert stream.send_credit == peer.window.credit >= 0
            assert peer.window.credit + peer.window.held + peer.window.owed == peer.window.size
    for peer in receiver.streams.values():
        held += peer.window.held - peer.prepaid
    assert window.held >= held

"""Random interleavings of everything two sessions may do, with the invariants of the protocol checked all the way.

Messages are delivered late and in other portions than they were sent in (frames regrouped into new messages), chunk
sizes are random, readers are slow, stall, are parked and come back, streams are reset from either end, both ends leave.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from platformctl.wire import frames, ledger, sender, stream
from platformctl.wire.frames import HEADER, HEADER_SIZE
from platformctl.wire.session import AGENT, HUB, SEND_BUDGET
from platformctl.wire.stream import DIRECT
from platformctl.wire.windows import INITIAL
from tests.unit.wire.pair import REQUEST
from tests.unit.wire.world import Users, piece

EDGES = [DIRECT - 1, DIRECT, DIRECT + 1, frames.MAX_DATA, frames.MAX_DATA + 1, INITIAL // 2, INITIAL + 1]
CODES = [frames.CANCELLED, frames.BACKEND_CLOSED]
INDEX = st.integers(0, 31)
SIZES = st.integers(0, 40) | st.sampled_from(EDGES) | st.integers(0, 600_000)
ROLES = st.sampled_from([HUB, AGENT])


class Interleavings(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.users = Users()

    @rule(bodyless=st.booleans(), slow=st.booleans())
    def open(self, bodyless: bool, slow: bool) -> None:
        self.users.open(bodyless, slow)

    @rule(index=INDEX, interim=st.booleans(), last=st.booleans())
    def head(self, index: int, interim: bool, last: bool) -> None:
        self.users.head(index, interim, last)

    @rule(index=INDEX, size=SIZES, last=st.booleans())
    def data(self, index: int, size: int, last: bool) -> None:
        self.users.data(index, size, last)

    @rule(index=INDEX)
    def trailers(self, index: int) -> None:
        self.users.trailers(index)

    @rule(index=INDEX, code=st.sampled_from(CODES))
    def reset(self, index: int, code: int) -> None:
        self.users.reset(index, code)

    @rule(index=INDEX, share=st.floats(0, 1))
    def read(self, index: int, share: float) -> None:
        self.users.read(index, share)

    @rule(index=INDEX, stalls=st.booleans())
    def park(self, index: int, stalls: bool) -> None:
        self.users.park(index, stalls)

    @rule(role=ROLES, control_only=st.booleans())
    def flush(self, role: int, control_only: bool) -> None:
        self.users.flush(role, control_only)

    @rule(role=ROLES, limit=st.sampled_from([1, 100, 40_000, 10**9]))
    def deliver(self, role: int, limit: int) -> None:
        self.users.deliver(role, limit)

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.1, 5.0]))
    def time_passes(self, seconds: float) -> None:
        self.users.time_passes(seconds)

    @precondition(lambda self: len(self.users.ends) >= 12)
    @rule(role=ROLES)
    def leave(self, role: int) -> None:
        self.users.leave(role)

    @rule()
    def settle(self) -> None:
        self.users.check_quiet()

    @invariant()
    def always(self) -> None:
        self.users.check_always()

    def teardown(self) -> None:
        self.users.finish()


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(
    max_examples=200,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def act(users: Users, rng: random.Random) -> None:
    """One random step, weighted so that streams live long enough to meet each other."""
    index = rng.randrange(64)
    role = rng.choice((HUB, AGENT))
    name = rng.choices(
        ("data", "flush", "deliver", "open", "head", "read", "park", "wake", "trailers", "reset", "time", "quiet"),
        (30, 20, 20, 6, 8, 8, 4, 3, 1, 2, 2, 1),
    )[0]
    if name == "data":
        size = rng.choice((rng.randrange(120), rng.choice(EDGES), rng.randrange(300_000)))
        users.data(index, size, rng.random() < 0.1)
    elif name == "flush":
        users.flush(role, rng.random() < 0.2)
    elif name == "deliver":
        users.deliver(role, rng.choice((1, 100, 40_000, 10**9)))
    elif name == "open":
        users.open(rng.random() < 0.3, rng.random() < 0.5)
    elif name == "head":
        users.head(index, rng.random() < 0.2, rng.random() < 0.1)
    elif name == "read":
        users.read(index, rng.random())
    elif name == "park":
        users.park(index, rng.random() < 0.6)
    elif name == "wake":
        users.wake(index)
    elif name == "trailers":
        users.trailers(index)
    elif name == "reset":
        users.reset(index, rng.choice(CODES))
    elif name == "time":
        users.time_passes(rng.choice((0.0, 0.001, 0.1, 5.0)))
    else:
        users.check_quiet()


@pytest.mark.parametrize("seed", range(120))
def test_a_long_life_of_many_streams_keeps_the_books(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    if seed % 2:  # so narrow that the session's credit runs out too
        monkeypatch.setattr(stream, "INITIAL", 20_000)
        monkeypatch.setattr(sender, "SESSION_INITIAL", 50_000)
        monkeypatch.setattr(ledger, "SESSION_INITIAL", 50_000)
    users = Users()
    for step in range(600):
        act(users, rng)
        if step % 8 == 0:
            users.check_always()
    if rng.random() < 0.5:
        users.leave(rng.choice((HUB, AGENT)))
    users.finish()


def test_no_stream_starves_whatever_the_others_send() -> None:
    """Every stream with data gets a turn before any other gets its second one."""
    users = Users()
    world = users.world
    for _ in range(12):
        users.open(False, False)
    ends = users.ends[::2]
    for i, end in enumerate(ends):
        assert end.stream is not None
        end.sent = 50_000 + i * 15_000
        end.stream.send_data(piece(0, end.sent), True)
    turns: dict[int, int] = {end.stream.id: 0 for end in ends if end.stream}
    while message := b"".join(world.hub.data_to_send()):
        assert len(message) < SEND_BUDGET + 13 * len(REQUEST) + 2 * frames.MAX_DATA
        position = 0
        while position < len(message):
            length, kind, _, stream_id = HEADER.unpack_from(message, position)
            if kind == frames.DATA:
                waiting = [s.id for s in world.hub.streams.values() if s.queued]
                assert all(turns[stream_id] <= turns[other] for other in waiting)
                turns[stream_id] += 1
            position += HEADER_SIZE + length
        world.agent.receive(message, world.now)
    assert all(theirs.got_end for _, theirs in world.pairs.values())

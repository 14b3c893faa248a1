from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platformctl.telemetry.tracing import DEFAULT_RATIO, TraceParent, child, parse, root, sampled, trace_id

TRACE = b"0af7651916cd43dd8448eb211c80319c"
SPAN = b"b7ad6b7169203331"
VALID = b"00-" + TRACE + b"-" + SPAN + b"-01"


def test_the_example_of_the_recommendation_is_read():
    assert parse(VALID) == TraceParent(TRACE, SPAN, 1)
    assert parse(VALID).sampled
    assert not parse(VALID[:-2] + b"00").sampled
    assert trace_id(VALID) == TRACE.decode()


def test_a_later_version_is_read_as_far_as_version_00_goes():
    assert parse(b"cc" + VALID[2:]) == TraceParent(TRACE, SPAN, 1)
    assert parse(b"cc" + VALID[2:] + b"-what-the-future-will-be-like") == TraceParent(TRACE, SPAN, 1)
    assert parse(b"fe" + VALID[2:] + b"-") == TraceParent(TRACE, SPAN, 1)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"ff" + VALID[2:],
        VALID + b"-01",
        VALID + b"-",
        VALID + b"x",
        b"cc" + VALID[2:] + b".x",
        VALID[:-1],
        VALID[:-1] + b"\n",
        VALID + b"\n",
        b" " + VALID,
        VALID.upper(),
        VALID.replace(b"-", b"_"),
        VALID.replace(TRACE, b"0" * 32),
        VALID.replace(SPAN, b"0" * 16),
        VALID.replace(b"0af7", b"gaf7"),
        VALID.replace(TRACE, TRACE[:-1]),
        VALID[:-2] + b"0x",
        b"0-" + VALID[3:],
    ],
)
def test_an_invalid_value_begins_a_new_trace(value):
    assert parse(value) is None


def test_a_child_keeps_trace_and_decision_and_has_a_span_of_its_own():
    assert child(VALID, lambda k: 0xABC) == b"00-" + TRACE + b"-0000000000000abc-01"
    assert child(VALID[:-2] + b"00", lambda k: 1)[-2:] == b"00"


def test_a_child_of_a_later_version_is_of_version_00():
    assert child(b"cc" + VALID[2:] + b"-more", lambda k: 1) == b"00-" + TRACE + b"-0000000000000001-01"


@pytest.mark.parametrize(("given_flags", "passed_on"), [(b"ff", b"03"), (b"fc", b"00"), (b"02", b"02"), (b"05", b"01")])
def test_unknown_flags_are_passed_on_as_zero(given_flags, passed_on):
    assert child(VALID[:-2] + given_flags, lambda k: 1)[-2:] == passed_on


def test_ids_are_never_all_zeros():
    assert parse(root(lambda k: 0, 1.0)) == TraceParent(b"0" * 31 + b"1", b"0" * 15 + b"1", 3)
    assert parse(child(VALID, lambda k: 0)).span_id == b"0" * 15 + b"1"


def test_a_root_asks_for_as_many_bits_as_its_ids_have():
    asked = []
    root(lambda k: asked.append(k) or 5)
    assert asked == [128, 64]


def test_roots_are_sampled_by_ratio():
    bits = random.Random(4).getrandbits
    count = sum(parse(root(bits)).sampled for _ in range(20_000))
    assert DEFAULT_RATIO == 0.01
    assert 150 < count < 250
    assert not any(parse(root(bits, 0.0)).sampled for _ in range(100))
    assert all(parse(root(bits, 1.0)).sampled for _ in range(100))


def test_the_decision_depends_on_the_last_64_bits_of_the_trace_id_alone():
    assert sampled((1 << 127) | 5, 0.01)
    assert not sampled((1 << 63) | 5, 0.01)
    assert sampled((1 << 64) - 1, 1.0)


@given(st.binary(max_size=70) | st.from_regex(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}.*", fullmatch=True))
def test_a_child_of_anything_valid_is_valid_and_of_the_same_trace(value):
    parent = parse(value)
    if parent is not None:
        ours = parse(child(value, random.Random(1).getrandbits))
        assert (ours.trace_id, ours.sampled) == (parent.trace_id, parent.sampled)
        assert ours.span_id != parent.span_id

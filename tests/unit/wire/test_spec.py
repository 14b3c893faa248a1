"""SPEC.md says what the code does: every table of it is compared with the code."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from platformctl import wire
from platformctl.wire import frames, receiver, states
from platformctl.wire.windows import MIN_RTT

SPEC = Path(wire.__file__).with_name("SPEC.md").read_text(encoding="utf-8")


def table(first: str) -> list[list[str]]:
    """The rows of the table whose header starts with `first`, without header and rule."""
    lines = SPEC[SPEC.index(f"| {first}") :].split("\n\n", 1)[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_state_table_is_the_one_in_the_code() -> None:
    assert states.table_markdown() in SPEC, "SPEC.md is stale: python -m platformctl.wire.states prints the table"


def test_every_event_is_explained() -> None:
    assert [row[0] for row in table("event |")] == list(states.EVENT_NAMES)


def test_the_error_codes_are_those_in_the_code() -> None:
    rows = table("code | name | meaning")
    assert {int(code): name for code, name, _ in rows} == frames.ERROR_NAMES
    assert all(meaning for _, _, meaning in rows)


def test_the_frame_types_and_who_sends_them_are_those_in_the_code() -> None:
    rows = table("type | name | stream")
    assert {int(kind): name for kind, name, *_ in rows} == frames.NAMES
    for kind, name, stream, payload, sender in rows:
        from_agent = "agent" in sender or sender == "both"
        from_hub = "hub" in sender or sender == "both"
        assert (int(kind) in receiver.TO_HUB, int(kind) in receiver.TO_AGENT) == (from_agent, from_hub), name
        assert (payload == "JSON") == (int(kind) <= frames.GOAWAY), name
        assert (stream == "0") == (int(kind) < frames.OPEN), name


def test_the_flags_are_those_in_the_code() -> None:
    allowed: dict[int, int] = {}
    for bit, _, kinds, _ in table("flag | name"):
        for name in kinds.split(", "):
            kind = next(kind for kind, known in frames.NAMES.items() if known == name)
            allowed[kind] = allowed.get(kind, 0) | int(bit)
    assert allowed == frames.FLAGS_ALLOWED


def test_the_limits_are_those_in_the_code() -> None:
    rows = table("limit | value")
    assert len(rows) > 20
    for limit, value, name in rows:
        module, attribute = name.strip("`").split(".")
        found = getattr(importlib.import_module(f"platformctl.wire.{module}"), attribute)
        assert found == int(value.split()[0]), limit
    assert MIN_RTT == 0.002


def test_the_layouts_are_as_long_as_those_in_the_code() -> None:
    assert frames.HEADER.size == frames.HEADER_SIZE == 10
    assert len(frames.open_prefix(frames.KIND_HTTP, b"", 0)) == 10
    assert len(frames.head_payload(200, 0, b"")) == 10
    assert re.search(r"`kind: u8` \| 1 HTTP, 2 HTTP with an upgrade, 3 TCP", SPEC)
    assert (frames.KIND_HTTP, frames.KIND_UPGRADE, frames.KIND_TCP) == (1, 2, 3)
    assert frames.SUBPROTOCOL in SPEC

from __future__ import annotations

import pytest

from platformctl.errors import FrameError
from platformctl.hub.responses import MAX_REMEMBERED_SIZE, REMEMBERED, ResponseHeads, check_head
from platformctl.wire.frames import UNKNOWN_LENGTH, head_payload


def test_a_head_is_written_in_our_words() -> None:
    head = check_head(head_payload(200, 5, b"X-A: 1\r\n"))
    assert (head.status, head.length) == (200, 5)
    assert head.start == b"HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 5\r\n"


def test_an_unknown_length_is_left_to_the_caller() -> None:
    assert check_head(head_payload(200, UNKNOWN_LENGTH, b"")).start == b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize("status", [100, 103, 204])
def test_what_has_no_body_has_no_length(status: int) -> None:
    assert b"Content-Length" not in check_head(head_payload(status, 0, b"")).start


def test_a_304_keeps_the_length_that_it_declares() -> None:
    assert b"Content-Length: 7\r\n" in check_head(head_payload(304, 7, b"")).start


def test_a_status_that_nobody_registered_has_a_reason_too() -> None:
    assert check_head(head_payload(599, 0, b"")).start.startswith(b"HTTP/1.1 599 Unknown\r\n")


@pytest.mark.parametrize(
    "block",
    [
        b"X-A: 1\nX-B: 2\r\n",
        b"X-A: 1\r\n\r\nHTTP/1.1 200 OK\r\n",
        b"X-A: a\rb\r\n",
        b"no colon\r\n",
        b"X-A: 1",
        b" X: 1\r\n",
    ],
)
def test_an_agent_cannot_write_a_second_response_into_a_head(block: bytes) -> None:
    with pytest.raises(FrameError):
        check_head(head_payload(200, 0, block))


@pytest.mark.parametrize(
    "field", [b"Content-Length: 99", b"Transfer-Encoding: chunked", b"Connection: close", b"Upgrade: x"]
)
def test_an_agent_cannot_change_the_framing(field: bytes) -> None:
    head = check_head(head_payload(200, 0, field + b"\r\nX-A: 1\r\n"))
    assert head.start == b"HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 0\r\n"


def test_a_101_needs_exactly_one_upgrade() -> None:
    assert check_head(head_payload(101, UNKNOWN_LENGTH, b"Upgrade: websocket\r\n")).upgrade == b"websocket"
    for block in (b"", b"Upgrade: a\r\nUpgrade: b\r\n"):
        with pytest.raises(FrameError):
            check_head(head_payload(101, UNKNOWN_LENGTH, block))


def test_heads_are_remembered_within_bounds() -> None:
    heads = ResponseHeads()
    payload = head_payload(200, 5, b"X-A: 1\r\n")
    assert heads.get(payload) is heads.get(payload)
    long = head_payload(200, 5, b"X-A: %b\r\n" % (b"a" * MAX_REMEMBERED_SIZE))
    assert heads.get(long) is not heads.get(long)
    for n in range(3 * REMEMBERED):
        heads.get(head_payload(200, n, b""))
    assert len(heads._known) <= REMEMBERED

from __future__ import annotations

import pytest

from platformctl.errors import FrameError
from platformctl.wire import frames


def test_a_frame_is_a_ten_byte_header_and_its_payload() -> None:
    assert frames.frame(frames.DATA, frames.FLAG_END, 0x01020304, b"abc") == (
        b"\x00\x00\x00\x03\x12\x01\x01\x02\x03\x04abc"
    )
    assert frames.HEADER.size == frames.HEADER_SIZE == 10


def test_every_frame_and_every_error_has_its_own_name() -> None:
    assert len(set(frames.NAMES.values())) == len(frames.NAMES)
    assert sorted(frames.ERROR_NAMES) == list(range(len(frames.ERROR_NAMES)))
    assert len(set(frames.ERROR_NAMES.values())) == len(frames.ERROR_NAMES)


def test_control_messages_come_back_as_they_were() -> None:
    message = {"satellite": "sat-1", "labels": {"region": "eu"}, "name": "Zürich"}
    data = frames.control(frames.HELLO, message)
    assert frames.parse_control(frames.HELLO, data[frames.HEADER_SIZE :]) == message


def test_a_control_message_over_the_limit_is_not_made() -> None:
    with pytest.raises(FrameError, match="REGISTER of 65546 bytes"):
        frames.control(frames.REGISTER, {"x": "y" * 65538})


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"x" * (frames.MAX_CONTROL + 1), "over the limit"),
        (b"", "valid JSON"),
        (b"{", "valid JSON"),
        (b'{"a":\xff}', "valid JSON"),
        (b'{"a":"\xed\xa0\x80"}', "valid JSON"),
        (b'{"a":"\\ud800"}', "valid JSON"),
        (b'{"a":NaN}', "valid JSON"),
        (b'{"a":-Infinity}', "valid JSON"),
        ('{"a":1}'.encode("utf-16"), "valid JSON"),
        (b"\xef\xbb\xbf{}", "valid JSON"),
        (b"[" * 50_000, "valid JSON"),
        (b'{"a":' + b"9" * 5000 + b"}", "valid JSON"),
        (b"[]", "JSON object"),
        (b"null", "JSON object"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_a_bad_control_message_is_refused(payload: bytes, message: str) -> None:
    with pytest.raises(FrameError, match=message) as caught:
        frames.parse_control(frames.REGISTER, payload)
    assert caught.value.error == frames.PROTOCOL


def test_escaped_characters_in_control_messages_are_fine() -> None:
    assert frames.parse_control(frames.HELLO, b'{"a":"\\u00fc\\ud83d\\ude00"}') == {"a": "ü😀"}


@pytest.mark.parametrize("length", [0, 5, frames.UNKNOWN_LENGTH, 2**62])
@pytest.mark.parametrize("kind", [frames.KIND_HTTP, frames.KIND_UPGRADE, frames.KIND_TCP])
def test_an_open_payload_comes_back_as_it_was(kind: int, length: int) -> None:
    payload = frames.open_prefix(kind, b"api", length) + b"GET / HTTP\r\n"
    assert frames.parse_open(payload) == (kind, "api", length, b"GET / HTTP\r\n")


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "truncated"),
        (b"\x01" + b"\0" * 8, "truncated"),
        (b"\x01" + b"\0" * 8 + b"\x04api", "shorter than its service name"),
        (b"\x00" + b"\0" * 8 + b"\x03api", "unknown kind 0"),
        (b"\x04" + b"\0" * 8 + b"\x03api", "unknown kind 4"),
        (b"\x01" + b"\xff" * 7 + b"\xfe" + b"\x03api", "body length -2"),
        (b"\x01" + b"\0" * 8 + b"\x02\xc3\xa9", "not ASCII"),
    ],
)
def test_a_bad_open_payload_is_refused(payload: bytes, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        frames.parse_open(payload)


@pytest.mark.parametrize("status", [100, 200, 599])
def test_a_head_payload_comes_back_as_it_was(status: int) -> None:
    payload = frames.head_payload(status, 7, b"A: b\r\n")
    assert frames.parse_head(payload) == (status, 7, b"A: b\r\n")


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"\0\xc8" + b"\0" * 7, "truncated"),
        (b"\0\x63" + b"\0" * 8, "status 99"),
        (b"\x02\x58" + b"\0" * 8, "status 600"),
        (b"\0\xc8" + b"\xff" * 7 + b"\xfe", "body length -2"),
    ],
)
def test_a_bad_head_payload_is_refused(payload: bytes, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        frames.parse_head(payload)

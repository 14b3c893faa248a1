"""The chunked coding: every way to cut a message into pieces gives the same result."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platformctl.errors import HeadError, LocalMisuse
from platformctl.wire.chunked import MAX_SIZE_LINE, MAX_TRAILERS, ChunkedDecoder

Outcome = tuple[bytes, bytes, bytes, bool] | tuple[int, str]


def decode(*pieces: bytes) -> Outcome:
    """(body, trailers, rest, done), or (status, code) of the refusal."""
    decoder = ChunkedDecoder()
    body = b""
    rest = b""
    try:
        for piece in pieces:
            if decoder.done:
                rest += piece
            else:
                body += b"".join(decoder.feed(piece))
    except HeadError as e:
        return e.status, e.code
    return body, decoder.trailers, decoder.rest + rest, decoder.done


def cut(message: bytes, *places: int) -> list[bytes]:
    ordered = sorted(places)
    return [message[a:b] for a, b in zip([0, *ordered], [*ordered, len(message)], strict=True)]


FULL = b"A:" + b"b" * (MAX_TRAILERS - 4) + b"\r\n"
LONG = b"x" * (MAX_SIZE_LINE - 2)
CASES: list[tuple[str, bytes, Outcome]] = [
    ("one chunk", b"5\r\nhello\r\n0\r\n\r\n", (b"hello", b"", b"", True)),
    ("two chunks", b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", (b"abcde", b"", b"", True)),
    ("no body", b"0\r\n\r\n", (b"", b"", b"", True)),
    ("the next request", b"1\r\na\r\n0\r\n\r\nGET / HTTP/1.1\r\n", (b"a", b"", b"GET / HTTP/1.1\r\n", True)),
    (
        "hex in both cases",
        b"a\r\n0123456789\r\nB\r\n0123456789x\r\n00\r\n\r\n",
        (b"01234567890123456789x", b"", b"", True),
    ),
    ("CRLF in the body", b"4\r\n\r\n\r\n\r\n0\r\n\r\n", (b"\r\n\r\n", b"", b"", True)),
    ("trailers", b"0\r\nA: b\r\nC:d\r\n\r\nrest", (b"", b"A: b\r\nC:d\r\n", b"rest", True)),
    ("an extension", b"1;a=b\r\nx\r\n0;c\r\n\r\n", (b"x", b"", b"", True)),
    ("an extension in quotes", b'1 ; a="b;c"\r\nx\r\n0\r\n\r\n', (b"x", b"", b"", True)),
    ("the longest size line", b"1;" + LONG + b"\r\nx\r\n0\r\n\r\n", (b"x", b"", b"", True)),
    (
        "the longest trailers",
        b"0\r\nA:" + b"b" * (MAX_TRAILERS - 4) + b"\r\n\r\n",
        (b"", b"A:" + b"b" * 8188 + b"\r\n", b"", True),
    ),
    ("unfinished", b"5\r\nhel", (b"hel", b"", b"", False)),
    ("a size line over the limit", b"1;" + LONG + b"x\r\nx\r\n0\r\n\r\n", (400, "bad-chunk")),
    ("a size line without end", b"1;" + LONG * 2, (400, "bad-chunk")),
    ("a bare LF after the size", b"1\nx\r\n0\r\n\r\n", (400, "bad-chunk")),
    ("a bare LF in an extension", b"1;a\nb\r\nx\r\n0\r\n\r\n", (400, "bad-chunk")),
    ("a bare CR in an extension", b"1;a\rb\r\nx\r\n0\r\n\r\n", (400, "bad-chunk")),
    ("a control character in an extension", b"1;\x01\r\nx\r\n0\r\n\r\n", (400, "bad-chunk")),
    ("no size", b"\r\nx\r\n0\r\n\r\n", (400, "bad-chunk")),
    ("a bare LF at the start", b"\nx", (400, "bad-chunk")),
    ("a negative size", b"-1\r\nx\r\n", (400, "bad-chunk")),
    ("a size with a plus", b"+1\r\nx\r\n", (400, "bad-chunk")),
    ("a size with 0x", b"0x1\r\nx\r\n", (400, "bad-chunk")),
    ("a size with an underscore", b"1_0\r\nx\r\n", (400, "bad-chunk")),
    ("a space before the size", b" 1\r\nx\r\n", (400, "bad-chunk")),
    ("a space after the size", b"1 \r\nx\r\n", (400, "bad-chunk")),
    ("a size over 63 bits", b"8000000000000000\r\nx", (400, "bad-chunk")),
    ("a size of many zeros", b"0000000000000001\r\nx", (400, "bad-chunk")),
    ("a chunk that is longer", b"1\r\nxy\r\n0\r\n\r\n", (400, "bad-chunk")),
    ("a chunk that is shorter", b"3\r\nx\r\n0\r\n\r\n", (400, "bad-chunk")),
    ("LF after a chunk", b"1\r\nx\n0\r\n\r\n", (400, "bad-chunk")),
    ("CR and something after a chunk", b"1\r\nx\rx0\r\n\r\n", (400, "bad-chunk")),
    ("a folded trailer", b"0\r\nA: b\r\n c\r\n\r\n", (400, "bad-chunk")),
    ("a trailer with a space before the colon", b"0\r\nA : b\r\n\r\n", (400, "bad-chunk")),
    ("a trailer without a colon", b"0\r\nGET / HTTP/1.1\r\n\r\n", (400, "bad-chunk")),
    ("a trailer with a bare LF", b"0\r\nA: b\nC: d\r\n\r\n", (400, "bad-chunk")),
    ("an end with a bare LF", b"0\r\n\n", (400, "bad-chunk")),
    ("trailers over the limit", b"0\r\nA:" + b"b" * (MAX_TRAILERS - 3) + b"\r\n\r\n", (431, "head-too-large")),
    (
        "many trailers over the limit",
        b"0\r\n" + b"A: b\r\n" * (MAX_TRAILERS // 6 + 1) + b"\r\n",
        (431, "head-too-large"),
    ),
    ("a trailer without end", b"0\r\nA:" + b"b" * (MAX_TRAILERS + 1), (431, "head-too-large")),
]
IDS = [case[0] for case in CASES]


@pytest.mark.parametrize(("message", "expected"), [case[1:] for case in CASES], ids=IDS)
def test_a_chunked_body_has_one_outcome(message: bytes, expected: Outcome) -> None:
    assert decode(message) == expected


@pytest.mark.parametrize(("message", "expected"), [case[1:] for case in CASES], ids=IDS)
def test_the_outcome_does_not_depend_on_how_it_arrives(message: bytes, expected: Outcome) -> None:
    assert decode(*(message[i : i + 1] for i in range(len(message)))) == expected
    places = range(len(message) + 1) if len(message) < 100 else [*range(20), *range(len(message) - 20, len(message))]
    for place in places:
        assert decode(*cut(message, place)) == expected
        if len(message) < 40:
            for second in range(place, len(message) + 1):
                assert decode(*cut(message, place, second)) == expected


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=6),
    st.sampled_from([b"", b";a=b", b' ; x="y"']),
    st.sampled_from([b"", b"A: b\r\n", b"A:\r\nB: c\r\n"]),
    st.binary(max_size=20),
    st.lists(st.integers(0, 400), max_size=12),
)
def test_every_body_comes_out_as_it_went_in(
    chunks: list[bytes], extension: bytes, trailers: bytes, rest: bytes, places: list[int]
) -> None:
    message = b"".join(b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks)
    message += b"0" + extension + b"\r\n" + trailers + b"\r\n" + rest
    assert decode(*cut(message, *(min(p, len(message)) for p in places))) == (b"".join(chunks), trailers, rest, True)


@given(st.text("01aF;\r\n :x\n", max_size=40).map(str.encode), st.lists(st.integers(0, 40), max_size=5))
def test_noise_has_one_outcome_too(message: bytes, places: list[int]) -> None:
    whole = decode(message)
    pieces = decode(*cut(message, *(min(p, len(message)) for p in places)))
    assert pieces == whole


def test_a_body_that_has_ended_takes_no_more() -> None:
    decoder = ChunkedDecoder()
    assert decoder.feed(b"0\r\n\r\n") == []
    with pytest.raises(LocalMisuse, match="after its end"):
        decoder.feed(b"x")


def test_a_whole_piece_is_passed_on_without_a_copy() -> None:
    decoder = ChunkedDecoder()
    decoder.feed(b"10\r\n")
    data = b"0123456789abcdef"
    assert decoder.feed(data)[0] is data

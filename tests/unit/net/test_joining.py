"""Join messages: what is encoded is parsed back, and nothing else is believed."""

from __future__ import annotations

import json

import pytest

from platformctl.errors import JoinRefused
from platformctl.net.joining import MAX_ANSWER, Accepted, JoinRequest, Pending, Refused, parse_answer


@pytest.mark.parametrize(
    "answer",
    [
        Pending("sha256:ab"),
        Refused("join-refused", "no", "do this"),
        Accepted("edge-1", {"region": "eu"}, "CERT", "CA", [{"id": "hub-1", "url": "wss://h"}]),
    ],
)
def test_an_answer_is_read_back_as_it_was_sent(answer: Pending | Refused | Accepted) -> None:
    assert parse_answer(answer.encode().encode()) == answer


def test_a_request_is_read_back_as_it_was_sent() -> None:
    request = JoinRequest("t.s", "edge-1", {"region": "eu"}, "CSR", "0.1")

    assert JoinRequest.parse(request.encode().encode()) == request


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\xff", "is not JSON"),
        (b"1", "is not a JSON object"),
        (b"{}", "of an unknown kind"),
        (b'{"status": "pending"}', "is malformed"),
        (b'{"status": "refused", "code": "x"}', "is malformed"),
        (b'{"status": "accepted", "labels": []}', "is malformed"),
        (b'{"status": "accepted", "labels": {}, "replicas": [1]}', "is malformed"),
        (json.dumps({"status": "x" * MAX_ANSWER}).encode(), "is larger than"),
    ],
)
def test_a_foreign_answer_is_refused_in_words(text: bytes, message: str) -> None:
    with pytest.raises(JoinRefused, match=message) as caught:
        parse_answer(text)
    assert caught.value.hint

"""Problem responses: whole, safe to put foreign text into, and documented."""

from __future__ import annotations

import ast
import itertools
import json
import re
from pathlib import Path

import h11
import pytest

import platformctl
from platformctl.net.problem import PROBLEMS, document, problem, render_http1, render_reference

SOURCE = Path(platformctl.__file__).parent
REFERENCE = SOURCE.parent / "docs/reference/errors.md"
CODE = re.compile(r"[a-z]+(-[a-z]+)*")
HOSTILE = 'a"b\\c\r\nSet-Cookie: x=1\r\n\r\n<script>\x00\x1b[31m\u202e\ud800'


def parse(response: bytes, *, method: bytes = b"GET") -> tuple[h11.Response, bytes, h11.Connection]:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target=b"/", headers=[(b"host", b"a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(response)
    head = client.next_event()
    assert isinstance(head, h11.Response)
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    return head, body, client


def test_a_problem_has_the_members_of_rfc_9457_and_ours() -> None:
    status, headers, body = problem(404, "service-unknown", "edge-1 exports no api", request_id="r1")
    assert status == 404
    assert dict(headers)["content-type"] == "application/problem+json"
    assert dict(headers)["x-request-id"] == "r1"
    assert json.loads(body) == {
        "type": "/docs/reference/errors#service-unknown",
        "title": "Unknown service",
        "status": 404,
        "code": "service-unknown",
        "detail": "edge-1 exports no api",
        "hint": PROBLEMS["service-unknown"].action,
        "request_id": "r1",
    }


def test_a_hint_of_the_caller_replaces_that_of_the_table() -> None:
    assert document(503, "overloaded", "d", hint="wait")["hint"] == "wait"


def test_an_unknown_code_is_answered_as_about_blank() -> None:
    members = document(418, "kettle", "d")
    assert (members["type"], members["title"], members["code"]) == ("about:blank", "I'm a Teapot", "kettle")
    assert document(599, "odd", "d")["title"] == "Error"


def test_extension_members_cannot_replace_the_standard_ones() -> None:
    members = document(422, "parameter-invalid", "d", extra={"errors": [1], "status": 200})
    assert (members["errors"], members["status"]) == ([1], 422)


def test_hostile_text_stays_inside_the_json_string() -> None:
    response = render_http1(404, "path-unknown", HOSTILE, hint=HOSTILE)
    head, body, _ = parse(response)
    assert b"set-cookie" not in dict(head.headers)
    assert json.loads(body)["detail"] == HOSTILE.replace("\ud800", "?")
    assert body.isascii()
    assert not any(byte < 0x20 for byte in body)


@pytest.mark.parametrize("request_id", ["a b", "a\r\nx: y", "é", "", "x" * 201])
def test_a_request_id_that_is_no_field_value_is_left_out(request_id: str) -> None:
    _, headers, body = problem(404, "path-unknown", "d", request_id=request_id)
    assert "x-request-id" not in dict(headers)
    assert json.loads(body)["request_id"] == ""


def test_foreign_text_is_cut_to_a_bound() -> None:
    _, _, body = problem(400, "bad-request", "x" * 100_000)
    assert len(body) < 2000
    assert json.loads(body)["detail"].endswith("…")


@pytest.mark.parametrize(("seconds", "field"), [(0, "1"), (0.2, "1"), (1, "1"), (1.01, "2"), (30.0, "30")])
def test_retry_after_is_whole_seconds_rounded_up(seconds: float, field: str) -> None:
    _, headers, _ = problem(503, "overloaded", "d", retry_after=seconds)
    assert dict(headers)["retry-after"] == field


def test_a_401_carries_its_challenge_and_others_do_not() -> None:
    assert dict(problem(401, "unauthenticated", "d")[1])["www-authenticate"].startswith("Bearer ")
    assert "www-authenticate" not in dict(problem(403, "access-denied", "d")[1])


def test_the_whole_response_keeps_the_connection_unless_it_is_told_to_close() -> None:
    head, body, client = parse(render_http1(404, "path-unknown", "d", date="Sun, 06 Nov 1994 08:49:37 GMT"))
    assert dict(head.headers)[b"date"] == b"Sun, 06 Nov 1994 08:49:37 GMT"
    assert dict(head.headers)[b"content-length"] == str(len(body)).encode()
    assert client.their_state is h11.DONE
    _, _, client = parse(render_http1(404, "path-unknown", "d", close=True))
    assert client.their_state is h11.MUST_CLOSE


def test_the_answer_to_head_keeps_the_length_and_has_no_body() -> None:
    full = render_http1(405, "method-not-allowed", "d", headers=[("allow", "GET")])
    short = render_http1(405, "method-not-allowed", "d", headers=[("allow", "GET")], head_only=True)
    assert full.startswith(short)
    head, body, _ = parse(short, method=b"HEAD")
    assert body == b""
    assert dict(head.headers)[b"allow"] == b"GET"


@pytest.mark.parametrize("kind", PROBLEMS.values(), ids=lambda kind: kind.code)
def test_every_code_is_an_error_with_meaning_and_advice(kind: object) -> None:
    assert isinstance(kind, type(PROBLEMS["internal"]))
    assert 400 <= kind.status <= 599
    assert kind.code == kind.code.lower()
    assert kind.meaning.endswith(".")
    assert kind.action.endswith(".")
    assert not kind.title.endswith(".")


def test_the_reference_is_current() -> None:
    assert REFERENCE.read_text() == render_reference(), "python -m platformctl.net.problem > docs/reference/errors.md"


def answered_codes() -> list[tuple[str, int, str]]:
    """(place, status, code) wherever the source has an error status followed by a code, in a call or a tuple."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            parts = node.args if isinstance(node, ast.Call) else node.elts if isinstance(node, ast.Tuple) else []
            literals = [each.value if isinstance(each, ast.Constant) else None for each in parts]
            for status, code in itertools.pairwise(literals):
                if type(status) is int and 400 <= status <= 599 and isinstance(code, str) and CODE.fullmatch(code):
                    found.append((f"{path.relative_to(SOURCE)}:{node.lineno}", status, code))
    return found


def test_every_code_that_the_source_answers_with_is_in_the_table() -> None:
    answered = answered_codes()
    assert len(answered) > 20
    wrong = [
        f"{where} answers {status} {code}"
        for where, status, code in answered
        # A 502 in wire/heads is said by the agent, to the hub, as RESET(BACKEND_PROTOCOL).
        if not (where.startswith("wire/heads") and status == 502)
        and (code not in PROBLEMS or PROBLEMS[code].status != status)
    ]
    assert wrong == []

"""The short way must be the full way: a template gives what parsing and resolving would have given, or nothing."""

from __future__ import annotations

import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platformctl.access.policy_file import load_policy
from platformctl.access.tokens import ENTROPY_BYTES, ClientTokens, mint_client_token
from platformctl.errors import HeadError
from platformctl.hub.front import Caller, Front
from platformctl.hub.plan import Plan, Refusal
from platformctl.hub.template import Template
from platformctl.net.deadlines import Deadlines
from platformctl.net.http1 import ServerOptions
from platformctl.routing.addressing import Addressing
from platformctl.routing.registry import Registry
from platformctl.routing.spec import ServiceSpec
from platformctl.wire.heads import parse_request

POLICY = """
apiVersion: platformctl.io/v1alpha1
kind: AccessPolicy
metadata: {name: test}
rules:
  - {name: free, subjects: ["token:alice"], satellites: ["sat-1"], services: ["web"]}
  - name: limited
    subjects: ["token:alice"]
    satellites: ["sat-1"]
    services: ["api"]
    methods: [GET]
    paths: ["/open/**"]
"""
TOKEN, RECORD = mint_client_token(os.urandom(ENTROPY_BYTES), "alice", (), now=time.time())
OTHER_TOKEN, OTHER_RECORD = mint_client_token(os.urandom(ENTROPY_BYTES), "bob", (), now=time.time())
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CALLER = Caller("192.0.2.7", False, False)


class Tunnel:
    inflight = 0
    lane = 0
    draining = False


def make_front() -> Front:
    registry = Registry()
    lease, _ = registry.attach("sat-1", "instance", {}, Tunnel())
    registry.register(lease, [ServiceSpec("web"), ServiceSpec("api")])
    front = Front(
        addressing=Addressing("hub.test"),
        registry=registry,
        options=ServerOptions(Deadlines(time.monotonic)),
        clock=time.monotonic,
        wall=time.time,
        known=lambda name: {},
        audit=None,
        count_decision=lambda allowed: None,
        count_local=lambda status: None,
        suspicious=lambda endpoint, what: None,
    )
    front.set_access(load_policy([("test", POLICY)]), ClientTokens([RECORD, OTHER_RECORD]))
    return front


FRONT = make_front()


def head(
    *lines: str,
    target: str = "/s/sat-1/web/",
    host: str = "hub.test",
    method: str = "GET",
    version: str = "1.1",
    token: str = TOKEN,
) -> bytes:
    fields = (f"Host: {host}", f"Authorization: Bearer {token}", *lines)
    return "\r\n".join((f"{method} {target} HTTP/{version}", *fields, "", "")).encode("latin-1")


def full(raw: bytes) -> Plan | None:
    """The full way; None where the hub would answer by itself."""
    try:
        plan = FRONT.resolve(CALLER, parse_request(raw), b"id")
    except (HeadError, Refusal):
        return None
    return plan if isinstance(plan, Plan) else None


def template_of(raw: bytes) -> Template:
    plan = full(raw)
    assert plan is not None
    assert plan.template is not None
    return plan.template(raw)


def agree(first: bytes, second: bytes) -> bytes | None:
    """What the template of `first` makes of `second`, checked against the full way."""
    template = template_of(first)
    found = template.adapt(second)
    if found is not None:
        plan = full(second)
        assert plan is not None
        assert found == plan.head
        assert template.traceparent == plan.traceparent
        assert template.request_id == plan.request_id
        assert template.path.decode("ascii") == plan.path
    return found


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (head("X-Seq: 1"), head("X-Seq: 2")),
        (head("X-Seq:1"), head("X-Seq:   2  ")),
        (head("Cookie: a=1", "Accept: */*"), head("Cookie: a=1; b=\xe9", "Accept: text/html")),
        (head(target="/s/sat-1/web/a"), head(target="/s/sat-1/web/b?c=d")),
        (head(target="/a", host="web.sat-1.hub.test"), head(target="/b", host="web.sat-1.hub.test")),
        (head(f"traceparent: {PARENT}"), head("traceparent: " + PARENT.replace("b7ad", "c7ad"))),
        (head("X-Request-Id: one"), head("X-Request-Id: two")),
        (head("X-Request-Id: one"), head("X-Request-Id: not one!")),
        (head(target="/s/sat-1/api/open/1"), head(target="/s/sat-1/api/open/2")),
    ],
)
def test_a_head_that_differs_in_text_alone_is_adapted(first: bytes, second: bytes) -> None:
    assert agree(first, second) is not None


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (head("X-Seq: 1"), head("X-Seq: 1", "X-More: 2")),
        (head("X-Seq: 1"), head("X-Sep: 1")),
        (head("X-Seq: 1"), head("x-seq: 1")),
        (head("X-Seq: 1"), head("X-Seq: a\x00b")),
        (head("X-Seq: 1"), head("X-Seq: a\rb")),
        (head("X-Seq: 1"), head("X-Seq: a\nContent-Length: 5")),
        (head("X-Seq: 1"), head(" X-Seq: 1")),
        (head("X-Seq: 1"), head("X-Seq : 1")),
        (head("X-Seq: 1"), head("Content-Length: 5")),
        (head("Content-Length: 0"), head("Content-Length: 5")),
        (head("Connection: keep-alive"), head("Connection: close")),
        (head("Connection: keep-alive"), head("Connection: X-Seq")),
        (head("TE: trailers"), head("TE: gzip")),
        (head("Platform-Identity: a"), head("Platform-Identity: b")),
        (head("X-Forwarded-For: a"), head("X-Forwarded-For: b")),
        (head(f"traceparent: {PARENT}"), head("traceparent: nonsense")),
        (head(f"traceparent: {PARENT}", "tracestate: a=1"), head(f"traceparent: {PARENT}", "tracestate: a=2")),
        (head("traceparent: nonsense"), head(f"traceparent: {PARENT}")),
        (head(), head(token=OTHER_TOKEN)),
        (head(), head(method="POST")),
        (head(), head(version="1.0")),
        (head(), head(host="web.sat-1.hub.test")),
        (head(), head(target="/s/sat-1/api/open/1")),
        (head(), head(target="/s/sat-1/webb/")),
        (head(), head(target="/s/sat-1/web")),
        (head(), head(target="/s/sat-1/web/ x")),
        (head(), head(target="/s/sat-1/web/#x")),
        (head(), head(target="http://hub.test/s/sat-1/web/")),
        (head(), head(target="/s/sat-1/web/" + "x" * 9000)),
        (head("X-Seq: 1"), head("X-Seq: " + "x" * 40000)),
        (head(target="/s/sat-1/api/open/1"), head(target="/s/sat-1/api/closed")),
        (head(target="/s/sat-1/api/open/1"), head(target="/s/sat-1/api/open/../closed")),
    ],
)
def test_a_head_that_differs_in_more_is_parsed_in_full(first: bytes, second: bytes) -> None:
    assert agree(first, second) is None


def test_a_template_follows_its_connection_from_head_to_head() -> None:
    template = template_of(head("X-Seq: 1"))
    for number in range(2, 6):
        raw = head(f"X-Seq: {number}", target=f"/s/sat-1/web/{number}")
        plan = full(raw)
        assert plan is not None
        assert template.adapt(raw) == plan.head


def test_a_refusal_leaves_the_template_as_it_was() -> None:
    first = head("X-Seq: 1", f"traceparent: {PARENT}")
    template = template_of(first)
    assert template.adapt(head("X-Seq: 2", "traceparent: nonsense")) is None
    plan = full(first)
    assert plan is not None
    assert template.adapt(first) == plan.head


_WORDS = st.sampled_from(
    [
        "X-Seq",
        "Cookie",
        "Connection",
        "Content-Length",
        "Transfer-Encoding",
        "Host",
        "TE",
        "Expect",
        "Upgrade",
        "Accept",
        "traceparent",
        "tracestate",
        "X-Request-Id",
        "Platform-Service",
        "Via",
        "Proxy-Authorization",
        "Authorization",
    ]
)
_VALUES = st.one_of(
    st.sampled_from(
        ["", "1", "close", "keep-alive", "upgrade", "chunked", "0", "5", "trailers", "hub.test", PARENT, "web"]
    ),
    st.text(st.characters(max_codepoint=255), max_size=12),
)
_TARGETS = st.one_of(
    st.sampled_from(
        ["/s/sat-1/web/", "/s/sat-1/web/x", "/s/sat-1/api/open/1", "/s/sat-1/api/x", "/s/sat-2/web/", "/api/v1"]
    ),
    st.text(st.characters(max_codepoint=255), max_size=12).map(lambda text: "/s/sat-1/web/" + text),
)
_LINES = st.lists(st.tuples(_WORDS, _VALUES).map(": ".join), max_size=4)


@given(_LINES, _TARGETS, _LINES, _TARGETS, st.booleans())
@settings(max_examples=400, deadline=None)
def test_the_short_way_is_the_full_way_for_any_two_heads(
    first: list[str], target: str, second: list[str], other: str, same_shape: bool
) -> None:
    raw = head(*first, target=target)
    plan = full(raw)
    if plan is None or plan.template is None:
        return
    if same_shape:
        second = [a.partition(":")[0] + ":" + b.partition(":")[2] for a, b in zip(first, second, strict=False)]
        second += first[len(second) :]
    agree(raw, head(*second, target=other))

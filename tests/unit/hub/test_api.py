"""The control API, called as the ingress calls it, over a hub with a real store and a real policy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from platformctl.access.identity import ANONYMOUS, Identity
from platformctl.access.policy import Policy
from platformctl.access.policy_file import load_policy
from platformctl.errors import StoreError
from platformctl.hub.api import (
    ReplicaView,
    SatelliteView,
    ServiceView,
    TunnelView,
    VersionView,
    create_api,
)
from platformctl.hub.api.gate import MAX_BODY
from platformctl.hub.store import Store
from platformctl.hub.store_sqlite import SQLiteStore
from platformctl.net.problem import PROBLEMS

NOW = 1_700_000_000.0
PIN = "sha256:" + "ab" * 32
ADMIN = Identity("token", "admin", frozenset({"ops", "admins"}))
VIEWER = Identity("token", "viewer")
POLICY = """
apiVersion: platformctl.io/v1alpha1
kind: AccessPolicy
metadata:
  name: test
rules:
  - name: admins
    subjects: ["token:admin"]
    satellites: [hub]
    services: [api]
  - name: viewers
    subjects: ["token:viewer"]
    satellites: [hub]
    services: [api]
    methods: [GET]
    paths: ["/api/v1/satellites"]
"""


class FakeHub:
    """A HubView whose snapshots a test sets; the store is real."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.satellite_views: list[SatelliteView] = []
        self.service_views: list[ServiceView] = []
        self.tunnel_views: list[TunnelView] = []
        self.time = NOW

    def satellites(self) -> list[SatelliteView]:
        return self.satellite_views

    def services(self) -> list[ServiceView]:
        return self.service_views

    def tunnels(self) -> list[TunnelView]:
        return self.tunnel_views

    def replicas(self) -> list[ReplicaView]:
        return [ReplicaView("hub-1", "wss://a:1", "draining"), ReplicaView("hub-0", "wss://a:0", "ready", current=True)]

    def version(self) -> VersionView:
        return VersionView("0.1.0", "hub-0", (1,))

    def ca_pin(self) -> str:
        return PIN

    def join_url(self) -> str:
        return "https://hub.example:7443"

    def now(self) -> float:
        return self.time


def as_caller(app: ASGIApp, identity: Identity | None, policy: Policy) -> ASGIApp:
    """What the ingress does before it hands a request over."""

    async def ingress(scope: Scope, receive: Receive, send: Send) -> None:
        state: dict[str, Any] = {"request_id": "req-1"}
        if identity is not None:
            state |= {"identity": identity, "grant": policy.grant(identity, "hub", {}, "api")}
        await app({**scope, "state": state}, receive, send)

    return ingress


Connect = Callable[..., httpx.AsyncClient]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    with SQLiteStore(tmp_path / "hub.db") as store:
        yield FakeHub(store)


@pytest.fixture
async def connect(hub: FakeHub) -> AsyncIterator[Connect]:
    policy = load_policy([("policy.yaml", POLICY)])
    app = create_api(hub)
    opened: list[httpx.AsyncClient] = []

    def connect(identity: Identity | None = ADMIN) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(as_caller(app, identity, policy), raise_app_exceptions=True)
        opened.append(httpx.AsyncClient(transport=transport, base_url="https://hub"))
        return opened[-1]

    yield connect
    for each in opened:
        await each.aclose()


@pytest.fixture
def admin(connect: Connect) -> httpx.AsyncClient:
    return connect()


def assert_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    body: dict[str, Any] = answer.json()
    assert (body["status"], body["code"], body["request_id"]) == (status, code, "req-1")
    assert PROBLEMS[code].status == status
    assert body["hint"]
    assert "Traceback" not in answer.text
    return body


# ---- reading -------------------------------------------------------------------------------------------------------


async def test_a_satellite_shows_what_the_hub_knows_of_it(hub: FakeHub, admin: httpx.AsyncClient) -> None:
    hub.satellite_views = [
        SatelliteView(
            "edge-1", "degraded", 1, 2, {"region": "eu"}, 1.5, "0.1.0", "i-1", ["api"], ["t-1"],
        )
    ]  # fmt: skip
    shown = {
        "name": "edge-1",
        "labels": {"region": "eu"},
        "state": "degraded",
        "connected": 1,
        "expected": 2,
        "rtt_ms": 1.5,
        "version": "0.1.0",
        "services": ["api"],
        "instance": "i-1",
        "tunnels": ["t-1"],
    }
    assert (await admin.get("/api/v1/satellites")).json() == {"items": [shown], "next": None}
    assert (await admin.get("/api/v1/satellites/edge-1")).json() == shown


async def test_an_unknown_satellite_is_a_404_that_names_it(admin: httpx.AsyncClient) -> None:
    body = assert_problem(await admin.get("/api/v1/satellites/edge-9%0A"), 404, "satellite-unknown")
    assert body["detail"] == "no satellite named 'edge-9\\\\x0a' has joined"


async def test_services_and_tunnels_can_be_limited_to_a_satellite(hub: FakeHub, admin: httpx.AsyncClient) -> None:
    hub.service_views = [ServiceView(sat, "api", "http", "healthy", f"/s/{sat}/api/") for sat in ("b", "a")]
    hub.tunnel_views = [TunnelView(f"t-{sat}", sat, "hub-0", connected_at=NOW) for sat in ("b", "a")]
    for path in ("/api/v1/services", "/api/v1/tunnels"):
        assert [each["satellite"] for each in (await admin.get(path)).json()["items"]] == ["a", "b"]
        assert [each["satellite"] for each in (await admin.get(f"{path}?satellite=b")).json()["items"]] == ["b"]
    (tunnel,) = (await admin.get("/api/v1/tunnels?satellite=a")).json()["items"]
    assert tunnel["connected_at"] == "2023-11-14T22:13:20Z"


async def test_replicas_version_and_caller_are_told(admin: httpx.AsyncClient) -> None:
    replicas = (await admin.get("/api/v1/replicas")).json()["items"]
    assert [(each["id"], each["state"], each["current"]) for each in replicas] == [
        ("hub-0", "ready", True),
        ("hub-1", "draining", False),
    ]
    version = (await admin.get("/api/v1/version")).json()
    assert (version["version"], version["replica"], version["wire_versions"]) == ("0.1.0", "hub-0", [1])
    caller = (await admin.get("/api/v1/whoami")).json()
    assert caller == {"kind": "token", "name": "admin", "groups": ["admins", "ops"]}


# ---- lists ---------------------------------------------------------------------------------------------------------


def joined(*names: str) -> list[SatelliteView]:
    return [SatelliteView(name, "connected", 1, 1) for name in names]


async def pages(client: httpx.AsyncClient, path: str, limit: int) -> AsyncIterator[list[dict[str, Any]]]:
    after = None
    while True:
        params = {"limit": limit, **({"continue": after} if after else {})}
        body = (await client.get(path, params=params)).json()
        yield body["items"]
        after = body["next"]
        if after is None:
            return


async def test_pages_together_are_the_list_in_order(hub: FakeHub, admin: httpx.AsyncClient) -> None:
    hub.satellite_views = joined("e", "a", "c", "b", "d")
    names = [[each["name"] for each in page] async for page in pages(admin, "/api/v1/satellites", 2)]
    assert names == [["a", "b"], ["c", "d"], ["e"]]


async def test_a_list_that_fills_its_page_has_no_next(hub: FakeHub, admin: httpx.AsyncClient) -> None:
    hub.satellite_views = joined("a", "b")
    assert (await admin.get("/api/v1/satellites?limit=2")).json()["next"] is None


async def test_what_comes_and_goes_between_pages_shifts_nothing(hub: FakeHub, admin: httpx.AsyncClient) -> None:
    hub.satellite_views = joined("b", "c", "d", "e")
    seen = []
    async for page in pages(admin, "/api/v1/satellites", 2):
        seen += [each["name"] for each in page]
        hub.satellite_views = joined("a", "d", "e")
    assert seen == ["b", "c", "d", "e"]


@pytest.mark.parametrize("token", ["x", "%%", "bnVsbA", "WzFd", "é", "W1tbW1tb"])
async def test_a_continue_token_of_someone_else_is_refused(admin: httpx.AsyncClient, token: str) -> None:
    assert_problem(await admin.get("/api/v1/satellites", params={"continue": token}), 400, "continue-invalid")


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "many"])
async def test_a_limit_out_of_range_is_refused(admin: httpx.AsyncClient, limit: str) -> None:
    body = assert_problem(await admin.get("/api/v1/satellites", params={"limit": limit}), 422, "parameter-invalid")
    assert body["errors"][0]["where"] == "query.limit"


async def test_an_unchanged_list_is_not_sent_again(hub: FakeHub, admin: httpx.AsyncClient) -> None:
    hub.satellite_views = joined("a")
    first = await admin.get("/api/v1/satellites")
    tag = first.headers["etag"]
    assert first.headers["cache-control"] == "private, no-cache"
    for field in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        again = await admin.get("/api/v1/satellites", headers={"if-none-match": field})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    hub.satellite_views = joined("a", "b")
    changed = await admin.get("/api/v1/satellites", headers={"if-none-match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag


# ---- join tokens ---------------------------------------------------------------------------------------------------


async def test_a_created_token_is_shown_once_and_kept_as_a_hash(hub: FakeHub, admin: httpx.AsyncClient) -> None:
    answer = await admin.post("/api/v1/tokens", json={"satellite": "edge-1", "labels": {"region": "eu"}})
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    made = answer.json()
    assert answer.headers["location"] == f"/api/v1/tokens/{made['id']}"
    assert made["token"].startswith(made["id"] + ".")
    assert (made["satellite"], made["labels"], made["ca_pin"]) == ("edge-1", {"region": "eu"}, PIN)
    assert made["expires_at"] == "2023-11-14T22:28:20Z"
    listed = await admin.get("/api/v1/tokens")
    assert made["token"].partition(".")[2] not in listed.text
    assert listed.json()["items"] == [
        {
            "id": made["id"],
            "satellite": "edge-1",
            "labels": {"region": "eu"},
            "created_at": "2023-11-14T22:13:20Z",
            "expires_at": "2023-11-14T22:28:20Z",
            "used_at": None,
            "uses": 0,
            "state": "unused",
        }
    ]
    record = hub.store.get_join_token(made["id"])
    assert record is not None
    assert made["token"].partition(".")[2] not in record.digest


async def test_the_join_command_keeps_the_token_out_of_argv(admin: httpx.AsyncClient) -> None:
    made = (await admin.post("/api/v1/tokens", json={"satellite": "edge-1"})).json()
    variable, command = made["join_command"].split(" ", 1)
    assert variable == f"PLATFORMCTL_JOIN_TOKEN={made['token']}"
    assert command == f"platformctl join satellite edge-1 --hub https://hub.example:7443 --ca-pin {PIN}"


async def test_a_token_shows_whether_it_was_used_or_expired(hub: FakeHub, admin: httpx.AsyncClient) -> None:
    used = (await admin.post("/api/v1/tokens", json={"satellite": "a", "ttl_seconds": 60})).json()
    stale = (await admin.post("/api/v1/tokens", json={"satellite": "b", "ttl_seconds": 60})).json()
    assert hub.store.consume_join_token(used["id"], NOW + 1)
    hub.time = NOW + 61
    items = {each["id"]: each for each in (await admin.get("/api/v1/tokens")).json()["items"]}
    assert (items[used["id"]]["state"], items[used["id"]]["uses"]) == ("used", 1)
    assert items[used["id"]]["used_at"] == "2023-11-14T22:13:21Z"
    assert items[stale["id"]]["state"] == "expired"


async def test_a_revoked_token_is_gone_and_revoking_it_again_is_a_404(admin: httpx.AsyncClient) -> None:
    made = (await admin.post("/api/v1/tokens", json={"satellite": "edge-1"})).json()
    gone = await admin.delete(f"/api/v1/tokens/{made['id']}")
    assert (gone.status_code, gone.content) == (204, b"")
    assert (await admin.get("/api/v1/tokens")).json()["items"] == []
    assert_problem(await admin.delete(f"/api/v1/tokens/{made['id']}"), 404, "token-unknown")


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, "body.satellite"),
        ({"satellite": "Edge"}, "body.satellite"),
        ({"satellite": "a" * 64}, "body.satellite"),
        ({"satellite": "a", "ttl_seconds": 0}, "body.ttl_seconds"),
        ({"satellite": "a", "ttl_seconds": "900"}, "body.ttl_seconds"),
        ({"satellite": "a", "ttl_seconds": 10**9}, "body.ttl_seconds"),
        ({"satellite": "a", "tll_seconds": 9}, "body.tll_seconds"),
        ({"satellite": "a", "labels": {"a": 1}}, "body.labels.a"),
        ([], "body"),
    ],
)
async def test_a_wrong_body_is_refused_by_member(admin: httpx.AsyncClient, body: object, where: str) -> None:
    problem = assert_problem(await admin.post("/api/v1/tokens", json=body), 422, "parameter-invalid")
    assert problem["errors"][0]["where"] == where


@pytest.mark.parametrize("body", [{"satellite": "hub"}, {"satellite": "a", "labels": {"a b": "c"}}])
async def test_what_access_refuses_is_told_with_its_hint(admin: httpx.AsyncClient, body: object) -> None:
    problem = assert_problem(await admin.post("/api/v1/tokens", json=body), 422, "parameter-invalid")
    assert problem["hint"] != PROBLEMS["parameter-invalid"].action


async def test_a_refused_value_is_not_repeated(admin: httpx.AsyncClient) -> None:
    answer = await admin.post("/api/v1/tokens", json={"satellite": "jt-1.SECRET", "ttl_seconds": "SECRET"})
    assert_problem(answer, 422, "parameter-invalid")
    assert "SECRET" not in answer.text


@pytest.mark.parametrize("content", [b"{", b"[" * 60_000, b"\xff", b""])
async def test_a_body_that_is_no_json_is_refused(admin: httpx.AsyncClient, content: bytes) -> None:
    answer = await admin.post("/api/v1/tokens", content=content, headers={"content-type": "application/json"})
    assert_problem(answer, 422, "parameter-invalid")


async def test_a_form_is_not_taken_for_json(admin: httpx.AsyncClient) -> None:
    answer = await admin.post("/api/v1/tokens", content=b'{"satellite":"a"}', headers={"content-type": "text/plain"})
    assert_problem(answer, 422, "parameter-invalid")


async def test_a_body_over_the_bound_is_not_read_to_its_end(admin: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 16384
            yield b" " * 16384

    assert_problem(await admin.post("/api/v1/tokens", content=endless()), 413, "body-too-large")
    assert sent <= MAX_BODY + 2 * 16384


# ---- the door ------------------------------------------------------------------------------------------------------


async def test_what_the_grant_denies_is_a_403_that_says_who_and_what(connect: Connect) -> None:
    viewer = connect(VIEWER)
    assert (await viewer.get("/api/v1/satellites")).status_code == 200
    assert (await viewer.head("/api/v1/satellites")).status_code == 200
    for method, path in (("POST", "/api/v1/tokens"), ("GET", "/api/v1/tunnels"), ("POST", "/api/v1/satellites")):
        body = assert_problem(await viewer.request(method, path), 403, "access-denied")
        assert body["detail"] == f"token:viewer may not {method} {path}"


async def test_a_caller_without_a_credential_is_asked_for_one(connect: Connect) -> None:
    answer = await connect(ANONYMOUS).get("/api/v1/satellites")
    assert_problem(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_without_an_access_decision_the_door_is_closed(connect: Connect) -> None:
    assert_problem(await connect(None).get("/api/v1/satellites"), 403, "access-denied")


@pytest.mark.parametrize(
    ("site", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 201), ("none", 201)]
)
async def test_another_sites_page_cannot_change_anything(admin: httpx.AsyncClient, site: str, status: int) -> None:
    answer = await admin.post("/api/v1/tokens", json={"satellite": "a"}, headers={"sec-fetch-site": site})
    assert answer.status_code == status
    assert len((await admin.get("/api/v1/tokens", headers={"sec-fetch-site": site})).json()["items"]) == (status == 201)


async def test_head_is_get_without_the_body(admin: httpx.AsyncClient) -> None:
    full, head = await admin.get("/api/v1/version"), await admin.head("/api/v1/version")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == full.headers["content-length"]


@pytest.mark.parametrize("path", ["/", "/api/v1", "/api/v1/", "/api/v1/nothing", "/api/v1/satellites/", "/docs"])
async def test_a_path_that_is_not_there_is_a_404_problem(admin: httpx.AsyncClient, path: str) -> None:
    assert_problem(await admin.get(path), 404, "path-unknown")


async def test_a_method_that_is_not_there_says_which_are(admin: httpx.AsyncClient) -> None:
    answer = await admin.put("/api/v1/tokens")
    assert_problem(answer, 405, "method-not-allowed")
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}


async def test_every_answer_carries_the_request_id_and_is_not_sniffed(admin: httpx.AsyncClient) -> None:
    for path in ("/api/v1/version", "/api/v1/satellites", "/nothing"):
        answer = await admin.get(path)
        assert answer.headers.get_list("x-request-id") == ["req-1"]
        assert answer.headers.get_list("x-content-type-options") == ["nosniff"]


async def test_a_failing_store_is_a_503_with_its_hint(
    hub: FakeHub, admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise StoreError("the database is locked", hint="stop the other process")

    monkeypatch.setattr(hub.store, "list_join_tokens", broken)
    body = assert_problem(await admin.get("/api/v1/tokens"), 503, "store-unavailable")
    assert (body["detail"], body["hint"]) == ("the database is locked", "stop the other process")


async def test_a_bug_is_a_500_without_its_traceback_and_a_log_record(
    hub: FakeHub, admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise RuntimeError("inner secret")

    monkeypatch.setattr(hub, "tunnels", broken)
    answer = await admin.get("/api/v1/tunnels")
    assert_problem(answer, 500, "internal")
    assert "secret" not in answer.text
    assert [record.request_id for record in caplog.records if record.exc_info] == ["req-1"]


async def test_the_openapi_document_describes_every_path(admin: httpx.AsyncClient) -> None:
    document = (await admin.get("/api/v1/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    assert sorted(document["paths"]) == [
        "/api/v1/replicas",
        "/api/v1/satellites",
        "/api/v1/satellites/{name}",
        "/api/v1/services",
        "/api/v1/tokens",
        "/api/v1/tokens/{id}",
        "/api/v1/tunnels",
        "/api/v1/version",
        "/api/v1/whoami",
    ]
    operations = [each for path in document["paths"].values() for each in path.values()]
    assert all("application/problem+json" in each["responses"]["4XX"]["content"] for each in operations)
    assert len({each["operationId"] for each in operations}) == len(operations) == 10

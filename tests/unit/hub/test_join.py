"""Joining, end to end: a real hub listener, a real satellite client, certificates of a real CA, on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from picows import WSUpgradeRequest, ws_create_server
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from platformctl.access import pki
from platformctl.access.tokens import ENTROPY_BYTES, mint_join_token
from platformctl.errors import HubUnreachable, JoinRefused, StoreError, TimedOut, UsageError
from platformctl.hub.guessing import GuessBrake
from platformctl.hub.join import JoinConfig, JoinDesk, ca_response
from platformctl.hub.join_decision import JoinRules
from platformctl.hub.store import SatelliteRecord, update_satellite
from platformctl.hub.store_sqlite import SQLiteStore
from platformctl.net.joining import CA_PATH, JOIN_PATH, JOIN_PROTOCOL, JoinRequest
from platformctl.net.tls import trust, tunnel_client_context, tunnel_server_context
from platformctl.satellite.joiner import JoinedIdentity, join

REPLICAS = [{"id": "hub-1", "url": "wss://hub-1:8443"}, {"id": "hub-2", "url": "wss://hub-2:8443"}]


@dataclass
class Hub:
    """A hub's tunnel listener with nothing but joining on it."""

    store: SQLiteStore
    ca: pki.Authority
    desk: JoinDesk
    folder: Path
    url: str = ""
    server: Any = None
    clock: float = 0.0
    audited: list[dict[str, Any]] = field(default_factory=list)
    # What the CA path serves, and the server certificate's names, for the tests that lie about them.
    served_ca: bytes = b""

    @property
    def pin(self) -> str:
        return pki.ca_pin(self.ca.cert_pem)

    def token(self, satellite: str = "edge-1", ttl_seconds: float = 900.0, **labels: str) -> str:
        text, record = mint_join_token(
            secrets.token_bytes(ENTROPY_BYTES), satellite, labels, now=self.now(), ttl_seconds=ttl_seconds
        )
        self.store.put_join_token(record)
        return text

    def now(self) -> float:
        return time.time() + self.clock

    async def serve(self, names: tuple[str, ...] = ("localhost",), issuer: pki.Authority | None = None) -> None:
        await self.stop()
        cert, key, ca = server_files(self.folder, issuer or self.ca, names, self.now())

        def route(request: WSUpgradeRequest) -> Any:
            if request.path == CA_PATH.encode():
                return ca_response(self.served_ca, self.now)
            return self.desk.listener(request) if request.path == JOIN_PATH.encode() else None

        context = tunnel_server_context(cert, key, ca)
        self.server = await ws_create_server(route, "127.0.0.1", 0, ssl=context)
        self.url = f"wss://localhost:{self.server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        if self.server is not None:
            self.server.close()
            await self.server.wait_closed()

    async def join(self, token: str, folder: Path, **more: Any) -> JoinedIdentity:
        given: dict[str, Any] = {"ca_pin": self.pin, "name": "edge-1", "labels": {}, "timeout": 5.0} | more
        return await join(given.pop("url", self.url), token, state_dir=folder, entropy=secrets.token_bytes, **given)


def authority(domain: str = "hub.test", now: float | None = None) -> pki.Authority:
    key = pki.make_key(secrets.token_bytes(pki.KEY_ENTROPY_BYTES))
    moment = time.time() if now is None else now
    return pki.Authority.load(*pki.create_ca(moment, domain, key, entropy=secrets.token_bytes(pki.SERIAL_BYTES)))


def server_files(folder: Path, ca: pki.Authority, names: tuple[str, ...], now: float) -> tuple[Path, Path, Path]:
    key = pki.make_key(secrets.token_bytes(pki.KEY_ENTROPY_BYTES))
    entropy = secrets.token_bytes(pki.SERIAL_BYTES)
    cert = pki.sign_server(ca, names, (), now, key=key.public_key(), entropy=entropy)
    paths = (folder / "server.crt", folder / "server.key", folder / "client-ca.pem")
    for path, content in zip(paths, (cert, pki.key_pem(key), ca.cert_pem), strict=True):
        path.write_bytes(content)
    return paths


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    ca = authority()
    folder = tmp_path / "hub"
    folder.mkdir()
    store = SQLiteStore(folder / "hub.db")
    rules = JoinRules(store, ca, secrets.token_bytes)
    made = Hub(store, ca, None, folder)  # type: ignore[arg-type]  # the desk needs the hub's clock
    config = JoinConfig(replicas=lambda: REPLICAS, poll_interval=0.01)
    made.desk = JoinDesk(rules, ca.cert_pem, made.now, lambda event: made.audited.append(dict(event)), config)
    made.served_ca = ca.cert_pem
    await made.serve()
    yield made
    await made.stop()
    store.close()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "satellite"


def approval(hub: Hub, **more: Any) -> None:
    hub.desk.config = replace(hub.desk.config, approval=True, **more)


def accept(hub: Hub) -> None:
    def change(old: SatelliteRecord | None) -> SatelliteRecord:
        assert old is not None
        return replace(old, state="active")

    update_satellite(hub.store, "edge-1", change)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  # the other side is a task of the hub
            await asyncio.sleep(0.005)


async def test_a_token_becomes_a_certificate_of_the_hub_for_a_key_that_never_left(hub: Hub, state: Path) -> None:
    joined = await hub.join(hub.token(region="eu"), state, labels={"region": "eu"})

    assert joined.name == "edge-1"
    assert joined.labels == {"region": "eu"}
    assert joined.tunnel_urls == ("wss://hub-1:8443", "wss://hub-2:8443")
    certificate = (state / "identity.crt").read_bytes()
    assert pki.satellite_name(certificate, "hub.test") == "edge-1"
    assert joined.not_after == pki.not_after(certificate)
    assert (state / "ca.pem").read_bytes() == hub.ca.cert_pem
    assert {p.name: p.stat().st_mode & 0o777 for p in state.iterdir()} == {
        "identity.key": 0o600,
        "identity.crt": 0o600,
        "ca.pem": 0o600,
    }
    record = hub.store.get_satellite("edge-1")
    assert record is not None
    assert record.accepts(pki.serial(certificate))
    assert record.fingerprint == joined.fingerprint
    assert dict(record.labels) == {"region": "eu"}
    assert [(e["event"], e["outcome"], e["satellite"], e["peer"]) for e in hub.audited] == [
        ("join", "accepted", "edge-1", "127.0.0.1")
    ]


async def test_the_written_identity_opens_a_verified_connection_to_the_hub(hub: Hub, state: Path) -> None:
    await hub.join(hub.token(), state)
    port = int(hub.url.rpartition(":")[2])

    reader, writer = await asyncio.open_connection("localhost", port, ssl=tunnel_client_context(state))
    writer.write(b"GET /ca.pem HTTP/1.1\r\nHost: localhost\r\n\r\n")
    head = await reader.readuntil(b"\r\n")
    writer.transport.abort()

    assert head == b"HTTP/1.1 200 OK\r\n"


async def test_the_satellite_gets_the_labels_of_the_token_even_if_it_asks_for_none(hub: Hub, state: Path) -> None:
    joined = await hub.join(hub.token(region="eu", role="gpu"), state)

    assert joined.labels == {"region": "eu", "role": "gpu"}


async def test_a_wrong_pin_stops_the_join_before_anything_is_sent(hub: Hub, state: Path) -> None:
    token = hub.token()
    wrong = "sha256:" + "0" * 64

    with pytest.raises(JoinRefused) as caught:
        await hub.join(token, state, ca_pin=wrong)

    assert wrong in caught.value.message
    assert hub.pin in caught.value.message
    assert "nothing was sent" in caught.value.hint
    assert hub.audited == []
    assert list(state.iterdir()) == []
    assert (await hub.join(token, state)).name == "edge-1"


async def test_a_listener_that_shows_the_right_ca_but_has_no_certificate_of_it_gets_no_token(
    hub: Hub, state: Path
) -> None:
    await hub.serve(issuer=authority())

    with pytest.raises(JoinRefused, match="could not prove that it is this hub") as caught:
        await hub.join(hub.token(), state)

    assert "token was not sent" in caught.value.hint
    assert hub.audited == []


async def test_a_certificate_for_another_host_name_gets_no_token(hub: Hub, state: Path) -> None:
    await hub.serve(names=("elsewhere.test",))

    with pytest.raises(JoinRefused, match="localhost"):
        await hub.join(hub.token(), state)

    assert hub.audited == []


async def test_during_a_rotation_one_of_the_two_cas_has_to_be_the_pinned_one(hub: Hub, state: Path) -> None:
    hub.served_ca = authority().cert_pem + hub.ca.cert_pem

    assert (await hub.join(hub.token(), state)).name == "edge-1"


async def test_a_clock_that_is_a_year_ahead_is_named_as_the_cause(hub: Hub, state: Path) -> None:
    # Seen from the satellite: the hub's certificates begin in a year, so this machine is a year behind.
    hub.clock = 365 * 86400.0
    await hub.serve()

    with pytest.raises(JoinRefused, match="by this machine's clock; it is 365 days behind the hub's") as caught:
        await hub.join(hub.token(), state)

    assert "clock" in caught.value.hint


async def test_a_token_works_once(hub: Hub, state: Path, tmp_path: Path) -> None:
    token = hub.token()
    await hub.join(token, state)
    first = (state / "identity.crt").read_bytes()

    with pytest.raises(JoinRefused, match="was used already"):
        await hub.join(token, tmp_path / "thief")

    assert list((tmp_path / "thief").iterdir()) == []
    record = hub.store.get_satellite("edge-1")
    assert record is not None
    assert record.accepts(pki.serial(first))


async def test_of_ten_joins_with_one_token_at_the_same_time_one_succeeds(hub: Hub, tmp_path: Path) -> None:
    token = hub.token()
    hub.desk.brake = GuessBrake(burst=100)

    results = await asyncio.gather(*(hub.join(token, tmp_path / f"s{n}") for n in range(10)), return_exceptions=True)

    assert sum(isinstance(r, JoinedIdentity) for r in results) == 1
    assert sum(isinstance(r, JoinRefused) for r in results) == 9


async def test_an_expired_token_is_refused(hub: Hub, state: Path) -> None:
    token = hub.token(ttl_seconds=60)
    hub.clock = 61.0

    with pytest.raises(JoinRefused, match="expired 1 seconds ago"):
        await hub.join(token, state)


async def test_a_token_for_another_satellite_is_refused_and_stays_unused(hub: Hub, state: Path) -> None:
    token = hub.token("edge-2")

    with pytest.raises(JoinRefused, match="is for satellite 'edge-2', not for 'edge-1'"):
        await hub.join(token, state)

    assert hub.store.get_satellite("edge-1") is None
    assert (await hub.join(token, state, name="edge-2")).name == "edge-2"


async def test_a_label_that_the_token_does_not_grant_is_refused(hub: Hub, state: Path) -> None:
    with pytest.raises(JoinRefused, match="does not grant the label 'role=admin'"):
        await hub.join(hub.token(role="edge"), state, labels={"role": "admin"})


async def test_guessing_tokens_is_slowed_down_by_address(hub: Hub, state: Path) -> None:
    hub.desk.brake = GuessBrake(rate=0.1, burst=2)
    for _ in range(2):
        with pytest.raises(JoinRefused, match="is not valid"):
            await hub.join("jt-000000000000.guess", state)

    with pytest.raises(JoinRefused, match="too many wrong join tokens") as caught:
        await hub.join(hub.token(), state)
    assert caught.value.hint == "Try again in 10 seconds."

    hub.clock = 11.0
    assert (await hub.join(hub.token(), state)).name == "edge-1"


async def test_every_refusal_is_audited_and_no_secret_is_in_it(hub: Hub, state: Path) -> None:
    token = hub.token()
    with pytest.raises(JoinRefused):
        await hub.join(token[:-1] + ("A" if token[-1] != "A" else "B"), state)

    assert [(e["outcome"], e["code"], e["satellite"]) for e in hub.audited] == [("refused", "join-refused", "edge-1")]
    assert token.partition(".")[2][:-1] not in repr(hub.audited)


async def test_with_approval_the_satellite_waits_until_it_is_accepted(hub: Hub, state: Path) -> None:
    approval(hub)
    shown: list[str] = []
    joining = asyncio.gather(hub.join(hub.token(region="eu"), state, on_pending=shown.append))
    await until(lambda: bool(shown))
    pending = hub.store.get_satellite("edge-1")
    assert pending is not None
    assert (pending.state, pending.serials) == ("pending", ())
    assert shown == [pending.fingerprint]
    assert not (state / "identity.crt").exists()

    accept(hub)
    [joined] = await joining

    record = hub.store.get_satellite("edge-1")
    assert record is not None
    assert record.accepts(pki.serial((state / "identity.crt").read_bytes()))
    assert joined.fingerprint == pending.fingerprint
    assert [e["outcome"] for e in hub.audited] == ["pending", "accepted"]


async def test_a_satellite_that_is_revoked_instead_of_accepted_is_told_so(hub: Hub, state: Path) -> None:
    approval(hub)
    shown: list[str] = []
    joining = asyncio.gather(hub.join(hub.token(), state, on_pending=shown.append))
    await until(lambda: bool(shown))

    hub.store.revoke_satellite("edge-1")

    with pytest.raises(JoinRefused, match="was not accepted"):
        await joining
    assert list(state.iterdir()) == []


async def test_nobody_accepts_in_time_so_nothing_is_left_to_accept(hub: Hub, state: Path) -> None:
    approval(hub, approval_timeout=0.05)

    with pytest.raises(JoinRefused, match="nobody accepted"):
        await hub.join(hub.token(), state)

    assert hub.store.get_satellite("edge-1") is None
    assert hub.audited[-1]["code"] == "approval-timeout"


async def test_a_satellite_that_goes_away_while_pending_leaves_nothing_to_accept(hub: Hub, state: Path) -> None:
    approval(hub)
    with pytest.raises(TimedOut):
        await hub.join(hub.token(), state, approval_timeout=0.05)

    await until(lambda: hub.store.get_satellite("edge-1") is None)


async def test_a_join_that_needs_approval_does_not_displace_a_working_satellite(hub: Hub, state: Path) -> None:
    await hub.join(hub.token(), state)
    before = hub.store.get_satellite("edge-1")
    approval(hub)
    token = hub.token()

    with pytest.raises(JoinRefused, match="is joined already"):
        await hub.join(token, state)

    assert hub.store.get_satellite("edge-1") == before
    record = hub.store.get_join_token(token.partition(".")[0])
    assert record is not None
    assert record.used_at is None


async def test_joining_again_replaces_the_identity_and_lifts_a_revocation(hub: Hub, state: Path) -> None:
    await hub.join(hub.token(), state)
    first = (state / "identity.crt").read_bytes()
    hub.store.revoke_satellite("edge-1")

    await hub.join(hub.token(), state)

    record = hub.store.get_satellite("edge-1")
    assert record is not None
    assert record.accepts(pki.serial((state / "identity.crt").read_bytes()))
    assert not record.accepts(pki.serial(first))


async def test_a_failed_join_leaves_the_identity_that_was_there(hub: Hub, state: Path) -> None:
    await hub.join(hub.token(), state)
    before = {p.name: p.read_bytes() for p in state.iterdir()}

    with pytest.raises(JoinRefused):
        await hub.join("jt-000000000000.guess", state)

    assert {p.name: p.read_bytes() for p in state.iterdir()} == before


async def test_a_state_folder_that_cannot_be_written_is_found_out_before_the_token_is_used(
    hub: Hub, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    token = hub.token()

    with pytest.raises(StoreError, match="cannot write") as caught:
        await hub.join(token, tmp_path / "file" / "state")

    assert "--state" in caught.value.hint
    assert hub.audited == []
    assert (await hub.join(token, tmp_path / "good")).name == "edge-1"


async def test_nothing_listens_there(hub: Hub, state: Path) -> None:
    hub.server.close()
    with pytest.raises(HubUnreachable, match="nothing answers at localhost"):
        await hub.join(hub.token(), state)


@pytest.mark.parametrize("url", ["http://hub", "wss://", "wss://u:p@hub", "wss://hub:99999", "wss://hub/tunnel"])
async def test_an_address_that_is_none_is_a_usage_error(hub: Hub, state: Path, url: str) -> None:
    with pytest.raises(UsageError, match="is not a tunnel address"):
        await hub.join(hub.token(), state, url=url)


async def test_a_malformed_pin_is_a_usage_error(hub: Hub, state: Path) -> None:
    with pytest.raises(UsageError, match="is not a CA pin"):
        await hub.join(hub.token(), state, ca_pin="sha256:abc")


async def test_a_store_that_fails_is_the_hubs_own_business(hub: Hub, state: Path) -> None:
    token = hub.token()
    hub.store.close()

    with pytest.raises(JoinRefused, match="the hub could not finish the join"):
        await hub.join(token, state)

    assert hub.audited[-1]["code"] == "hub-error"


Raw = Callable[..., Awaitable[Any]]


@pytest.fixture
def raw(hub: Hub) -> Raw:
    """A hostile client: any text, any subprotocol, as another WebSocket implementation sends it."""

    async def talk(*messages: str | bytes, protocol: str = JOIN_PROTOCOL) -> list[Any]:
        answers = []
        context = trust(hub.ca.cert_pem.decode())
        async with connect(hub.url + JOIN_PATH, ssl=context, subprotocols=[protocol], max_size=None) as ws:  # type: ignore[list-item]
            for message in messages:
                await ws.send(message)
            with contextlib.suppress(ConnectionClosed):
                while True:
                    answers.append(json.loads(await ws.recv()))
            return [*answers, ws.close_code]

    return talk


def request_of(token: str, name: str = "edge-1", csr: str | None = None) -> str:
    key = pki.make_key(secrets.token_bytes(pki.KEY_ENTROPY_BYTES))
    return JoinRequest(token, name, {}, pki.make_csr(key, name).decode() if csr is None else csr).encode()


@pytest.mark.parametrize(
    ("message", "detail"),
    [
        ("nonsense", "the join request is not JSON"),
        ("[]", "the join request is not a JSON object"),
        ('{"token": 1}', "the join request is malformed"),
        ('{"labels": {"a": 1}}', "the join request is malformed"),
        ("{}", "the join token is not valid"),
        ("[" * 20000, "the join request is not JSON"),
    ],
)
async def test_a_malformed_request_is_refused(raw: Raw, message: str, detail: str) -> None:
    [answer, code] = await raw(message)

    assert (answer["status"], answer["detail"], code) == ("refused", detail, 1000)


async def test_a_bad_certificate_request_does_not_use_up_the_token(hub: Hub, raw: Raw) -> None:
    token = hub.token()

    [answer, _] = await raw(request_of(token, csr="no csr"))
    assert answer["detail"] == "the certificate request cannot be read"

    [answer, _] = await raw(request_of(token))
    assert answer["status"] == "accepted"


async def test_an_oversized_or_binary_message_ends_the_connection_without_an_answer(raw: Raw) -> None:
    assert await raw("x" * 40_000) == [1008]
    assert await raw(b"{}") == [1008]


async def test_a_second_message_ends_the_connection(hub: Hub, raw: Raw) -> None:
    approval(hub)
    [pending, code] = await raw(request_of(hub.token()), "more")

    assert (pending["status"], code) == ("pending", 1008)


async def test_silence_is_ended_after_the_request_timeout(hub: Hub, raw: Raw) -> None:
    hub.desk.config = replace(hub.desk.config, request_timeout=0.05)

    [answer, _] = await raw()

    assert answer["code"] == "bad-request"


async def test_another_subprotocol_is_answered_400(raw: Raw) -> None:
    with pytest.raises(InvalidStatus, match="400"):
        await raw("{}", protocol="chat")


async def test_the_token_is_in_no_repr() -> None:
    assert "secret" not in repr(JoinRequest("id.secret", "edge-1", {}, ""))


async def test_a_join_that_is_interrupted_while_pending_leaves_nothing_behind(hub: Hub, state: Path) -> None:
    approval(hub)
    shown: list[str] = []
    joining = asyncio.gather(hub.join(hub.token(), state, on_pending=shown.append))
    await until(lambda: bool(shown))

    joining.cancel()

    with pytest.raises(asyncio.CancelledError):
        await joining
    assert list(state.iterdir()) == []
    await until(lambda: hub.store.get_satellite("edge-1") is None)


async def test_a_fault_of_the_hub_is_answered_and_logged(
    hub: Hub, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: int) -> bytes:
        raise RuntimeError("no entropy")

    hub.desk.rules = replace(hub.desk.rules, entropy=broken)
    with pytest.raises(JoinRefused, match="the hub could not finish the join"):
        await hub.join(hub.token(), state)
    assert "no entropy" in caplog.text


async def test_a_fault_after_the_approval_is_answered_too(hub: Hub, state: Path) -> None:
    approval(hub)
    shown: list[str] = []
    joining = asyncio.gather(hub.join(hub.token(), state, on_pending=shown.append))
    await until(lambda: bool(shown))
    hub.desk.rules = replace(hub.desk.rules, entropy=lambda _: b"")
    accept(hub)

    with pytest.raises(JoinRefused, match="the hub could not finish the join"):
        await joining


async def test_a_later_join_takes_the_place_of_one_that_nobody_accepted_yet(hub: Hub, tmp_path: Path) -> None:
    approval(hub)
    shown: list[str] = []
    first = asyncio.gather(hub.join(hub.token(), tmp_path / "one", on_pending=shown.append))
    await until(lambda: len(shown) == 1)
    second = asyncio.gather(hub.join(hub.token(), tmp_path / "two", on_pending=shown.append))

    with pytest.raises(JoinRefused, match="was not accepted"):
        await first

    accept(hub)
    [joined] = await second
    assert joined.fingerprint == shown[1]


async def test_pings_are_answered_and_a_close_while_pending_withdraws_the_join(hub: Hub) -> None:
    approval(hub)
    context = trust(hub.ca.cert_pem.decode())
    async with connect(hub.url + JOIN_PATH, ssl=context, subprotocols=[JOIN_PROTOCOL]) as ws:  # type: ignore[list-item]
        await ws.send(request_of(hub.token()))
        assert json.loads(await ws.recv())["status"] == "pending"
        async with asyncio.timeout(5):
            await (await ws.ping())

    await until(lambda: hub.store.get_satellite("edge-1") is None)


async def test_a_join_that_is_revoked_in_the_moment_of_its_approval_gets_no_certificate(hub: Hub) -> None:
    rules, now = hub.desk.rules, hub.now()
    request = JoinRequest.parse(request_of(hub.token()).encode())
    candidate, certificate = rules.admit(request, rules.check_token(request, now), now, approval=True)
    assert certificate == b""
    hub.store.revoke_satellite("edge-1")

    with pytest.raises(JoinRefused, match="was withdrawn"):
        rules.certify(candidate, now)
    rules.withdraw(candidate)
    record = hub.store.get_satellite("edge-1")
    assert record is not None
    assert record.state == "revoked"


async def test_a_token_that_is_used_up_between_check_and_admission_is_refused(hub: Hub) -> None:
    rules, now = hub.desk.rules, hub.now()
    request = JoinRequest.parse(request_of(hub.token()).encode())
    token = rules.check_token(request, now)
    rules.admit(request, token, now, approval=False)

    with pytest.raises(JoinRefused, match="was used already"):
        rules.admit(request, token, now, approval=False)

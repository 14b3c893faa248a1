"""Each check, shown to fail: the fault, and what the report must say about it."""

from __future__ import annotations

import datetime
import json
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from platformctl.verify.checks import CHECKS, certificates, paths
from tests.unit.verify.conftest import Platform
from tests.unit.verify.fake_hub import FakeHub

UTC = datetime.UTC

# (check, faults of the hub, a part of the detail)
FAULTS = [
    ("hub-ready", ["not-ready"], "store: disk is full"),
    ("hub-api", ["api-500"], "HTTP 500 internal: the store is gone"),
    ("agent-running", ["dead"], "/livez answers 500"),
    ("agent-ready", ["not-ready"], "store: disk is full"),
    ("agent-ready", ["broken-exports"], "exports: exports.yaml:2: not valid YAML"),
    ("registry", ["ghost"], "registered, and not exported: ghost"),
    ("registry", ["missing"], "not registered: api"),
    ("upload", ["corrupt-upload"], "another SHA-256"),
    ("unary", ["corrupt-upload"], "other bytes came back"),
    ("download", ["corrupt-download"], "another SHA-256"),
    ("sse", ["buffer"], "event 0 was sent, and had not come"),
    ("sse", ["wrong-type"], "text/html"),
    ("websocket", ["corrupt-raw"], "a message of 65536 bytes came back changed"),
    ("tcp", ["corrupt-raw"], "came back changed"),
    ("tcp", ["refuse-connect"], "HTTP 503 satellite-offline"),
    ("concurrent", ["serialize"], "1 of 64 requests reached the backend together"),
    ("concurrent", ["crossed"], "answers belong to another request"),
    ("latency", ["flaky"], "200 × status 503"),
    ("unknown-service", ["html-404"], "is text/html, not application/problem+json"),
    ("unknown-service", ["ok-404"], "is answered 200, not 404"),
    ("unknown-service", ["bare-problem"], "lacks its status, code, hint or request_id"),
    ("identity-headers", ["drop-headers"], "the backend got 0 platform-identity fields"),
    ("identity-headers", ["new-trace"], "arrived as 00-"),
    ("identity-headers", ["no-request-id"], "request id of the answer"),
    ("identity-headers", ["pass-token"], "the caller's token was passed on"),
    ("forged-headers", ["pass-forged"], "platform-groups, x-real-ip"),
    ("unauthenticated", ["anonymous-allowed"], "no token is answered 200, not 401"),
    ("unauthenticated", ["no-challenge"], "no WWW-Authenticate"),
    ("denied", ["denied-allowed"], "is answered 200, not 403"),
    ("audit", ["no-audit"], "no record of request"),
    ("audit", ["bad-audit"], "is not JSON"),
    ("audit", ["no-request-id"], "no X-Request-Id"),
    ("clock-skew", ["no-date"], "no Date field"),
]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("check", "faults", "detail"), FAULTS, ids=[f"{c}-{'-'.join(f)}" for c, f, _ in FAULTS])
async def test_a_fault_fails_its_check(platform: Platform, check: str, faults: list[str], detail: str) -> None:
    platform.break_all(*faults)
    result = await platform.verify_one(check)
    assert result.status == "failed"
    assert detail in result.detail
    assert f"docs/reference/verify.md#{check}" in result.hint


def test_every_check_is_shown_to_fail() -> None:
    elsewhere = {"hub-certificate", "ca-certificate", "satellite-certificate", "connected", "export-live"}
    assert {check for check, _, _ in FAULTS} | elsewhere == {check.name for check in CHECKS}


@pytest.mark.usefixtures("quick")
async def test_a_websocket_that_is_not_upgraded_fails_with_the_answer(platform: Platform) -> None:
    platform.hubs[0].cut_off.add("sat-1")
    result = await platform.verify_one("websocket")
    assert (result.status, "HTTP 503" in result.detail) == ("failed", True)


@pytest.mark.parametrize(("offset", "words"), [(60.0, "ahead of"), (-60.0, "behind")])
async def test_a_clock_that_is_off_fails_and_says_in_which_direction(
    platform: Platform, offset: float, words: str
) -> None:
    platform.hubs[0].date_offset = offset
    result = await platform.verify_one("clock-skew")
    assert result.status == "failed"
    assert words in result.detail
    assert "NTP" in result.hint


async def test_a_slow_path_is_a_warning_that_passes(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "SLOW_P99_MS", 0.001)
    result = await platform.verify_one("latency")
    assert (result.status, result.warned) == ("passed", True)
    assert result.detail.startswith("warning: p50 ")


async def test_a_replica_that_expects_too_few_tunnels_fails(platform: Platform) -> None:
    for hub in platform.hubs:
        hub.expected = 1
    result = await platform.verify_one("connected")
    assert result.status == "failed"
    assert "hub-1 does not see all 2 replicas" in result.hint


async def test_a_satellite_that_a_replica_does_not_know_fails(platform: Platform) -> None:
    platform.hubs[0].cut_off.add("sat-1")
    platform.break_all("forgets")
    result = await platform.verify_one("connected")
    assert "does not know a satellite sat-1" in result.hint


async def test_a_registered_service_that_is_unhealthy_fails(platform: Platform) -> None:
    platform.satellites.unhealthy.add("api")
    result = await platform.verify_one("registry")
    assert (result.status, result.detail) == ("failed", "api is unhealthy")
    assert "health check" in result.hint


async def test_checks_whose_files_are_elsewhere_are_skipped_with_a_reason(platform: Platform) -> None:
    document = json.loads(platform.env_file.read_text())
    replicas = [row | {"audit_file": "", "metrics_url": ""} for row in document["replicas"]]
    satellites: dict[str, dict[str, str]] = {name: {} for name in document["satellites"]}
    platform.change_env(
        replicas=replicas, satellites=satellites, client_tokens={}, pids={}, ca_file=document["ca_file"]
    )
    names = ["hub-ready", "agent-running", "agent-ready", "registry", "denied", "audit", "satellite-certificate"]
    for name in names:
        result = await platform.verify_one(name)
        assert (result.name.partition("[")[0], result.status) == (name, "skipped")
        assert result.detail


# ---- certificates


def _certificate(name: str, begin: datetime.datetime, end: datetime.datetime) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([])
    uri = x509.UniformResourceIdentifier(f"spiffe://platform.test/satellite/{name}")
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 1, begin, end)
    builder = builder.add_extension(x509.SubjectAlternativeName([uri]), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


NOW = datetime.datetime.now(UTC).replace(microsecond=0)
DAY = datetime.timedelta(days=1)


def _keep_state(platform: Platform, pem: bytes | None) -> None:
    state = platform.env_file.parent / "state"
    (state / "identity").mkdir(parents=True)
    (state / "identity" / "key.pem").write_text("-----BEGIN PRIVATE KEY-----\nnot read\n-----END PRIVATE KEY-----\n")
    if pem is not None:
        (state / "identity" / "client.crt").write_bytes(pem)
    platform.change_env(satellites={"sat-1": {"state": str(state)}})


async def test_a_satellites_fresh_certificate_passes(platform: Platform) -> None:
    _keep_state(platform, _certificate("sat-1", NOW - DAY, NOW + 29 * DAY))
    result = await platform.verify_one("satellite-certificate")
    assert (result.status, result.detail) == ("passed", "29 days left")


@pytest.mark.parametrize(
    ("pem", "detail", "hint"),
    [
        (_certificate("sat-1", NOW - 29 * DAY, NOW + DAY), "in 24 hours", "was not renewed"),
        (_certificate("sat-1", NOW - 29 * DAY, NOW + DAY / 24), " minutes", "was not renewed"),
        (_certificate("sat-1", NOW - 29 * DAY, NOW - DAY), "expired at", "renew it"),
        (_certificate("sat-1", NOW + DAY, NOW + 29 * DAY), "is not valid before", "check the clocks"),
        (_certificate("sat-2", NOW - DAY, NOW + 29 * DAY), "no client certificate of sat-1", "join it again"),
        (None, "no client certificate of sat-1", "join it again"),
    ],
    ids=["near expiry", "nearer", "expired", "from the future", "somebody else's", "none"],
)
async def test_a_satellites_bad_certificate_fails(
    platform: Platform, pem: bytes | None, detail: str, hint: str
) -> None:
    _keep_state(platform, pem)
    result = await platform.verify_one("satellite-certificate")
    assert result.status == "failed"
    assert detail in result.detail
    assert hint in result.hint


def test_a_certificate_has_a_fifth_of_its_life_left_or_fails() -> None:
    one = x509.load_pem_x509_certificate(_certificate("x", NOW - 80 * DAY, NOW + 20 * DAY))
    assert certificates.judge(one, "it", NOW) == "20 days left"
    with pytest.raises(certificates.CheckFailed):
        certificates.judge(one, "it", NOW + datetime.timedelta(seconds=1))


async def _present(platform: Platform, leaf: trustme.LeafCert) -> FakeHub:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    leaf.configure_cert(context)
    hub = FakeHub("hub-1", platform.satellites, platform.hubs[0].audit, expected=2)
    await hub.start(context)
    platform.hubs.append(hub)
    rows = json.loads(platform.env_file.read_text())["replicas"]
    rows[0]["tunnel_url"] = hub.public_url.replace("https:", "wss:")
    platform.change_env(replicas=rows)
    return hub


async def test_a_tunnel_listener_whose_certificate_is_of_another_ca_fails(platform: Platform) -> None:
    await _present(platform, trustme.CA().issue_cert("127.0.0.1"))
    result = await platform.verify_one("hub-certificate")
    assert result.status == "failed"
    assert "tunnel certificate" in result.detail
    assert "does not vouch for" in result.hint


async def test_a_listener_whose_certificate_is_near_expiry_fails(platform: Platform, authority: trustme.CA) -> None:
    await _present(platform, authority.issue_cert("127.0.0.1", not_before=NOW - 9 * DAY, not_after=NOW + DAY))
    result = await platform.verify_one("hub-certificate")
    assert "tunnel certificate expires at" in result.detail


async def test_a_listener_that_does_not_answer_fails_with_the_reason(platform: Platform) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        rows = json.loads(platform.env_file.read_text())["replicas"]
        rows[0]["tunnel_url"] = f"wss://127.0.0.1:{unused.getsockname()[1]}"
        platform.change_env(replicas=rows)
        result = await platform.verify_one("hub-certificate")
    assert result.detail.endswith(": Connection refused")


async def test_a_ca_that_nears_its_end_fails(platform: Platform, tmp_path: Path) -> None:
    old = _certificate("ca", NOW - 90 * DAY, NOW + 10 * DAY)
    ca_file = Path(json.loads(platform.env_file.read_text())["ca_file"])
    ca_file.write_bytes(ca_file.read_bytes() + old)
    result = await platform.verify_one("ca-certificate")
    assert (result.status, "CA certificate expires at" in result.detail) == ("failed", True)


async def test_a_dead_hub_process_fails(platform: Platform) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    pid = gone.pid
    platform.change_env(pids={"hub": [pid, pid], "satellites": {}})
    result = await platform.verify_one("hub-ready")
    assert f"hub replica hub-1 (pid {pid}) is not running" in result.hint

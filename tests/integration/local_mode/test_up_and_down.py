from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.integration.local_mode.conftest import Platform, mentioning

pytestmark = pytest.mark.integration


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = self.headers.get("Platform-Identity", "nobody").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def backend() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def curl(platform: Platform, url: str, *flags: str) -> str:
    env = platform.env
    token = Path(env["admin_token_file"]).read_text().strip()
    command = ["curl", "-sS", "--max-time", "10", "--cacert", env["ca_file"], "-K", "-", *flags, url]
    header = f'header = "Authorization: Bearer {token}"\n'
    return subprocess.run(command, input=header, capture_output=True, text=True, check=True).stdout


def test_the_environment_is_complete_and_true(platform: Platform) -> None:
    env = platform.env
    assert list(env["pids"]["satellites"]) == ["sat-1", "sat-2"]
    assert len(env["pids"]["hub"]) == len(env["metrics_urls"]) == 2
    for pid in platform.pids:
        assert "platformctl" in Path(f"/proc/{pid}/cmdline").read_text()
    for url in env["metrics_urls"]:
        assert "platformctl" in curl(platform, url)


def test_what_is_secret_is_private(platform: Platform) -> None:
    assert stat.S_IMODE(platform.state.stat().st_mode) == 0o700
    for path in platform.state.rglob("*"):
        if path.is_file():
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_no_token_is_in_a_command_line_or_a_log(platform: Platform) -> None:
    secrets = [path.read_text().strip().partition(".")[2] for path in (platform.state / "tokens").iterdir()]
    assert all(len(secret) > 20 for secret in secrets)
    logs = "".join(path.read_text() for path in (platform.state / "log").iterdir())
    lines = "".join(mentioning(platform.state))
    assert not [secret for secret in secrets if secret in logs + lines]


def test_status_shows_every_satellite_connected_to_every_replica(platform: Platform) -> None:
    status = json.loads(platform.run("status", "-o", "json", "--state", str(platform.state)))
    assert [(row["name"], row["connected"], row["expected"]) for row in status["satellites"]] == [
        ("sat-1", 2, 2),
        ("sat-2", 2, 2),
    ]
    # `up` made its context the current one, so nothing needs to be named.
    assert json.loads(platform.run("status", "-o", "json"))["satellites"][0]["name"] == "sat-1"


def test_an_export_is_live_within_two_seconds_and_gone_when_removed(platform: Platform, backend: str) -> None:
    began = time.monotonic()
    out = platform.run("export", "add", "web", "--satellite", "sat-1", "--to", backend, "--state", str(platform.state))
    assert time.monotonic() - began < 2.0 + 1.0  # a second for starting the command itself twice over
    for replica in platform.env["replicas"]:
        assert curl(platform, f"{replica['public_url']}/s/sat-1/web/") == "token:admin"
        assert curl(platform, f"{replica['http_url']}/s/sat-1/web/") == "token:admin"
    assert f"{platform.env['hub_url']}/s/sat-1/web/" in out
    listed = json.loads(platform.run("export", "list", "-o", "json"))["items"]
    assert [(row["name"], row["satellite"], row["kind"]) for row in listed] == [("web", "sat-1", "http")]
    platform.run("export", "add", "web", "--satellite", "sat-1", "--to", "http://127.0.0.1:1", code=6)
    platform.run("export", "remove", "web", "--satellite", "sat-1")
    assert "404" in curl(platform, f"{platform.env['hub_url']}/s/sat-1/web/", "-o", "/dev/null", "-w", "%{http_code}")
    platform.run("export", "remove", "web", "--satellite", "sat-1", code=5)


def test_an_export_of_a_dead_backend_is_told_and_kept(platform: Platform) -> None:
    args = ("export", "add", "dead", "--satellite", "sat-2", "--to", "http://127.0.0.1:1")
    assert "Nothing listens at 127.0.0.1:1." in platform.run(*args, "--timeout", "1", code=7)
    assert "dead.sat-2" in platform.run("export", "list", "-o", "name")
    platform.run("export", "remove", "dead", "--satellite", "sat-2", "--no-wait")


def test_a_broken_exports_file_changes_nothing_and_is_told_where_people_look(platform: Platform, backend: str) -> None:
    platform.run("export", "add", "web", "--satellite", "sat-1", "--to", backend)
    exports = Path(platform.env["satellites"]["sat-1"]["exports"])
    good = exports.read_text()
    exports.write_text("services:\n- {name: web, to: nonsense}\n")
    try:
        for _ in range(40):
            if problems := json.loads(platform.run("status", "-o", "json"))["problems"]:
                break
        assert [each["name"] for each in problems] == ["sat-1"]
        assert f"exports: {exports}:2: services[0].to: 'nonsense'" in problems[0]["detail"]
        assert f"! sat-1: exports: {exports}:2" in platform.run("status")
        assert "service/web.sat-1" in platform.run("services", "-o", "name")
        report = json.loads(
            platform.run("verify", "-o", "json", "--skip", "latency", code=1).partition("\n}\n")[0] + "}"
        )
        failed = [each for each in report["checks"] if each["status"] == "failed"]
        assert [each["name"] for each in failed] == ["agent-ready[sat-1]"]
        assert "what it said when it was last good stays exported" in failed[0]["hint"]
    finally:
        exports.write_text(good)
    platform.run("export", "remove", "web", "--satellite", "sat-1")


def test_a_backend_that_dies_is_unhealthy_and_verify_names_the_cause(platform: Platform) -> None:
    exports = Path(platform.env["satellites"]["sat-2"]["exports"])
    health = {"type": "tcp", "interval": "100ms", "unhealthy_threshold": 1, "healthy_threshold": 1}
    with socket.create_server(("127.0.0.1", 0)) as backend:
        port = backend.getsockname()[1]
        entry = {"name": "frail", "to": f"tcp://127.0.0.1:{port}", "health": health}
        exports.write_text(yaml.safe_dump({"services": [entry]}))
        platform.run("services", "frail.sat-2", "--wait", "--timeout", "10")
    for _ in range(40):
        listed = json.loads(platform.run("services", "frail.sat-2", "-o", "json"))["items"]
        if listed[0]["state"] == "unhealthy":
            break
    assert [each["state"] for each in listed] == ["unhealthy"]
    report = json.loads(platform.run("verify", "-o", "json", "--test", "registry", code=1))
    failed = {each["name"]: each for each in report["checks"] if each["status"] == "failed"}
    assert list(failed) == ["registry[sat-2 via hub-1]", "registry[sat-2 via hub-2]"]
    for each in failed.values():
        assert each["detail"] == "frail is unhealthy"
        cause = f"The backend of frail, 127.0.0.1:{port}, accepts no connection (Connection refused)"
        assert each["hint"].startswith(f"{cause}: start it, or correct the exports file.")
    platform.run("export", "remove", "frail", "--satellite", "sat-2")
    assert platform.run("services", "--satellite", "sat-2", "-o", "name") == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_verify_withdraws_what_it_exported(platform: Platform, number: signal.Signals) -> None:
    exports = Path(platform.env["satellites"]["sat-2"]["exports"])
    with platform.spawn("verify") as verify:
        while f"verify-{verify.pid}-tcp" not in exports.read_text():
            assert verify.poll() is None
            time.sleep(0.005)
        verify.send_signal(number)
        _, err = verify.communicate(timeout=20)
    assert verify.returncode == 130, err
    assert "Warning" not in err
    for satellite in ("sat-1", "sat-2"):
        assert "verify-" not in Path(platform.env["satellites"][satellite]["exports"]).read_text()


def test_what_an_export_cannot_be_is_refused(platform: Platform, backend: str) -> None:
    platform.run("export", "add", "web", "--satellite", "sat-9", "--to", backend, code=5)
    platform.run("export", "add", "Web", "--satellite", "sat-1", "--to", backend, code=2)
    platform.run("export", "add", "web", "--satellite", "sat-1", "--to", "ftp://x:1", code=2)


def test_up_again_changes_nothing_and_replaces_what_died(platform: Platform) -> None:
    before = platform.env
    platform.run("up", "--state", str(platform.state))
    assert platform.env == before
    os.kill(before["pids"]["satellites"]["sat-2"], signal.SIGKILL)
    os.kill(before["pids"]["hub"][0], signal.SIGKILL)
    platform.run("up", "--state", str(platform.state))
    after = platform.env
    assert after["hub_url"] == before["hub_url"]
    assert after["pids"]["hub"][0] != before["pids"]["hub"][0]
    assert after["pids"]["hub"][1] == before["pids"]["hub"][1]
    assert after["pids"]["satellites"]["sat-1"] == before["pids"]["satellites"]["sat-1"]
    platform.run("status", "--wait", "--timeout", "20")


def test_a_new_satellite_joins_by_hand_with_a_token(platform: Platform) -> None:
    made = json.loads(platform.run("token", "create", "--satellite", "edge", "--label", "region=asia", "-o", "json"))
    (platform.folder / "join.token").write_text(made["token"])
    flags = ["--hub", platform.env["tunnel_url"], "--token-file", "join.token"]
    wrong = "sha256:" + "0" * 64
    assert "pin" in platform.run("join", "satellite", "edge", *flags, "--ca-pin", wrong, code=4)
    out = platform.run("join", "satellite", "edge", *flags, "--ca-pin", made["ca_pin"])
    config = platform.folder / "edge" / "satellite.yaml"
    assert f"platformctl satellite run --config {config}" in out
    assert yaml.safe_load(config.read_text())["labels"] == {"region": "asia"}
    assert "used" in platform.run("join", "satellite", "edge", *flags, "--ca-pin", made["ca_pin"], code=4)
    with platform.spawn("satellite", "run", "--config", str(config)) as agent:
        try:
            platform.run("satellites", "edge", "--wait", "--timeout", "20")
        finally:
            agent.terminate()
            agent.communicate(timeout=30)
    assert agent.returncode == 0
    assert made["id"] in platform.run("token", "list")


def test_forward_carries_tcp(platform: Platform) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        args = ("export", "add", "db", "--satellite", "sat-2", "--to", f"tcp://127.0.0.1:{port}")
        assert "platformctl forward db.sat-2" in platform.run(*args)

        def serve() -> None:
            listener.settimeout(30)
            while True:
                try:
                    connection = listener.accept()[0]
                except OSError:
                    return
                with connection:
                    data = b"".join(iter(lambda it=connection: it.recv(65536), b""))
                    connection.sendall(data[::-1])

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        with platform.spawn("forward", "db.sat-2", "0:") as forward:
            assert forward.stdout is not None
            address = forward.stdout.readline().split(" ")[0]
            host, _, local = address.rpartition(":")
            try:
                with socket.create_connection((host, int(local)), timeout=10) as client:
                    client.sendall(b"abc" * 50_000)
                    client.shutdown(socket.SHUT_WR)
                    assert b"".join(iter(lambda: client.recv(65536), b"")) == b"cba" * 50_000
            finally:
                forward.send_signal(signal.SIGINT)
                forward.communicate(timeout=10)
            assert forward.returncode == 0
        platform.run("forward", "gone.sat-2", code=5)
        listener.shutdown(socket.SHUT_RDWR)
        server.join(timeout=5)
    platform.run("export", "remove", "db", "--satellite", "sat-2")


def test_a_topology_file_gives_names_labels_and_exports(empty: Platform, backend: str) -> None:
    satellites = [{"name": "edge", "labels": {"region": "eu"}, "exports": [{"name": "web", "to": backend}]}]
    (empty.folder / "t.yaml").write_text(yaml.safe_dump({"replicas": 1, "satellites": satellites}))
    empty.run("up", "--state", str(empty.state), "-f", "t.yaml", "--no-context")
    assert not (empty.folder / "config.yaml").exists()
    state = ("--state", str(empty.state))
    empty.run("services", "web.edge", "--wait", "--timeout", "10", *state)
    selected = curl(empty, empty.env["hub_url"], "-H", "Platform-Service: web", "-H", "Platform-Selector: region=eu")
    assert selected == "token:admin"
    # Fewer satellites and more replicas: the difference is stopped and started, the rest stays.
    before = empty.env["pids"]["hub"]
    empty.run("up", *state, "--satellites", "0", "--replicas", "2", "--no-context")
    assert list(empty.running()) == ["hub-1", "hub-2"]
    assert empty.env["pids"]["hub"][0] == before[0]
    # Without counts or a file, it is what it was.
    empty.run("down", *state)
    empty.run("up", *state, "--no-context")
    assert list(empty.running()) == ["hub-1", "hub-2"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["hub-1 is ready", "sat-1 joined"])
def test_an_interrupted_up_leaves_nothing_running(empty: Platform, number: signal.Signals, moment: str) -> None:
    with empty.spawn("up", "--state", str(empty.state), "--satellites", "1", "--replicas", "1") as up:
        assert up.stderr is not None
        for line in up.stderr:
            if moment in line:
                break
        began = time.monotonic()
        up.send_signal(number)
        up.communicate(timeout=30)
    assert up.returncode == 130
    assert time.monotonic() - began < 8, "a process had to be killed after its grace"
    assert mentioning(empty.state / "config") == []
    assert not (empty.state / "env.json").exists()


def test_a_killed_up_leaves_what_down_finds(empty: Platform) -> None:
    with empty.spawn("up", "--state", str(empty.state), "--satellites", "0", "--replicas", "1") as up:
        assert up.stderr is not None
        up.stderr.readline()
        up.kill()
        up.communicate(timeout=30)
    assert len(mentioning(empty.state / "config")) == 1
    assert "Stopped 1 process of" in empty.run("down", "--state", str(empty.state))
    assert mentioning(empty.state / "config") == []


def test_a_hub_that_cannot_start_is_told_in_its_own_words(empty: Platform) -> None:
    empty.state.mkdir()
    (empty.state / "policy.yaml").write_text("apiVersion: nonsense\n")
    text = empty.run("up", "--state", str(empty.state), "--satellites", "0", "--replicas", "1", code=1)
    assert "hub-1 ended while hub-1 was waited for" in text
    assert "policy.yaml" in text
    assert mentioning(empty.state / "config") == []


def test_purge_deletes_what_up_made_and_nothing_else(empty: Platform) -> None:
    empty.run("up", "--state", str(empty.state), "--satellites", "0", "--replicas", "1")
    (empty.state / "mine.txt").write_text("mine")
    empty.run("down", "--state", str(empty.state), "--purge")
    assert [path.name for path in empty.state.iterdir()] == ["mine.txt"]
    assert "local" not in empty.run("context", "list", "-o", "name")
    assert "no state folder" in empty.run("down", "--state", str(empty.state), "--purge", code=1)

"""A satellite's whole way in, by the commands that people use: token, join, agent, a request by its own name."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from platformctl.access.pki import ca_pin
from platformctl.hub.store_sqlite import SQLiteStore

from .conftest import Platform, until
from .hostile import enrol

NAME = "edge-7"


def join(
    platform: Platform, token: str, folder: Path, *, name: str = NAME, pin: str = ""
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "platformctl", "join", "satellite", name, "--state", str(folder)]
    command += ["--hub", platform.env["tunnel_url"], "--ca-pin", pin or pinned(platform), "--token-file", "-"]
    return subprocess.run(command, input=token, capture_output=True, text=True, timeout=30, check=False)


def token_for(platform: Platform, name: str = NAME) -> str:
    arguments = ("token", "create", "--satellite", name, "--state", str(platform.state), "-o", "json")
    return str(json.loads(platform.ctl(*arguments))["token"])


def pinned(platform: Platform) -> str:
    return ca_pin(Path(platform.env["ca_file"]).read_bytes())


async def test_a_satellite_joins_once_and_is_called_by_its_own_name_on_every_replica(
    platform: Platform, tmp_path: Path
) -> None:
    token, folder = token_for(platform), tmp_path / NAME
    joined = join(platform, token, folder)
    assert joined.returncode == 0, joined.stderr
    again = join(platform, token, tmp_path / "again")
    assert again.returncode == 4
    assert "was used already" in again.stderr

    (folder / "exports.yaml").write_text(
        yaml.safe_dump({"services": [{"name": "web", "to": f"http://127.0.0.1:{platform.backend}"}]})
    )
    config = {
        "name": NAME,
        "state": str(folder),
        "hubs": [platform.env["tunnel_url"]],
        "exports": str(folder / "exports.yaml"),
    }
    (folder / "agent.yaml").write_text(yaml.safe_dump(config))
    pid = platform.start(folder / "agent.yaml", "satellite", NAME)
    try:
        for replica in range(2):
            until(lambda replica=replica: platform.serving(replica, NAME), 5, "the new satellite serves")  # type: ignore[misc]
            until(lambda replica=replica: by_name(platform, replica), 2, "its name is in the certificate")  # type: ignore[misc]
        with SQLiteStore(platform.state / "hub" / "hub.db") as store:
            revoked = time.monotonic()
            assert store.revoke_satellite(NAME)
        until(lambda: not any(platform.serving(n, NAME) for n in range(2)), 2, "no replica serves it")
        assert time.monotonic() - revoked < 1.5
        # The agent is told to stay away, and obeys; a new identity is a reason to come back at once.
        await asyncio.sleep(0.5)
        enrol(platform.state / "hub", NAME, folder)
        with SQLiteStore(platform.state / "hub" / "hub.db") as store:
            record = store.get_satellite(NAME)
            assert record is not None
            store.put_satellite(replace(record, state="active"))
        until(lambda: all(platform.serving(n, NAME) for n in range(2)), 5, "it is back")
    finally:
        os.kill(pid, signal.SIGTERM)
        platform.ended(pid)


def by_name(platform: Platform, replica: int) -> bool:
    """Whether `https://web.edge-7.<domain>` answers with a certificate that is good for that name."""
    url = urlsplit(platform.env["replicas"][replica]["public_url"])
    name = f"web.{NAME}.{platform.env['domain']}"
    context = ssl.create_default_context(cafile=platform.env["ca_file"])
    connection = http.client.HTTPSConnection(name, url.port, context=context, timeout=5)
    try:
        plain = socket.create_connection((url.hostname or "", url.port or 0), timeout=5)
        connection.sock = context.wrap_socket(plain, server_hostname=name)
        connection.request("GET", "/", headers={"Authorization": f"Bearer {platform.token}"})
        return connection.getresponse().read() == b"hello\n"
    except ssl.SSLCertVerificationError:
        return False
    finally:
        connection.close()


def test_a_token_for_one_satellite_lets_no_other_one_in(platform: Platform, tmp_path: Path) -> None:
    refused = join(platform, token_for(platform, "edge-8"), tmp_path / "x", name="edge-9")
    assert refused.returncode == 4
    assert "edge-8" not in platform.get(platform.url(0, "edge-9")).text


def test_a_wrong_pin_sends_nothing_to_the_hub(platform: Platform, tmp_path: Path) -> None:
    token = token_for(platform, "edge-10")
    refused = join(platform, token, tmp_path / "x", name="edge-10", pin="sha256:" + "00" * 32)
    assert refused.returncode == 4
    assert "pin" in refused.stderr
    assert join(platform, token, tmp_path / "y", name="edge-10").returncode == 0  # the token was not used


def test_an_expired_token_is_refused(platform: Platform, tmp_path: Path) -> None:
    arguments = ("token", "create", "--satellite", "edge-11", "--ttl", "1s", "--state", str(platform.state))
    token = str(json.loads(platform.ctl(*arguments, "-o", "json"))["token"])
    time.sleep(1.1)
    refused = join(platform, token, tmp_path / "x", name="edge-11")
    assert refused.returncode == 4
    assert "expired" in refused.stderr

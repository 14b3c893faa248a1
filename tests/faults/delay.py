"""Delay between nodes by a relay, toxiproxy at a pinned version: not every kernel has netem.

Only what goes through the relay is delayed: point the client at `address` instead of the real one.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.faults.lab import LabError, Node

_ROOT = Path(__file__).resolve().parents[2]
_API_PORT = 8474


def toxiproxy_program() -> str:
    """Path of the pinned toxiproxy-server, built at first use."""
    build = [str(_ROOT / "tools" / "build-peers.sh"), "toxiproxy"]
    done = subprocess.run(build, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise LabError(f"toxiproxy could not be built: {done.stderr.strip()[-400:]}")
    return done.stdout.split(maxsplit=1)[1].strip() + "/toxiproxy-server"


class DelayRelay:
    """A relay in `node` that listens on the node's address and dials `upstream` from there."""

    def __init__(self, node: Node, upstream: tuple[str, int], *, port: int) -> None:
        self.address = (node.address, port)
        self._node = node
        self._process = node.start([toxiproxy_program(), "-host", "127.0.0.1", "-port", str(_API_PORT)])
        self._wait_for_api()
        proxy = {"name": "relay", "listen": f"{node.address}:{port}", "upstream": f"{upstream[0]}:{upstream[1]}"}
        self._call("POST", "/proxies", {**proxy, "enabled": True})

    def delay(self, milliseconds: int, *, jitter: int = 0) -> None:
        """Hold what goes either way for `milliseconds` ± `jitter`; twice that is added to a round trip."""
        self.clear()
        for way in ("upstream", "downstream"):
            toxic = {"type": "latency", "name": way, "stream": way}
            attributes = {"latency": milliseconds, "jitter": jitter}
            self._call("POST", "/proxies/relay/toxics", {**toxic, "attributes": attributes})

    def clear(self) -> None:
        for toxic in self._call("GET", "/proxies/relay/toxics"):
            self._call("DELETE", f"/proxies/relay/toxics/{toxic['name']}")

    def _wait_for_api(self) -> None:
        deadline = time.monotonic() + 10
        while True:
            try:
                self._call("GET", "/version")
            except OSError as e:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise LabError(f"toxiproxy did not answer in {self._node.name}") from e
                time.sleep(0.02)
            else:
                return

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        connection = _ConnectionFrom(self._node)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status >= 300:
            raise LabError(f"toxiproxy: {method} {path} answered {answer.status}: {text.decode()[:200]}")
        return json.loads(text) if text else None


class _ConnectionFrom(http.client.HTTPConnection):
    """HTTP to the loopback of a node, whose namespace this process is not in."""

    def __init__(self, node: Node) -> None:
        super().__init__("127.0.0.1", _API_PORT, timeout=5)
        self._node = node

    def connect(self) -> None:
        self.sock: socket.socket = self._node.connect(("127.0.0.1", _API_PORT))

"""The services of the data plane's tests: each has a port of its own, on which a test puts the backend it needs."""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

TCP = ("redis", "raw", "passthrough", "slow-raw")

# What a service's entry in the exports file has beyond its address.
MORE: dict[str, dict[str, Any]] = {
    "plain": {},
    "other": {},
    "based": {"base": "/base"},
    "slow": {"timeouts": {"connect": "1s", "response": "1s", "idle": "1s"}},
    "narrow": {"limits": {"concurrency": 1, "queue": 1, "queue_timeout": "1s"}},
    "deep": {"limits": {"concurrency": 1, "queue": 400, "queue_timeout": "30s"}},
    "single": {"limits": {"connections": 1}, "timeouts": {"connect": "1s"}},
    "tls-ca": {"tls": {"ca_file": "backend-ca.pem", "server_name": "backend.test"}},
    "tls-other-ca": {"tls": {"ca_file": "other-ca.pem", "server_name": "backend.test"}},
    "tls-pin": {"tls": {"pin": "PIN"}},
    "tls-wrong-pin": {"tls": {"pin": "sha256:" + "0" * 64}},
    "redis": {},
    "raw": {},
    "passthrough": {},
    "slow-raw": {"timeouts": {"connect": "1s", "idle": "1s"}},
    "fleet": {},
    "crowd": {"limits": {"concurrency": 1, "queue": 0}},
}

# The same services at sat-2, for selectors; on ports of their own.
TWICE = ("fleet", "crowd")

POLICY = """\
apiVersion: platformctl.io/v1alpha1
kind: AccessPolicy
metadata: {name: tests}
rules:
  - {name: admins, subjects: ["group:admins"], satellites: ["*"], services: ["*"]}
  - {name: admins-api, subjects: ["group:admins"], satellites: [hub], services: [api]}
  - {name: strangers, subjects: [anonymous], satellites: ["*"], services: [raw, passthrough, redis]}
  - name: reader
    subjects: ["token:denied"]
    satellites: ["*"]
    services: [other]
    methods: [GET]
    paths: ["/open/**"]
"""


def free_ports(count: int) -> list[int]:
    """Ports that are free now, below those that the kernel gives to connections and that local mode takes."""
    found: list[int] = []
    for port in random.sample(range(10_000, 20_000), 10_000):
        with socket.socket() as one, suppress(OSError):
            one.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no port is free")


@dataclass
class Services:
    """`ports` by service name, at sat-1; those at sat-2 end in `@2`."""

    ports: dict[str, int] = field(default_factory=dict)

    @classmethod
    def planned(cls) -> Services:
        names = [*MORE, *(f"{name}@2" for name in TWICE)]
        return cls(dict(zip(names, free_ports(len(names)), strict=True)))

    def exports(self, pin: str, folder: Path) -> list[dict[str, Any]]:
        entries = []
        for name, more in MORE.items():
            more = dict(more)
            base = more.pop("base", "")
            if "tls" in more:
                tls = {key: pin if value == "PIN" else value for key, value in more["tls"].items()}
                if "ca_file" in tls:
                    tls["ca_file"] = str(folder / tls["ca_file"])
                more["tls"] = tls
            scheme = "tcp" if name in TCP else "https" if "tls" in more else "http"
            to = f"{scheme}://127.0.0.1:{self.ports[name]}{base}"
            entries.append({"name": name, "to": to, "health": {"type": "none"}, **more})
        return entries

    def exports_twice(self) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "to": f"http://127.0.0.1:{self.ports[f'{name}@2']}",
                "health": {"type": "none"},
                **MORE[name],
            }
            for name in TWICE
        ]

    def topology(self, pin: str, folder: Path) -> str:
        return yaml.safe_dump(
            {
                "replicas": 2,
                "satellites": [
                    {"name": "sat-1", "labels": {"region": "eu"}, "exports": self.exports(pin, folder)},
                    {"name": "sat-2", "labels": {"region": "us"}, "exports": self.exports_twice()},
                ],
                "tcp": [{"satellite": "sat-1", "service": name} for name in ("redis", "raw", "slow-raw")],
                "hub": {"timeouts": {"head": "1s", "idle": "4s"}, "trusted_proxies": ["127.0.0.9/32"]},
            }
        )

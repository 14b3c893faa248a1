"""The state folder of a local platform: where everything is, which ports it has, and the files its processes read.

local.json       topology and ports, kept between runs      processes.json   who runs
env.json         what other programs read; there while up   ca.pem           the hub's CA
policy.yaml      the access policy; edit it                 tokens/          client tokens, one a file; admin.curl
config/          a configuration file for each process      log/             their output, and the audit logs
hub/             the hub's store, shared by all replicas     satellites/NAME/ identity and exports.yaml
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from platformctl.deploy.files import write_text
from platformctl.deploy.ports import HOST, free, is_free
from platformctl.deploy.topology import SatellitePlan, Topology
from platformctl.errors import StoreError

__all__ = ["DOMAIN", "POLICY", "Layout", "Ports", "curl_config"]

DOMAIN = "platform.localhost"
"""RFC 6761 section 6.3: names under localhost are this machine, so the host form of addresses works without any DNS."""

_SHARED = ("public", "http", "tunnel", "sni")
_OWN = ("public", "http", "tunnel", "health")

POLICY = """\
# Who may call what through the hub. What no rule allows is denied. Edit it: the hub reads it again by itself.
apiVersion: platformctl.io/v1alpha1
kind: AccessPolicy
metadata: {name: local}
rules:
  - name: admins-call-every-service
    subjects: ["group:admins"]
    satellites: ["*"]
    services: ["*"]
  - name: admins-use-the-control-api
    subjects: ["group:admins"]
    satellites: [hub]
    services: [api]
  # An example: a token named "dashboard" may read one service, wherever it is exported in Europe.
  # - name: dashboard-reads-metrics
  #   subjects: ["token:dashboard"]
  #   satellites: ["region=eu"]
  #   services: [metrics]
  #   methods: [GET, HEAD]
  #   paths: ["/api/**"]
"""


@dataclass
class Ports:
    """`shared` are the whole hub's (all replicas listen on them, SO_REUSEPORT); the others are each process's own."""

    shared: dict[str, int] = field(default_factory=dict)
    hubs: dict[str, dict[str, int]] = field(default_factory=dict)
    satellites: dict[str, int] = field(default_factory=dict)
    tcp: dict[str, int] = field(default_factory=dict)

    def all(self) -> Iterator[int]:
        yield from self.shared.values()
        for own in self.hubs.values():
            yield from own.values()
        yield from self.satellites.values()
        yield from self.tcp.values()


@dataclass
class Layout:
    """`root` is the state folder. Its paths are properties; `ports` is loaded, completed and saved; `topology` is that
    of the last `up`, None before the first.
    """

    root: Path
    ports: Ports = field(default_factory=Ports)
    topology: Topology | None = None

    @classmethod
    def load(cls, root: Path) -> Layout:
        layout = cls(root)
        try:
            document = json.loads(layout.memory.read_text(encoding="utf-8"))
            layout.ports = Ports(**document["ports"])
            if "topology" in document:
                layout.topology = Topology.from_document(document["topology"])
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise StoreError(
                f"{layout.memory} cannot be read: {e}", hint="Start anew in another --state folder."
            ) from e
        return layout

    @property
    def memory(self) -> Path:
        return self.root / "local.json"

    @property
    def env(self) -> Path:
        return self.root / "env.json"

    @property
    def ca(self) -> Path:
        return self.root / "ca.pem"

    @property
    def policy(self) -> Path:
        return self.root / "policy.yaml"

    @property
    def store(self) -> Path:
        return self.root / "hub"

    def token(self, name: str) -> Path:
        return self.root / "tokens" / f"{name}.token"

    @property
    def curl(self) -> Path:
        """For `curl -K`: the CA and the admin's token, so that the token is not in curl's command line."""
        return self.root / "tokens" / "admin.curl"

    def config(self, name: str) -> Path:
        return self.root / "config" / f"{name}.yaml"

    def log(self, name: str) -> Path:
        return self.root / "log" / f"{name}.log"

    def audit(self, hub: str) -> Path:
        return self.root / "log" / f"{hub}.audit.jsonl"

    def satellite(self, name: str) -> Path:
        return self.root / "satellites" / name

    def exports(self, name: str) -> Path:
        return self.satellite(name) / "exports.yaml"

    def url(self, hub: str | None, kind: str) -> str:
        """The address of one replica's listener, or the one that all share when `hub` is None."""
        port = (self.ports.hubs[hub] if hub else self.ports.shared)[kind]
        scheme = {"public": "https", "tunnel": "wss"}.get(kind, "http")
        return f"{scheme}://{HOST}:{port}"

    def complete(self, topology: Topology, random: Random, *, running: set[str]) -> None:
        """Give every process its ports. Those of before are kept, unless a stranger has them meanwhile."""
        ports = self.ports
        fresh = free(list(ports.all()), random)
        hub_runs = any(name in ports.hubs for name in running)
        _fill(ports.shared, _SHARED, fresh, keep=hub_runs)
        for name in topology.hubs:
            _fill(ports.hubs.setdefault(name, {}), _OWN, fresh, keep=name in running)
        for plan in topology.satellites:
            _fill(ports.satellites, (plan.name,), fresh, keep=plan.name in running)
        for each in topology.tcp:
            key = f"{each.service}.{each.satellite}"
            if each.port:
                ports.tcp[key] = each.port
            else:
                _fill(ports.tcp, (key,), fresh, keep=hub_runs)
        self.topology = topology
        document = {"version": 1, "ports": asdict(ports), "topology": topology.to_document()}
        write_text(self.memory, json.dumps(document, indent=1) + "\n")

    def hub_config(self, name: str, topology: Topology) -> dict[str, Any]:
        """The configuration of one replica: every listener twice, on the shared port and on its own."""
        own, shared = self.ports.hubs[name], self.ports.shared
        listeners: dict[str, list[dict[str, str]]] = {
            kind: [_at(port) for port in (shared.get(kind), own.get(kind)) if port] for kind in (*_SHARED, "health")
        }
        if topology.tcp:
            listeners["tcp"] = [
                {**_at(self.ports.tcp[f"{each.service}.{each.satellite}"]), **_served(each.satellite, each.service)}
                for each in topology.tcp
            ]
        advertise = {f"{kind}_url": self.url(name, kind) for kind in ("tunnel", "public", "http")}
        return {
            "id": name,
            "state": str(self.store),
            "domain": DOMAIN,
            "listeners": listeners,
            "advertise": {**advertise, "metrics_url": self.url(name, "health") + "/metrics"},
            "policy": str(self.policy),
            "log": {"format": "json", "level": "info"},
            "reuse_port": True,
            **topology.hub,
            "audit": {"path": str(self.audit(name)), **topology.hub.get("audit", {})},
        }

    def satellite_config(self, plan: SatellitePlan) -> dict[str, Any]:
        return {
            "name": plan.name,
            "state": str(self.satellite(plan.name)),
            "labels": dict(plan.labels),
            "hubs": [self.url(None, "tunnel")],
            "exports": str(self.exports(plan.name)),
            "health": _at(self.ports.satellites[plan.name]),
            "lanes": plan.lanes,
            "log": {"format": "json", "level": "info"},
        }

    def environment(self, topology: Topology, pids: Mapping[str, int]) -> dict[str, Any]:
        """env.json: what other programs need to use this platform. Its names are fixed."""
        hubs = topology.hubs
        return {
            "hub_url": self.url(None, "public"),
            "http_url": self.url(None, "http"),
            "tunnel_url": self.url(None, "tunnel"),
            "metrics_urls": [self.url(hub, "health") + "/metrics" for hub in hubs],
            "ca_file": str(self.ca),
            "admin_token_file": str(self.token("admin")),
            "pids": {
                "hub": [pids[hub] for hub in hubs],
                "satellites": {plan.name: pids[plan.name] for plan in topology.satellites},
            },
            "state": str(self.root),
            "domain": DOMAIN,
            "sni_address": f"{HOST}:{self.ports.shared['sni']}",
            "tcp_addresses": {key: f"{HOST}:{port}" for key, port in self.ports.tcp.items()},
            "policy_file": str(self.policy),
            "curl_config": str(self.curl),
            "client_tokens": {name: str(self.token(name)) for name in ("admin", "denied")},
            "replicas": [
                {
                    "id": hub,
                    "public_url": self.url(hub, "public"),
                    "http_url": self.url(hub, "http"),
                    "tunnel_url": self.url(hub, "tunnel"),
                    "metrics_url": self.url(hub, "health") + "/metrics",
                    "pid": pids[hub],
                    "audit_file": str(self.audit(hub)),
                    "log_file": str(self.log(hub)),
                }
                for hub in hubs
            ],
            "satellites": {
                plan.name: {
                    "labels": dict(plan.labels),
                    "exports": str(self.exports(plan.name)),
                    "health_url": f"http://{HOST}:{self.ports.satellites[plan.name]}",
                    "state": str(self.satellite(plan.name)),
                    "log_file": str(self.log(plan.name)),
                }
                for plan in topology.satellites
            },
        }


def curl_config(ca: Path, token: str) -> str:
    """A curl configuration file (curl(1), -K): in quotes, a backslash escapes itself and the quote."""
    quoted = str(ca).replace("\\", "\\\\").replace('"', '\\"')
    return f'cacert = "{quoted}"\nheader = "Authorization: Bearer {token}"\n'


def _at(port: int) -> dict[str, str]:
    return {"address": f"{HOST}:{port}"}


def _served(satellite: str, service: str) -> dict[str, str]:
    return {"satellite": satellite, "service": service}


def _fill(ports: dict[str, int], names: tuple[str, ...], fresh: Iterator[int], *, keep: bool) -> None:
    for name in names:
        if name not in ports or not (keep or is_free(ports[name])):
            ports[name] = next(fresh)

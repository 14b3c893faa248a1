"""What a satellite exports: the exports file (YAML), checked against `exports.schema.json`.

    services:
      - {name: api, to: "http://127.0.0.1:8080/base", health: {type: http, path: /healthz}}
      - {name: db, to: "tcp://db.internal:5432", lane: bulk}

A file that does not exist exports nothing. A file that is broken changes nothing: what it said before stays exported.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from platformctl.document import Document, parse, seconds
from platformctl.errors import ConfigError
from platformctl.routing.spec import ServiceSpec, SpecError

__all__ = ["Backend", "BackendTrust", "Export", "ExportsFile", "HealthCheck", "diff", "parse_exports"]

log = logging.getLogger(__name__)

DEFAULT_PORT = {"http": 80, "https": 443}
DEFAULT_CONNECTIONS = 256


@dataclass(frozen=True, slots=True)
class Backend:
    """Where the service listens. `scheme` is http, https or tcp; `base` is a path prefix without a slash at its end."""

    scheme: str
    host: str
    port: int
    base: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.base}"


@dataclass(frozen=True, slots=True)
class BackendTrust:
    """Whom an https backend has to be; see `net.tls.backend_context`. Empty: the system's CAs, the host's name."""

    ca_file: str = ""
    pin: str = ""
    server_name: str = ""


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """How the backend is checked. `type` is http, tcp or none; durations are seconds."""

    type: str = "tcp"
    path: str = "/"
    interval: float = 5.0
    timeout: float = 2.0
    healthy_threshold: int = 2
    unhealthy_threshold: int = 3


@dataclass(frozen=True, slots=True)
class Export:
    """One exported service. `connections` bounds the pool to the backend."""

    name: str
    backend: Backend
    spec: ServiceSpec
    health: HealthCheck = HealthCheck()
    trust: BackendTrust = BackendTrust()
    connections: int = DEFAULT_CONNECTIONS


Exports = Mapping[str, Export]


def parse_exports(text: str, source: str = "exports", folder: Path | None = None) -> dict[str, Export]:
    """The services by name. A relative `ca_file` counts from `folder`. Raises ConfigError with file, line and key."""
    document = parse(text, source, _schema())
    exports: dict[str, Export] = {}
    for index, entry in enumerate(document.data.get("services") or []):
        export = _export(document, ("services", index), entry, folder or Path())
        if export.name in exports:
            raise document.error(("services", index, "name"), f"the service {export.name!r} is listed twice")
        exports[export.name] = export
    return exports


def diff(old: Exports, new: Exports) -> tuple[list[Export], list[str]]:
    """(added or changed exports, names of the removed ones)."""
    changed = [export for name, export in new.items() if old.get(name) != export]
    return changed, [name for name in old if name not in new]


class ExportsFile:
    """The exports as the file had them when it was last good. `error` says what is wrong with it now, if anything."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.exports: dict[str, Export] = {}
        self.error: ConfigError | None = None

    def reload(self) -> tuple[list[Export], list[str]]:
        """Read the file again; what changed, as `diff` says it. A broken file changes nothing and sets `error`."""
        try:
            new = parse_exports(self.path.read_text("utf-8"), str(self.path), self.path.absolute().parent)
        except FileNotFoundError:
            new = {}
        except (ConfigError, OSError, UnicodeDecodeError) as e:
            self.error = e if isinstance(e, ConfigError) else ConfigError(f"cannot be read: {e}", source=str(self.path))
            log.error("the exports file is broken; the former exports stay", extra={"reason": str(self.error)})
            return [], []
        self.error = None
        changed = diff(self.exports, new)
        self.exports = new
        return changed


@cache
def _schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((files(__package__) / "exports.schema.json").read_text("utf-8"))
    return schema


def _export(document: Document, at: tuple[str | int, ...], entry: dict[str, Any], folder: Path) -> Export:
    backend = _backend(document, (*at, "to"), entry["to"])
    trust = entry.get("tls", {})
    if trust and backend.scheme != "https":
        raise document.error((*at, "tls"), f"is for https:// backends only, and this one is {backend.scheme}://")
    if "ca_file" in trust:
        trust = trust | {"ca_file": str(folder / trust["ca_file"])}
    limits = dict(entry.get("limits", {}))
    connections = limits.pop("connections", DEFAULT_CONNECTIONS)
    wire = {
        "name": entry["name"],
        "kind": _kind(document, (*at, "kind"), entry.get("kind", ""), backend.scheme),
        "labels": entry.get("labels", {}),
        "lane": entry.get("lane", "default"),
        "timeouts": _durations(entry.get("timeouts", {})),
        "limits": _durations(limits),
    }
    try:
        spec = ServiceSpec.from_wire(wire)
    except SpecError as e:
        raise document.error((*at, *e.where.split(".")), e.problem) from e
    health = HealthCheck(**_durations(entry.get("health", {})))
    if health.type == "http" and backend.scheme == "tcp":
        raise document.error((*at, "health", "type"), "must be one of tcp, none for a tcp:// backend, not http")
    if health.interval < 0.1 or health.timeout < 0.01:
        raise document.error((*at, "health"), "interval must be at least 100ms and timeout at least 10ms")
    return Export(entry["name"], backend, spec, health, BackendTrust(**trust), connections)


def _durations(given: dict[str, Any]) -> dict[str, Any]:
    """Texts become seconds where the key is a duration. The schema has checked their form."""
    timed = ("connect", "response", "idle", "head", "queue_timeout", "interval", "timeout")
    return {key: seconds(value) if key in timed else value for key, value in given.items()}


def _kind(document: Document, at: tuple[str | int, ...], given: str, scheme: str) -> str:
    allowed = ("tcp",) if scheme == "tcp" else ("http", "mcp")
    kind = given or allowed[0]
    if kind not in allowed:
        raise document.error(at, f"must be one of {', '.join(allowed)} for a {scheme}:// backend, not {kind}")
    return kind


def _backend(document: Document, at: tuple[str | int, ...], text: str) -> Backend:
    hint = "Allowed: http://host:port[/base], https://host[:port][/base], tcp://host:port."
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port
    except ValueError as e:
        raise document.error(at, f"is not an address: {e}", hint=hint) from e
    if "@" in url.netloc:
        # The value itself is not shown: it has a password in it.
        raise document.error(at, "must not carry a user name or password", hint="Let the caller send credentials.")
    if not host or url.query or url.fragment or not text.isascii() or not text.isprintable() or " " in text:
        raise document.error(at, "needs a host, and takes no query or fragment", hint=hint)
    if port is None:
        port = DEFAULT_PORT.get(url.scheme, 0)
    if not port:
        raise document.error(at, "needs a port from 1 to 65535", hint=hint)
    base = url.path.rstrip("/")
    if base and url.scheme == "tcp":
        raise document.error(at, "a tcp:// backend has no path", hint=hint)
    return Backend(url.scheme, host, port, base)

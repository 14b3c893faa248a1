"""What is verified: addresses, files and processes of one platform, as `platformctl up` writes them to `env.json`."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from platformctl.errors import ConfigError

__all__ = ["Environment", "Replica", "Satellite"]


@dataclass(frozen=True)
class Replica:
    """One hub replica; `pid` is None and the files are "" where they are not on this machine."""

    id: str
    public_url: str
    http_url: str = ""
    tunnel_url: str = ""
    metrics_url: str = ""
    pid: int | None = None
    audit_file: str = ""
    log_file: str = ""

    @property
    def health_url(self) -> str:
        """The base of the health+metrics listener, without a path."""
        return re.sub(r"/(metrics|readyz|livez)/?$", "", self.metrics_url).rstrip("/")


@dataclass(frozen=True)
class Satellite:
    """One satellite; `exports` is the path of its exports file, `state` its state folder."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    exports: str = ""
    health_url: str = ""
    state: str = ""
    pid: int | None = None
    log_file: str = ""


@dataclass(frozen=True)
class Environment:
    """`token` and `denied_token` are read from their files when first used, and never shown.

    `all_replicas`: `replicas` names every one of them; else it is the hub's one address, whatever is behind it.
    """

    hub_url: str
    ca_file: str
    admin_token_file: str
    replicas: tuple[Replica, ...]
    satellites: tuple[Satellite, ...]
    client_tokens: Mapping[str, str] = field(default_factory=dict)
    all_replicas: bool = True
    state: str = ""
    """The folder of a local platform, "" elsewhere."""

    @classmethod
    def load(cls, path: Path) -> Environment:
        """Read `env.json`; ConfigError when it is missing, not JSON, or lacks what every check needs."""
        hint = "Start a platform with `platformctl up`, and give its folder with --state."
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"cannot be read: {error.strerror}", source=str(path), hint=hint) from error
        except ValueError as error:
            raise ConfigError(f"is not JSON: {error}", source=str(path), hint=hint) from error
        try:
            return cls.from_dict(document)
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"lacks or has a wrong {error}", source=str(path), hint=hint) from error

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Environment:
        pids: Mapping[str, Any] = document.get("pids", {})
        satellite_pids: Mapping[str, int] = pids.get("satellites", {})
        known: Mapping[str, Mapping[str, Any]] = document.get("satellites", {})
        names = sorted({*known, *satellite_pids})
        return cls(
            hub_url=document["hub_url"].rstrip("/"),
            ca_file=document.get("ca_file") or "",
            admin_token_file=document["admin_token_file"],
            replicas=_replicas(document, list(pids.get("hub", []))),
            satellites=tuple(_satellite(name, known.get(name, {}), satellite_pids.get(name)) for name in names),
            client_tokens=dict(document.get("client_tokens", {})),
            all_replicas=bool(document.get("replicas")),
            state=document.get("state") or "",
        )

    @cached_property
    def token(self) -> str:
        return _read_token(self.admin_token_file)

    @cached_property
    def denied_token(self) -> str | None:
        path = self.client_tokens.get("denied")
        return _read_token(path) if path else None

    @cached_property
    def tls(self) -> ssl.SSLContext:
        """Verifies the hub by its own CA, or by the system's when none is named; ConfigError for a bad CA file."""
        try:
            return ssl.create_default_context(cafile=self.ca_file or None)
        except OSError as error:
            raise ConfigError("is not a readable CA certificate", source=self.ca_file) from error


def _replicas(document: Mapping[str, Any], hub_pids: list[int]) -> tuple[Replica, ...]:
    metrics: list[str] = list(document.get("metrics_urls", []))
    rows = document.get("replicas")
    if not rows:  # a hub that says nothing of its replicas is seen as one, at its public address
        rows = [{"id": "hub", "public_url": document["hub_url"], "tunnel_url": document.get("tunnel_url", "")}]
    audits = list(document.get("audit_files", []))
    return tuple(
        Replica(
            id=str(row["id"]),
            public_url=row["public_url"].rstrip("/"),
            http_url=(row.get("http_url") or "").rstrip("/"),
            tunnel_url=row.get("tunnel_url") or "",
            metrics_url=row.get("metrics_url") or (metrics[index] if index < len(metrics) else ""),
            pid=row.get("pid") or (hub_pids[index] if index < len(hub_pids) else None),
            audit_file=row.get("audit_file") or (audits[index] if index < len(audits) else ""),
            log_file=row.get("log_file") or "",
        )
        for index, row in enumerate(rows)
    )


def _satellite(name: str, row: Mapping[str, Any], pid: int | None) -> Satellite:
    return Satellite(
        name=name,
        labels=dict(row.get("labels") or {}),
        exports=row.get("exports") or "",
        health_url=row.get("health_url") or "",
        state=row.get("state") or "",
        pid=pid,
        log_file=row.get("log_file") or "",
    )


def _read_token(path: str) -> str:
    if not path:
        raise ConfigError("no token file is named", hint="Give one with --token-file, or in the context.")
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError as error:
        raise ConfigError(f"the token cannot be read: {error.strerror}", source=path) from error
    except UnicodeDecodeError as error:
        raise ConfigError("is not a token file", source=path) from error

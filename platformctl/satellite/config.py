"""The agent's configuration file (YAML), checked against `satellite-config.schema.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from platformctl.document import parse
from platformctl.errors import ConfigError
from platformctl.net.address import Address
from platformctl.routing.spec import SpecError, labels_from_wire

__all__ = ["LogConfig", "SatelliteConfig"]


@dataclass(frozen=True, slots=True)
class LogConfig:
    """`format`: auto (console on a terminal, json elsewhere), json or console; `level`: debug to error."""

    format: str = "auto"
    level: str = "info"


@dataclass(frozen=True, slots=True)
class SatelliteConfig:
    """`state`, `exports` are absolute: relative ones count from the file's folder. `lanes`: tunnels to each replica."""

    name: str
    state: Path
    hubs: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    exports: Path | None = None
    health: Address | None = None
    lanes: int = 1
    log: LogConfig = LogConfig()

    @classmethod
    def from_file(cls, path: Path, overrides: Mapping[str, Any] | None = None) -> SatelliteConfig:
        """Raises ConfigError. `overrides` has the file's shape and wins, key by key."""
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as e:
            raise ConfigError(f"cannot be read: {e}", source=str(path)) from e
        return cls.from_text(text, str(path), path.absolute().parent, overrides)

    @classmethod
    def from_text(
        cls, text: str, source: str, folder: Path, overrides: Mapping[str, Any] | None = None
    ) -> SatelliteConfig:
        document = parse(text, source, _schema(), overrides)
        data = document.data
        try:
            labels = labels_from_wire(data.get("labels", {}))
        except SpecError as e:
            raise document.error(e.where.split("."), e.problem) from e
        try:
            health = Address.parse(data["health"]["address"]) if "health" in data else None
        except ValueError as e:
            raise document.error(("health", "address"), str(e)) from e
        return cls(
            name=data["name"],
            state=folder / data["state"],
            hubs=tuple(url.rstrip("/") for url in data["hubs"]),
            labels=labels,
            exports=folder / data["exports"] if "exports" in data else None,
            health=health,
            lanes=data.get("lanes", 1),
            log=LogConfig(**data.get("log", {})),
        )


@cache
def _schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((files(__package__) / "satellite-config.schema.json").read_text("utf-8"))
    return schema

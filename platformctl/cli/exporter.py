"""Changing what a satellite of a local platform exports, for `export` and for the checks of `verify`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from platformctl.cli.connection import read_env
from platformctl.deploy import exports
from platformctl.errors import NotFound
from platformctl.satellite.exports import parse_exports
from platformctl.verify import Export, OutOfReach

__all__ = ["LocalExporter", "NoExporter", "exports_file"]


def exports_file(state: Path, satellite: str) -> Path:
    """The exports file of one satellite of the local platform in `state`; NotFound when it has no such satellite."""
    known = read_env(state).get("satellites", {})
    if satellite not in known:
        raise NotFound(f"{state} has no satellite {satellite!r}", hint=f"It has: {', '.join(sorted(known)) or 'none'}.")
    return Path(known[satellite]["exports"])


class LocalExporter:
    """Edits the exports files of the platform in `state`; implements `platformctl.verify.Exporter`."""

    def __init__(self, state: Path) -> None:
        self._state = state

    def change(self, satellite: str, add: Sequence[dict[str, Any]] = (), remove: Sequence[str] = ()) -> None:
        path = exports_file(self._state, satellite)
        exports.edit(path, lambda old: exports.add(exports.remove(old, remove), add), parse_exports)

    async def export(self, satellite: str, services: Sequence[Export]) -> None:
        self.change(satellite, [{"name": each.name, "to": each.to, "kind": each.kind} for each in services])

    async def withdraw(self, satellite: str, names: Sequence[str]) -> None:
        self.change(satellite, remove=names)


class NoExporter:
    """For a hub elsewhere: its satellites' exports are not in reach, so the checks that need a backend there say so."""

    async def export(self, satellite: str, services: Sequence[Export]) -> None:
        raise OutOfReach(
            "what a satellite elsewhere exports cannot be changed from here",
            hint="Checks that need a backend there run where a local platform runs: verify --state DIR.",
        )

    async def withdraw(self, satellite: str, names: Sequence[str]) -> None:
        return None

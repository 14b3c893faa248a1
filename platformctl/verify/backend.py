"""Verify's own echo backend: the sample services, exported into every satellite for as long as the checks run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import yaml

from platformctl.errors import PlatformError
from platformctl.verify.environment import Environment, Satellite
from platformctl.verify.processes import trouble
from platformctl.verify.samples import SampleServices

__all__ = ["EchoBackend", "Export", "Exporter", "OutOfReach", "exported_backends", "own"]

_OURS = re.compile(r"verify-(\d+)-(http|websocket|tcp)")
_KINDS = ("http", "websocket", "tcp")


@dataclass(frozen=True, slots=True)
class Export:
    """One entry of a satellite's exports: `to` is `http://host:port` or `tcp://host:port`, `kind` `http` or `tcp`."""

    name: str
    to: str
    kind: str


class OutOfReach(PlatformError):
    """A satellite's exports cannot be changed from here, which is nobody's fault: checks that need it are skipped."""


class Exporter(Protocol):
    """Changes what a satellite exports. Both calls are atomic for the whole batch and leave other exports alone."""

    async def export(self, satellite: str, services: Sequence[Export]) -> None:
        """Add or replace. OutOfReach where that is not possible from here; another PlatformError when it failed."""
        ...

    async def withdraw(self, satellite: str, names: Sequence[str]) -> None:
        """Remove those that are there; names that are not exported are no error."""
        ...


class EchoBackend:
    """Start with `open`, end with `close`: what `open` exported is withdrawn, whatever happened between.

    The names hold this process's id, so that two runs do not meet, and a run can remove what a killed one left.
    """

    def __init__(self, env: Environment, exporter: Exporter) -> None:
        self.services = SampleServices()
        self.refusals: dict[str, str] = {}
        """Satellite -> why exporting there failed."""
        self.out_of_reach: dict[str, OutOfReach] = {}
        self._env = env
        self._exporter = exporter
        self._exported: list[str] = []

    @staticmethod
    def name(service: str) -> str:
        return f"verify-{os.getpid()}-{service}"

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.name(service) for service in _KINDS)

    async def open(self) -> None:
        """Listen on loopback and export; a satellite that refuses is noted in `refusals`."""
        await self.services.start()
        for satellite in self._env.satellites:
            leftovers = [name for name in exported_backends(satellite) or () if _abandoned(name)]
            try:
                if leftovers:
                    await self._exporter.withdraw(satellite.name, leftovers)
                # Noted first: a cancellation during the export must still withdraw it.
                self._exported.append(satellite.name)
                await self._exporter.export(satellite.name, list(self._exports()))
            except OutOfReach as error:
                self.out_of_reach[satellite.name] = error
            except (PlatformError, OSError) as error:
                self.refusals[satellite.name] = str(error)

    async def close(self) -> None:
        try:
            for satellite in self._exported:
                with contextlib.suppress(PlatformError, OSError):
                    await self._exporter.withdraw(satellite, self.names)
        finally:
            # Agents see the file change at their watcher's next tick; what they hold open ends with the listeners.
            await asyncio.shield(self.services.stop())

    def _exports(self) -> Iterable[Export]:
        for service in _KINDS:
            yield Export(self.name(service), self.services.url(service), "tcp" if service == "tcp" else "http")


def exported_backends(satellite: Satellite) -> dict[str, str] | None:
    """Name -> `to` of each service in a satellite's exports file, in its order; None when we can't read the file."""
    if not satellite.exports:
        return None
    try:
        document = yaml.safe_load(Path(satellite.exports).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return None
    services = (document or {}).get("services") if isinstance(document or {}, Mapping) else None
    entries = [entry for entry in services or () if isinstance(entry, Mapping) and "name" in entry]
    return {str(entry["name"]): str(entry.get("to") or "") for entry in entries}


def own(name: str) -> bool:
    """Whether an export belongs to some run of verify."""
    return _OURS.fullmatch(name) is not None


def _abandoned(name: str) -> bool:
    match = _OURS.fullmatch(name)
    return match is not None and int(match[1]) != os.getpid() and trouble(int(match[1])) != ""

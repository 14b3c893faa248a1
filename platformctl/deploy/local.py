"""A whole platform as processes of this machine: start what is missing, stop what we started.

What belongs to the hub and to the satellite (store, join, control API) is handed in as `Parts`: packages on one line of
the architecture do not import each other.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Protocol

import yaml

from platformctl.deploy import exports
from platformctl.deploy.files import exclusive, private_folder, write_text
from platformctl.deploy.layout import DOMAIN, POLICY, Layout, curl_config
from platformctl.deploy.processes import Process, Records, stop, undisturbed
from platformctl.deploy.readiness import await_condition, readiness
from platformctl.deploy.topology import SatellitePlan, Topology
from platformctl.errors import Conflict, StoreError

__all__ = ["Parts", "Tell", "down", "purge", "up"]

Tell = Callable[[str], None]

READY_SECONDS = 30.0
STOP_SECONDS = 10.0
JOINS_AT_ONCE = 8
FOLDERS = ("config", "hub", "log", "satellites", "tokens")
FILES = ("ca.pem", "env.json", "local.json", "policy.yaml", "processes.json")


class Parts(Protocol):
    """What `up` needs of hub and satellite."""

    def authority(self, store: Path, domain: str) -> tuple[str, str]:
        """The hub's CA, made once: (certificate PEM, pin)."""

    def client_token(self, store: Path, name: str, groups: Sequence[str]) -> str:
        """A new static client token; its text."""

    def join_token(self, store: Path, satellite: str, labels: Mapping[str, str]) -> str:
        """A new one-use join token; its text."""

    async def join(
        self, tunnel_url: str, token: str, pin: str, name: str, labels: Mapping[str, str], state: Path
    ) -> None:
        """Join as `platformctl join satellite` does."""

    def joined(self, state: Path, pin: str) -> bool:
        """Whether the folder holds an identity of the CA with this pin, good for a while."""

    def satellites(self, hub_url: str, token_file: Path, ca_file: Path) -> list[Mapping[str, Any]]:
        """/api/v1/satellites of one replica. The connection may be kept until `close`."""

    def close(self) -> None:
        """Close the connections to replicas: one that is open would hold up a replica that drains."""


def up(root: Path, topology: Topology, parts: Parts, tell: Tell, *, random: Random) -> dict[str, Any]:
    """Start what is missing of `topology` in the state folder `root`, stop what is not part of it any more.

    Returns the environment, also written to env.json. When it fails or is interrupted, what it started is stopped.
    """
    root = private_folder(root.expanduser().absolute())
    with exclusive(root / ".lock", f"another `platformctl up` or `down` works in {root}"):
        start = _Start(root, topology, parts, tell)
        try:
            return start.run(random)
        except BaseException:
            with undisturbed():
                start.undo()
            raise
        finally:
            parts.close()


class _Start:
    """One `up`: its steps, and what it started so far."""

    def __init__(self, root: Path, topology: Topology, parts: Parts, tell: Tell) -> None:
        self._topology = topology
        self._parts = parts
        self._tell = tell
        self._layout = Layout.load(root)
        self._records = Records(root / "processes.json")
        self._before = set(self._records.running())
        self._pin = ""

    def run(self, random: Random) -> dict[str, Any]:
        layout, topology = self._layout, self._topology
        running = self._records.running()
        names = {*topology.hubs, *(plan.name for plan in topology.satellites)}
        superfluous = [process for name, process in running.items() if name not in names]
        if superfluous:
            stop(superfluous, grace=STOP_SECONDS)
            self._tell(f"stopped {', '.join(process.name for process in superfluous)}")
        self._records.forget(set(self._records.known) - (set(running) & names))
        for folder in FOLDERS:
            private_folder(layout.root / folder)
        layout.complete(topology, random, running=set(running) & names)
        self._prepare()
        self._hubs()
        self._satellites()
        environment = layout.environment(topology, {name: each.pid for name, each in self._records.known.items()})
        write_text(layout.env, json.dumps(environment, indent=2) + "\n")
        return environment

    def undo(self) -> None:
        self._parts.close()
        started = [process for name, process in self._records.known.items() if name not in self._before]
        _stop_in_order(started, self._layout, STOP_SECONDS)
        self._records.forget(process.name for process in started)

    def _prepare(self) -> None:
        layout, parts = self._layout, self._parts
        ca, self._pin = parts.authority(layout.store, DOMAIN)
        write_text(layout.ca, ca)
        if not layout.policy.exists():
            write_text(layout.policy, POLICY)
        for name, groups in (("admin", ["admins"]), ("denied", [])):
            if not layout.token(name).exists():
                write_text(layout.token(name), parts.client_token(layout.store, name, groups) + "\n")
        write_text(layout.curl, curl_config(layout.ca, layout.token("admin").read_text(encoding="ascii").strip()))

    def _hubs(self) -> None:
        layout = self._layout
        for name in self._topology.hubs:
            self._run(name, "hub", layout.hub_config(name, self._topology))
        for name in self._topology.hubs:
            url = layout.url(name, "health")
            await_condition(lambda url=url: readiness(url), self._watched(), timeout=READY_SECONDS, what=name)  # type: ignore[misc]
            self._tell(f"{name} is ready at {layout.url(name, 'public')}")

    def _satellites(self) -> None:
        layout, plans = self._layout, self._topology.satellites
        joining = [plan for plan in plans if not self._parts.joined(layout.satellite(plan.name), self._pin)]
        if joining:
            asyncio.run(self._join(joining))
        for plan in plans:
            if not layout.exports(plan.name).exists():
                write_text(layout.exports(plan.name), exports.text(plan.exports))
            self._run(plan.name, "satellite", layout.satellite_config(plan))
        await_condition(self._unconnected, self._watched(), timeout=READY_SECONDS, what="satellites", interval=0.1)
        if plans:
            self._tell(
                f"{_counted(len(plans), 'satellite')} connected to {_counted(len(self._topology.hubs), 'replica')}"
            )

    async def _join(self, plans: Sequence[SatellitePlan]) -> None:
        layout, slots = self._layout, asyncio.Semaphore(JOINS_AT_ONCE)

        async def one(plan: SatellitePlan) -> None:
            async with slots:
                token = self._parts.join_token(layout.store, plan.name, plan.labels)
                url, state = layout.url(None, "tunnel"), private_folder(layout.satellite(plan.name))
                await self._parts.join(url, token, self._pin, plan.name, plan.labels, state)
                self._tell(f"{plan.name} joined")

        try:
            async with asyncio.TaskGroup() as group:
                for plan in plans:
                    group.create_task(one(plan), name=f"join {plan.name}")
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None  # the others failed for the same reason, or were cancelled

    def _unconnected(self) -> str:
        """Which satellite lacks a tunnel to which replica, as the replicas themselves say; "" when none does."""
        layout, replicas = self._layout, len(self._topology.hubs)
        for hub in self._topology.hubs:
            url = layout.url(hub, "public")
            rows = {row["name"]: row for row in self._parts.satellites(url, layout.token("admin"), layout.ca)}
            for plan in self._topology.satellites:
                row = rows.get(plan.name, {})
                if row.get("connected", 0) < replicas or row.get("expected", 0) != replicas:
                    return f"{hub} sees {plan.name} at {row.get('connected', 0)} of {replicas} replicas"
        return ""

    def _run(self, name: str, kind: str, config: Mapping[str, Any]) -> None:
        """Write the configuration, and start the process unless it runs."""
        path = self._layout.config(name)
        write_text(path, yaml.safe_dump(dict(config), sort_keys=False))
        if name in self._records.known:
            return
        module = ["platformctl", kind, "run", "--config", str(path)]
        self._records.start(name, module, self._layout.log(name), str(path))

    def _watched(self) -> dict[Process, Path]:
        return {process: self._layout.log(process.name) for process in self._records.known.values()}


def down(root: Path, tell: Tell, *, grace: float = STOP_SECONDS) -> int:
    """Stop the processes that are recorded in `root`, satellites first; returns how many ran. The state stays."""
    root = root.expanduser().absolute()
    if not root.is_dir():
        return 0
    with exclusive(root / ".lock", f"another `platformctl up` or `down` works in {root}"):
        records, layout = Records(root / "processes.json"), Layout.load(root)
        running = records.running()
        for name in _stop_in_order(running.values(), layout, grace):
            tell(f"{name} did not stop in {grace:g} s and was killed; its log: {layout.log(name)}")
        # Its pids are nobody's now; a program that reads it must not signal them.
        layout.env.unlink(missing_ok=True)
        if records.known:
            records.forget(list(records.known))
        return len(running)


def _stop_in_order(processes: Iterable[Process], layout: Layout, grace: float) -> list[str]:
    """Satellites first, so that no agent sees its hub go. Returns the names of those that had to be killed."""
    hubs: list[Process] = []
    others: list[Process] = []
    for process in processes:
        (hubs if process.name in layout.ports.hubs else others).append(process)
    return [*stop(others, grace=grace), *stop(hubs, grace=grace)]


def purge(root: Path) -> bool:
    """Delete a stopped platform's state: what `up` made and nothing else. StoreError for any other folder.

    Returns whether there was one.
    """
    root = root.expanduser().absolute()
    if not root.exists():
        return False
    layout = Layout(root)
    if not layout.memory.is_file():
        raise StoreError(f"{root} is no state folder of `platformctl up`; nothing was deleted")
    if Records(root / "processes.json").running():
        raise Conflict(f"processes of {root} are running", hint="Stop them first: platformctl down.")
    for name in FOLDERS:
        shutil.rmtree(root / name, ignore_errors=True)
    for name in (*FILES, ".lock"):
        (root / name).unlink(missing_ok=True)
    if not any(root.iterdir()):
        root.rmdir()
    return True


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")

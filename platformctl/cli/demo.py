"""`platformctl demo`: the whole platform in a minute, on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from platformctl.cli.connection import default_state
from platformctl.cli.output import console
from platformctl.cli.signals import ends_like_ctrl_c, uninterrupted
from platformctl.cli.up import remember, start
from platformctl.errors import PlatformError

if TYPE_CHECKING:
    from platformctl.deploy.topology import Topology
    from platformctl.verify import Report

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)

SAMPLES_SECONDS = 15.0
_SERVICES = {
    "http": ("api", "/healthz"),
    "events": ("events", "/healthz"),
    "websocket": ("echo", None),
    "tcp": ("tcp", None),
}


def _topology() -> Topology:
    from platformctl.deploy.topology import SatellitePlan, Topology

    satellites = (
        SatellitePlan("sat-1", {"region": "eu", "role": "gpu"}),
        SatellitePlan("sat-2", {"region": "us", "role": "edge"}),
    )
    return Topology(replicas=2, satellites=satellites)


def _say(text: str) -> None:
    typer.echo(text, err=True)


@contextlib.contextmanager
def _stopped_unless_kept(state: Path, keep: bool) -> Iterator[None]:
    """Whatever happens within, no process is left behind, unless it ends well and `keep` was asked for.

    After a failure the state stays: its logs are what the error's hint points at.
    """
    from platformctl.deploy import local

    try:
        yield
    except Exception:
        with uninterrupted():
            local.down(state, _say)
        _say(f"Everything was stopped; the logs stay in {state / 'log'}.")
        raise
    except BaseException:
        _remove(state)
        raise
    if not keep:
        _remove(state)


def _remove(state: Path) -> None:
    from platformctl.deploy import local

    with uninterrupted():
        _say("\nStopping everything …")
        local.down(state, _say)
        local.purge(state)


def _samples(state: Path) -> dict[str, int]:
    """Start the sample services as a process of the platform in `state`; their ports by name."""
    from platformctl.deploy.processes import Records, last_lines

    log = state / "log" / "samples.log"
    records = Records(state / "processes.json")
    # One line of JSON on standard output says that all of them listen.
    records.start("samples", ["platformctl.verify.samples"], log, "platformctl.verify.samples")
    deadline = time.monotonic() + SAMPLES_SECONDS
    while time.monotonic() < deadline:
        for line in log.read_text(encoding="utf-8").splitlines():
            if line.startswith("{"):
                found: dict[str, int] = json.loads(line)
                return found
        if "samples" not in records.running():
            break
        time.sleep(0.05)
    raise PlatformError(f"the sample services did not start. Their last words:\n{last_lines(log)}", hint=f"See {log}")


def _export(state: Path, ports: dict[str, int]) -> None:
    from platformctl.cli.exporter import LocalExporter

    entries: list[dict[str, Any]] = []
    for kind, (name, health) in _SERVICES.items():
        entry: dict[str, Any] = {"name": name, "to": f"{'tcp' if kind == 'tcp' else 'http'}://127.0.0.1:{ports[kind]}"}
        if health:
            entry["health"] = {"type": "http", "path": health}
        entries.append(entry)
    for satellite in ("sat-1", "sat-2"):
        LocalExporter(state).change(satellite, entries)


def _await_services(env: dict[str, Any]) -> None:
    from platformctl.cli.client import HubClient
    from platformctl.cli.repeat import wait_until

    wanted = {(satellite, name) for satellite in env["satellites"] for name, _ in _SERVICES.values()}
    for replica in env["replicas"]:
        with HubClient(
            replica["public_url"], token_file=Path(env["admin_token_file"]), ca_file=Path(env["ca_file"])
        ) as client:

            def lacking(items: list[dict[str, Any]]) -> str:
                healthy = {(each["satellite"], each["name"]) for each in items if each["state"] == "healthy"}
                return ", ".join(f"{name}.{satellite} is not healthy" for satellite, name in sorted(wanted - healthy))

            wait_until(lambda: client.items("services"), lacking, timeout=15.0, interval=0.05)


def _verify(state: Path) -> Report:
    from platformctl.cli.exporter import LocalExporter
    from platformctl.cli.verify import check
    from platformctl.verify import Environment

    return check(Environment.load(state / "env.json"), LocalExporter(state))


def _next_steps(env: dict[str, Any], state: Path) -> list[tuple[str, str]]:
    """(what it shows, a line that works in a shell of this machine); the first two set what the others use."""
    curl = 'curl -K "$S/tokens/admin.curl"'  # the hub's CA and the admin's token
    run = ".venv/bin/platformctl" if os.environ.get("MAKELEVEL") else "platformctl"
    local = '--state "$S"'
    return [
        ("", f"S={shlex.quote(str(state))}"),
        ("", f"HUB={env['hub_url']}"),
        ("an HTTP API in Europe, through the hub", f"{curl} $HUB/s/sat-1/api/headers"),
        ("any satellite with role=edge", f"{curl} -H Platform-Service:api -H Platform-Selector:role=edge $HUB/headers"),
        ("an event stream, as it comes", f'{curl} -N "$HUB/s/sat-2/events/events?count=5&interval=1"'),
        ("plain HTTP, as behind a mesh", f"{curl} {env['http_url']}/s/sat-1/api/"),
        ("no identity, no entry", 'curl -i --cacert "$S/ca.pem" $HUB/s/sat-1/api/'),
        ("a TCP service on a local port", f"{run} forward tcp.sat-1 {local}"),
        ("who is connected", f"{run} status {local}"),
        ("a service of your own", f"{run} export add mine --satellite sat-1 --to http://127.0.0.1:8000 {local}"),
        ("the console, in a browser: sign in with the content of the file", f"{env['hub_url']}/console/"),
        ("", str(state / "tokens" / "admin.token")),
        ("stop it, and delete its state", f"{run} down --purge {local}"),
    ]


def _print(report: Report, env: dict[str, Any], state: Path, seconds: float, keep: bool) -> None:
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    from platformctl.verify.report import render_table

    out = console()
    out.print(render_table(report))
    table = Table.grid(padding=(0, 2))
    for replica in env["replicas"]:
        table.add_row(Text(replica["id"], style="bold"), replica["public_url"], f"metrics {replica['metrics_url']}")
    for name, row in env["satellites"].items():
        labels = ", ".join(f"{key}={value}" for key, value in row["labels"].items())
        table.add_row(Text(name, style="bold"), labels, "exports " + ", ".join(name for name, _ in _SERVICES.values()))
    out.print(Panel(table, title="The platform", title_align="left", expand=False))
    out.print(
        Text("Try next" if keep else "With --keep (make demo KEEP=1) it keeps running, and you can try", style="bold")
    )
    for what, line in _next_steps(env, state):
        if what:
            out.print(Text(f"  # {what}", style="dim"))
        # A wrapped line could not be copied.
        out.print(Text(f"  {line}", style="cyan"), soft_wrap=True)
    verdict = "verified end to end" if report.ok else "NOT in order: see above"
    out.print(Text(f"\n2 hub replicas, 2 satellites, 8 services: {verdict}, in {seconds:.0f} s.", style="bold"))


@app.command()
def demo(
    state: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", file_okay=False, help="Folder of the demo. [default: ~/.local/state/platformctl/demo]"
        ),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave it running, to try things.")] = False,
) -> None:
    """Start a local platform with sample services, verify it end to end, and show what to try next.

    Two hub replicas and two satellites (region=eu,role=gpu and region=us,role=edge), each exporting an HTTP API, an
    event stream, a WebSocket echo and a TCP service. Then everything is stopped and its state deleted; Ctrl-C does that
    at any moment. The folder is not that of `platformctl up`: without --state it is `demo` beside it.
    """
    from platformctl.deploy import local

    folder = (state or default_state().with_name("demo")).expanduser().absolute()
    began = time.monotonic()
    with ends_like_ctrl_c():
        if local.down(folder, _say):
            _say("An earlier demo was still running; it was stopped.")
        if folder.exists() and any(folder.iterdir()):
            local.purge(folder)
        with _stopped_unless_kept(folder, keep):
            _say("Starting a hub with two replicas, and two satellites")
            env = start(folder, _topology())
            _say("Starting sample services, and exporting them")
            _export(folder, _samples(folder))
            _await_services(env)
            _say("Verifying")
            report = _verify(folder)
            if keep:
                remember(folder)
            _print(report, env, folder, time.monotonic() - began, keep)
    raise typer.Exit(0 if report.ok else 1)

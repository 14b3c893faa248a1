"""Who is measured: each says how to reach the backend through it, and which processes are its hub and agent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from tests.bench.backend import Backend
from tests.bench.local_platform import start_platform
from tests.bench.peers import start_chisel, start_frp_http, start_frp_tcp, start_piko, start_rathole
from tests.bench.processes import Processes
from tests.bench.target import Contender, Target

Start = Callable[[Processes, Backend, Path], Awaitable[Contender]]


async def start_direct(processes: Processes, backend: Backend, folder: Path) -> Contender:
    """No relay at all: the ceiling of this machine and of the load generator."""
    return Contender(
        name="direct",
        web=Target.with_headers(f"http://127.0.0.1:{backend.web}", folder / "direct-web.headers", {}),
        sink=Target.with_headers(f"http://127.0.0.1:{backend.sink}", folder / "direct-sink.headers", {}),
        hub_pids=(),
        agent_pids=(),
    )


CONTENDERS: Mapping[str, Start] = {
    "direct": start_direct,
    "frp-http": start_frp_http,
    "frp-tcp": start_frp_tcp,
    "chisel": start_chisel,
    "rathole": start_rathole,
    "piko": start_piko,
    "platformctl": start_platform,
}
PEERS = tuple(name for name in CONTENDERS if name not in {"direct", "piko"})

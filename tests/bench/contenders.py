"""Who is measured: each says how to reach the backend through it, and which processes are its hub and agent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path

from tests.bench.backend import Backend
from tests.bench.local_platform import start_platform, start_pure_platform
from tests.bench.peers import start_chisel, start_frp_http, start_frp_tcp, start_piko, start_rathole
from tests.bench.processes import Processes
from tests.bench.target import Contender, Target
from tests.bench.tools import is_built

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
    "platformctl-pure": start_pure_platform,
}
PEERS = ("frp-http", "frp-tcp", "chisel", "rathole", "platformctl")
_BUILT_FOR = {"frp-http": "frp", "frp-tcp": "frp", "chisel": "chisel", "rathole": "rathole", "piko": "piko"}


def tools_of(contenders: Iterable[str]) -> frozenset[str]:
    """The tools that tools/build-peers.sh builds and these contenders need."""
    return frozenset(_BUILT_FOR[name] for name in contenders if name in _BUILT_FOR)


def missing(contenders: Iterable[str]) -> frozenset[str]:
    """Those of them that are not built."""
    return frozenset(name for name in contenders if name in _BUILT_FOR and not is_built(_BUILT_FOR[name]))

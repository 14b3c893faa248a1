"""The peers, each with its defaults (frp: TLS and one multiplexed connection; chisel: SSH in a WebSocket;
rathole: plain TCP) and as little logging as it allows."""

from __future__ import annotations

import secrets
from pathlib import Path

from tests.bench.backend import Backend
from tests.bench.processes import Processes, free_port, wait_listening
from tests.bench.target import Contender, Target
from tests.bench.tools import tool

_WEB_HOST, _SINK_HOST = "web.bench.test", "sink.bench.test"


async def start_frp_http(processes: Processes, backend: Backend, folder: Path) -> Contender:
    """frp's vhost HTTP: frps parses and routes by Host, as our hub does."""
    vhost = free_port()
    proxies = "".join(
        f'[[proxies]]\nname = "{name}"\ntype = "http"\nlocalIP = "127.0.0.1"\nlocalPort = {port}\n'
        f'customDomains = ["{host}"]\n'
        for name, port, host in (("web", backend.web, _WEB_HOST), ("sink", backend.sink, _SINK_HOST))
    )
    hub, agent = await _start_frp(processes, folder, "frp-http", f"vhostHTTPPort = {vhost}\n", proxies)
    url = f"http://127.0.0.1:{vhost}"
    return Contender(
        name="frp-http",
        web=Target.with_headers(url, folder / "frp-web.headers", {"Host": _WEB_HOST}),
        sink=Target.with_headers(url, folder / "frp-sink.headers", {"Host": _SINK_HOST}),
        hub_pids=(hub,),
        agent_pids=(agent,),
    )


async def start_frp_tcp(processes: Processes, backend: Backend, folder: Path) -> Contender:
    web, sink = free_port(), free_port()
    proxies = "".join(
        f'[[proxies]]\nname = "{name}"\ntype = "tcp"\nlocalIP = "127.0.0.1"\nlocalPort = {port}\n'
        f"remotePort = {remote}\n"
        for name, port, remote in (("web", backend.web, web), ("sink", backend.sink, sink))
    )
    hub, agent = await _start_frp(processes, folder, "frp-tcp", "", proxies)
    return await _relayed("frp-tcp", folder, web, sink, hub, agent)


async def _start_frp(processes: Processes, folder: Path, name: str, hub_extra: str, proxies: str) -> tuple[int, int]:
    port, token = free_port(), secrets.token_hex(16)
    common = f'log.level = "warn"\nauth.token = "{token}"\n'
    hub_config, agent_config = folder / f"{name}-frps.toml", folder / f"{name}-frpc.toml"
    hub_config.write_text(
        f'bindAddr = "127.0.0.1"\nproxyBindAddr = "127.0.0.1"\nbindPort = {port}\n{hub_extra}{common}'
    )
    agent_config.write_text(f'serverAddr = "127.0.0.1"\nserverPort = {port}\n{common}{proxies}')
    hub = await processes.start(f"{name}-frps", [tool("frp", "frps"), "-c", str(hub_config)], port=port)
    agent = await processes.start(f"{name}-frpc", [tool("frp", "frpc"), "-c", str(agent_config)])
    return hub.pid, agent.pid


async def start_chisel(processes: Processes, backend: Backend, folder: Path) -> Contender:
    port, web, sink = free_port(), free_port(), free_port()
    login = {"AUTH": f"bench:{secrets.token_hex(16)}"}
    program = tool("chisel", "chisel")
    hub = await processes.start(
        "chisel-server",
        [program, "server", "--host", "127.0.0.1", "--port", str(port), "--reverse"],
        port=port,
        env=login,
    )
    agent = await processes.start(
        "chisel-client",
        [
            *(program, "client", f"http://127.0.0.1:{port}"),
            f"R:127.0.0.1:{web}:127.0.0.1:{backend.web}",
            f"R:127.0.0.1:{sink}:127.0.0.1:{backend.sink}",
        ],
        env=login,
    )
    return await _relayed("chisel", folder, web, sink, hub.pid, agent.pid)


async def start_rathole(processes: Processes, backend: Backend, folder: Path) -> Contender:
    port, web, sink, token = free_port(), free_port(), free_port(), secrets.token_hex(16)
    hub_config, agent_config = folder / "rathole-server.toml", folder / "rathole-client.toml"
    hub_config.write_text(
        f'[server]\nbind_addr = "127.0.0.1:{port}"\ndefault_token = "{token}"\n'
        f'[server.services.web]\nbind_addr = "127.0.0.1:{web}"\n'
        f'[server.services.sink]\nbind_addr = "127.0.0.1:{sink}"\n'
    )
    agent_config.write_text(
        f'[client]\nremote_addr = "127.0.0.1:{port}"\ndefault_token = "{token}"\n'
        f'[client.services.web]\nlocal_addr = "127.0.0.1:{backend.web}"\n'
        f'[client.services.sink]\nlocal_addr = "127.0.0.1:{backend.sink}"\n'
    )
    program, quiet = tool("rathole", "rathole"), {"RUST_LOG": "warn"}
    hub = await processes.start("rathole-server", [program, "--server", str(hub_config)], port=port, env=quiet)
    agent = await processes.start("rathole-client", [program, "--client", str(agent_config)], env=quiet)
    return await _relayed("rathole", folder, web, sink, hub.pid, agent.pid)


async def start_piko(processes: Processes, backend: Backend, folder: Path) -> Contender:
    """piko: routes HTTP by an endpoint header. Its usage reports are off: a benchmark talks to loopback only."""
    proxy, upstream, admin, gossip = (free_port() for _ in range(4))
    program = tool("piko", "piko")
    hub = await processes.start(
        "piko-server",
        [
            *(program, "server", "--usage.disable", "--log.level", "warn", "--proxy.access-log=false"),
            *("--proxy.bind-addr", f"127.0.0.1:{proxy}", "--upstream.bind-addr", f"127.0.0.1:{upstream}"),
            *("--admin.bind-addr", f"127.0.0.1:{admin}", "--cluster.gossip.bind-addr", f"127.0.0.1:{gossip}"),
        ],
        port=proxy,
    )
    pids = []
    for name, port in (("web", backend.web), ("sink", backend.sink)):
        agent = await processes.start(
            f"piko-agent-{name}",
            [
                *(program, "agent", "http", name, f"127.0.0.1:{port}", "--access-log=false", "--log.level", "warn"),
                *("--connect.url", f"http://127.0.0.1:{upstream}"),
            ],
        )
        pids.append(agent.pid)
    url = f"http://127.0.0.1:{proxy}"
    return Contender(
        name="piko",
        web=Target.with_headers(url, folder / "piko-web.headers", {"X-Piko-Endpoint": "web"}),
        sink=Target.with_headers(url, folder / "piko-sink.headers", {"X-Piko-Endpoint": "sink"}),
        hub_pids=(hub.pid,),
        agent_pids=tuple(pids),
    )


async def _relayed(name: str, folder: Path, web: int, sink: int, hub: int, agent: int) -> Contender:
    for port in (web, sink):
        await wait_listening(port)
    return Contender(
        name=name,
        web=Target.with_headers(f"http://127.0.0.1:{web}", folder / f"{name}-web.headers", {}),
        sink=Target.with_headers(f"http://127.0.0.1:{sink}", folder / f"{name}-sink.headers", {}),
        hub_pids=(hub,),
        agent_pids=(agent,),
    )

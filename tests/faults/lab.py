"""A small network on one machine: named nodes, each a network namespace, joined by a switch in a namespace of its own.

    with Lab("hub", "sat-1", "sat-2") as lab:
        server = lab["hub"].start(["python", "-m", "http.server"])
        lab.cut("sat-1")          # the cable is pulled
        lab.silence("sat-1")      # packets vanish, links stay up: half-open
        lab.partition("hub", "sat-2")
        lab.loss("sat-1", 0.2)
        lab.heal("sat-1")

Nothing of the machine's own network is touched, so labs can run side by side. Delay is in `delay.py`, by a relay:
not every kernel has netem.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, TypeVar

from tests.faults import namespaces
from tests.faults.namespaces import LabError, run

__all__ = ["Lab", "LabError", "Node"]

_T = TypeVar("_T")
_NETWORK = ipaddress.ip_network("10.99.0.0/24")


class Node:
    """One namespace with one address."""

    def __init__(self, name: str, namespace: str, address: str) -> None:
        self.name = name
        self.namespace = namespace
        self.address = address
        self._processes: list[subprocess.Popen[bytes]] = []

    def argv(self, command: Sequence[str]) -> list[str]:
        """The command as it must be run to be in this node. nsenter execs, so the pid is the program's own."""
        return ["nsenter", f"--net=/run/netns/{self.namespace}", "--", *command]

    def start(
        self,
        command: Sequence[str],
        *,
        output: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program in this node; the lab ends it. Its output goes to a file, or nowhere."""
        with contextlib.ExitStack() as stack:
            sink: IO[bytes] | int = stack.enter_context(output.open("ab")) if output else subprocess.DEVNULL
            process = subprocess.Popen(
                self.argv(["setpriv", "--pdeathsig", "KILL", "--", *command]),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=dict(env) if env is not None else None,
            )
        self._processes.append(process)
        return process

    def run(self, *command: str) -> str:
        """Run a program in this node to its end; its stdout. A non-zero exit is a LabError."""
        return run(*self.argv(command))

    def inside(self, call: Callable[[], _T]) -> _T:
        """Call a function in this node; a socket it returns keeps belonging here."""
        return namespaces.inside(self.namespace, call)

    def listen(self, port: int = 0) -> socket.socket:
        """A TCP listener on the node's address."""
        return self.inside(lambda: socket.create_server((self.address, port)))

    def connect(self, address: tuple[str, int], *, timeout: float = 5.0) -> socket.socket:
        """A TCP connection that leaves from this node."""
        return self.inside(lambda: socket.create_connection(address, timeout))

    def end(self) -> None:
        namespaces.end_processes([process.pid for process in self._processes if process.poll() is None])
        for process in self._processes:
            process.wait()
        namespaces.delete(self.namespace)


class Lab:
    """See the module. Needs root: `namespaces.unavailable()` says whether it can work here."""

    def __init__(self, *nodes: str) -> None:
        prefix = namespaces.unique_prefix()
        self._switch = f"{prefix}switch"
        hosts = map(str, _NETWORK.hosts())
        self._nodes = {name: Node(name, prefix + name, address) for name, address in zip(nodes, hosts, strict=False)}

    def __enter__(self) -> Lab:
        namespaces.sweep()
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getitem__(self, node: str) -> Node:
        return self._nodes[node]

    def close(self) -> None:
        """End every process of the lab and delete its namespaces; links go with them."""
        for node in self._nodes.values():
            node.end()
        namespaces.delete(self._switch)

    def _build(self) -> None:
        namespaces.create(self._switch)
        run("ip", "-n", self._switch, "link", "add", "switch", "type", "bridge")
        run("ip", "-n", self._switch, "link", "set", "switch", "up")
        for number, node in enumerate(self._nodes.values()):
            port = self._port(node.name)
            namespaces.create(node.namespace)
            run(
                *("ip", "-n", self._switch, "link", "add", port, "type", "veth"),
                *("peer", "name", "eth0", "netns", node.namespace),
            )
            run("ip", "-n", self._switch, "link", "set", port, "master", "switch", "up")
            run("ip", "-n", node.namespace, "addr", "add", f"{node.address}/{_NETWORK.prefixlen}", "dev", "eth0")
            # A fixed MAC: a node must be found again at once after a cut, without waiting for ARP to age.
            run("ip", "-n", node.namespace, "link", "set", "eth0", "address", f"02:00:00:00:00:{number + 1:02x}", "up")

    def _port(self, node: str) -> str:
        return f"to{list(self._nodes).index(node)}"

    def cut(self, node: str) -> None:
        """Pull the cable: the node's link goes down on both of its ends."""
        run("ip", "-n", self._switch, "link", "set", self._port(node), "down")

    def silence(self, node: str) -> None:
        """Half-open: the switch forwards nothing from or to the node, and both ends see a link that is up."""
        run("bridge", "-n", self._switch, "link", "set", "dev", self._port(node), "state", "0")

    def partition(self, one: str, other: str) -> None:
        """These two nodes stop hearing each other; they reach all others as before."""
        for receiver, sender in ((one, other), (other, one)):
            self._drop(receiver, sender)

    def loss(self, node: str, probability: float) -> None:
        """Drop a share of the packets to the node and from it, by netfilter's statistic match."""
        if not 0 < probability < 1:
            raise ValueError(f"probability must be between 0 and 1, not {probability}")
        match = ("-m", "statistic", "--mode", "random", "--probability", f"{probability:.4f}")
        for other in self._nodes:
            if other != node:
                self._drop(node, other, *match)
                self._drop(other, node, *match)

    def share_loopback(self, client: str, server: str, ports: Iterable[int]) -> None:
        """Make 127.0.0.1:port in the client's node be 127.0.0.1:port of the server's, over the wire between them.

        So a platform that was set up on one loopback can be spread over nodes as it is. It is address translation, no
        relay: one TCP connection end to end, which a fault of the network hits as it hits any.
        """
        source, target = self[client], self[server]
        for node in (source, target):
            node.run("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
        for port in map(str, ports):
            match = ("-p", "tcp", "--dport", port, "-j", "DNAT", "--to-destination")
            nat = ("iptables", "-w", "-t", "nat", "-A")
            source.run(*nat, "OUTPUT", "-d", "127.0.0.1", *match, f"{target.address}:{port}")
            target.run(*nat, "PREROUTING", "-d", target.address, *match, f"127.0.0.1:{port}")
        source.run(*("iptables", "-w", "-t", "nat", "-A", "POSTROUTING", "-o", "eth0"), "-j", "MASQUERADE")

    def heal(self, node: str) -> None:
        """Undo every fault of this node. Its link is up and forwarding when this returns."""
        namespace = self[node].namespace
        run("ip", "-n", self._switch, "link", "set", self._port(node), "up")
        run("bridge", "-n", self._switch, "link", "set", "dev", self._port(node), "state", "3")
        run("ip", "netns", "exec", namespace, "iptables", "-F", "INPUT")
        for other in self._nodes.values():
            if other.name != node:
                self._undrop(other, self[node].address)

    def _drop(self, receiver: str, sender: str, *match: str) -> None:
        # On the receiver's INPUT: a packet dropped on OUTPUT would show up as an error in the sender's socket.
        rule = ("-s", self[sender].address, *match, "-j", "DROP")
        run("ip", "netns", "exec", self[receiver].namespace, "iptables", "-w", "-A", "INPUT", *rule)

    def _undrop(self, receiver: Node, sender: str) -> None:
        rules = run("ip", "netns", "exec", receiver.namespace, "iptables", "-w", "-S", "INPUT").splitlines()
        for rule in rules:
            if rule.startswith(f"-A INPUT -s {sender}/32 "):
                run("ip", "netns", "exec", receiver.namespace, "iptables", "-w", "-D", *rule.split()[1:])

"""The lab itself, on real traffic: a fault that does nothing would make every test built on it pass."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.faults import namespaces
from tests.faults.delay import DelayRelay
from tests.faults.lab import Lab, LabError

pytestmark = pytest.mark.netns
_ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab("hub", "sat-1", "sat-2") as running:
        yield running


@pytest.fixture
def echo(lab: Lab) -> Iterator[tuple[str, int]]:
    """Address of a TCP echo server in the hub's node."""
    with lab["hub"].listen() as listener:
        threading.Thread(target=_echo_all, args=(listener,), daemon=True).start()
        yield listener.getsockname()
        # A listener that is only closed leaves its accept() waiting for ever.
        listener.shutdown(socket.SHUT_RDWR)


def _echo_all(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_echo, args=(connection,), daemon=True).start()


def _echo(connection: socket.socket) -> None:
    with closing(connection):
        try:
            while data := connection.recv(65536):
                connection.sendall(data)
        except OSError:
            return


def _exchange(connection: socket.socket, payload: bytes = b"ping") -> float:
    """Seconds for one echo; TimeoutError when it does not come within the socket's timeout."""
    started = time.monotonic()
    connection.sendall(payload)
    got = b""
    while len(got) < len(payload):
        got += connection.recv(65536)
    assert got == payload
    return time.monotonic() - started


def _heard_again(connection: socket.socket, *, seconds: float) -> bytes:
    """What arrives once the network is back; TCP retransmits by itself."""
    connection.settimeout(seconds)
    return connection.recv(65536)


def test_nodes_reach_each_other_and_nothing_else(lab: Lab, echo: tuple[str, int]) -> None:
    with lab["sat-1"].connect(echo) as connection:
        _exchange(connection)
    with pytest.raises(OSError, match="unreachable"):
        lab["sat-1"].connect(("192.0.2.1", 80))


def test_a_server_in_a_node_is_not_reachable_from_the_machine(echo: tuple[str, int]) -> None:
    with pytest.raises(OSError, match=r"timed out|unreachable|refused"):
        socket.create_connection(echo, timeout=0.5).close()


def test_a_cut_link_stops_an_open_connection_and_healing_brings_its_bytes(lab: Lab, echo: tuple[str, int]) -> None:
    with lab["sat-1"].connect(echo, timeout=0.5) as connection, lab["sat-2"].connect(echo) as bystander:
        _exchange(connection)
        lab.cut("sat-1")
        with pytest.raises(TimeoutError):
            _exchange(connection)
        _exchange(bystander)
        lab.heal("sat-1")
        assert _heard_again(connection, seconds=10) == b"ping"


def test_a_cut_link_is_seen_as_down_by_the_node(lab: Lab) -> None:
    assert "LOWER_UP" in lab["sat-1"].run("ip", "link", "show", "eth0")
    lab.cut("sat-1")
    assert "NO-CARRIER" in lab["sat-1"].run("ip", "link", "show", "eth0")


def test_a_silenced_node_is_half_open_with_its_link_up(lab: Lab, echo: tuple[str, int]) -> None:
    with lab["sat-1"].connect(echo, timeout=0.5) as connection:
        _exchange(connection)
        lab.silence("sat-1")
        with pytest.raises(TimeoutError):
            _exchange(connection)
        assert "LOWER_UP" in lab["sat-1"].run("ip", "link", "show", "eth0")
        lab.heal("sat-1")
        assert _heard_again(connection, seconds=10) == b"ping"


def test_a_partition_separates_two_nodes_only(lab: Lab, echo: tuple[str, int]) -> None:
    lab.partition("hub", "sat-1")
    with pytest.raises(TimeoutError):
        lab["sat-1"].connect(echo, timeout=0.5)
    with lab["sat-2"].connect(echo) as connection:
        _exchange(connection)
    with lab["sat-1"].listen() as listener, lab["sat-2"].connect(listener.getsockname()):
        listener.accept()[0].close()
    lab.heal("sat-1")
    with lab["sat-1"].connect(echo) as connection:
        _exchange(connection)


def test_loss_drops_about_the_share_asked_for_and_heals(lab: Lab) -> None:
    sent = 400
    assert _datagrams_received(lab, sent) == sent
    lab.loss("sat-1", 0.25)
    # 400 draws at 0.75: 300 expected, standard deviation 8.7; ten of them each way make a false alarm unthinkable.
    assert 213 < _datagrams_received(lab, sent) < 387
    lab.heal("sat-1")
    assert _datagrams_received(lab, sent) == sent


def test_loss_also_applies_to_what_the_node_sends(lab: Lab) -> None:
    lab.loss("sat-1", 0.25)
    assert 213 < _datagrams_received(lab, 400, sender="sat-1", receiver="hub") < 387


def _datagrams_received(lab: Lab, sent: int, *, sender: str = "hub", receiver: str = "sat-1") -> int:
    def bound() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        made.bind((lab[receiver].address, 0))
        made.settimeout(0.3)
        return made

    def unbound() -> socket.socket:
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    received = 0
    with lab[receiver].inside(bound) as target, lab[sender].inside(unbound) as source:
        for number in range(sent):
            source.sendto(number.to_bytes(2, "big"), target.getsockname())
        while received < sent:
            try:
                target.recv(16)
            except TimeoutError:
                break
            received += 1
    return received


@pytest.mark.parametrize("probability", [0.0, 1.0, -0.1, 2.0])
def test_a_loss_that_is_no_loss_or_a_cut_is_refused(lab: Lab, probability: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        lab.loss("sat-1", probability)


def test_a_delay_relay_adds_its_time_to_a_round_trip_and_can_be_cleared(lab: Lab, echo: tuple[str, int]) -> None:
    relay = DelayRelay(lab["sat-2"], echo, port=7000)
    with lab["sat-1"].connect(relay.address) as connection:
        assert _exchange(connection) < 0.08
        relay.delay(60)
        assert 0.12 <= _exchange(connection) < 0.5
        relay.clear()
        assert _exchange(connection) < 0.08


def test_a_loopback_port_can_be_shared_and_faults_still_hit_it(lab: Lab) -> None:
    with lab["hub"].inside(lambda: socket.create_server(("127.0.0.1", 0))) as listener:
        threading.Thread(target=_echo_all, args=(listener,), daemon=True).start()
        lab.share_loopback("sat-1", "hub", [listener.getsockname()[1]])
        with lab["sat-1"].connect(listener.getsockname(), timeout=0.5) as connection:
            _exchange(connection)
            lab.silence("sat-1")
            with pytest.raises(TimeoutError):
                _exchange(connection)
            lab.heal("sat-1")
            assert _heard_again(connection, seconds=10) == b"ping"
        with pytest.raises(ConnectionRefusedError):
            lab["sat-2"].connect(listener.getsockname())
        listener.shutdown(socket.SHUT_RDWR)


def test_a_program_started_in_a_node_sees_only_that_network(lab: Lab) -> None:
    assert f"inet {lab['sat-2'].address}/" in lab["sat-2"].run("ip", "addr")
    with pytest.raises(LabError, match="No such file"):
        lab["sat-2"].run("no-such-program")


def test_leaving_the_lab_ends_its_programs_and_namespaces_even_daemons() -> None:
    before = namespaces.names()
    with Lab("hub") as lab:
        program = lab["hub"].start(["sleep", "1000"])
        # Re-parented to init, as a program that daemonises is.
        daemon = int(lab["hub"].run("sh", "-c", "sleep 1001 >/dev/null 2>&1 & echo $!"))
        assert len(namespaces.names()) == len(before) + 2
        assert set(namespaces.pids_in(lab["hub"].namespace)) == {program.pid, daemon}
    assert namespaces.names() == before
    assert program.returncode == -signal.SIGTERM
    assert not namespaces.runs(daemon)


def test_a_lab_that_cannot_be_built_leaves_nothing() -> None:
    before = namespaces.names()
    with pytest.raises(LabError), Lab("hub", "no/such/name"):
        pass
    assert namespaces.names() == before


def test_the_next_lab_sweeps_what_a_killed_process_left() -> None:
    script = (
        "import sys, time; from tests.faults.lab import Lab\n"
        "lab = Lab('hub').__enter__()\n"
        "print(lab['hub'].namespace, lab['hub'].run('sh', '-c', 'sleep 1002 >/dev/null 2>&1 & echo $!'), flush=True)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=_ROOT, text=True) as owner:
        assert owner.stdout is not None
        namespace, daemon = owner.stdout.readline().split()
        assert namespaces.sweep() == []
        assert namespace in namespaces.names()
        owner.kill()
    with Lab("hub"):
        assert namespace not in namespaces.names()
    assert not namespaces.runs(int(daemon))

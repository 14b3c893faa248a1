"""The exports file: what it means, and what is said when it is wrong."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from platformctl.errors import ConfigError
from platformctl.routing.spec import Limits, ServiceSpec, Timeouts
from platformctl.satellite.exports import (
    Backend,
    BackendTrust,
    ExportsFile,
    HealthCheck,
    diff,
    parse_exports,
)

FULL = """
services:
  - name: api
    to: https://api.internal/base/
    kind: mcp
    labels: {tier: premium}
    lane: bulk
    health: {type: http, path: "/healthz?full=1", interval: 500ms, timeout: 1s, healthy_threshold: 1,
             unhealthy_threshold: 5}
    timeouts: {connect: 2s, response: 1m, idle: 1h, head: 5}
    limits: {concurrency: 10, queue: 20, queue_timeout: 250ms, connections: 7}
    tls: {ca_file: ca.pem, pin: "sha256:%s", server_name: api}
""" % ("AB" * 32)


def one(entry: str) -> str:
    return f"services:\n  - {entry}\n"


def refusal(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse_exports(text, "exports.yaml")
    return caught.value


def test_everything_that_can_be_said_is_understood() -> None:
    export = parse_exports(FULL)["api"]

    assert export.backend == Backend("https", "api.internal", 443, "/base")
    assert export.spec == ServiceSpec(
        "api",
        "mcp",
        Timeouts(connect=2.0, response=60.0, idle=3600.0, head=5.0),
        Limits(concurrency=10, queue=20, queue_timeout=0.25),
        {"tier": "premium"},
        "bulk",
    )
    assert export.health == HealthCheck("http", "/healthz?full=1", 0.5, 1.0, 1, 5)
    assert export.trust == BackendTrust("ca.pem", "sha256:" + "AB" * 32, "api")
    assert export.connections == 7


def test_a_name_and_an_address_are_enough() -> None:
    export = parse_exports(one("{name: web, to: 'http://127.0.0.1:8080'}"))["web"]

    assert export.backend == Backend("http", "127.0.0.1", 8080, "")
    assert export.spec == ServiceSpec("web")
    assert export.health == HealthCheck(type="tcp")
    assert export.trust == BackendTrust()


@pytest.mark.parametrize(
    ("to", "backend", "text"),
    [
        ("http://h", Backend("http", "h", 80), "http://h:80"),
        ("https://h/", Backend("https", "h", 443), "https://h:443"),
        ("http://[::1]:81/a/b", Backend("http", "::1", 81, "/a/b"), "http://[::1]:81/a/b"),
        ("tcp://db:5432", Backend("tcp", "db", 5432), "tcp://db:5432"),
    ],
)
def test_addresses_are_read_and_written(to: str, backend: Backend, text: str) -> None:
    found = parse_exports(one(f"{{name: x, to: '{to}'}}"))["x"]

    assert found.backend == backend
    assert str(found.backend) == text


def test_a_tcp_address_makes_a_tcp_service() -> None:
    assert parse_exports(one("{name: db, to: 'tcp://db:5432'}"))["db"].spec.kind == "tcp"


@pytest.mark.parametrize("text", ["", "services:\n", "services: []\n"])
def test_no_services_export_nothing(text: str) -> None:
    assert parse_exports(text) == {}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{name: x}", "services[0]: needs 'to'"),
        ("{name: X_Y, to: 'http://h:1'}", "services[0].name: 'X_Y' does not have the form"),
        ("{name: x, to: 'ftp://h:1'}", "services[0].to: 'ftp://h:1' does not have the form"),
        ("{name: x, to: 'tcp://h'}", "services[0].to: needs a port"),
        ("{name: x, to: 'tcp://h:0'}", "services[0].to: needs a port"),
        ("{name: x, to: 'tcp://h:1/p'}", "services[0].to: a tcp:// backend has no path"),
        ("{name: x, to: 'http://h:99999'}", "services[0].to: is not an address"),
        ("{name: x, to: 'http://h:1/?q'}", "services[0].to: needs a host, and takes no query"),
        ("{name: x, to: 'http://h:1/a b'}", "services[0].to: needs a host, and takes no query"),
        ("{name: x, to: 'http://:1'}", "services[0].to: needs a host"),
        ("{name: x, to: 'http://h:1', kind: tcp}", "services[0].kind: must be one of http, mcp for a http:// backend"),
        ("{name: x, to: 'tcp://h:1', kind: http}", "services[0].kind: must be one of tcp for a tcp:// backend"),
        ("{name: x, to: 'tcp://h:1', kind: udp}", "services[0].kind: must be one of http, tcp, mcp, not 'udp'"),
        ("{name: x, to: 'http://h:1', tls: {pin: 'sha256:1'}}", "services[0].tls.pin: 'sha256:1' does not have"),
        ("{name: x, to: 'http://h:1', tls: {server_name: y}}", "services[0].tls: is for https:// backends only"),
        ("{name: x, to: 'tcp://h:1', health: {type: http}}", "services[0].health.type: must be one of tcp, none"),
        ("{name: x, to: 'tcp://h:1', health: {interval: 1ms}}", "services[0].health: interval must be at least"),
        ("{name: x, to: 'tcp://h:1', health: {intervall: 1s}}", "services[0].health.intervall: unknown key; allowed"),
        ("{name: x, to: 'tcp://h:1', timeouts: {connect: 5d}}", "services[0].timeouts.connect: '5d' does not have"),
        ("{name: x, to: 'tcp://h:1', timeouts: {connect: 0}}", "services[0].timeouts.connect: must be between"),
        ("{name: x, to: 'tcp://h:1', timeouts: {idle: 48h}}", "services[0].timeouts.idle: must be between"),
        ("{name: x, to: 'tcp://h:1', limits: {connections: 0}}", "services[0].limits.connections: 0 is less than"),
        ("{name: x, to: 'tcp://h:1', labels: {'a b': c}}", 'services[0].labels: "a b" is not a label key'),
        ("{name: x, to: 'tcp://h:1', labels: {a: '-'}}", 'services[0].labels.a: "-" is not a label value'),
        ("{name: x, to: 'tcp://h:1', lane: fast}", "services[0].lane: must be one of default, bulk, not 'fast'"),
    ],
)
def test_a_mistake_is_named_with_file_line_and_key(entry: str, message: str) -> None:
    assert str(refusal(one(entry))).startswith(f"exports.yaml:2: {message}")


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    error = refusal(one("{name: x, to: 'http://user:hunter2@h:1'}"))

    assert "must not carry a user name or password" in str(error)
    assert "hunter2" not in str(error) + error.hint


def test_a_name_that_comes_twice_is_refused_at_its_second_line() -> None:
    text = "services:\n  - {name: a, to: 'tcp://h:1'}\n  - {name: a, to: 'tcp://h:2'}\n"

    assert str(refusal(text)) == "exports.yaml:3: services[1].name: the service 'a' is listed twice"


def test_the_difference_of_two_files() -> None:
    entries = "services:\n" + "".join(
        f"  - {{{{name: {name}, to: 'tcp://h:{port}'}}}}\n" for name, port in (("same", 1), ("moved", "{}"), ("{}", 4))
    )
    old, new = parse_exports(entries.format(2, "gone")), parse_exports(entries.format(3, "new"))

    changed, removed = diff(old, new)

    assert [e.name for e in changed] == ["moved", "new"]
    assert removed == ["gone"]
    assert diff(new, new) == ([], [])


def test_a_file_that_does_not_exist_exports_nothing(tmp_path: Path) -> None:
    file = ExportsFile(tmp_path / "exports.yaml")

    assert file.reload() == ([], [])
    assert file.error is None


def test_a_broken_file_keeps_the_former_exports_until_it_is_mended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "exports.yaml"
    path.write_text(one("{name: a, to: 'tcp://h:1'}"))
    file = ExportsFile(path)
    changed, _ = file.reload()
    assert [e.name for e in changed] == ["a"]

    path.write_text("services: [")
    with caplog.at_level(logging.ERROR):
        assert file.reload() == ([], [])
    assert set(file.exports) == {"a"}
    assert str(file.error).startswith(f"{path}:1: not valid YAML")
    assert "former exports stay" in caplog.text

    path.write_text(one("{name: b, to: 'tcp://h:1'}"))
    changed, removed = file.reload()
    assert ([e.name for e in changed], removed) == (["b"], ["a"])
    assert file.error is None


@pytest.mark.parametrize("content", [b"\xff\xfe", None])
def test_a_file_that_cannot_be_read_is_said_to_be_so(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "exports.yaml"
    path.mkdir() if content is None else path.write_bytes(content)
    file = ExportsFile(path)

    assert file.reload() == ([], [])
    assert "cannot be read" in str(file.error)


def test_removing_the_file_removes_its_services(tmp_path: Path) -> None:
    path = tmp_path / "exports.yaml"
    path.write_text(one("{name: a, to: 'tcp://h:1'}"))
    file = ExportsFile(path)
    file.reload()
    path.unlink()

    assert file.reload() == ([], ["a"])


def test_a_relative_ca_file_counts_from_the_folder_of_the_exports_file(tmp_path: Path) -> None:
    path = tmp_path / "exports.yaml"
    path.write_text(FULL)
    file = ExportsFile(path)
    file.reload()

    assert file.exports["api"].trust.ca_file == str(tmp_path / "ca.pem")

"""The health port: liveness, readiness that names what fails, metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.openmetrics import exposition
from prometheus_client.parser import text_string_to_metric_families

from platformctl.net.health import Check, health_app

FINE: list[Check] = [("store", True, ""), ("listener", True, "")]
BROKEN: list[Check] = [
    ("store", True, ""),
    ("tunnels", False, "certificate\nexpired"),
    ("draining", False, "since 3 s"),
]


class Hub:
    def __init__(self) -> None:
        self.results: list[Check] = FINE
        self.registry = CollectorRegistry()
        Counter("requests", "Requests.", registry=self.registry).inc()
        self.metrics: Callable[[], bytes] = lambda: generate_latest(self.registry)

    def checks(self) -> list[Check]:
        return self.results


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
async def client(hub: Hub) -> AsyncIterator[httpx.AsyncClient]:
    app = health_app(hub.checks, lambda: hub.metrics(), lambda: exposition.generate_latest(hub.registry))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://hub") as opened:
        yield opened


async def test_livez_answers_even_when_nothing_is_ready(hub: Hub, client: httpx.AsyncClient) -> None:
    hub.results = BROKEN
    answer = await client.get("/livez")
    assert (answer.status_code, answer.text) == (200, "ok\n")


async def test_readyz_is_200_when_every_check_is_fine(client: httpx.AsyncClient) -> None:
    answer = await client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {"ready": True, "checks": 2, "failed": []}


async def test_readyz_is_503_and_names_the_checks_that_fail(hub: Hub, client: httpx.AsyncClient) -> None:
    hub.results = BROKEN
    answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["failed"] == [
        {"name": "tunnels", "detail": "certificate\nexpired"},
        {"name": "draining", "detail": "since 3 s"},
    ]


async def test_readyz_verbose_is_a_line_for_each_check(hub: Hub, client: httpx.AsyncClient) -> None:
    hub.results = BROKEN
    answer = await client.get("/readyz?verbose")
    assert answer.status_code == 503
    assert answer.text.splitlines() == [
        "[+]store ok",
        "[-]tunnels failed: certificate expired",
        "[-]draining failed: since 3 s",
        "readyz check failed",
    ]
    hub.results = FINE
    assert (await client.get("/readyz?verbose=1")).text.endswith("readyz check passed\n")


async def test_checks_that_raise_are_a_failed_check(hub: Hub) -> None:
    def broken() -> list[Check]:
        raise ZeroDivisionError

    app = health_app(broken, hub.metrics)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://hub") as opened:
        answer = await opened.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["failed"] == [{"name": "checks", "detail": "the checks themselves failed: ZeroDivisionError"}]


async def test_metrics_are_prometheus_text(client: httpx.AsyncClient) -> None:
    answer = await client.get("/metrics", headers={"accept": "text/plain"})
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert [family.name for family in text_string_to_metric_families(answer.text)][:1] == ["requests"]


async def test_metrics_are_openmetrics_for_a_scraper_that_asks(client: httpx.AsyncClient) -> None:
    accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2"
    answer = await client.get("/metrics", headers={"accept": accept})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")
    assert answer.headers["vary"] == "accept"


async def test_without_an_openmetrics_source_text_is_answered(hub: Hub) -> None:
    transport = httpx.ASGITransport(health_app(hub.checks, hub.metrics))
    async with httpx.AsyncClient(transport=transport, base_url="http://hub") as opened:
        answer = await opened.get("/metrics", headers={"accept": "application/openmetrics-text"})
    assert answer.headers["content-type"].startswith("text/plain")


async def test_a_failing_collector_is_a_500_without_its_text(hub: Hub, client: httpx.AsyncClient) -> None:
    def broken() -> bytes:
        raise ValueError("secret")

    hub.metrics = broken
    answer = await client.get("/metrics")
    assert answer.status_code == 500
    assert answer.text == "metrics could not be collected: ValueError\n"


async def test_other_paths_and_methods_are_refused(client: httpx.AsyncClient) -> None:
    assert (await client.get("/")).status_code == 404
    answer = await client.post("/livez")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


async def test_head_has_the_length_and_no_body(client: httpx.AsyncClient) -> None:
    answer = await client.head("/livez")
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "3")


async def test_lifespan_is_acknowledged(hub: Hub) -> None:
    incoming = iter(["lifespan.startup", "lifespan.shutdown"])
    said: list[str] = []

    async def receive() -> dict[str, str]:
        return {"type": next(incoming)}

    async def send(message: object) -> None:
        assert isinstance(message, dict)
        said.append(message["type"])

    await health_app(hub.checks, hub.metrics)({"type": "lifespan"}, receive, send)
    assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]

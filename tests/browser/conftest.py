"""A hub's API and console behind a real server, with a policy and a store, and a real Chromium to look at it."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.wait import WebDriverWait
from starlette.types import ASGIApp, Receive, Scope, Send

from platformctl.access.identity import ANONYMOUS, Identity
from platformctl.access.policy import Policy
from platformctl.access.policy_file import load_policy
from platformctl.hub.api import ReplicaView, SatelliteView, ServiceView, TunnelView, VersionView, create_api
from platformctl.hub.console import console_app
from platformctl.hub.store import Store
from platformctl.hub.store_sqlite import SQLiteStore
from platformctl.net.problem import problem

ADMIN_TOKEN = "ct-admin.secret"
VIEWER_TOKEN = "ct-viewer.secret"
POLICY = """
apiVersion: platformctl.io/v1alpha1
kind: AccessPolicy
metadata:
  name: test
rules:
  - name: admins
    subjects: ["group:admins"]
    satellites: [hub]
    services: [api]
  - name: viewers
    subjects: ["token:viewer"]
    satellites: [hub]
    services: [api]
    methods: [GET]
    paths: ["/api/v1/satellites", "/api/v1/whoami", "/api/v1/version", "/api/v1/services", "/api/v1/tunnels",
            "/api/v1/replicas"]
"""


@dataclass
class FakeHub:
    """A HubView whose snapshots a test sets."""

    store: Store
    satellite_views: list[SatelliteView] = field(default_factory=list)
    service_views: list[ServiceView] = field(default_factory=list)
    tunnel_views: list[TunnelView] = field(default_factory=list)
    replica_views: list[ReplicaView] = field(default_factory=list)

    def satellites(self) -> list[SatelliteView]:
        return self.satellite_views

    def services(self) -> list[ServiceView]:
        return self.service_views

    def tunnels(self) -> list[TunnelView]:
        return self.tunnel_views

    def replicas(self) -> list[ReplicaView]:
        return self.replica_views

    def version(self) -> VersionView:
        return VersionView("0.1.0", "hub-0", (1,))

    def ca_pin(self) -> str:
        return "sha256:" + "0a" * 32

    def join_url(self) -> str:
        return "https://hub.example:7443"

    def now(self) -> float:
        return time.time()


class Front:
    """What the hub's ingress does before the API: identity, grant and request id; 401 for a wrong token."""

    def __init__(self, hub: FakeHub, policy: Policy) -> None:
        self.identities = {
            ADMIN_TOKEN: Identity("token", "admin", frozenset({"admins"})),
            VIEWER_TOKEN: Identity("token", "viewer"),
        }
        self.broken = False
        self._policy = policy
        self._api: ASGIApp = create_api(hub)
        self._console: ASGIApp = console_app()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state: dict[str, Any] = {"request_id": "req-1"}
        if scope["path"].startswith("/console"):
            await self._console({**scope, "state": state}, receive, send)
            return
        text = dict(scope["headers"]).get(b"authorization", b"").decode().removeprefix("Bearer ")
        identity = self.identities.get(text) if text else ANONYMOUS
        if self.broken or identity is None:
            answer = (503, "draining") if self.broken else (401, "unauthenticated")
            status, headers, body = problem(*answer, "the token is unknown" if identity is None else "bye")
            encoded = [(name.encode(), value.encode()) for name, value in headers]
            await send({"type": "http.response.start", "status": status, "headers": encoded})
            await send({"type": "http.response.body", "body": body})
            return
        state |= {"identity": identity, "grant": self._policy.grant(identity, "hub", {}, "api")}
        await self._api({**scope, "state": state}, receive, send)


@dataclass
class Served:
    url: str
    hub: FakeHub
    front: Front


def serve(front: Front) -> tuple[uvicorn.Server, threading.Thread, str]:
    """Start the server in a thread; returns when it listens."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(front, lifespan="off", log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    # The socket listens already: a browser that comes too early waits in its backlog.
    return server, thread, f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with SQLiteStore(tmp_path / "hub.db") as store:
        hub = FakeHub(store)
        front = Front(hub, load_policy([("policy.yaml", POLICY)]))
        server, thread, url = serve(front)
        try:
            yield Served(url, hub, front)
        finally:
            server.should_exit = True
            thread.join()


def start_chromium(profile: Path) -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={profile}",
        "--window-size=1360,900",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver") or "chromedriver"))


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    assert shutil.which("chromium"), "the browser tests need chromium: run tools/test-deps.sh"
    assert shutil.which("chromedriver"), "the browser tests need chromedriver: run tools/test-deps.sh"
    driver = start_chromium(tmp_path_factory.mktemp("profile"))
    try:
        yield driver
    finally:
        driver.quit()


Until = Callable[[Callable[[webdriver.Chrome], object]], object]


@pytest.fixture
def browser(chromium: webdriver.Chrome, served: Served) -> Iterator[webdriver.Chrome]:
    """A tab without history at the console's address: nothing in its storage, nothing in its log."""
    chromium.switch_to.new_window("tab")
    chromium.get_log("browser")
    chromium.get(f"{served.url}/console/")
    yield chromium
    chromium.close()
    chromium.switch_to.window(chromium.window_handles[0])


@pytest.fixture
def until(browser: webdriver.Chrome) -> Until:
    """Wait for a condition of the page, looking often."""
    return WebDriverWait(browser, 10, poll_frequency=0.05).until

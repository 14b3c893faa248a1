"""The console's files: complete, typed, cached by tag, and under a policy that lets nothing else in."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import httpx
import pytest

from platformctl.hub.console import console_app

FILES = ["", "console.css", "icon.svg", "app.js", "api.js", "dom.js", "tables.js", "tokens.js"]


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(console_app())
    async with httpx.AsyncClient(transport=transport, base_url="https://hub") as opened:
        yield opened


@pytest.mark.parametrize("name", FILES)
async def test_every_file_is_served_under_the_policy(client: httpx.AsyncClient, name: str) -> None:
    answer = await client.get(f"/console/{name}")
    assert answer.status_code == 200
    directives = answer.headers["content-security-policy"].split("; ")
    assert "default-src 'none'" in directives
    assert "script-src 'self'" in directives
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    tag = answer.headers["etag"]
    again = await client.get(f"/console/{name}", headers={"if-none-match": tag})
    assert (again.status_code, again.content) == (304, b"")


async def test_content_types_are_what_browsers_insist_on(client: httpx.AsyncClient) -> None:
    types = {name: (await client.get(f"/console/{name}")).headers["content-type"] for name in FILES}
    assert types[""].startswith("text/html")
    assert types["console.css"].startswith("text/css")
    assert {types[name] for name in FILES if name.endswith(".js")} == {"text/javascript; charset=utf-8"}


async def test_what_the_page_and_its_scripts_load_is_served_from_here(client: httpx.AsyncClient) -> None:
    wanted: set[str] = set()
    for name in FILES:
        text = (await client.get(f"/console/{name}")).text
        wanted |= set(re.findall(r'(?:src|href)="([^"#]+)"', text)) | set(re.findall(r'from "\./([^"]+)"', text))
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)[a-z]", text.replace("http://host:port", ""))
    assert wanted == {name for name in FILES if name}


async def test_no_script_makes_html_out_of_text(client: httpx.AsyncClient) -> None:
    for name in FILES:
        text = (await client.get(f"/console/{name}")).text
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)
        assert not re.search(r"<[^>]+\son[a-z]+=|<script(?![^>]*\ssrc=)|<style|\sstyle=", text)


async def test_the_bare_path_redirects_below_whatever_prefix_it_was_asked_for(client: httpx.AsyncClient) -> None:
    answer = await client.get("/console")
    assert (answer.status_code, answer.headers["location"]) == (308, "console/")


@pytest.mark.parametrize("path", ["/console/__init__.py", "/console/../api.js", "/console/%2e%2e/app.js", "/console//"])
async def test_nothing_but_the_files_is_served(client: httpx.AsyncClient, path: str) -> None:
    request = client.build_request("GET", "https://hub/")
    request.url = httpx.URL(f"https://hub{path}")
    answer = await client.send(request)
    assert (answer.status_code, answer.json()["code"]) == (404, "path-unknown")


async def test_the_console_is_only_read(client: httpx.AsyncClient) -> None:
    answer = await client.post("/console/")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    head = await client.head("/console/")
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) > 1000

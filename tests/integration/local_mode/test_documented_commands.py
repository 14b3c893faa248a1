"""The commands of README and docs/guide, run as they stand there.

A block ```sh run is run; a block ```text after it is what it must print: these lines, in this order, among others. `…`
stands for anything, and so does the number of spaces. All blocks of a page run in one shell, in a folder and home of
their own; its ports are replaced by free ones.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.local_mode.conftest import ROOT, mentioning

pytestmark = pytest.mark.integration

FENCE = re.compile(r"^```(sh run|text)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PORTS = re.compile(r"\b(8000|6379|6380)\b")
DONE = "--- end of block"
PAGES = [
    page
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if "```sh run" in page.read_text(encoding="utf-8")
]


def blocks(text: str) -> list[tuple[str, str]]:
    """(commands, what they print or "") of each block that is run."""
    found: list[tuple[str, str]] = []
    for kind, body in FENCE.findall(text):
        if kind == "sh run":
            found.append((body, ""))
        elif found:
            found[-1] = (found[-1][0], body)
    return found


def free_ports() -> dict[str, str]:
    with socket.socket() as one, socket.socket() as two, socket.socket() as three:
        listeners = (one, two, three)
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        ports = [str(listener.getsockname()[1]) for listener in listeners]
    return dict(zip(("8000", "6379", "6380"), ports, strict=True))


def pattern(line: str) -> str:
    """A regular expression for one expected line."""
    words = [re.escape(part).replace(r"\ ", " ") for part in line.split("…")]
    return re.sub(" +", r"\\s+", ".*".join(words).strip())


def assert_printed(expected: str, printed: str) -> None:
    rest = printed
    for line in filter(str.strip, expected.splitlines()):
        found = re.search(pattern(line), rest)
        assert found, f"not printed, or not in this order: {line}\n--- printed:\n{printed}"
        rest = rest[found.end() :]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty home with `platformctl` on the path."""
    program = tmp_path / "bin" / "platformctl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m platformctl "$@"\n')
    program.chmod(0o755)
    return tmp_path


def run_page(home: Path, script: str) -> tuple[int, str]:
    """Exit code and output of a page's shell; what it left in the background is ended."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PLATFORMCTL_", "XDG_"))}
    variables = {"HOME": str(home), "PATH": f"{home / 'bin'}:{kept['PATH']}", "PYTHONPATH": str(ROOT), "COLUMNS": "400"}
    log = home / "output.txt"
    with log.open("wb") as output:
        shell = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-m", "-c", script],
            cwd=home,
            env={**kept, **variables},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        code = shell.wait(timeout=55)
    return code, log.read_text(encoding="utf-8")


# `set -m` (job control) gives each background job a group of its own, which `jobs -p` names.
LEAVE = "trap 'for job in $(jobs -p); do kill -- -$job; done 2>/dev/null || true' EXIT\n"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_work_and_print_what_it_says(page: Path, home: Path) -> None:
    assert shutil.which("redis-server"), "the documents use redis: run tools/test-deps.sh"
    ports = free_ports()
    text = PORTS.sub(lambda port: ports[port[0]], page.read_text(encoding="utf-8"))
    ran = blocks(text)
    script = LEAVE + "".join(f"{commands}echo '{DONE}'\n" for commands, _ in ran)
    try:
        code, printed = run_page(home, script)
        assert code == 0, printed
        for (_, expected), part in zip(ran, printed.split(DONE), strict=False):
            assert_printed(expected, part)
        assert [line for line in mentioning(home) if "platformctl" in line] == []
    finally:
        end(home)


def end(home: Path) -> None:
    """Stop what a page that failed left behind: processes that have its folder in their command line."""
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(home).encode() in line.read_bytes():
                os.kill(int(line.parent.name), signal.SIGKILL)
        except (OSError, ValueError):
            continue


def test_the_documents_have_commands_to_run() -> None:
    assert {page.name for page in PAGES} >= {"README.md", "local-mode.md", "exports.md", "addressing.md"}
    shown = [block for page in PAGES for _, block in blocks(page.read_text(encoding="utf-8"))]
    assert sum(bool(text) for text in shown) >= 8


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.name)
def test_a_link_to_a_file_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target

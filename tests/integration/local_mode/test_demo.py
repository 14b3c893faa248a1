from __future__ import annotations

import re
import signal
import subprocess
import time

import pytest

from tests.integration.local_mode.conftest import Platform, mentioning

pytestmark = pytest.mark.integration


def test_the_demo_verifies_everything_and_leaves_nothing(empty: Platform) -> None:
    began = time.monotonic()
    out = empty.run("demo", "--state", str(empty.state))
    assert time.monotonic() - began < 60
    assert " 0 failed, 0 skipped" in out
    assert "verified end to end" in out
    assert not empty.state.exists()
    assert mentioning(empty.state) == []
    empty.run("demo", "--state", str(empty.state))


def test_every_line_that_the_kept_demo_prints_works(empty: Platform) -> None:
    out = empty.run("demo", "--keep", "--state", str(empty.state))
    lines = [line.strip() for line in out.splitlines() if line.startswith("  ")]
    setting = "\n".join(line for line in lines if line.startswith(("S=", "HUB=")))
    curls = [line for line in lines if line.startswith("curl ")]
    assert len(curls) == 5
    answers = {}
    for line in curls:
        done = subprocess.run(
            ["bash", "-c", f"{setting}\n{line} -sS --max-time 20 -o /dev/null -w '%{{http_code}}'"],
            capture_output=True,
            text=True,
            check=True,
        )
        answers[line] = done.stdout
    assert [code for line, code in answers.items() if "-i --cacert" in line] == ["401"]
    assert all(code == "200" for line, code in answers.items() if "-i --cacert" not in line), answers
    commands = [
        re.sub(r"^(\.venv/bin/)?platformctl ", "", line) for line in lines if re.match(r"\S*platformctl ", line)
    ]
    assert [command.split()[0] for command in commands] == ["forward", "status", "export", "down"]
    empty.run(*commands[1].replace('"$S"', str(empty.state)).split())
    empty.run(*commands[3].replace('"$S"', str(empty.state)).split())
    assert mentioning(empty.state) == []


@pytest.mark.parametrize("moment", ["hub-1 is ready", "Starting sample services", "Verifying"])
def test_ctrl_c_leaves_no_process_and_no_state(empty: Platform, moment: str) -> None:
    with empty.spawn("demo", "--state", str(empty.state)) as demo:
        assert demo.stderr is not None
        for line in demo.stderr:
            if moment in line:
                break
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=30)
    assert demo.returncode == 130
    assert mentioning(empty.state) == []
    assert not empty.state.exists()

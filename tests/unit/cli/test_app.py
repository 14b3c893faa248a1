from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
import typer

from platformctl import __version__, errors
from platformctl.cli.app import EXIT_CODES, VerbGroup, report, root_command, run
from platformctl.cli.verbs import GROUPS, VERBS
from tests.unit.cli.conftest import Cli

ERRORS = [
    kind
    for kind in vars(errors).values()
    if inspect.isclass(kind) and issubclass(kind, errors.PlatformError) and kind is not errors.PlatformError
]


def python(*code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *code],
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
        check=False,
        timeout=30,
    )


def test_help_answers_within_a_quarter_of_a_second() -> None:
    durations = []
    for _ in range(5):
        began = time.perf_counter()
        done = python("-m", "platformctl", "--help")
        durations.append(time.perf_counter() - began)
        assert done.returncode == 0
    assert min(durations) < 0.25


def test_help_imports_no_verb_and_nothing_heavy() -> None:
    done = python(
        "-c", "import sys\nfrom platformctl.cli.app import run\nrun(['--help'])\nprint(*sys.modules, file=sys.stderr)"
    )
    modules = set(done.stderr.split())
    assert not modules & {"asyncio", "ssl", "yaml", "rich.console", "cryptography", "pydantic", "uvloop", "http.client"}
    assert not modules & {verb.module for verb in VERBS.values()}


def test_help_lists_every_verb_once_under_its_heading(cli: Cli) -> None:
    lines = cli("--help").out.splitlines()
    for name, verb in VERBS.items():
        assert verb.group in GROUPS
        assert sum(bool(re.match(rf"  {name}  ", line)) for line in lines) == 1, name


def test_the_exit_codes_of_all_errors_are_in_the_help(cli: Cli) -> None:
    documented = dict(EXIT_CODES)
    assert {kind.exit_code for kind in ERRORS} <= set(documented)
    text = " ".join(cli("--help").out.split())
    for code, meaning in EXIT_CODES:
        assert f"{code} {meaning}" in text


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_loads_and_says_what_it_does(name: str, cli: Cli) -> None:
    assert isinstance(import_module(VERBS[name].module).app, typer.Typer)
    outcome = cli(name, "--help")
    assert outcome.code == 0
    assert f"Usage: platformctl {name}" in outcome.out
    root = root_command()
    assert isinstance(root, VerbGroup)
    with typer.Context(root, info_name="platformctl") as ctx:
        command = root.get_command(ctx, name)
        assert command is not None
        assert command.help


def test_a_misspelt_verb_is_corrected(cli: Cli) -> None:
    outcome = cli("statsu")
    assert outcome.code == 2
    assert "Did you mean 'status'?" in outcome.err


def test_an_unknown_verb_without_a_neighbour_is_only_refused(cli: Cli) -> None:
    outcome = cli("qqq")
    assert outcome.code == 2
    assert "Did you mean" not in outcome.err


def test_an_unknown_option_is_a_usage_error(cli: Cli) -> None:
    assert cli("--nope").code == 2
    assert cli("status", "--nope").code == 2


def test_no_command_shows_the_help(cli: Cli) -> None:
    outcome = cli()
    assert outcome.code == 2
    assert "Look and check" in outcome.out + outcome.err


def test_the_version_is_told(cli: Cli) -> None:
    assert cli("--version").out == f"platformctl {__version__}\n"


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_is_a_message_a_hint_and_its_exit_code(
    kind: type[errors.PlatformError], capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(kind("something happened", hint="do this")) == kind.exit_code
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "platformctl: something happened\n  hint: do this\n"


def test_a_persons_mistake_shows_no_traceback(cli: Cli) -> None:
    outcome = cli("status", "--hub", "gopher://x")
    assert outcome.code == 2
    assert outcome.err.startswith("platformctl: 'gopher://x' is not the address of a hub\n  hint: ")
    assert "Traceback" not in outcome.err


def test_ctrl_c_exits_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("platformctl.cli.status._collect", interrupted)
    assert run(["status", "--hub", "http://127.0.0.1:1"]) == 130


def test_a_bug_still_shows_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("platformctl.cli.status._collect", broken)
    with pytest.raises(ZeroDivisionError):
        run(["status", "--hub", "http://127.0.0.1:1"])


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_that_asks_this_program(shell: str, cli: Cli) -> None:
    outcome = cli("completion", shell)
    assert outcome.code == 0
    assert "_PLATFORMCTL_COMPLETE" in outcome.out


def test_bash_completes_verbs_and_options(tmp_path: Path) -> None:
    program = tmp_path / "platformctl"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m platformctl "$@"\n')
    program.chmod(0o755)
    script = f"""
        PATH={tmp_path}:$PATH
        source <(platformctl completion bash)
        complete_words() {{
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _platformctl_completion platformctl; echo "${{COMPREPLY[@]}}"
        }}
        complete_words platformctl sat
        complete_words platformctl token cr
        complete_words platformctl status --wa
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, timeout=30)
    verbs, subcommands, options = done.stdout.splitlines()
    assert set(verbs.split()) == {"satellites", "satellite"}
    assert subcommands == "create"
    assert set(options.split()) == {"--watch", "--wait"}


def test_the_module_runs_as_a_program() -> None:
    done = python("-m", "platformctl", "version", "--client", "-o", "json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["client"]["version"] == __version__


def test_a_full_disk_under_the_output_is_told_without_a_traceback() -> None:
    full = "import sys\nsys.stdout = open('/dev/full', 'w')\nfrom platformctl.cli.app import run\n"
    done = python("-c", full + "sys.exit(run(['context', 'list']))", PLATFORMCTL_CONFIG="/nonexistent/config.yaml")
    assert done.returncode == 1
    assert "platformctl: the output cannot be written: No space left on device" in done.stderr


@pytest.mark.parametrize("ignored", [False, True])
def test_sigterm_does_what_ctrl_c_does(ignored: bool) -> None:
    """Also in a background job of a shell script, where Ctrl-C is ignored."""
    lines = [
        "import asyncio, os, signal",
        "from platformctl.cli.signals import ends_like_ctrl_c",
        f"signal.signal(signal.SIGINT, signal.SIG_IGN if {ignored} else signal.default_int_handler)",
        "async def main():",
        "    try:",
        "        os.kill(os.getpid(), signal.SIGTERM)",
        "        await asyncio.sleep(20)",
        "    finally:",
        "        print('withdrawn')",
        "with ends_like_ctrl_c():",
        "    asyncio.run(main())",
    ]
    done = python("-c", "\n".join(lines))
    assert done.stdout == "withdrawn\n"
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")


def test_a_configuration_file_that_is_not_there_is_a_usage_error(cli: Cli) -> None:
    for verb in ("hub", "satellite"):
        outcome = cli(verb, "run", "--config", "/nonexistent.yaml")
        assert (outcome.code, "does not exist" in outcome.err) == (2, True)

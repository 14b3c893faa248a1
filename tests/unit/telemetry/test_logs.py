from __future__ import annotations

import io
import json
import logging
import re
from datetime import UTC, datetime

import pytest
import structlog

from platformctl.errors import UsageError
from platformctl.telemetry import logs
from platformctl.telemetry.redaction import REDACTED


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restored():
    """Logging is global: what a test sets up is taken away again."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    quiet = {name: logging.getLogger(name).level for name in logs._QUIET}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in quiet.items():
        logging.getLogger(name).setLevel(before)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


def lines(out: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


log = logging.getLogger("platformctl.test")


def test_a_line_is_one_json_object_with_time_level_logger_and_event(out):
    logs.configure("json", "info", out)
    log.info("tunnel %s", "up", extra={"satellite": "sat-1", "rtt": 0.5})
    (line,) = lines(out)
    assert list(line) == ["time", "level", "logger", "event", "satellite", "rtt"]
    assert abs((datetime.now(UTC) - datetime.fromisoformat(line.pop("time"))).total_seconds()) < 60
    assert line == {
        "level": "info",
        "logger": "platformctl.test",
        "event": "tunnel up",
        "satellite": "sat-1",
        "rtt": 0.5,
    }


def test_loggers_of_structlog_and_of_the_standard_library_give_the_same_lines(out):
    logs.configure("json", "info", out)
    log.warning("gone", extra={"satellite": "sat-1"})
    structlog.get_logger("platformctl.test").warning("gone", satellite="sat-1")
    one, two = lines(out)
    assert {**one, "time": ""} == {**two, "time": ""}


def test_ids_are_bound_for_all_lines_inside(out):
    logs.configure("json", "info", out)
    with logs.bound(request_id="r1", trace_id="t1"):
        log.info("a")
        with logs.bound(request_id="r2"):
            structlog.get_logger("x").info("b")
    log.info("c")
    assert [(line.get("request_id"), line.get("trace_id")) for line in lines(out)] == [
        ("r1", "t1"),
        ("r2", "t1"),
        (None, None),
    ]
    assert list(lines(out)[0]) == ["time", "level", "logger", "event", "request_id", "trace_id"]


def test_lines_below_the_level_are_left_out(out):
    logs.configure("json", "warning", out)
    log.info("no")
    log.warning("yes")
    structlog.get_logger("x").info("no")
    assert [line["event"] for line in lines(out)] == ["yes"]


def test_an_exception_is_one_field_of_the_line_without_its_secrets(out):
    logs.configure("json", "info", out)
    try:
        raise ValueError("password=hunter2 refused")
    except ValueError:
        log.exception("it broke")
    (line,) = lines(out)
    assert line["event"] == "it broke"
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith(f"ValueError: password={REDACTED} refused")
    assert "hunter2 refused" not in out.getvalue()


def test_secrets_are_redacted_by_key_and_by_look(out):
    logs.configure("json", "info", out)
    log.info(
        "with Bearer hunter2hunter2",
        extra={"token": "hunter2", "headers": {"Authorization": "hunter2"}, "token_id": "x1"},
    )
    (line,) = lines(out)
    assert line["event"] == f"with Bearer {REDACTED}"
    assert (line["token"], line["headers"], line["token_id"]) == (REDACTED, {"Authorization": REDACTED}, "x1")
    assert "hunter2" not in out.getvalue()


@pytest.mark.parametrize("format", ["json", "console"])
def test_foreign_text_cannot_forge_a_line_or_reach_the_terminal(out, format):
    logs.configure(format, "info", out)
    log.info("path %s", "x\n2025-01-01 [info] forged\x1b[2J\r", extra={"name_\x1b": "\x1b]0;title\x07\u2028"})
    assert len(out.getvalue().splitlines()) == 1
    assert re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", out.getvalue()) is None


def test_long_values_are_cut(out):
    logs.configure("json", "info", out)
    log.info("x", extra={"body": "y" * 100_000})
    assert len(out.getvalue()) < 3000


def test_values_that_are_no_json_do_no_harm(out):
    logs.configure("json", "info", out)
    log.info("x", extra={"a": object, "b": float("nan"), "c": {1, 2}, "d": b"\xff", "e": 1 << 20_000})
    (line,) = lines(out)
    assert line["c"] == [1, 2]
    assert line["b"] == "nan"


def test_the_console_is_for_people(out):
    logs.configure("console", "info", out)
    log.info("tunnel up", extra={"satellite": "sat-1"})
    assert "tunnel up" in out.getvalue()
    assert "satellite=sat-1" in out.getvalue()
    assert "\x1b" not in out.getvalue()


def test_a_traceback_on_the_console_keeps_its_lines(out):
    logs.configure("console", "info", out)
    try:
        raise ValueError("x")
    except ValueError:
        log.exception("it broke")
    assert "Traceback (most recent call last):\n" in out.getvalue()


def test_a_stack_is_shown_when_asked_for(out):
    logs.configure("json", "info", out)
    log.info("where", stack_info=True)
    assert "test_a_stack_is_shown_when_asked_for" in lines(out)[0]["stack"]


def test_auto_is_json_for_programs_and_the_console_for_terminals(out, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    logs.configure("auto", "info", out)
    log.info("x")
    assert lines(out)[0]["event"] == "x"
    terminal = Terminal()
    logs.configure("auto", "info", terminal)
    log.info("x")
    assert "\x1b[" in terminal.getvalue()


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colours_can_be_switched_off(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    terminal = Terminal()
    logs.configure("console", "info", terminal)
    log.info("x")
    assert "\x1b" not in terminal.getvalue()


def test_standard_error_is_the_default(capsys):
    logs.configure("json")
    log.info("x")
    assert json.loads(capsys.readouterr().err)["event"] == "x"


def test_configuring_again_replaces_the_first(out):
    before = len(logging.getLogger().handlers)
    logs.configure("json", "info", io.StringIO())
    logs.configure("json", "info", out)
    log.info("x")
    assert len(lines(out)) == 1
    assert len(logging.getLogger().handlers) == before + 1


def test_chatty_libraries_are_quiet_even_at_debug(out):
    logs.configure("json", "debug", out)
    logging.getLogger("httpx").info("HTTP Request: GET …")
    logging.getLogger("httpcore.http11").debug("send_request_headers")
    logging.getLogger("httpx").warning("shown")
    log.debug("ours")
    assert [line["event"] for line in lines(out)] == ["shown", "ours"]


def test_at_error_they_are_as_quiet_as_the_rest(out):
    logs.configure("json", "error", out)
    logging.getLogger("httpx").warning("no")
    assert out.getvalue() == ""


@pytest.mark.parametrize(
    ("arguments", "message"), [(("xml",), "log format 'xml'"), (("json", "loud"), "log level 'loud'")]
)
def test_an_unknown_format_or_level_is_the_persons_mistake(arguments, message):
    with pytest.raises(UsageError, match=message) as caught:
        logs.configure(*arguments)
    assert "use one of" in caught.value.hint

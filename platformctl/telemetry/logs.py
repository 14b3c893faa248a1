"""Log set-up of a process: the standard library's loggers, rendered by structlog as JSON lines or for a person.

    configure("auto", "info")
    log = logging.getLogger("platformctl.hub.tunnels")
    log.info("tunnel up", extra={"satellite": "sat-1"})

    {"time":"2025-01-31T12:00:00.123456Z","level":"info","logger":"platformctl.hub.tunnels","event":"tunnel up",…}

Every line goes through redaction.py. `bound` gives all lines inside it a request id and a trace id.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from platformctl.errors import UsageError, excerpt
from platformctl.telemetry.redaction import REDACTED, clean, clean_text, is_secret_key

__all__ = ["FORMATS", "LEVELS", "bound", "configure"]

FORMATS: Final = ("auto", "json", "console")
LEVELS: Final = ("debug", "info", "warning", "error")
MAX_TRACEBACK: Final = 16_384

# They tell at INFO, or even at DEBUG with bodies and headers, what is ours to tell, or not at all.
_QUIET: Final = (
    *("aiofastnet", "asyncio", "fastapi", "httpcore", "httpx", "kubernetes", "markdown_it"),
    *("picows", "requests", "urllib3", "uvicorn", "watchfiles", "websockets"),
)
_OF_RECORD: Final = frozenset((*logging.makeLogRecord({}).__dict__, "message", "asctime"))
_FIRST: Final = ("time", "level", "logger", "event", "request_id", "trace_id")


def configure(
    format: Literal["auto", "json", "console"] | str = "auto",
    level: str = "info",
    stream: TextIO | None = None,
) -> None:
    """Send all logs to `stream` (standard error by default). Calling again replaces what the last call set up.

    `auto` is `console` on a terminal, else `json`. Raises UsageError for an unknown format or level.
    """
    out = sys.stderr if stream is None else stream
    if format not in FORMATS:
        raise UsageError(f"log format '{excerpt(format)}' is unknown", hint=f"use one of {', '.join(FORMATS)}")
    if level.lower() not in LEVELS:
        raise UsageError(f"log level '{excerpt(level)}' is unknown", hint=f"use one of {', '.join(LEVELS)}")
    console = format == "console" or (format == "auto" and out.isatty())
    handler = logging.StreamHandler(out)
    handler.setFormatter(_formatter(_console(out) if console else _json()))
    root = logging.getLogger()
    for old in [one for one in root.handlers if isinstance(one.formatter, structlog.stdlib.ProcessorFormatter)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[*_shared(), structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


@contextmanager
def bound(*, request_id: str = "", trace_id: str = "") -> Iterator[None]:
    """Inside, every line of this task carries these ids; an empty one is left as it was."""
    ids = {"request_id": request_id, "trace_id": trace_id}
    with structlog.contextvars.bound_contextvars(**{key: value for key, value in ids.items() if value}):
        yield


def _shared() -> list[Processor]:
    """What lines from structlog's loggers and from the standard library's go through alike."""
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        _add_extra,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]


def _formatter(renderers: list[Processor]) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_shared(),
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            _sanitise,
            *renderers,
        ],
    )


def _json() -> list[Processor]:
    # Compact, one line, ASCII: what reads it may split lines at U+2028 too.
    return [structlog.processors.JSONRenderer(serializer=json.dumps, separators=(",", ":"), ensure_ascii=True)]


def _console(out: TextIO) -> list[Processor]:
    colours = out.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    return [
        structlog.dev.ConsoleRenderer(
            colors=colours,
            exception_formatter=structlog.dev.plain_traceback,
            timestamp_key="time",
            sort_keys=False,
        )
    ]


def _add_extra(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Add the fields that a standard logger was given as `extra`.

    structlog's own ExtraAdder takes `message` for one once another handler has formatted the record.
    """
    record: logging.LogRecord | None = event.get("_record")
    if record is not None:
        for key, value in record.__dict__.items():
            if key not in _OF_RECORD:
                event.setdefault(key, value)
    return event


def _sanitise(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Clean every value, and bring the fields that every line has to the front."""
    shown: EventDict = {key: "" for key in _FIRST if key in event}
    for key, value in event.items():
        if key in ("exception", "stack"):
            shown[key] = clean_text(str(value), MAX_TRACEBACK, multiline=True)
        else:
            name = clean_text(str(key), 128)
            shown[name] = REDACTED if is_secret_key(name) and value else clean(value)
    return shown

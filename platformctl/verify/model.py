"""Checks as data, and the report that every output format is made from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from platformctl.verify.context import Context

__all__ = [
    "CATEGORIES",
    "DOCS",
    "Check",
    "CheckFailed",
    "CheckResult",
    "CheckSkipped",
    "Progress",
    "Report",
    "Scope",
    "Severity",
    "Status",
]

Status = Literal["passed", "failed", "skipped"]
Severity = Literal["fatal", "warning"]
Scope = Literal["environment", "replica", "satellite", "path"]
"""Where a check is run: once, at each hub replica, each satellite, or for each satellite through each replica."""

DOCS: Final = "docs/reference/verify.md"
CATEGORIES: Final = ("hub", "certificates", "clock", "satellites", "data path", "identity", "audit")


class CheckFailed(Exception):
    """An expectation was not met. `detail` says what was seen, `hint` the cause and what to do.

    `fatal=True` fails the run even when the check's severity is `warning`: for a check that could not measure at all.
    """

    def __init__(self, detail: str, hint: str = "", *, fatal: bool = False) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint
        self.fatal = fatal


class CheckSkipped(Exception):
    """The check does not apply here; `detail` says why, `hint` what would make it apply."""

    def __init__(self, detail: str, hint: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Check:
    """One row of the table of checks.

    `run` returns the detail of a pass, or raises. `deadline` bounds one check in seconds, retries included; a failing
    check is tried again until `retry_for` seconds have passed. A check whose `needs` failed in its place is skipped.
    A failed `warning` passes, with a detail that starts with "warning:" and a hint.
    """

    name: str
    category: str
    scope: Scope
    description: str
    run: Callable[[Context], Awaitable[str]]
    remedy: str
    severity: Severity = "fatal"
    deadline: float = 10.0
    retry_for: float = 0.0
    needs: tuple[str, ...] = ()
    backend: bool = False
    """It calls verify's own echo backend, which is then exported into each satellite."""
    alone: bool = False
    """It measures time: nothing else runs beside it."""

    @property
    def hint_anchor(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class CheckResult:
    name: str
    category: str
    status: Status
    duration_ms: float
    detail: str
    hint: str = ""

    @property
    def check(self) -> str:
        """The check's name without its place: `unary` of `unary[sat-1 via hub-1]`."""
        return self.name.partition("[")[0]

    @property
    def place(self) -> str:
        return self.name.partition("[")[2].removesuffix("]")

    @property
    def warned(self) -> bool:
        return self.status == "passed" and bool(self.hint)

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "category": self.category,
            "status": self.status,
            "duration_ms": self.duration_ms,
            "detail": self.detail,
            "hint": self.hint,
        }


@dataclass(frozen=True, slots=True)
class Report:
    """The results in the table's order."""

    checks: tuple[CheckResult, ...]
    duration_ms: float = 0.0

    def count(self, status: Status) -> int:
        return sum(result.status == status for result in self.checks)

    @property
    def ok(self) -> bool:
        """Nothing failed, and something was checked."""
        return self.count("failed") == 0 and self.count("passed") > 0

    def to_dict(self) -> dict[str, Any]:
        """{"passed", "failed", "skipped", "checks": [a dict for each, with the fields of CheckResult]}."""
        return {
            "passed": self.count("passed"),
            "failed": self.count("failed"),
            "skipped": self.count("skipped"),
            "checks": [result.to_dict() for result in self.checks],
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Report:
        """The inverse of `to_dict`, for a report that was saved as JSON; KeyError or TypeError when it is not one."""
        rows: Iterable[Mapping[str, Any]] = value["checks"]
        return cls(tuple(CheckResult(**row) for row in rows))


@dataclass(frozen=True, slots=True)
class Progress:
    """What the runner tells while it works: `result` is None when `name` has just started."""

    name: str
    done: int
    total: int
    result: CheckResult | None = None
    running: tuple[str, ...] = field(default=())

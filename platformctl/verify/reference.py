"""Writes docs/reference/verify.md from the table: `python -m platformctl.verify.reference` prints it."""

from __future__ import annotations

from platformctl.verify.checks import CHECKS
from platformctl.verify.model import CATEGORIES, Check

__all__ = ["render"]

_PLACES = {
    "environment": "once",
    "replica": "each hub replica, as `{}[hub-1]`",
    "satellite": "each satellite, as `{}[sat-1]`",
    "path": "each satellite through each hub replica, as `{}[sat-1 via hub-1]`",
}

_HEAD = """\
# What `platformctl verify` checks

<!-- Generated from the table of checks; `python -m platformctl.verify.reference` prints it. -->

`platformctl verify` proves that the platform does its job, from the hub's readiness to bytes through every path. It
exports an echo backend of its own into each satellite, and withdraws it when it ends. `--test REGEX` runs the checks
whose name or category matches, `--skip REGEX` leaves some out. It exits with 0 when nothing failed, with 1 when a check
did.

A failed check is followed by a hint that names the cause it found: a process that does not run, a tunnel that is not
there, a backend that is not healthy. A check that needs another one, which failed in the same place, is skipped. A
warning passes, and says what to look at.
"""


def render() -> str:
    """The whole page; its anchors are those that hints name."""
    lines = [_HEAD]
    for category in CATEGORIES:
        checks = [check for check in CHECKS if check.category == category]
        lines += [f"| {category} | what it shows |", "|---|---|"]
        lines += [f"| [`{check.name}`](#{check.hint_anchor}) | {check.description} |" for check in checks]
        lines.append("")
    for check in CHECKS:
        lines += _section(check)
    return "\n".join(lines).rstrip() + "\n"


def _section(check: Check) -> list[str]:
    facts = [f"Runs {_PLACES[check.scope].format(check.name)}", f"within {check.deadline:g} s"]
    if check.retry_for:
        facts.append(f"tried again for {check.retry_for:g} s")
    if check.severity == "warning":
        facts.append("a warning unless requests fail")
    if check.needs:
        facts.append("needs " + ", ".join(f"[`{need}`](#{need})" for need in check.needs))
    return [
        f"## {check.hint_anchor}",
        "",
        check.description,
        "",
        "; ".join(facts) + ".",
        "",
        f"*When it fails:* {check.remedy}",
        "",
    ]


if __name__ == "__main__":
    print(render(), end="")

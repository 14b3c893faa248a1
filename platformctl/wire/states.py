"""The stream state machine: everything that may happen to a stream, in one table.

Rules:
1. The opener (hub) sends the request half, the responder (agent) the response half; both ends run this one table.
2. The response half is: any number of interim heads, one final head, data, end. No data precedes the final head.
3. Each half ends exactly once: by END, by FLAG_END on its last frame, or by trailers.
4. RESET from either end closes both halves at once; nothing follows it from the end that sent it.
5. A stream is closed when both halves have ended. What is not in the table is a protocol error.

`python -m platformctl.wire.states` prints the table as the Markdown that SPEC.md includes.
"""

from __future__ import annotations

from typing import Final

REQ_OPEN_RSP_HEAD: Final = 0  # request body may come, response head awaited
REQ_OPEN_RSP_BODY: Final = 1
REQ_DONE_RSP_HEAD: Final = 2
REQ_DONE_RSP_BODY: Final = 3
REQ_OPEN_RSP_DONE: Final = 4  # early response: answered before the request body ended
CLOSED: Final = 5

STATE_NAMES: Final = (
    "REQ_OPEN_RSP_HEAD",
    "REQ_OPEN_RSP_BODY",
    "REQ_DONE_RSP_HEAD",
    "REQ_DONE_RSP_BODY",
    "REQ_OPEN_RSP_DONE",
    "CLOSED",
)

REQ_DATA: Final = 0
REQ_END: Final = 1
RSP_INTERIM: Final = 2
RSP_HEAD: Final = 3
RSP_HEAD_END: Final = 4
RSP_DATA: Final = 5
RSP_END: Final = 6
RESET: Final = 7

EVENT_NAMES: Final = (
    "REQ_DATA",
    "REQ_END",
    "RSP_INTERIM",
    "RSP_HEAD",
    "RSP_HEAD_END",
    "RSP_DATA",
    "RSP_END",
    "RESET",
)

INVALID: Final = -1

# NEXT[state][event] -> state, or INVALID
NEXT: Final[tuple[tuple[int, ...], ...]] = (
    # REQ_DATA REQ_END RSP_INTERIM RSP_HEAD RSP_HEAD_END RSP_DATA RSP_END RESET
    (0, 2, 0, 1, 4, -1, -1, 5),  # REQ_OPEN_RSP_HEAD
    (1, 3, -1, -1, -1, 1, 4, 5),  # REQ_OPEN_RSP_BODY
    (-1, -1, 2, 3, 5, -1, -1, 5),  # REQ_DONE_RSP_HEAD
    (-1, -1, -1, -1, -1, 3, 5, 5),  # REQ_DONE_RSP_BODY
    (4, 5, -1, -1, -1, -1, -1, 5),  # REQ_OPEN_RSP_DONE
    (-1, -1, -1, -1, -1, -1, -1, -1),  # CLOSED
)


def table_markdown() -> str:
    """The table as Markdown, for SPEC.md."""
    rows = ["| state | " + " | ".join(EVENT_NAMES) + " |", "|---" * (len(EVENT_NAMES) + 1) + "|"]
    for state, name in enumerate(STATE_NAMES):
        cells = [STATE_NAMES[n] if n != INVALID else "error" for n in NEXT[state]]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(table_markdown(), end="")

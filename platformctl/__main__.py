"""Entry point: `platformctl …` and `python -m platformctl …`."""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    from platformctl.cli.app import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()

"""`platformctl verify`: checks as data, one runner, and reporters.

report = await run(Environment.load(path), exporter, test=None, skip=None, progress=None)
"""

from __future__ import annotations

from platformctl.verify.backend import Export, Exporter, OutOfReach
from platformctl.verify.environment import Environment
from platformctl.verify.model import Progress, Report
from platformctl.verify.runner import Callback

__all__ = ["Callback", "Environment", "Export", "Exporter", "OutOfReach", "Progress", "Report", "run"]


async def run(
    env: Environment,
    exporter: Exporter,
    *,
    test: str | None = None,
    skip: str | None = None,
    progress: Callback | None = None,
) -> Report:
    """Run every check of the table that `test` and `skip` (regular expressions) select; see `runner.run`.

    ConfigError for an environment whose files cannot be read, UsageError for a pattern that selects nothing.
    """
    from platformctl.verify import runner
    from platformctl.verify.checks import CHECKS

    return await runner.run(env, exporter, CHECKS, test=test, skip=skip, progress=progress)

"""`python -m tests.bench [SCENARIO…]`: measure, print tables, keep the rows as JSON, fill docs/benchmarks.md."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.bench.contenders import CONTENDERS, PEERS
from tests.bench.context import Bench, Options
from tests.bench.machine import describe
from tests.bench.processes import BenchError
from tests.bench.report import bars_table, markdown, scenario_table, write_section
from tests.bench.results import Results
from tests.bench.scenarios import SCENARIOS


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"default: all of {', '.join(SCENARIOS)}")
    parser.add_argument("--contenders", default=",".join(("direct", *PEERS)), help=f"of {', '.join(CONTENDERS)}")
    parser.add_argument("--seconds", type=int, default=10, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=3, help="rounds over all contenders")
    parser.add_argument("--connections", default="1,64,256", help="closed-loop connections")
    parser.add_argument("--rates", default="10000,20000", help="open-loop requests per second")
    parser.add_argument("--stall-seconds", type=int, default=60, help="how long the stalled readers read nothing")
    parser.add_argument("--json", type=Path, help="write every row here")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="fill the page's sections, e.g. docs/benchmarks.md")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work here and keep configuration and logs")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a bar is missed")
    parsed = parser.parse_args(arguments)
    unknown = set(parsed.scenarios) - set(SCENARIOS) | set(parsed.contenders.split(",")) - set(CONTENDERS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    return parsed


def options_of(parsed: argparse.Namespace) -> Options:
    return Options(
        contenders=tuple(parsed.contenders.split(",")),
        seconds=parsed.seconds,
        rounds=parsed.rounds,
        connections=tuple(int(c) for c in parsed.connections.split(",")),
        rates=tuple(int(r) for r in parsed.rates.split(",")),
        stall_seconds=parsed.stall_seconds,
    )


async def measure(parsed: argparse.Namespace, folder: Path) -> Results:
    """Run the scenarios; SIGTERM ends the run as Ctrl-C does, with every process ended."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with Bench.running(options_of(parsed), folder) as bench:
        for name in parsed.scenarios or SCENARIOS:
            await SCENARIOS[name].measure(bench)
        return bench.results


def publish(parsed: argparse.Namespace, results: Results, machine: dict[str, object]) -> bool:
    """Print and write; False when a bar was missed."""
    fine = True
    if parsed.json:
        rows = [row.as_json() for row in results.rows]
        parsed.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    for name in results.scenarios():
        scenario = SCENARIOS[name]
        bars = scenario.bars(results)
        fine = fine and all(bar.met is not False for bar in bars)
        print(f"\n### {scenario.title}\n\n{scenario_table(results, name)}\n\n{bars_table(bars)}")
        if parsed.write:
            write_section(parsed.write, name, markdown(results, name, scenario.title, machine, bars))
    return fine


def main() -> int:
    parsed = parse(sys.argv[1:])
    machine = describe()
    try:
        if parsed.keep:
            parsed.keep.mkdir(parents=True, exist_ok=True)
            results = asyncio.run(measure(parsed, parsed.keep.resolve()))
        else:
            with tempfile.TemporaryDirectory(prefix="platformctl-bench-") as folder:
                results = asyncio.run(measure(parsed, Path(folder)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("stopped; every process was ended", file=sys.stderr)
        return 130
    except BenchError as e:
        print(f"bench: {e}", file=sys.stderr)
        return 1
    fine = publish(parsed, results, machine)
    return 1 if parsed.check and not fine else 0


if __name__ == "__main__":
    sys.exit(main())

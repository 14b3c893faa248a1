"""`python -m tests.bench [SCENARIO…]`: measure, print tables, keep the rows as JSON, fill docs/benchmarks.md."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from platformctl import speedups
from tests.bench.contenders import CONTENDERS, tools_of
from tests.bench.context import Bench
from tests.bench.machine import describe
from tests.bench.plan import Plan
from tests.bench.processes import BenchError
from tests.bench.report import bars_table, markdown, notes_list, scenario_table, write_section
from tests.bench.results import Results
from tests.bench.run import at_once, expected_seconds, in_turn, leave_out_missing
from tests.bench.scenarios import SCENARIOS
from tests.bench.tools import build

_COMPILE = Path(__file__).resolve().parents[2] / "tools" / "compile_speedups.py"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__, epilog="Each scenario has a plan; the options change it."
    )
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"default: all of {', '.join(SCENARIOS)}")
    parser.add_argument("--quick", action="store_true", help="does everything work? The figures mean nothing")
    parser.add_argument("--contenders", type=_names, help=f"of {', '.join(CONTENDERS)}")
    parser.add_argument("--seconds", type=int, help="length of one measurement")
    parser.add_argument("--rounds", type=int, help="rounds over all contenders")
    parser.add_argument("--connections", type=_numbers, help="closed-loop connections, e.g. 1,64,256")
    parser.add_argument("--rates", type=_numbers, help="open-loop requests per second, e.g. 10000,20000")
    parser.add_argument("--satellites", type=int, help="how many are many")
    parser.add_argument("--json", type=Path, help="write every row here")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="fill the page's sections, e.g. docs/benchmarks.md")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work here and keep configuration and logs")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a bar is missed")
    parsed = parser.parse_args(arguments)
    unknown = set(parsed.scenarios) - set(SCENARIOS) | set(parsed.contenders or ()) - set(CONTENDERS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    if parsed.quick and (parsed.write or parsed.check):
        parser.error("--quick measures nothing that could be published or judged")
    return parsed


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def plans_of(parsed: argparse.Namespace) -> dict[str, Plan]:
    """Scenario name -> its plan, with what the command line asks for."""
    wishes = {name: getattr(parsed, name) for name in ("contenders", "seconds", "rounds", "satellites")}
    wanted = parsed.scenarios or SCENARIOS
    plans = {}
    for name in wanted:
        scenario = SCENARIOS[name]
        plan = scenario.quick if parsed.quick else scenario.full
        # Connections and rates only where there are some: the others' load is part of what they are.
        several = {key: getattr(parsed, key) for key in ("connections", "rates") if getattr(plan, key)}
        plans[name] = plan.changed(wishes | several)
    return plans


def prepare(plans: Mapping[str, Plan]) -> None:
    """Everything that a run with published figures needs: peers built, the hot path compiled."""
    build(*sorted({"vegeta"} | tools_of(name for plan in plans.values() for name in plan.contenders)))
    done = subprocess.run([sys.executable, str(_COMPILE), "--if-able"], check=False)
    if done.returncode:
        raise BenchError("the hot path cannot be compiled; see above")
    speedups.state.cache_clear()


async def measure(plans: Mapping[str, Plan], folder: Path, *, exact: bool) -> tuple[Results, dict[str, str]]:
    """Run the scenarios: their rows, and which of them failed. SIGTERM ends the run as Ctrl-C does, with every process
    ended.
    """
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with Bench.running(folder, exact=exact) as bench:
        if exact:
            return bench.results, await in_turn(bench, plans)
        await at_once(bench, plans)
        return bench.results, {}


def publish(parsed: argparse.Namespace, results: Results, machine: dict[str, object]) -> bool:
    """Print and write; False when a bar was missed."""
    fine = True
    if parsed.json:
        rows = [row.as_json() for row in results.rows]
        document = {"machine": machine, "notes": results.notes, "rows": rows}
        parsed.json.write_text(json.dumps(document, indent=1) + "\n")
    for name in results.scenarios():
        scenario = SCENARIOS[name]
        bars = [] if parsed.quick else scenario.bars(results)
        fine = fine and all(bar.met is not False for bar in bars)
        print(f"\n### {scenario.title}\n\n{scenario_table(results, name)}\n")
        if bars:
            print(f"{bars_table(bars)}\n")
        print(notes_list(results, name))
        if parsed.write:
            write_section(parsed.write, name, markdown(results, name, machine, bars))
    return fine


def main() -> int:
    parsed = parse(sys.argv[1:])
    try:
        plans = plans_of(parsed)
        if parsed.quick:
            plans, warnings = leave_out_missing(plans)
            for warning in warnings:
                _say(warning)
        else:
            prepare(plans)
        machine = describe()
        expected = expected_seconds(plans, exact=not parsed.quick)
        _say(f"scenarios: {', '.join(plans)}: about {expected / 60:.1f} min; hot path {machine['hot_path']}")
        if parsed.keep:
            parsed.keep.mkdir(parents=True, exist_ok=True)
            results, failures = asyncio.run(measure(plans, parsed.keep.resolve(), exact=not parsed.quick))
        else:
            with tempfile.TemporaryDirectory(prefix="platformctl-bench-") as folder:
                results, failures = asyncio.run(measure(plans, Path(folder), exact=not parsed.quick))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("stopped; every process was ended", file=sys.stderr)
        return 130
    except BenchError as e:
        print(f"bench: {e}", file=sys.stderr)
        return 1
    fine = publish(parsed, results, machine)
    for name, reason in failures.items():
        _say(f"*** {name} FAILED: {reason} ***")
    return 1 if failures or (parsed.check and not fine) else 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""Measurements as flat rows, and what is made of them: median and range over the rounds, bars met or missed."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One measurement: `metrics` by the names of METRICS."""

    scenario: str
    setting: str
    contender: str
    round: int
    metrics: Mapping[str, float]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Spread:
    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Bar:
    """A figure with its limit; `met` is None when what it needs was not measured in this run."""

    figure: str
    measured: str
    met: bool | None


@dataclass(frozen=True)
class Metric:
    label: str
    decimals: int


METRICS: Mapping[str, Metric] = {
    "requests_per_s": Metric("requests/s", 0),
    "hub_us": Metric("hub CPU µs/request", 1),
    "agent_us": Metric("agent CPU µs/request", 1),
    "p50_ms": Metric("p50 ms", 2),
    "p99_ms": Metric("p99 ms", 2),
    "max_ms": Metric("max ms", 1),
    "errors": Metric("errors", 0),
    "mb_per_s": Metric("MB/s", 0),
    "hub_us_per_mb": Metric("hub CPU µs/MB", 0),
    "agent_us_per_mb": Metric("agent CPU µs/MB", 0),
    "hub_growth_mib": Metric("hub RSS growth MiB", 1),
    "agent_growth_mib": Metric("agent RSS growth MiB", 1),
    "p99_before_ms": Metric("p99 before ms", 2),
    "p99_during_ms": Metric("p99 during ms", 2),
    "detected_s": Metric("found after s", 2),
    "slowest_failure_s": Metric("slowest failing request s", 3),
    "returned_s": Metric("routes back after s", 2),
    "requests": Metric("requests", 0),
    "all_back_s": Metric("all back after s", 1),
    "tunnels": Metric("tunnels", 0),
    "peak_dials": Metric("most dials in one s", 0),
    "moment_dials": Metric("in half a second", 0),
    "peak_ups": Metric("most tunnels up in one s", 0),
    "cpu_s": Metric("hub CPU s until all were back", 1),
    "idle_percent": Metric("hub CPU % when idle", 1),
    "rss_empty_mib": Metric("hub RSS MiB empty", 0),
    "rss_before_mib": Metric("before", 0),
    "rss_after_mib": Metric("after", 0),
    "hub_rss_mib": Metric("hub RSS MiB", 0),
    "agent_rss_mib": Metric("agent RSS MiB", 0),
    "others_percent": Metric("others' CPU %", 0),
}


class Results:
    """All rows of one run."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.rows = list(rows)
        self.notes: dict[str, list[str]] = {}

    def note(self, scenario: str, text: str) -> None:
        """One line for the report that belongs to a scenario's figures."""
        self.notes.setdefault(scenario, []).append(text)

    def add(self, row: Row) -> None:
        unknown = set(row.metrics) - set(METRICS)
        if unknown:
            raise KeyError(f"metrics without a label: {sorted(unknown)}")
        self.rows.append(row)

    def scenarios(self) -> list[str]:
        return list(dict.fromkeys(row.scenario for row in self.rows))

    def cells(self, scenario: str) -> dict[tuple[str, str], list[Row]]:
        """(setting, contender) -> its rounds, in the order of the run."""
        cells: dict[tuple[str, str], list[Row]] = {}
        for row in self.rows:
            if row.scenario == scenario:
                cells.setdefault((row.setting, row.contender), []).append(row)
        return cells

    def spread(self, scenario: str, setting: str, contender: str, metric: str) -> Spread | None:
        """None when it was not measured."""
        values = [r.metrics[metric] for r in self.cells(scenario).get((setting, contender), ()) if metric in r.metrics]
        return spread_of(values) if values else None

    def median(self, scenario: str, setting: str, contender: str, metric: str) -> float | None:
        spread = self.spread(scenario, setting, contender, metric)
        return None if spread is None else spread.median


def spread_of(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


def at_most(figure: str, value: float | None, limit: float | None, unit: str) -> Bar:
    return _compared(figure, value, limit, unit, "≤", met=value is not None and limit is not None and value <= limit)


def at_least(figure: str, value: float | None, limit: float | None, unit: str) -> Bar:
    return _compared(figure, value, limit, unit, "≥", met=value is not None and limit is not None and value >= limit)


def _compared(figure: str, value: float | None, limit: float | None, unit: str, sign: str, *, met: bool) -> Bar:
    if value is None or limit is None:
        return Bar(figure, "not measured in this run", None)
    return Bar(figure, f"{_figure(value)} {unit} {sign} {_figure(limit)} {unit}", met)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"

"""Write the tables of keys in docs/guide/ from the JSON Schemas and the code's own defaults.

`gen_config_reference.py [--check]`: with --check nothing is written; exit code 1 when a page is stale. A table stands
between `<!-- keys NAME -->` and `<!-- /keys -->`. A key without a description, in its schema or in NOTES, is an error.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from platformctl.deploy.topology import SatellitePlan
from platformctl.hub.config import HubConfig
from platformctl.satellite.config import SatelliteConfig
from platformctl.satellite.exports import parse_exports

ROOT = Path(__file__).resolve().parent.parent
GUIDE = ROOT / "docs" / "guide"
BLOCK = re.compile(r"(<!-- keys (\S+) -->\n).*?(<!-- /keys -->)", re.DOTALL)

# What the schemas leave to the name of the key. `table/key`, as in the rows.
NOTES = {
    "hub/advertise.http_url": "Of the plain listener.",
    "hub/advertise.metrics_url": "Where this replica is scraped.",
    "hub/advertise.public_url": "Where callers and the CLI reach this replica.",
    "hub/advertise.tunnel_url": "Where agents dial this replica; each replica needs one of its own.",
    "hub/audit.decisions": "Which access decisions are recorded.",
    "hub/listeners.tcp[].address": "Where it listens.",
    "hub/listeners.tcp[].satellite": "Whose service it is.",
    "hub/listeners.tcp[].service": "Its name; of kind `tcp`.",
    "hub/log.format": "`auto` is `console` on a terminal and `json` elsewhere.",
    "hub/log.level": "The least severe messages that are written.",
    "hub/tls.cert": "PEM file: the certificate and its chain.",
    "hub/tls.key": "PEM file: its private key.",
    "hub/tracing.sample_ratio": "Share of requests that are traced when the caller has not decided.",
    "satellite/log.format": "`auto` is `console` on a terminal and `json` elsewhere.",
    "satellite/log.level": "The least severe messages that are written.",
    "exports/health.type": "How the backend is checked. `http`: a GET, 2xx and 3xx are healthy.",
    "exports/health.path": "Path of the `http` check.",
    "exports/health.interval": "Between two checks; at least 100ms.",
    "exports/health.timeout": "How long a check may take.",
    "exports/health.healthy_threshold": "Passed checks in a row after which an unhealthy backend is healthy again.",
    "exports/health.unhealthy_threshold": "Failed checks in a row after which a healthy backend is unhealthy.",
    "exports/kind": "What it speaks. `tcp` for a `tcp://` backend, `http` or `mcp` for the others.",
    "exports/labels": "Key and value pairs, as Kubernetes labels.",
    "exports/lane": "`bulk` uses a tunnel of its own where the satellite has several.",
    "exports/limits.concurrency": "Exchanges at a time.",
    "exports/limits.queue": "How many requests more may wait for their turn; 0 refuses them at once.",
    "exports/limits.queue_timeout": "How long one waits before it is answered 503.",
    "exports/timeouts.connect": "To connect to the backend.",
    "exports/timeouts.response": "From the sent request to the head of the response.",
    "exports/timeouts.idle": "Without a byte in either direction.",
    "exports/timeouts.head": "For the client's request head.",
    "exports/tls.ca_file": "CA that the backend's certificate is checked against; relative to the exports file.",
    "exports/tls.server_name": "The name that its certificate is for.",
    "policy/name": "Named in audit lines; no two rules have the same.",
    "topology/satellites[].name": "The satellite's name.",
    "topology/satellites[].labels": "What selectors and policies match.",
    "topology/tcp[].port": "The port; a free one is chosen and kept if not given.",
    "topology/tcp[].satellite": "Whose service it is.",
    "topology/tcp[].service": "Its name; of kind `tcp`.",
    "topology/hub": "More keys of the hub's configuration, the same for all replicas: `approval`, `audit`, `log`, "
    "`ping_interval`, `timeouts`, `trusted_proxies`.",
}


def _schema(path: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "platformctl" / path).read_text(encoding="utf-8"))
    return found


def _rows(schema: Mapping[str, Any], node: Mapping[str, Any], at: str) -> Iterator[tuple[str, Mapping[str, Any], bool]]:
    """(key, its schema, whether it is required), depth first; keys of a mapping come after their parent."""
    required = node.get("required", ())
    for name, each in node.get("properties", {}).items():
        key = f"{at}{name}"
        full = {**_target(schema, each), **each}
        deeper = _target(schema, full.get("items", {}))
        if full.get("type") == "array" and "properties" in deeper:
            if set(deeper["properties"]) == {"address"}:
                yield f"{key}[].address", {**deeper["properties"]["address"], **full, "type": "string"}, False
                continue
            if full.get("description"):
                yield f"{key}[]", full, name in required
            yield from _rows(schema, deeper, f"{key}[].")
        elif full.get("properties") and any(full["properties"].values()):
            yield from _rows(schema, full, f"{key}.")
        else:
            yield key, full, name in required


def _target(schema: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any]:
    name = str(node.get("$ref", "")).removeprefix("#/$defs/")
    found: Mapping[str, Any] = schema["$defs"][name] if name else node
    return found


def _kind(schema: Mapping[str, Any], node: Mapping[str, Any]) -> str:
    if "const" in node:
        return f"`{node['const']}`"
    if "enum" in node:
        return " or ".join(f"`{value}`" for value in node["enum"]) if len(node["enum"]) < 6 else "a list of names"
    if node.get("$ref") == "#/$defs/duration":
        return "duration"
    kinds = node.get("type", "mapping")
    if kinds == "array":
        return "list"
    low, high = node.get("minimum"), node.get("maximum")
    span = f", {low} to {high}" if low is not None and high is not None else ""
    return {"string": "text", "object": "mapping", "boolean": "true or false", "array": "list"}.get(kinds, kinds) + span


def _table(name: str, schema: Mapping[str, Any], node: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    lines = ["| key | value | default | |", "|---|---|---|---|"]
    unused = set(defaults)
    for key, each, required in _rows(schema, node, ""):
        text = NOTES.get(f"{name}/{key}") or each.get("description")
        if not text:
            raise SystemExit(f"{name}: {key} has no description: add one to its schema, or to NOTES")
        unused.discard(key)
        group = key.rpartition(".")[0]
        needed = "*required*" if not group or group.endswith("[]") else f"*required in `{group}`*"
        default = needed if required else _shown(defaults.get(key, ""))
        text = "".join(
            part if i % 2 else part.replace("<", "&lt;") for i, part in enumerate(re.split("(`[^`]*`)", text))
        )
        text = text.replace("|", "\\|")
        lines.append(f"| `{key}` | {_kind(schema, each)} | {default} | {text} |")
    if unused:
        raise SystemExit(f"{name}: there are defaults for keys that are not there: {', '.join(sorted(unused))}")
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    if value in ("", None, (), {}):
        return ""
    if isinstance(value, str) and value.startswith("*"):  # prose, not a value
        return value
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _flat(value: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, each in value.items():
        found.update(_flat(each, f"{at}{key}.") if isinstance(each, Mapping) and each else {f"{at}{key}": each})
    return found


def _seconds(defaults: Mapping[str, Any], *prefixes: str) -> dict[str, Any]:
    return {key: f"{value:g}s" if key.startswith(prefixes) else value for key, value in defaults.items()}


def _hub() -> dict[str, Any]:
    text = "{id: a, state: b, domain: c, listeners: {}}"
    config = HubConfig.from_text(text, "defaults", Path("/"))
    return {
        **_seconds(_flat({"timeouts": asdict(config.timeouts)}), "timeouts."),
        **_flat({"log": asdict(config.log), "audit": {"decisions": config.audit.decisions}}),
        "approval": config.approval,
        "reuse_port": config.reuse_port,
        "ping_interval": f"{config.ping_interval:g}s",
        "tracing.sample_ratio": config.sample_ratio,
        "trust_domain": "*the domain*",
    }


def _satellite() -> dict[str, Any]:
    config = SatelliteConfig.from_text("{name: a, state: b, hubs: ['wss://h']}", "defaults", Path("/"))
    return {**_flat({"log": asdict(config.log)}), "lanes": config.lanes}


def _exports() -> dict[str, Any]:
    export = parse_exports('services: [{name: a, to: "http://h:1"}]')["a"]
    spec, health = export.spec, asdict(export.health)
    limits = {**asdict(spec.limits), "connections": export.connections}
    found = _flat({"health": health, "timeouts": asdict(spec.timeouts), "limits": limits, "lane": spec.lane})
    found = _seconds(found, "timeouts.", "health.interval", "health.timeout", "limits.queue_timeout")
    # Zero is no limit, and cannot be written in a file.
    return {**found, "kind": "*by the scheme*", "limits.concurrency": found["limits.concurrency"] or "*no limit*"}


def _topology() -> dict[str, Any]:
    plan = SatellitePlan("a")
    return {"replicas": 2, "satellites[].lanes": plan.lanes, "satellites[].name": "*sat-N*"}


def _tables() -> dict[str, Callable[[], str]]:
    hub, satellite = _schema("hub/hub-config.schema.json"), _schema("satellite/satellite-config.schema.json")
    exports, policy = _schema("satellite/exports.schema.json"), _schema("access/policy.schema.json")
    topology = _schema("deploy/topology.schema.json")
    return {
        "hub": lambda: _table("hub", hub, hub, _hub()),
        "satellite": lambda: _table("satellite", satellite, satellite, _satellite()),
        "exports": lambda: _table("exports", exports, exports["$defs"]["service"], _exports()),
        "policy": lambda: _table("policy", policy, policy["$defs"]["rule"], {}),
        "topology": lambda: _table("topology", topology, topology, _topology()),
    }


def render(page: str) -> str:
    """The page with its tables written anew; KeyError for a table that there is not."""
    tables = _tables()
    return BLOCK.sub(lambda block: block[1] + tables[block[2]]() + block[3], page)


def main(arguments: list[str]) -> int:
    stale, seen = [], set()
    for path in sorted(GUIDE.glob("*.md")):
        page = path.read_text(encoding="utf-8")
        seen |= {name for _, name, _ in BLOCK.findall(page)}
        fresh = render(page)
        if fresh != page:
            stale.append(path.relative_to(ROOT))
            if arguments != ["--check"]:
                path.write_text(fresh, encoding="utf-8")
    if missing := set(_tables()) - seen:
        print(f"docs/guide shows no table of: {', '.join(sorted(missing))}")
        return 1
    if stale and arguments == ["--check"]:
        print(f"stale, run make docs: {', '.join(map(str, stale))}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

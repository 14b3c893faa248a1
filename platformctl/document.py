"""A YAML document that remembers its lines, checked against a JSON Schema (2020-12).

Text in, data out: the caller reads the file. Every complaint is a `ConfigError` that names file, line, key and the
values that are allowed. A schema node may carry `x-hint`: one sentence that is shown as the error's hint.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

from platformctl.errors import ConfigError, excerpt

__all__ = ["Document", "parse", "seconds"]

Path = tuple[str | int, ...]

# A file of an operator is small; aliases could make a small file an endless tree ("billion laughs").
MAX_NODES = 200_000
MAX_DEPTH = 64

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)?")
_UNIT = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}
_TYPE = {
    "object": "a mapping",
    "array": "a list",
    "string": "a string",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "empty",
}


@dataclass(frozen=True, slots=True)
class Document:
    """`data` as plain lists, dicts and scalars; `lines` maps the path of each node to its 1-based line."""

    data: Any
    source: str
    lines: Mapping[Path, int]

    def line(self, path: Iterable[str | int]) -> int:
        """The line of the node at `path`, or of its nearest ancestor that the file has."""
        at = tuple(path)
        while at and at not in self.lines:
            at = at[:-1]
        return self.lines.get(at, 0)

    def error(self, path: Iterable[str | int], message: str, *, hint: str = "") -> ConfigError:
        at = tuple(path)
        where = f"{_dotted(at)}: " if at else ""
        return ConfigError(where + message, source=self.source, line=self.line(at), hint=hint)


def seconds(value: float | str) -> float:
    """`"500ms"`, `"5s"`, `"2m"`, `"1h"`, or a bare number of seconds. Raises ValueError."""
    if not isinstance(value, str):
        return float(value)
    found = _DURATION.fullmatch(value)
    if found is None:
        raise ValueError(f"{excerpt(value)!r} is not a duration")
    return float(found[1]) * _UNIT[found[2]]


def parse(text: str, source: str, schema: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> Document:
    """Parse `text`, lay `overrides` over it (mappings merge, anything else replaces), and validate the result.

    Raises ConfigError for bad YAML, a duplicate key, and whatever the schema refuses.
    """
    lines: dict[Path, int] = {}
    try:
        data = _load(text, source, lines)
    except yaml.YAMLError as e:
        raise _yaml_error(e, source) from e
    document = Document(_merge(data, overrides or {}), source, lines)
    worst = best_match(Draft202012Validator(schema).iter_errors(document.data))
    if worst is not None:
        raise _schema_error(worst, document)
    return document


def _load(text: str, source: str, lines: dict[Path, int]) -> Any:
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return {}
        _Walk(lines, source).visit(node, (), 0)
        return loader.construct_document(node)
    finally:
        loader.dispose()


class _Walk:
    """Note the line of each node; refuse what YAML allows and nobody means."""

    def __init__(self, lines: dict[Path, int], source: str) -> None:
        self._lines = lines
        self._source = source
        self._left = MAX_NODES

    def visit(self, node: yaml.Node, path: Path, depth: int) -> None:
        self._left -= 1
        line = node.start_mark.line + 1
        if self._left < 0 or depth > MAX_DEPTH:
            raise ConfigError("the document is too large or too deep", source=self._source, line=line)
        self._lines.setdefault(path, line)
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.visit(item, (*path, index), depth + 1)
        elif isinstance(node, yaml.MappingNode):
            self._mapping(node, path, depth)

    def _mapping(self, node: yaml.MappingNode, path: Path, depth: int) -> None:
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigError("a key must be a plain string", source=self._source, line=line)
            at = (*path, str(key.value))
            if at in self._lines:
                raise ConfigError(f"{_dotted(at)} is given twice", source=self._source, line=line)
            self._lines[at] = line
            self.visit(value, at, depth + 1)


def _merge(base: Any, over: Mapping[str, Any]) -> Any:
    if not over or not isinstance(base, dict):
        return base
    merged = dict(base)
    for key, value in over.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if nested else value
    return merged


def _yaml_error(error: yaml.YAMLError, source: str) -> ConfigError:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return ConfigError(f"not valid YAML: {excerpt(problem)}", source=source, line=mark.line + 1 if mark else 0)


def _schema_error(error: ValidationError, document: Document) -> ConfigError:
    path: Path = tuple(error.absolute_path)
    schema: Any = error.schema
    instance: Any = error.instance
    validator = str(error.validator)
    if validator == "additionalProperties":
        path = (*path, next(str(key) for key in instance if key not in schema["properties"]))
    say = _SAY.get(validator)
    message = say(error.validator_value, instance, schema) if say else excerpt(error.message, 200)
    return document.error(path, message, hint=str(schema.get("x-hint", "")))


def _say_type(wanted: Any, found: Any, _: Any) -> str:
    names = [_TYPE[t] for t in ([wanted] if isinstance(wanted, str) else wanted)]
    return f"must be {' or '.join(names)}, not {_shown(found)}"


def _say_enum(wanted: Any, found: Any, _: Any) -> str:
    return f"must be one of {', '.join(str(v) for v in wanted)}, not {_shown(found)}"


def _say_unknown(_: Any, found: Any, schema: Any) -> str:
    return f"unknown key; allowed here: {', '.join(sorted(schema['properties']))}"


def _say_required(wanted: Any, found: Any, _: Any) -> str:
    return f"needs {' and '.join(repr(key) for key in wanted if key not in found)}"


def _say_pattern(wanted: Any, found: Any, schema: Any) -> str:
    # Where the hint says it in words, nobody has to read the expression.
    form = "" if "x-hint" in schema else f" ({wanted})"
    return f"{_shown(found)} does not have the form that is wanted{form}"


_SAY = {
    "type": _say_type,
    "enum": _say_enum,
    "additionalProperties": _say_unknown,
    "required": _say_required,
    "pattern": _say_pattern,
}


def _shown(value: Any) -> str:
    return {dict: "a mapping", list: "a list", type(None): "nothing"}.get(type(value)) or excerpt(repr(value))


def _dotted(path: Path) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")

"""YAML that remembers its lines, and what it says about mistakes."""

from __future__ import annotations

from typing import Any

import pytest

from platformctl import document
from platformctl.document import parse, seconds
from platformctl.errors import ConfigError

SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z]+$", "x-hint": "Use letters."},
        "mode": {"enum": ["auto", "manual"]},
        "count": {"type": ["integer", "string"], "minimum": 1},
        "items": {"type": "array", "items": {"type": "object", "required": ["a", "b"]}},
        "nested": {"type": "object"},
    },
}


def refusal(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse(text, "file.yaml", SCHEMA)
    return caught.value


def test_data_and_lines_are_kept() -> None:
    found = parse("name: x\nitems:\n  - a: 1\n    b: 2\n", "file.yaml", SCHEMA)

    assert found.data == {"name": "x", "items": [{"a": 1, "b": 2}]}
    assert found.line(("items", 0, "b")) == 4
    assert found.line(("items", 0, "absent")) == 3
    assert found.line(()) == 1


def test_an_empty_document_is_an_empty_mapping_without_lines() -> None:
    found = parse("# nothing\n", "file.yaml", SCHEMA)

    assert found.data == {}
    assert found.line(("name",)) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nmode: fast\n", "file.yaml:2: mode: must be one of auto, manual, not 'fast'"),
        ("name: 5\n", "file.yaml:1: name: must be a string, not 5"),
        ("count: []\n", "file.yaml:1: count: must be a whole number or a string, not a list"),
        ("name: {}\n", "file.yaml:1: name: must be a string, not a mapping"),
        ("name:\n", "file.yaml:1: name: must be a string, not nothing"),
        ("- 1\n", "file.yaml:1: must be a mapping, not a list"),
        ("mode: auto\nnmae: x\n", "file.yaml:2: nmae: unknown key; allowed here: count, items, mode, name, nested"),
        ("items:\n  - c: 1\n", "file.yaml:2: items[0]: needs 'a' and 'b'"),
        ("items:\n  - {a: 1}\n", "file.yaml:2: items[0]: needs 'b'"),
        ("name: X1\n", "file.yaml:1: name: 'X1' does not have the form that is wanted"),
        ("count: 0\n", "file.yaml:1: count: 0 is less than the minimum of 1"),
        ("name: a\nmode: auto\nname: b\n", "file.yaml:3: name is given twice"),
        ("? [a]\n: 1\n", "file.yaml:1: a key must be a plain string"),
        ("name: 'x\n", "file.yaml:2: not valid YAML: found unexpected end of stream"),
        ("a: 1\n---\nb: 2\n", "file.yaml:2: not valid YAML: but found another document"),
        ("name: !!python/object:os.system x\n", "file.yaml:1: not valid YAML: could not determine a constructor"),
    ],
)
def test_a_mistake_is_named_with_its_line(text: str, message: str) -> None:
    assert str(refusal(text)).startswith(message)


def test_a_hint_comes_from_the_schema() -> None:
    assert refusal("name: X1\n").hint == "Use letters."


def test_a_control_character_is_an_error_without_a_line() -> None:
    assert str(refusal("name: \x00\n")).startswith("file.yaml: not valid YAML")


def test_aliases_that_multiply_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "MAX_NODES", 1000)
    bomb = "a: &a [x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c,*c]\n"
    assert "too large or too deep" in str(refusal(bomb))


def test_an_alias_of_itself_is_refused() -> None:
    assert "too large or too deep" in str(refusal("nested: &a\n  x: *a\n"))


def test_overrides_win_key_by_key_and_are_validated_too() -> None:
    text = "name: x\nnested: {a: 1, deep: {b: 2, c: 3}}\n"
    over = {"nested": {"deep": {"c": 4}}, "mode": "auto", "name": "y"}

    assert parse(text, "f", SCHEMA, over).data == {
        "name": "y",
        "mode": "auto",
        "nested": {"a": 1, "deep": {"b": 2, "c": 4}},
    }
    with pytest.raises(ConfigError, match="mode: must be one of"):
        parse(text, "f", SCHEMA, {"mode": "x"})


def test_overrides_cannot_mend_a_document_that_is_no_mapping() -> None:
    with pytest.raises(ConfigError, match="must be a mapping"):
        parse("- 1\n", "f", SCHEMA, {"mode": "auto"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [("500ms", 0.5), ("5s", 5.0), ("2m", 120.0), ("1h", 3600.0), ("7", 7.0), ("1.5s", 1.5), (3, 3.0), (0.25, 0.25)],
)
def test_durations_have_units(text: str | float, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "s", "-1s", "5 s", "1d", "1e3"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        seconds(text)

from __future__ import annotations

import io
import json
import sys

import pytest
import yaml

from platformctl.cli.output import Column, Format, coloured, console, few, instant, paint, plain, rows, size, table

COLUMNS = (
    Column("NAME", lambda item: item["name"]),
    Column("STATE", lambda item: item["state"]),
    Column("EXTRA", lambda item: item["extra"], wide=True),
)
ITEMS = [{"name": "a", "state": "connected", "extra": 1}, {"name": "longer", "state": "odd", "extra": None}]


def show(form: Format, items: list[dict[str, object]] | None = None) -> str:
    return rows(ITEMS if items is None else items, COLUMNS, form, kind="thing", name=lambda item: str(item["name"]))


def test_a_table_aligns_its_columns_and_hides_the_wide_ones() -> None:
    assert show(Format.TABLE).splitlines() == ["NAME    STATE", "a       connected", "longer  odd"]
    assert show(Format.WIDE).splitlines()[1:] == ["a       connected  1", "longer  odd        -"]


def test_documents_hold_everything() -> None:
    assert json.loads(show(Format.JSON)) == {"items": ITEMS}
    assert yaml.safe_load(show(Format.YAML)) == {"items": ITEMS}


def test_names_are_for_shell_loops() -> None:
    assert show(Format.NAME) == "thing/a\nthing/longer"
    assert show(Format.NAME, []) == ""


def test_an_empty_list_is_said() -> None:
    assert show(Format.TABLE, []) == "No things."


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        ("", "-"),
        ([], "-"),
        ({}, "-"),
        (0, "0"),
        (False, "False"),
        (1.25, "1.2"),
        (["b", "a"], "b,a"),
        ({"b": 1, "a": 2}, "a=2,b=1"),
        ("evil\x1b[2Jname", "evil\ufffd[2Jname"),
        ("right\u202eleft", "right\ufffdleft"),
    ],
)
def test_a_cell_is_one_line_of_printable_text(value: object, text: str) -> None:
    assert plain(value) == text


def test_states_have_colours_on_a_terminal() -> None:
    lines = table(ITEMS, COLUMNS, wide=False, colour=True).splitlines()
    assert lines[0].startswith("\x1b[1mNAME")
    assert paint("connected", "green") in lines[1]
    assert "\x1b" not in lines[2]


@pytest.mark.parametrize(
    ("tty", "environ", "expected"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (True, {"TERM": "dumb"}, False),
    ],
)
def test_colour_is_for_terminals_that_want_it(
    tty: bool, environ: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: tty)
    assert coloured(environ) is expected


def test_a_long_list_is_shortened_unless_wide() -> None:
    assert few(["api", "db"]) == "api,db"
    assert few([]) == ""
    assert few(["a" * 30, "b" * 30, "c"]) == "a" * 30 + " +2"
    assert few(["a" * 90]) == "a" * 90
    column = Column("S", lambda item: item["s"], short=lambda item: few(item["s"], 3))
    items = [{"s": ["one", "two"]}]
    assert table(items, [column], wide=False, colour=False) == "S\none +1"
    assert table(items, [column], wide=True, colour=False) == "S\none,two"


def test_times_are_shown_to_the_second_and_in_utc() -> None:
    assert instant("2030-01-01T00:00:00.377851Z") == "2030-01-01 00:00:00Z"
    assert instant("2030-01-01T02:00:00+02:00") == "2030-01-01 00:00:00Z"
    assert instant(None) is None
    assert instant("soon") == "soon"


def test_rich_text_in_a_pipe_is_not_wrapped_at_eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    file = io.StringIO()
    console(file).print("word " * 20)
    assert file.getvalue().count("\n") == 1
    monkeypatch.setenv("COLUMNS", "40")
    console(file := io.StringIO()).print("word " * 20)
    assert file.getvalue().count("\n") > 1


def test_bytes_are_shown_in_the_unit_that_fits() -> None:
    shown = [size(count) for count in (0, 999, 1000, 1_746_208, 5 * 10**12, 10**16, None)]
    assert shown == ["0 B", "999 B", "1.0 kB", "1.7 MB", "5.0 TB", "10000.0 TB", None]

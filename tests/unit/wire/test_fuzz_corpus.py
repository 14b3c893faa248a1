"""Every input that the fuzzers have kept, and every one that has ever failed, is run again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import fuzz_http, fuzz_session

CORPUS = Path(fuzz_session.__file__).with_name("corpus")
TARGETS = {"fuzz_session": fuzz_session.one_input, "fuzz_http": fuzz_http.one_input}
INPUTS = [(target, path) for target in TARGETS for path in sorted((CORPUS / target).iterdir())]


@pytest.mark.parametrize(("target", "path"), INPUTS, ids=lambda value: getattr(value, "name", value)[:12])
def test_this_input_does_no_harm(target: str, path: Path) -> None:
    TARGETS[target](path.read_bytes())


def test_the_corpus_is_there_and_small() -> None:
    for target in TARGETS:
        sizes = [path.stat().st_size for name, path in INPUTS if name == target]
        assert 50 < len(sizes) < 1000
        assert sum(sizes) < 500_000

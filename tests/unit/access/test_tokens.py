from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platformctl.access.identity import Identity
from platformctl.access.tokens import (
    ENTROPY_BYTES,
    ClientTokens,
    check_join_token,
    mint_client_token,
    mint_join_token,
    token_id,
)
from platformctl.errors import JoinRefused, LocalMisuse, UsageError

NOW = 1_700_000_000.0
ENTROPY = bytes(range(ENTROPY_BYTES))
LABELS = {"region": "eu", "role": "gpu"}


def test_a_join_token_lets_its_satellite_in_with_its_labels() -> None:
    text, record = mint_join_token(ENTROPY, "edge-1", LABELS, now=NOW)
    assert token_id(text) == record.id
    assert (record.satellite, dict(record.labels)) == ("edge-1", LABELS)
    assert record.expires == NOW + 900
    check_join_token(record, text, "edge-1", LABELS, NOW + 899)
    check_join_token(record, text, "edge-1", {"role": "gpu"}, NOW)
    check_join_token(record, text, "edge-1", {}, NOW)


def test_the_secret_is_nowhere_in_the_record_or_its_repr() -> None:
    text, record = mint_join_token(ENTROPY, "edge-1", LABELS, now=NOW)
    secret = text.partition(".")[2]
    assert len(secret) == 43
    assert secret not in str([getattr(record, name) for name in record.__slots__])
    assert record.digest not in repr(record)
    _, client = mint_client_token(ENTROPY, "alice", now=NOW)
    assert client.digest not in repr(client)


def test_labels_of_a_record_do_not_change_with_the_callers() -> None:
    labels = dict(LABELS)
    _, record = mint_join_token(ENTROPY, "edge-1", labels, now=NOW)
    labels["role"] = "admin"
    assert record.labels["role"] == "gpu"


@pytest.mark.parametrize(
    ("satellite", "labels", "at", "message"),
    [
        ("edge-1", {}, NOW + 900, "expired 0 seconds ago"),
        ("edge-2", {}, NOW, "is for satellite 'edge-1', not for 'edge-2'"),
        ("edge-1", {"role": "cpu"}, NOW, "does not grant the label 'role=cpu'"),
        ("edge-1", {"tier": "gold"}, NOW, "does not grant the label 'tier=gold'"),
    ],
)
def test_a_join_token_is_bound_to_time_name_and_labels(
    satellite: str, labels: dict[str, str], at: float, message: str
) -> None:
    text, record = mint_join_token(ENTROPY, "edge-1", LABELS, now=NOW)
    with pytest.raises(JoinRefused, match=message) as caught:
        check_join_token(record, text, satellite, labels, at)
    assert "platformctl token create" in caught.value.hint
    assert text.partition(".")[2] not in str(caught.value) + caught.value.hint


def test_a_used_join_token_is_refused() -> None:
    text, record = mint_join_token(ENTROPY, "edge-1", LABELS, now=NOW)
    with pytest.raises(JoinRefused, match="was used already"):
        check_join_token(replace(record, used_at=NOW), text, "edge-1", {}, NOW)


def test_without_the_secret_every_refusal_is_the_same() -> None:
    text, record = mint_join_token(ENTROPY, "edge-1", LABELS, now=NOW)
    used = replace(record, used_at=NOW)
    secret = text.partition(".")[2]
    wrong = [
        (None, text),
        (record, record.id + "." + "A" * 43),
        (used, record.id + "." + "A" * 43),
        (record, record.id),
        (record, "jt-000000000000." + secret),
        (record, text + "\n"),
        (record, "." + secret),
        (record, ""),
        (record, "\udcff.\udcff"),
    ]
    said = set()
    for stored, guess in wrong:
        with pytest.raises(JoinRefused) as caught:
            check_join_token(stored, guess, "edge-1", {}, NOW + 10_000)
        said.add((caught.value.message, caught.value.hint))
    assert len(said) == 1


def test_state_says_what_a_list_shows() -> None:
    _, record = mint_join_token(ENTROPY, "edge-1", {}, now=NOW, ttl_seconds=60)
    assert record.state(NOW + 59) == "unused"
    assert record.state(NOW + 60) == "expired"
    assert replace(record, used_at=NOW).state(NOW + 60) == "used"


@pytest.mark.parametrize("ttl", [0, -1, 8 * 86400, float("nan")])
def test_a_join_token_cannot_live_for_ever(ttl: float) -> None:
    with pytest.raises(UsageError, match="cannot live for"):
        mint_join_token(ENTROPY, "edge-1", {}, now=NOW, ttl_seconds=ttl)


def test_minting_needs_exactly_the_randomness_it_asks_for() -> None:
    with pytest.raises(LocalMisuse, match="38 random bytes"):
        mint_join_token(b"short", "edge-1", {}, now=NOW)


def test_a_satellite_cannot_be_given_the_hubs_name_or_a_wrong_label() -> None:
    with pytest.raises(UsageError):
        mint_join_token(ENTROPY, "hub", {}, now=NOW)
    with pytest.raises(UsageError):
        mint_join_token(ENTROPY, "edge-1", {"a b": "c"}, now=NOW)


def test_a_client_token_proves_its_identity_until_it_expires() -> None:
    text, record = mint_client_token(ENTROPY, "alice", ["users", "admins", "users"], now=NOW, ttl_seconds=60)
    tokens = ClientTokens([record])
    assert len(tokens) == 1
    assert tokens.lookup(text, NOW + 59) == Identity("token", "alice", frozenset({"admins", "users"}))
    assert tokens.lookup(text, NOW + 60) is None


def test_a_client_token_without_a_lifetime_does_not_expire() -> None:
    text, record = mint_client_token(ENTROPY, "alice", now=NOW)
    assert record.expires is None
    assert ClientTokens([record]).lookup(text, NOW + 1e10) == Identity("token", "alice")


@given(st.text(max_size=200))
def test_no_other_text_is_a_client_token(guess: str) -> None:
    text, record = mint_client_token(ENTROPY, "alice", now=NOW)
    tokens = ClientTokens([record])
    for candidate in (guess, f"{record.id}.{guess}", f"{text}{guess}" if guess else "", f"{text}{guess:>200}"):
        assert tokens.lookup(candidate, NOW) is None


def test_tokens_of_the_two_kinds_do_not_stand_for_each_other() -> None:
    join, _ = mint_join_token(ENTROPY, "edge-1", {}, now=NOW)
    _, record = mint_client_token(ENTROPY, "alice", now=NOW)
    assert ClientTokens([record]).lookup(join, NOW) is None


@pytest.mark.parametrize("name", ["", "token:alice", "a b", "-a", "a\n", "x" * 129, "*"])
def test_names_of_tokens_and_groups_are_plain(name: str) -> None:
    with pytest.raises(UsageError, match="is not a name"):
        mint_client_token(ENTROPY, name, now=NOW)
    with pytest.raises(UsageError, match="is not a name"):
        mint_client_token(ENTROPY, "alice", [name], now=NOW)


def test_a_client_token_lives_for_some_time() -> None:
    with pytest.raises(UsageError, match="cannot live"):
        mint_client_token(ENTROPY, "alice", now=NOW, ttl_seconds=0)


@pytest.mark.parametrize("text", ["", "abc", "abc.", ".abc", "a." + "b" * 200])
def test_a_text_without_both_parts_has_no_id(text: str) -> None:
    assert token_id(text) == ""

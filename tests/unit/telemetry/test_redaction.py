from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platformctl.access.tokens import ENTROPY_BYTES, mint_client_token
from platformctl.telemetry.redaction import MAX_TEXT, REDACTED, clean, clean_text, is_secret_key

SECRET = "hunter2hunter2"


@pytest.mark.parametrize(
    "key",
    [
        *("authorization", "Authorization", "Proxy-Authorization", "proxy_authorization", "cookie", "Set-Cookie"),
        *("token", "admin_token", "accessToken", "X-Auth-Token", "tokens", "secret", "client-secret", "password"),
        *("db.password", "passphrase", "api_key", "apiKey", "X-API-Key", "private key", "privatekey", "credentials"),
    ],
)
def test_keys_that_name_a_secret(key):
    assert is_secret_key(key)


@pytest.mark.parametrize(
    "key",
    ["key", "endpoint_key", "token_id", "admin_token_file", "tokenizer", "monkey", "passwords_checked", "", "path"],
)
def test_keys_that_do_not(key):
    assert not is_secret_key(key)


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {SECRET}",
        f"authorization: {SECRET}, more {SECRET}",
        f"{{'Authorization': 'Basic {SECRET}'}}",
        f"[(b'authorization', b'Custom {SECRET}')]",
        f"Cookie: session={SECRET}; theme={SECRET}",
        f"sent bearer {SECRET} upstream",
        f"dial https://user:{SECRET}@example.com/x",
        f"redis://:{SECRET}@cache:6379",
        f"GET /x?access_token={SECRET}&page=2",
        f"password={SECRET}",
        f'{{"client_secret": "{SECRET}"}}',
        f"--token {SECRET} --token={SECRET}",
        f"api-key: {SECRET}",
        f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----",
        f"-----BEGIN EC PRIVATE KEY-----\n{SECRET}",
        f"jwt eyJhbGciOi.eyJzdWIi.{SECRET}",
    ],
)
def test_text_that_looks_like_a_secret_is_redacted(text):
    shown = clean_text(text)
    assert SECRET not in shown.replace(f"--token {SECRET}", "")
    assert REDACTED in shown


def test_our_own_tokens_are_recognised_anywhere():
    token, _ = mint_client_token(bytes(range(ENTROPY_BYTES)), "alice", now=0.0)
    assert token not in clean_text(f"call failed with {token}.")
    assert clean_text(f"<{token}>") == f"<{REDACTED}>"


@pytest.mark.parametrize(
    "text",
    [
        "tunnel up",
        "GET /s/sat-1/api/ 200",
        "token expired",
        "see https://hub.example.com/x@y",
        "sha256:" + "a" * 64,
        "basic auth",
    ],
)
def test_ordinary_text_is_left_as_it_is(text):
    assert clean_text(text) == text


def test_the_name_beside_a_secret_stays():
    assert clean_text(f"password={SECRET} user=alice") == f"password={REDACTED} user=alice"
    assert clean_text(f"https://u:{SECRET}@example.com/x") == f"https://{REDACTED}@example.com/x"


def test_terminal_escapes_and_line_ends_are_escaped():
    assert clean_text("a\x1b[31mb\nc\u202ed") == "a\\x1b[31mb\\x0ac\\x202ed"
    assert clean_text("a\n\tb\x1b", multiline=True) == "a\n\tb\\x1b"


def test_long_text_is_cut():
    assert clean_text("x" * 10_000) == "x" * MAX_TEXT + "…"
    assert clean_text("abcdef", limit=3) == "abc…"


def test_values_become_json_types():
    value = {
        "n": 1,
        "f": 0.5,
        "none": None,
        "b": True,
        "s": "x",
        "raw": b"\x00a",
        "list": [1, (2,)],
        5: {"password": "p"},
    }
    assert clean(value) == {
        "n": 1,
        "f": 0.5,
        "none": None,
        "b": True,
        "s": "x",
        "raw": "\\x00a",
        "list": [1, [2]],
        "5": {"password": REDACTED},
    }


def test_numbers_that_json_cannot_carry_become_text():
    assert clean(float("nan")) == "nan"
    assert clean(float("-inf")) == "-inf"
    assert clean(1 << 20_000) == "<a number of 20001 bits>"


def test_an_empty_secret_is_shown_as_empty():
    assert clean({"token": ""}) == {"token": ""}


def test_depth_and_number_of_items_are_bounded():
    deep: list[object] = []
    for _ in range(100):
        deep = [deep]
    assert len(json.dumps(clean(deep))) < 500
    assert clean(list(range(60)))[-1] == "… 10 more"
    assert clean({str(n): n for n in range(60)})["…"] == "10 more"


def test_objects_are_shown_as_their_cleaned_text():
    assert clean(ValueError(f"password={SECRET}")) == f"password={REDACTED}"


def test_an_object_that_refuses_to_be_shown_does_no_harm():
    class Awkward:
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert clean(Awkward()) == "<Awkward: RuntimeError>"


@pytest.mark.parametrize(
    "piece",
    [
        "a-",
        "token",
        "eyJ-",
        "a://",
        "-----BEGIN ",
        "-----BEGIN PRIVATE KEY-----",
        "cookie:",
        "bearer ",
        "a.",
        "=",
        "token=token",
    ],
)
def test_text_made_to_take_long_does_not(piece):
    text = piece * (1_000_000 // len(piece))  # a minute and more where the work grows with the square
    assert len(clean_text(text, 500_000)) <= 500_001


@given(st.text(max_size=300))
def test_cleaned_text_is_printable_and_bounded(text):
    shown = clean_text(text, 100)
    assert shown.isprintable()
    assert len(shown) <= 101

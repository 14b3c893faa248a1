from __future__ import annotations

import ssl

import pytest

from platformctl.net.address import Address, dial_error


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:80", "127.0.0.1", 80), ("[::1]:8443", "::1", 8443), (":0", "", 0), ("hub:65535", "hub", 65535)],
)
def test_an_address_is_parsed_and_written_back(text: str, host: str, port: int) -> None:
    found = Address.parse(text)

    assert found == (host, port)
    assert str(found) == text


@pytest.mark.parametrize("text", ["80", "host", "host:", "host:http", "host:65536", "::1:80", "host:-1", "host:¹"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"host:port|brackets"):
        Address.parse(text)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 1)"), "connection refused"),
        (OSError("Multiple exceptions: a, b"), "Multiple exceptions: a, b"),
        (OSError(-2, "Name or service not known"), "[Errno -2] Name or service not known"),
        (ssl.SSLError(1, "[SSL: X] text"), "[ssl: x] text"),
    ],
)
def test_a_failed_dial_is_told_in_the_systems_words(error: OSError, text: str) -> None:
    assert dial_error(error) == text

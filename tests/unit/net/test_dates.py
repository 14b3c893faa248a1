from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from platformctl.net.dates import http_date


def test_the_date_is_now_in_the_form_of_http() -> None:
    text = http_date()
    assert text.endswith(" GMT")
    assert abs((parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()) < 2


def test_the_date_is_made_once_a_second() -> None:
    dates = {id(http_date()) for _ in range(1000)}
    assert len(dates) <= 2

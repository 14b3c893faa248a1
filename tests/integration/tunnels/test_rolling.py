"""Replicas and agents come and go; requests do not."""

from __future__ import annotations

import asyncio
import signal

from .conftest import Platform, until
from .load import Load


async def test_a_rolling_restart_of_both_replicas_fails_no_request(platform: Platform) -> None:
    load = Load(platform.url(), platform.token, per_second=600, connections=24)
    async with load.running():
        await asyncio.sleep(1)
        for number in range(2):
            pid = platform.hub(number)
            platform.signal(pid, signal.SIGTERM)
            await asyncio.to_thread(platform.ended, pid)
            await asyncio.to_thread(platform.up)
        await asyncio.sleep(1)
    assert not load.failed(), load.summary()
    assert len(load.outcomes) > 1000

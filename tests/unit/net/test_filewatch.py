"""Every way in which a file is replaced is seen. Looks are called by hand; only the loop's own tests use the clock."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import pytest

from platformctl.net.filewatch import FileWatch, fingerprint


class Counter:
    def __init__(self) -> None:
        self.calls = 0
        self.called = asyncio.Event()
        self.fails = False

    async def __call__(self) -> None:
        self.calls += 1
        self.called.set()
        if self.fails:
            raise OSError("broken")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("one")
    return path


async def test_nothing_changed_so_nothing_is_called(path: Path) -> None:
    counter = Counter()
    watch = FileWatch([path], counter)

    assert await watch.check() is False
    assert counter.calls == 0


async def test_a_write_in_place_is_seen_once(path: Path) -> None:
    counter = Counter()
    watch = FileWatch([path], counter)
    path.write_text("two!")

    assert await watch.check() is True
    assert await watch.check() is False
    assert counter.calls == 1


async def test_a_file_renamed_over_it_is_seen_even_with_the_same_size_and_time(path: Path) -> None:
    counter = Counter()
    watch = FileWatch([path], counter)
    new = path.with_name("new")
    new.write_text("two")
    times = path.stat()
    os.utime(new, ns=(times.st_atime_ns, times.st_mtime_ns))
    new.replace(path)

    assert await watch.check() is True


async def test_the_symlink_swap_of_a_mounted_secret_is_seen(tmp_path: Path) -> None:
    for version in ("..v1", "..v2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "tls.crt").write_text("same")
    (tmp_path / "..data").symlink_to("..v1")
    (tmp_path / "tls.crt").symlink_to("..data/tls.crt")
    counter = Counter()
    watch = FileWatch([tmp_path / "tls.crt"], counter)

    (tmp_path / "..tmp").symlink_to("..v2")
    (tmp_path / "..tmp").replace(tmp_path / "..data")

    assert await watch.check() is True


async def test_a_file_that_vanishes_and_comes_is_seen_both_times(path: Path) -> None:
    counter = Counter()
    watch = FileWatch([path], counter)

    path.unlink()
    assert fingerprint(path) is None
    assert await watch.check() is True
    path.write_text("one")
    assert await watch.check() is True


async def test_one_of_several_files_is_enough(path: Path, tmp_path: Path) -> None:
    counter = Counter()
    watch = FileWatch([path, tmp_path / "other"], counter)
    (tmp_path / "other").write_text("")

    assert await watch.check() is True


async def test_a_failing_callback_is_logged_and_the_next_change_still_calls(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    counter = Counter()
    counter.fails = True
    watch = FileWatch([path], counter)
    path.write_text("two!")

    with caplog.at_level(logging.ERROR):
        assert await watch.check() is True
    assert "reload failed" in caplog.text
    path.write_text("three")
    assert await watch.check() is True
    assert counter.calls == 2


async def test_poke_calls_without_a_change_and_without_waiting_for_the_interval(path: Path) -> None:
    counter = Counter()
    watch = FileWatch([path], counter, interval=3600.0)
    running = asyncio.gather(watch.run())
    await asyncio.sleep(0)

    watch.poke()
    async with asyncio.timeout(5):
        await counter.called.wait()

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert counter.calls == 1


async def test_the_loop_looks_by_itself(path: Path) -> None:
    counter = Counter()
    watch = FileWatch([path], counter, interval=0.005)
    running = asyncio.gather(watch.run())
    path.write_text("two!")

    async with asyncio.timeout(5):
        await counter.called.wait()

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

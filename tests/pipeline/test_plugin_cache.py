"""A store of a plugin in place of the folder: kept and found there, and never a reason to fail."""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from aligner_proxy.pipeline.cache import PluginCache
from aligner_proxy.plugins.extensions import InlineRunner
from aligner_proxy.plugins.isolation import ThreadRunner
from aligner_proxy.types import Correction

MADE = Correction("It is so.", aligner="content")


class Memory:
    """A store in memory; `wrong` is called before everything."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.ages: list[float] = []
        self.wrong: Any = lambda: None

    async def get(self, key: str) -> bytes | None:
        self.wrong()
        return self.kept.get(key)

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        self.wrong()
        self.kept[key] = value
        self.ages.append(ttl_s)


@pytest.fixture
def memory() -> Memory:
    return Memory()


def cache(memory: Memory, folder: Path, *, apart: bool = True) -> PluginCache:
    return PluginCache(folder / "unused", 60.0, memory, ThreadRunner("cache") if apart else InlineRunner())


@pytest.mark.parametrize("apart", [True, False])
async def test_what_was_put_is_found_and_the_folder_is_never_made(memory: Memory, tmp_path: Path, apart: bool) -> None:
    made = cache(memory, tmp_path, apart=apart)
    assert await made.get("k") is None
    await made.put("k", MADE)
    assert await made.get("k") == MADE
    assert memory.ages == [60.0]
    assert not (tmp_path / "unused").exists()
    await made.aclose()


@pytest.mark.parametrize("lie", [b"", b"x" * 99, "text", 7])
async def test_what_is_not_whole_is_a_miss(memory: Memory, tmp_path: Path, lie: Any) -> None:
    made = cache(memory, tmp_path)
    memory.kept["k"] = lie
    assert await made.get("k") is None


async def test_one_changed_byte_is_a_miss(memory: Memory, tmp_path: Path) -> None:
    made = cache(memory, tmp_path)
    await made.put("k", MADE)
    memory.kept["k"] = memory.kept["k"].replace(b"so", b"no")
    assert await made.get("k") is None


async def test_one_that_raises_is_a_miss_with_one_warning(
    memory: Memory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = cache(memory, tmp_path)

    def raises() -> None:
        raise ConnectionError("secret")

    memory.wrong = raises
    with caplog.at_level(logging.WARNING):
        assert await made.get("k") is None
        await made.put("k", MADE)
    assert caplog.text.count("its store failed") == 1
    assert "secret" not in caplog.text
    memory.wrong = lambda: None
    await made.put("k", MADE)
    assert await made.get("k") == MADE


async def test_one_that_blocks_is_a_miss_and_others_still_share_in_flight(
    memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aligner_proxy.pipeline.cache.BUSY_S", 0.05)
    door = threading.Event()
    memory.wrong = door.wait
    made = cache(memory, tmp_path)
    assert await made.get("k") is None
    asked = []

    async def compute() -> Correction:
        asked.append(1)
        await asyncio.sleep(0)
        return MADE

    shared = [made.get_or_compute("k", compute, remember=False) for _ in range(2)]
    assert await asyncio.gather(*shared) == [(MADE, None), (MADE, None)]
    assert len(asked) == 1
    door.set()

"""Endpoints of other people's plugins: made by the file, each in a thread of its own, and none can stop the gateway."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from pydantic import BaseModel

from aligner_proxy.errors import ConfigError, CorrectionError
from aligner_proxy.plugins import registry
from aligner_proxy.policy.request_facts import RequestFacts
from tests.plugins.test_registry import policies
from tests.plugins.test_registry import site as site
from tests.support.installed import install

SOURCE = """
import threading, time
from pydantic import BaseModel
from aligner_proxy.plugins.api import Endpoint, hookimpl

class Word(BaseModel):
    word: str

def make(file):
    if file.defaults.caution == 9.0:
        raise ValueError("a secret")
    async def answer(body, caller):
        if body.word == "wait":
            time.sleep(2.0)
        if body.word == "break":
            raise ValueError("a secret")
        return Word(word=threading.current_thread().name) if body.word != "nonsense" else 7
    return answer

@hookimpl
def endpoints():
    return [Endpoint("/v1/word", "Say a word.", Word, Word, make)]
"""


class Word(BaseModel):
    word: str


async def ask(site: Path, folder: Path, word: str) -> str:
    """The answer of the plugin that the file lets in."""
    install(site, "words", SOURCE, entries={"words": "words"})
    answer = await registry.load_endpoints(policies(folder))["/v1/word"].call(Word(word=word), RequestFacts())
    return str(getattr(answer, "word", answer))


async def test_it_answers_in_a_thread_of_its_own(site: Path, tmp_path: Path) -> None:
    assert await ask(site, tmp_path, "hello") == "words"


@pytest.mark.parametrize("word", ["break", "nonsense"])
async def test_a_fault_has_a_reason_and_no_text(site: Path, tmp_path: Path, word: str) -> None:
    with pytest.raises(CorrectionError) as caught:
        await ask(site, tmp_path, word)
    assert caught.value.reason == "plugin_error"
    assert "secret" not in str(caught.value)


async def test_one_that_blocks_blocks_only_itself(site: Path, tmp_path: Path) -> None:
    waiting = asyncio.create_task(ask(site, tmp_path, "wait"))
    began = time.monotonic()
    await asyncio.sleep(0.1)
    assert not waiting.done()
    assert time.monotonic() - began < 1.0
    assert await waiting == "words"


def test_one_that_cannot_be_made_keeps_the_gateway_from_starting(site: Path, tmp_path: Path) -> None:
    install(site, "words", SOURCE, entries={"words": "words"})
    with pytest.raises(ConfigError, match="plugin words: /v1/word cannot be served") as caught:
        registry.load_endpoints(policies(tmp_path, "defaults: {caution: 9.0}\n"))
    assert "secret" not in str(caught.value)


def test_it_is_not_there_where_the_file_lets_none_in(site: Path, tmp_path: Path) -> None:
    install(site, "words", SOURCE, entries={"words": "words"})
    assert "/v1/word" not in registry.load_endpoints(policies(tmp_path, "plugins: {third_party: false}\n"))

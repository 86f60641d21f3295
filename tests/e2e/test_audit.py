"""`audit: required` through the real proxy: an answer comes with its entry, or it does not come."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from aligner_proxy.audit.store import AuditStore
from aligner_proxy.plugins.api import Entry
from tests.e2e.clients import Gateway
from tests.e2e.deployment import Deployment

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

INSULT = "idiot"
KIND = "The capital of France is Paris. It lies on the Seine."


class Audited(Deployment):
    """A deployment whose answers need their entry."""

    def policies(self) -> dict[str, Any]:
        """The policies file."""
        audit = {"enabled": True, "required": True, "file": "{folder}/required/audit.db"}
        return {**super().policies(), "audit": audit}


DEPLOYMENT = Audited().model("gpt").case("sentences", stream="sentence").case("live", stream="passthrough")


@pytest.fixture
def file(folder: Path) -> Path:
    return folder / "required" / "audit.db"


def entries(file: Path) -> list[Entry]:
    store = AuditStore(file)
    found = list(store.entries())
    store.close()
    return found


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Another process writes, and does not end."""
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def test_an_answer_comes_with_its_entry(gateway: Gateway, file: Path) -> None:
    got = gateway.chat("rude")
    assert got.json()["choices"][0]["message"]["content"] == KIND
    (entry,) = [one for one in entries(file) if one.call_id == got.headers["x-litellm-call-id"]]
    assert entry.content is not None
    assert entry.content.edited == KIND
    assert entry.aligner_id == got.headers["x-aligner-id"]


@pytest.mark.parametrize("model", ["gpt", "sentences"])
def test_a_stream_tells_the_id_of_its_entry_before_and_after(gateway: Gateway, file: Path, model: str) -> None:
    got = gateway.chat_stream("rude", model=model)
    (entry,) = [one for one in entries(file) if one.call_id == got.headers["x-litellm-call-id"]]
    assert got.headers["x-aligner-id"] == got.aligner_id == entry.aligner_id


def test_without_its_entry_there_is_no_answer_until_there_can_be_one(gateway: Gateway, file: Path) -> None:
    gateway.chat("rude")  # so that there is a store
    models = ("gpt", "sentences", "live")
    with locked(file), ThreadPoolExecutor(2 * len(models)) as pool:  # each waits for seconds
        wholes = [pool.submit(gateway.chat, "rude locked", model=model) for model in models]
        streams = [pool.submit(gateway.chat_stream, "rude locked", model=model) for model in models]
        answers = [(whole.result(), stream.result()) for whole, stream in zip(wholes, streams, strict=True)]
    for model, (whole, stream) in zip(models, answers, strict=True):
        assert whole.status_code == httpx.codes.SERVICE_UNAVAILABLE
        assert "the answer could not be recorded (audit_unwritten)" in whole.text
        assert INSULT not in whole.text + stream.raw
        assert "Paris" not in whole.text + stream.raw
        again = gateway.chat_stream("rude again", model=model)
        assert again.text() == KIND

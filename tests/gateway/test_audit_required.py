"""`audit: required` at the hooks: no answer that is enforced goes out before its entry is on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aligner_proxy.audit import recorder
from aligner_proxy.audit.store import AuditStore
from aligner_proxy.errors import ConfigError
from aligner_proxy.gateway.choice_corrector import Blocked
from aligner_proxy.gateway.guardrail import AlignerGuardrail
from aligner_proxy.plugins.api import Entry
from aligner_proxy.policy import config
from tests.gateway.test_guardrail import POLICIES, answer, build, data, ledger_of, user
from tests.support.background import wait_for_shadows
from tests.support.stream_fixtures import chat_items, flow

RUDE = "It is so. You fool."


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that fails is not waited for."""
    monkeypatch.setattr(recorder, "MAX_WAIT_S", 0.0)
    monkeypatch.setattr(recorder, "LAST_TRIES_S", 0.0)


def guard_of(folder: Path, monkeypatch: pytest.MonkeyPatch, audit: Any = "required") -> AlignerGuardrail:
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(folder / "home"))
    return build(folder, monkeypatch, {**POLICIES, "audit": audit})


def break_the_store(folder: Path) -> None:
    """Where the folder of the store should be there is a file."""
    (folder / "home").mkdir(exist_ok=True)
    (folder / "home" / "audit.db").mkdir()


def entries(folder: Path) -> list[Entry]:
    store = AuditStore(folder / "home" / "audit.db")
    found = list(store.entries())
    store.close()
    return found


def who(**settings: Any) -> Any:
    return user(metadata={"aligner": settings})


async def test_the_entry_is_there_before_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = guard_of(tmp_path, monkeypatch)
    edited = await guard.async_post_call_success_hook(data(), user(), answer(RUDE, RUDE))
    assert [choice.message.content for choice in edited.choices] == ["It is so."] * 2
    assert [entry.status for entry in entries(tmp_path)] == ["corrected"] * 2
    await guard._audit_writers.aclose()


async def test_without_an_entry_there_is_no_answer_and_the_reason_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_the_store(tmp_path)
    guard = guard_of(tmp_path, monkeypatch)
    request = data()
    with pytest.raises(Blocked, match=r"the answer could not be recorded \(audit_unwritten\)") as caught:
        await guard.async_post_call_success_hook(request, user(), answer(RUDE))
    assert caught.value.code == "503"
    assert [(o.status, o.reason, o.text) for o in ledger_of(request).outcomes] == [("failed", "audit_unwritten", None)]
    await guard._audit_writers.aclose()


@pytest.mark.parametrize("mode", ["hold", "sentence", "passthrough"])
async def test_nothing_of_a_stream_goes_out_without_its_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    break_the_store(tmp_path)
    guard = guard_of(tmp_path, monkeypatch)
    items: list[Any] = []

    async def play() -> None:
        async for item in guard.async_post_call_streaming_iterator_hook(
            who(stream=mode), flow(chat_items(["It is", " so. ", "You fool."])), data()
        ):
            items.append(item)

    with pytest.raises(Blocked, match="audit_unwritten"):
        await play()
    assert items == []
    await guard._audit_writers.aclose()


async def test_in_shadow_mode_the_answer_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_the_store(tmp_path)
    guard = guard_of(tmp_path, monkeypatch)
    request = data()
    got = await guard.async_post_call_success_hook(request, who(mode="shadow"), answer(RUDE))
    assert got.choices[0].message.content == RUDE
    await wait_for_shadows(guard._shadows)
    await guard._audit_writers.aclose()
    assert [outcome.status for outcome in ledger_of(request).outcomes] == ["shadow"]


async def test_where_it_is_not_required_the_answer_does_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_the_store(tmp_path)
    guard = guard_of(tmp_path, monkeypatch, {"enabled": True})
    edited = await guard.async_post_call_success_hook(data(), user(), answer(RUDE))
    assert edited.choices[0].message.content == "It is so."
    await guard._audit_writers.aclose()


def test_the_short_form_says_both(tmp_path: Path) -> None:
    for text in ("audit: required\n", "audit: {enabled: true, required: true}\n"):
        (tmp_path / "policies.yaml").write_text(text)
        file = config.load(tmp_path / "policies.yaml")
        assert (file.audit.enabled, file.audit.required) == (True, True)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("audit: {required: true}\n", "policies.yaml:1: audit: required needs the store: set enabled: true"),
        ("audit: needed\n", "policies.yaml:1: audit: must be a block such as {enabled: true}, or the word required"),
        ("audit:\n  enabled: true\n  waiting_mb: 0\n", "policies.yaml:3: audit.waiting_mb"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_line(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "policies.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        config.load(tmp_path / "policies.yaml")
    assert problem in str(caught.value)

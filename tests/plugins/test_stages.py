"""Stages of plugins: one folder adds a key, a stage, a header and a metric; and what a stage that fails costs."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter

from aligner_proxy.pipeline.growing_answer import GrowingAnswer
from aligner_proxy.pipeline.outcomes import blocks
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.plugins.api import AnswerSoFar, Extension, Hold, Outgoing, PolicyKey, Stage, Stop
from aligner_proxy.plugins.extensions import Extensions, ExtensionWithRunner
from aligner_proxy.plugins.isolation import ThreadRunner
from aligner_proxy.text.languages import prose_language
from aligner_proxy.types import Exchange, IfNothingRemains, Objective, Outcome, Policy, Status, StreamMode, Turn
from tests.support.editors import ScriptedChat, editors
from tests.support.growing import grown
from tests.support.scripted import SegmentEngine

ENGLISH = "Take a brush and paint the fence with it. Then let it dry for a day."
GERMAN = "Nimm einen Pinsel und streiche damit den Zaun. Dann lass ihn einen Tag lang trocknen."
ASKED = Exchange("c", 0, (Turn("user", "How do I paint a fence?"),), None)
POLICY = Policy("p", (Objective("kind", "Kind: no insults"),))
DECLINING = replace(POLICY, if_nothing_remains=IfNothingRemains.DECLINE)
EDITED = replace(POLICY, editor="model:strong")


# --- The plugin: the gateway's own language stage, moved out. ---
class OnlyLanguages(Stage):
    """Stops an answer that is in none of some languages; of the others the record says which it is in."""

    def __init__(self, languages: Collection[str]) -> None:
        self._languages = languages

    async def admit(self, answer: AnswerSoFar) -> Stop | Hold | None:
        language = prose_language(answer.text)
        if language and language not in self._languages:
            return Stop(Status.FAILED, "language")
        return None if answer.has_ended or language else Hold()

    def report(self, outcome: Outcome, answer: AnswerSoFar) -> Outcome:
        return replace(outcome, reports=(*outcome.reports, ("language", {"name": prose_language(answer.text)})))


class Languages(Extension):
    """`only_languages: [en]` in a policy."""

    name = "language"
    keys = (PolicyKey("only_languages", tuple[str, ...], (), "Languages that answers may be in"),)

    def __init__(self) -> None:
        self.counter = Counter("answers_by_language", "Answers", ["language"], registry=CollectorRegistry())

    def stages(self, policy: Policy) -> Sequence[Stage]:
        languages = policy.extension("only_languages", ())
        return [OnlyLanguages(languages)] if languages else []

    def headers(self, policy: Policy, outcomes: Sequence[Outcome]) -> Mapping[str, str]:
        return {"language": str(_language(outcomes[0]))} if outcomes and _language(outcomes[0]) else {}

    def observe(self, outcome: Outcome) -> None:
        self.counter.labels(_language(outcome)).inc()


def _language(outcome: Outcome) -> str | None:
    reports: dict[str, Mapping[str, Any]] = dict(outcome.reports)
    return reports.get("language", {}).get("name")


# --- What it does. ---
def pipeline(*extensions: Extension | ExtensionWithRunner) -> Pipeline:
    engine = SegmentEngine(lambda text: 2.0 if "fool" in text else -2.0, lambda _: "")
    return Pipeline(engine, extensions=Extensions(extensions))


async def corrected(made: Pipeline, answer: str, policy: Policy, *, streamed: bool) -> Outcome:
    if not streamed:
        return await made.align(replace(ASKED, answer=answer), policy)
    policy = replace(policy, stream=StreamMode.SENTENCE)
    return await grown(
        GrowingAnswer(made, policy, lambda: ASKED, lambda: None), [f"{word} " for word in answer.split()]
    )


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("third_party", [False, True])
async def test_a_plugin_adds_a_key_a_stage_a_header_and_a_metric(streamed: bool, third_party: bool) -> None:
    extension = Languages()
    made = pipeline(ExtensionWithRunner(extension, ThreadRunner("language")) if third_party else extension)
    policy = POLICY.with_extension("only_languages", ("en",))
    outcome = await corrected(made, f"You fool. {ENGLISH}", policy, streamed=streamed)
    assert (outcome.status, (outcome.text or "").strip()) == (Status.CORRECTED, ENGLISH)
    assert made.extensions.headers(policy, [outcome]) == {"language": "en"}
    made.extensions.observe(outcome)
    assert extension.counter.labels("en")._value.get() == 1
    stopped = await corrected(made, GERMAN, policy, streamed=streamed)
    assert (stopped.status, stopped.reason) == (Status.FAILED, "language")
    unset = await corrected(made, GERMAN, POLICY, streamed=streamed)
    assert (unset.status, unset.reports) == (Status.UNCHANGED, ())


class Signature(Stage):
    """Writes a name in capitals."""

    async def release(self, outgoing: Outgoing, answer: AnswerSoFar) -> Outgoing:
        return replace(outgoing, text=outgoing.text.replace("brush", "BRUSH"))


class Failing(Stage):
    """Raises."""

    async def release(self, outgoing: Outgoing, answer: AnswerSoFar) -> Outgoing:
        raise ZeroDivisionError


class Nonsense(Stage):
    """Returns what is no admission."""

    async def admit(self, answer: AnswerSoFar) -> Any:
        return "yes"


class Silent(Stage):
    """Its report fails, which costs the report alone."""

    def report(self, outcome: Outcome, answer: AnswerSoFar) -> Outcome:
        raise ZeroDivisionError


class Outdated(Stage):
    """Decides under the old name of `finalize`, which nobody calls any more."""

    async def settle(self, outcome: Outcome, answer: AnswerSoFar) -> Outcome:
        return outcome


class Holding(Stage):
    """Nothing goes out before the end."""

    async def admit(self, answer: AnswerSoFar) -> Hold | None:
        return None if answer.is_whole else Hold()


class With(Extension):
    """One stage for every answer."""

    name = "with"

    def __init__(self, stage: type[Stage] | None) -> None:
        self._stage = stage

    def stages(self, policy: Policy) -> Sequence[Stage]:
        if self._stage is None:
            raise ZeroDivisionError
        return [self._stage()]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("stage", "status", "reason"),
    [
        (Signature, Status.CORRECTED, None),
        (Failing, Status.FAILED, "plugin_error"),
        (Nonsense, Status.FAILED, "plugin_error"),
        (None, Status.FAILED, "plugin_error"),
        (Outdated, Status.FAILED, "plugin_error"),
        (Silent, Status.UNCHANGED, None),
        (Holding, Status.UNCHANGED, None),
    ],
)
async def test_a_stage_that_fails_fails_the_correction(
    stage: type[Stage] | None, status: Status, reason: str | None, streamed: bool
) -> None:
    outcome = await corrected(pipeline(With(stage)), ENGLISH, POLICY, streamed=streamed)
    assert (outcome.status, outcome.reason) == (status, reason)
    assert (outcome.text or "").strip() == (ENGLISH.replace("brush", "BRUSH") if stage is Signature else ENGLISH)
    assert not blocks(outcome)


class Mark(Stage):
    """Writes its place behind the text."""

    def __init__(self, order: int) -> None:
        self.order = order

    async def release(self, outgoing: Outgoing, answer: AnswerSoFar) -> Outgoing:
        return replace(outgoing, text=f"{outgoing.text} {self.order}")


class Marks(Extension):
    """Two stages, the later one first."""

    name = "marks"

    def stages(self, policy: Policy) -> Sequence[Stage]:
        return [Mark(200), Mark(20)]


async def test_stages_stand_in_their_order() -> None:
    outcome = await corrected(pipeline(Marks()), ENGLISH, POLICY, streamed=False)
    assert outcome.text == f"{ENGLISH} 20 200"
    orders = [stage.order for stage in pipeline(Marks()).stages(DECLINING).stages_with("release")]
    assert orders == [20, 200]
    assert [stage.order for stage in pipeline(Marks()).stages(DECLINING).stages_with("finalize")] == [30]


class Asking(Stage):
    """Has the editor write the answer, and says what that cost."""

    async def release(self, outgoing: Outgoing, answer: AnswerSoFar) -> Outgoing:
        editor = answer.editor
        if editor is None:
            return outgoing
        text, use = await editor.ask([{"role": "user", "content": outgoing.text}], str.strip, max_tokens=9)
        return replace(outgoing, text=text or outgoing.text, editor=use)


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("policy", [EDITED, replace(EDITED, objectives=())])
async def test_a_stage_asks_the_editor_of_the_policy(threaded: bool, policy: Policy) -> None:
    runner = ThreadRunner("with") if threaded else None
    chat = ScriptedChat(lambda messages: f" {messages[0]['content'].upper()} ")
    engine = SegmentEngine(lambda _: -2.0, lambda _: "")
    made = Pipeline(engine, extensions=Extensions([ExtensionWithRunner(With(Asking), runner)]), editors=editors(chat))
    stages = made.stages(policy)
    answer = AnswerSoFar(ASKED, ENGLISH, policy, time.monotonic() + 5, models=made)
    outgoing = await stages.release(Outgoing(ENGLISH), answer)
    assert outgoing.text == ENGLISH.upper()
    assert outgoing.editor is not None
    assert outgoing.editor.calls == 1
    unedited = replace(answer, policy=POLICY)
    assert (await stages.release(Outgoing(ENGLISH), unedited)).text == ENGLISH

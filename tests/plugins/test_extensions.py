"""Extensions of plugins: in which order they are applied, and what one that fails costs."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest

from aligner_proxy.errors import BadRequest, EngineUnavailable, ForbiddenError, PluginFault
from aligner_proxy.gate.judge import Verdict
from aligner_proxy.plugins.api import (
    BodyField,
    CheckTable,
    Corrected,
    Extension,
    Inner,
    RequestField,
    TextEncoder,
)
from aligner_proxy.plugins.extensions import (
    NO_EXTENSIONS,
    SELECTION_REASON,
    Extensions,
    ExtensionWithRunner,
    RunningSelection,
)
from aligner_proxy.plugins.isolation import ThreadRunner
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.types import Correction, Objective, Outcome, Policy, Status, Turn

POLICY = Policy("p", (Objective("a", "A: one"), Objective("b", "B: two")))
FACTS = RequestFacts(fields={"topic": "law"})


class Core:
    """What stands inside all wrappers: corrects by appending."""

    deadline = 7.0

    def __init__(self) -> None:
        self.threads: list[str] = []

    async def correct(self, text: str, policy: Policy) -> Corrected:
        self.threads.append(threading.current_thread().name)
        return Corrected(Correction(text + "."), None, Verdict(text + "."))

    async def judge(self, text: str, correction: Correction, policy: Policy) -> Verdict:
        return Verdict(correction.text)

    async def has_detector(self, policy: Policy) -> bool:
        return True


class Encoder:
    """States that nobody looks at."""

    async def identity(self) -> str:
        return "x"

    async def states(self, texts: Sequence[str], layers: Sequence[int]) -> list[list[float]]:
        return [[float(len(text))] for text in texts]


class Marking(Extension):
    """Puts its name around corrections and everywhere else."""

    request_fields = (RequestField("topic", "About what."),)
    body_fields = (BodyField("notes", tuple[str, ...], (), "Notes."),)

    def __init__(self, name: str, order: int = 0) -> None:
        self.name = name
        self.order = order
        self.observed: list[Outcome] = []

    def resolve(self, policy: Policy, request: RequestFacts) -> Policy:
        return policy.with_extension(self.name, request.fields["topic"])

    def selects(self, policy: Policy) -> bool:
        return True

    async def select(self, policy: Policy, turns: Sequence[Turn], encoder: TextEncoder) -> Policy:
        (state,) = await encoder.states([turns[-1].content], (1,))
        return policy.with_extension(f"{self.name}-state", tuple(state))

    def prefill(self, policy: Policy) -> Policy:
        return policy.with_extension(f"{self.name}-ahead", True)

    def wraps(self, policy: Policy) -> bool:
        return policy.extension("plain") is None

    async def correct(self, text: str, policy: Policy, inner: Inner) -> Corrected:
        assert inner.deadline == 7.0
        assert await inner.has_detector(policy)
        corrected = await inner.correct(f"{text}{self.name}", policy)
        return Corrected(corrected.correction, None, await inner.judge(text, corrected.correction, policy))

    def report(self, policy: Policy, answer: str, delivered: str) -> Mapping[str, Any]:
        return {"chars": len(delivered)}

    def headers(self, policy: Policy, outcomes: Sequence[Outcome]) -> Mapping[str, str]:
        return {self.name: str(len(outcomes))}

    trailer = headers

    def record(self, policy: Policy) -> Mapping[str, Any]:
        return {self.name: [1]}

    def observe(self, outcome: Outcome) -> None:
        self.observed.append(outcome)

    def explain(self, policy: Policy, request: RequestFacts) -> Iterable[str]:
        yield f"{self.name} is there"

    def tables(self, policy: Policy) -> Iterable[CheckTable]:
        yield CheckTable((self.name,), [(policy.name,)])

    def details(self, policy: Policy) -> Mapping[str, Any]:
        return {self.name: policy.name}

    def describe(self, objective: Objective) -> str | None:
        return "by marking" if objective.name == self.name else None


OUTCOME = Outcome(Status.UNCHANGED, None, "x", POLICY)


async def test_every_extension_is_asked_and_wrappers_stand_in_their_order() -> None:
    inside = Marking("i", order=5)
    outside = Marking("o", order=-5)
    both = Extensions([inside, outside])
    assert both.resolve(POLICY, FACTS).extensions == (("o", "law"), ("i", "law"))
    assert both.wraps(POLICY)
    corrected = await both.wrap(POLICY, Core()).correct("x", POLICY)
    assert corrected.verdict.text == "xoi."
    assert both.report(POLICY, "x", "xyz") == (("o", {"chars": 3}), ("i", {"chars": 3}))
    assert both.headers(POLICY, [OUTCOME]) == both.trailer(POLICY, [OUTCOME]) == {"o": "1", "i": "1"}
    assert both.record(POLICY) == {"o": [1], "i": [1]}
    both.observe(OUTCOME)
    assert inside.observed == outside.observed == [OUTCOME]
    assert both.explain(POLICY, FACTS) == ["o is there", "i is there"]
    assert [both.describe(Objective(name, "")) for name in "iab"] == ["by marking", None, None]
    assert [field.name for field in both.request_fields] == ["topic", "topic"]
    assert [field.name for field in both.body_fields] == ["notes", "notes"]
    assert [(table.head, table.rows) for table in both.tables(POLICY)] == [(("o",), [("p",)]), (("i",), [("p",)])]
    assert both.details(POLICY) == {"o": "p", "i": "p"}
    assert both.prefill(POLICY).extension("i-ahead") is True


async def test_where_nothing_applies_nothing_changes() -> None:
    for none in (NO_EXTENSIONS, Extensions([Extension()])):
        core = Core()
        assert none.resolve(POLICY, FACTS) is none.prefill(POLICY) is POLICY
        assert not none.selects(POLICY)
        assert await none.select(POLICY, (), Encoder()) is POLICY
        assert none.wrap(POLICY, core) is core
        assert not none.wraps(POLICY)
        assert (none.report(POLICY, "", ""), none.headers(POLICY, []), none.explain(POLICY, FACTS)) == ((), {}, [])
    plain = POLICY.with_extension("plain", True)
    assert not Extensions([Marking("m")]).wraps(plain)


class Failing(Extension):
    """Raises wherever it is asked."""

    name = "failing"

    def _fail(self, *given: Any) -> Any:
        raise ValueError("secret")

    resolve = selects = prefill = wraps = report = headers = trailer = record = observe = explain = describe = _fail

    async def select(self, policy: Policy, turns: Sequence[Turn], encoder: TextEncoder) -> Policy:
        raise ValueError("secret")

    async def correct(self, text: str, policy: Policy, inner: Inner) -> Corrected:
        raise ValueError("secret")


def test_an_extension_that_fails_costs_only_what_it_would_have_added(caplog: pytest.LogCaptureFixture) -> None:
    both = Extensions([Failing(), Marking("m")])
    assert both.resolve(POLICY, FACTS).extensions == (("m", "law"),)
    assert both.report(POLICY, "x", "x") == (("m", {"chars": 1}),)
    assert both.headers(POLICY, []) == {"m": "0"}
    assert both.record(POLICY) == {"m": [1]}
    both.observe(OUTCOME)
    assert both.explain(POLICY, FACTS) == ["m is there"]
    assert both.describe(Objective("m", "")) == "by marking"
    assert both.selects(POLICY)
    assert "extension failing: resolve failed" in caplog.text
    assert "secret" not in caplog.text


async def test_a_wrapper_that_fails_is_a_failure_of_the_correction() -> None:
    with pytest.raises(PluginFault):
        Extensions([Failing()]).wraps(POLICY)

    class Raising(Failing):
        def wraps(self, policy: Policy) -> bool:
            return True

    with pytest.raises(PluginFault):
        await Extensions([Raising()]).wrap(POLICY, Core()).correct("x", POLICY)


@pytest.mark.parametrize("error", [BadRequest("too long"), ForbiddenError("not for this key")])
def test_a_request_may_be_refused(error: Exception) -> None:
    class Refusing(Extension):
        def resolve(self, policy: Policy, request: RequestFacts) -> Policy:
            raise error

    with pytest.raises(type(error), match=str(error)):
        Extensions([Refusing()]).resolve(POLICY, FACTS)


async def test_objectives_are_chosen_once() -> None:
    extensions = Extensions([Marking("m")])
    assert extensions.selects(POLICY)
    policy = await extensions.select(POLICY, (Turn("user", "What?"),), Encoder())
    assert policy.extensions == (("m-state", (5.0,)), (SELECTION_REASON, None))
    assert not extensions.selects(policy)
    assert await extensions.select(policy, (), Encoder()) is policy


class Choosing(Extension):
    """Chooses by a function."""

    def __init__(self, choose: Any) -> None:
        self.choose = choose

    def selects(self, policy: Policy) -> bool:
        return True

    async def select(self, policy: Policy, turns: Sequence[Turn], encoder: TextEncoder) -> Policy:
        chosen: Policy = await self.choose()
        return chosen


async def _no_policy() -> str:
    return "all"


async def _engine_away() -> Policy:
    raise EngineUnavailable("x")


@pytest.mark.parametrize(
    ("choose", "reason"),
    [(_no_policy, "plugin_error"), (_engine_away, "engine_unavailable")],
)
async def test_where_choosing_fails_all_objectives_stay_and_the_reason_is_kept(choose: Any, reason: str) -> None:
    chosen = await Extensions([Choosing(choose)]).select(POLICY, (), Encoder())
    assert chosen.objectives == POLICY.objectives
    assert chosen.extension(SELECTION_REASON) == reason


async def test_nobody_waits_for_a_choice_that_will_not_be_cancelled() -> None:
    released = asyncio.Event()
    ended = asyncio.Event()

    async def stubborn() -> Policy:
        while not released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await released.wait()
        ended.set()
        return POLICY

    policy = Policy("p", POLICY.objectives, deadline_s=0.2)
    chosen = await Extensions([Choosing(stubborn)]).select(policy, (), Encoder())
    assert not ended.is_set()
    assert chosen.objectives == POLICY.objectives
    assert chosen.extension(SELECTION_REASON) == "timeout"
    released.set()
    await ended.wait()


async def test_a_strangers_coroutines_have_a_thread_and_what_they_ask_runs_in_the_gateways_loop() -> None:
    core = Core()
    seen: list[str] = []

    class Elsewhere(Marking):
        async def correct(self, text: str, policy: Policy, inner: Inner) -> Corrected:
            seen.append(threading.current_thread().name)
            return await super().correct(text, policy, inner)

    extensions = Extensions([ExtensionWithRunner(Elsewhere("e"), ThreadRunner("stranger")), Marking("m", order=1)])
    corrected = await extensions.wrap(POLICY, core).correct("x", POLICY)
    assert corrected.verdict.text == "xem."
    assert seen == ["stranger"]
    assert core.threads == [threading.current_thread().name]
    policy = await extensions.select(POLICY, (Turn("user", "What?"),), Encoder())
    assert policy.extension("e-state") == (5.0,)


@pytest.mark.parametrize(("times", "in_loop"), [(1, True), (2_000, False)])
async def test_long_texts_of_a_request_are_read_in_a_thread(times: int, in_loop: bool) -> None:
    seen: list[bool] = []

    class Reading(Marking):
        def resolve(self, policy: Policy, request: RequestFacts) -> Policy:
            seen.append(threading.current_thread() is threading.main_thread())
            return super().resolve(policy, request)

    facts = RequestFacts(system="no lists. " * times, fields={"topic": "law"})
    await Extensions([Reading("e")]).resolve_async(POLICY, facts)
    assert seen == [in_loop]


async def test_the_upstream_is_not_waited_for_and_copies_share_the_work() -> None:
    begun = asyncio.Event()

    async def work() -> Policy:
        begun.set()
        await asyncio.sleep(0.01)
        return Policy("chosen")

    selecting = RunningSelection(work(), POLICY)
    assert copy.deepcopy(selecting) is selecting
    await begun.wait()
    assert [policy.name for policy in await asyncio.gather(selecting.policy(), selecting.policy())] == ["chosen"] * 2

    async def lost() -> Policy:
        raise KeyError("x")

    assert await RunningSelection(lost(), POLICY).policy() is POLICY
    assert copy.deepcopy(NO_EXTENSIONS) is NO_EXTENSIONS

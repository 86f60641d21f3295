"""Correction of one whole answer through its stages, cache, engine and gate. Read this first, then plugins/stage.py.

`Pipeline.align` raises nothing but `CancelledError`. Any error becomes an outcome with a named reason, and the policy's
`on_error` for that class of failure decides what the client gets (outcomes.py). Plugins and JSON handling are wrappers
around the correction of one text, chosen once per answer. This module knows no wire formats and no HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from functools import cache, partial

from aligner_proxy.concurrency import enforce_deadline, run_off_loop
from aligner_proxy.correctors.editor import Editors
from aligner_proxy.correctors.judge import ASKED_BY_STAGES, Judges
from aligner_proxy.correctors.judged_engine import JudgedEngine
from aligner_proxy.correctors.registry import MISSING, Correctors, SentenceAdmission
from aligner_proxy.correctors.segmented_session import UnjudgedSession
from aligner_proxy.correctors.stage_models import StageEditor, StageJudge
from aligner_proxy.engine.api import (
    AlignerInfo,
    AlignRequest,
    DeferredSession,
    Engine,
    Session,
)
from aligner_proxy.errors import AnswerTooLong, CorrectionError, QuotaSpent
from aligner_proxy.gate.judge import Verdict, judge_in_thread
from aligner_proxy.observability import tracing
from aligner_proxy.pipeline import outcomes
from aligner_proxy.pipeline.answer_texts import AnswerTexts
from aligner_proxy.pipeline.cache import CorrectionCache
from aligner_proxy.pipeline.engine_encoder import EngineEncoder
from aligner_proxy.pipeline.json_answers import ArgumentsForm, JsonAnswer, JudgedForm
from aligner_proxy.pipeline.outcomes import build_outcome
from aligner_proxy.pipeline.refused_edits import remove_refused_edits
from aligner_proxy.pipeline.second_reading import SecondReading
from aligner_proxy.pipeline.stages import eligibility
from aligner_proxy.pipeline.stages.eligibility import BEGUN, AnswerForm, Eligibility
from aligner_proxy.pipeline.stages.language import Language
from aligner_proxy.pipeline.stages.refusal_text import RefusalText, SecondTries
from aligner_proxy.plugins.api import Corrected, Inner
from aligner_proxy.plugins.extensions import NO_EXTENSIONS, SELECT_S, Extensions, PluginStage
from aligner_proxy.plugins.inner import InnerWrapper
from aligner_proxy.plugins.registry import PluginRules
from aligner_proxy.plugins.stage import AnswerSoFar, Hold, Outgoing, PolicyEditor, PolicyJudge, Stage, Stop
from aligner_proxy.policy.config import builtin_objectives
from aligner_proxy.types import (
    LOCAL_EDITOR,
    METAALIGNER,
    Correction,
    Exchange,
    IfNothingRemains,
    Objective,
    OnSkip,
    Outcome,
    Policy,
    Status,
    StreamMode,
    Write,
    replace_surrogates,
)

log = logging.getLogger(__name__)

# Time reserved for the engine's response to travel back, so that its own error arrives before our deadline expires.
_RETURN_S = 0.05
_RETURN_SHARE = 0.05
"""At most this share of the time left, so that a short deadline is not used up by it."""
_LEAST_REPORT_S = 2.0
"""Seconds that reports on a long answer may take although its deadline has passed."""

_DESCRIBE_S = 0.5
"""Seconds that an answer waits for a description of its aligner after it was corrected, or before it is read."""
_NOTHING_JUDGED = Objective("none", "None: nothing is judged")
"""Placeholder objective in a request to an editor or judge, if stages ask one under a policy without objectives."""


class StageList:
    """The stages of one answer, in order. Only stages that override a method are called, so idle ones cost nothing."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._stages = stages
        self._by_method: dict[str, list[Stage]] = {}
        """The stages that override a method, by the method's name."""

    def stages_with(self, method: str) -> list[Stage]:
        """The stages that override this method, cached."""
        if method not in self._by_method:
            self._by_method[method] = [stage for stage in self._stages if _overrides(_stage_class(stage), method)]
        return self._by_method[method]

    def add(self, stage: Stage) -> StageList:
        """A list with one more stage, which replaces any stage of its type."""
        return StageList([*(other for other in self._stages if type(other) is not type(stage)), stage])

    async def admit(self, answer: AnswerSoFar) -> Stop | Hold | None:
        """The first `Stop` of a stage; otherwise a `Hold` if any stage returns one; otherwise None."""
        admission: Hold | None = None
        for stage in self.stages_with("admit"):
            answered = await stage.admit(answer)
            if isinstance(answered, Stop):
                return answered
            admission = admission or answered
        return admission

    async def release(self, outgoing: Outgoing, answer: AnswerSoFar) -> Outgoing:
        """Pass the outgoing text through every stage and return the result."""
        for stage in self.stages_with("release"):
            outgoing = await stage.release(outgoing, answer)
        return outgoing

    async def finalize(self, outcome: Outcome, answer: AnswerSoFar) -> Outcome:
        """Pass the outcome through every stage and return the result."""
        for stage in self.stages_with("finalize"):
            outcome = await stage.finalize(outcome, answer)
        return outcome

    def report(self, outcome: Outcome, answer: AnswerSoFar) -> Outcome:
        """The outcome with what every stage counts in it added."""
        for stage in self.stages_with("report"):
            outcome = stage.report(outcome, answer)
        return outcome


def _stage_class(stage: Stage) -> type[Stage]:
    """The class of a stage; of a plugin's that inside its wrapper, because the wrapper overrides every method."""
    return type(stage.inner) if type(stage) is PluginStage else type(stage)


@cache
def _overrides(kind: type[Stage], method: str) -> bool:
    """Whether a class of stages defines this method itself."""
    return getattr(kind, method) is not getattr(Stage, method)


class ExtensionReports(Stage):
    """Adds the plugins' reports on an answer. JSON answers are skipped, because the reports count things in prose."""

    order = 40

    def __init__(self, extensions: Extensions) -> None:
        self._extensions = extensions

    def report(self, outcome: Outcome, answer: AnswerSoFar) -> Outcome:
        """The outcome with the plugins' reports; the same outcome if the answer was not judged, or is JSON."""
        if outcome.edited is None or answer.is_structured:
            return outcome
        reports = self._extensions.report(answer.policy, answer.text, outcome.edited or answer.text)
        return outcome if reports == outcome.reports else replace(outcome, reports=reports)


class Pipeline:
    """The hot path. Holds what all requests share and keeps nothing about a single request."""

    def __init__(
        self,
        engine: Engine,
        cache: CorrectionCache | None = None,
        *,
        remember: bool = True,
        correctors: Correctors | None = None,
        rules: PluginRules | None = None,
        extensions: Extensions | None = None,
        editors: Editors | None = None,
        judges: Judges | None = None,
    ) -> None:
        self.engine = engine
        """The engine with the aligner."""
        self.editors = editors
        """None if policies' editors are ignored."""
        self.judges = judges
        """None if policies' judges are ignored."""
        self.correctors: Correctors = {**(correctors or {}), METAALIGNER: engine}
        """The engine of each corrector, by the name that policies give in `corrector`."""
        self.rules = rules or PluginRules({})
        self.extensions = extensions or NO_EXTENSIONS
        self.cache = cache
        self.stores_corrections = remember
        """If False, nothing is stored, but identical requests in flight still share one correction."""

    async def align(
        self,
        exchange: Exchange,
        policy: Policy,
        session: Session | None = None,
        texts: AnswerTexts | None = None,
    ) -> Outcome:
        """Correct one choice, or one of several `texts` of an answer, and return its final outcome.

        `session` is a session in which the engine has read the answer ahead; it is closed at the end. Raises nothing
        but `CancelledError`: errors become outcomes.
        """
        started = time.perf_counter()
        budget = outcomes.Budget(await self.select_objectives(exchange, policy))
        form = AnswerForm(exchange, is_one_of_several=texts is not None)
        stages = self.stages(budget.policy, form)
        try:
            outcome, error = await self._attempt(exchange, form, budget, stages, session)
            while (pause := budget.pause_before_retry(outcome, error)) is not None:
                await asyncio.sleep(pause)
                # The session serves only one attempt; later attempts send the whole answer.
                stages = self.stages(budget.policy, form)
                outcome, error = await self._attempt(exchange, form, budget, stages, None)
        finally:
            if session is not None:
                await session.aclose()
        if texts is not None:
            waiting_since = time.perf_counter()
            outcome = await texts.decide(exchange, outcome)
            started += time.perf_counter() - waiting_since  # the other texts' time is not this one's
        if outcome.correction is not None:
            outcome = await self._report(outcome, exchange, form, stages, budget.until)
        elapsed_ms = (time.perf_counter() - started) * 1000
        return outcomes.finalize_outcome(replace(outcome, ms=outcome.ms + elapsed_ms, attempts=budget.attempts))

    async def _attempt(
        self,
        exchange: Exchange,
        form: AnswerForm,
        budget: outcomes.Budget,
        stages: StageList,
        session: Session | None,
    ) -> tuple[Outcome, Exception | None]:
        """Make one attempt; return its outcome, and the error that ended it, if any."""
        policy = budget.policy
        answer = AnswerSoFar(exchange, exchange.answer or "", policy)
        try:
            if isinstance(stop := await stages.admit(answer), Stop):
                return Outcome(stop.status, stop.reason, exchange.answer, policy, exchange.index), None
            seconds = budget.begin()
            attempt_policy = budget.attempt_policy
            async with asyncio.timeout(seconds):
                deadline = time.monotonic() + seconds
                answer = AnswerSoFar(
                    exchange,
                    answer.text,
                    policy,
                    deadline,
                    is_structured=form.is_structured,
                    is_one_of_several=form.is_one_of_several,
                    models=self,
                )
                steps = self._wrap_correction(answer, form, attempt_policy, stages, session)
                corrected = await steps.correct(answer.text, attempt_policy)
            outcome = await stages.finalize(build_outcome(answer, corrected), answer)
            # after refusals of the gate, the threshold was higher than the policy's
            return (outcome if attempt_policy is policy else replace(outcome, caution=attempt_policy.caution)), None
        except Exception as error:  # noqa: BLE001 - the package's one boundary: a correction must not cost the answer
            return build_failure(error, exchange, policy), error

    async def _report(
        self, outcome: Outcome, exchange: Exchange, form: AnswerForm, stages: StageList, until: float
    ) -> Outcome:
        """Add the stages' reports to the outcome of a judged answer, for a long one if there is time `until` then."""
        policy = outcome.policy
        about = await self.describe_aligner(policy)
        if about and about.languages:
            # the report needs the languages, which the stage of the attempt may not have asked for
            stages = stages.add(Language(policy, partial(self._languages, policy), about.languages))
        if not stages.stages_with("report"):
            return outcome
        answer = AnswerSoFar(exchange, exchange.answer or "", policy, is_structured=form.is_structured)
        try:
            async with asyncio.timeout(max(_LEAST_REPORT_S, until - time.monotonic())):
                report = partial(stages.report, outcome, answer)
                return await run_off_loop(len(answer.text), report, policy.tenant)
        except TimeoutError:
            # what reports say of an answer is not worth its delay
            return outcome

    def _wrap_correction(
        self, answer: AnswerSoFar, form: AnswerForm, policy: Policy, stages: StageList, session: Session | None
    ) -> Inner:
        """The correction of one text inside the wrappers that this policy and this answer require."""
        exchange = answer.exchange
        if answer.is_structured:
            # Every text of a JSON answer is followed by more of the answer, and the engine did not read it ahead on its
            # own.
            exchange = replace(exchange, inner=True)
            session = None
        core = self._build_text_correction(exchange, policy, answer.deadline, session)
        steps = self.extensions.wrap(policy, core)
        if stages.stages_with("release"):
            steps = ReleasedText(steps, stages, answer)
        if not answer.is_structured:
            return steps
        if policy.on_skip.structured_output is OnSkip.JUDGE:
            judged_form = ArgumentsForm if exchange.is_call else JudgedForm
            return judged_form(steps, answer.exchange, core, is_json=form.is_json(unread=False))
        return JsonAnswer(steps, answer.exchange)

    def _build_text_correction(
        self, exchange: Exchange, policy: Policy, deadline: float, session: Session | None
    ) -> Inner:
        """The correction of one text by cache, engine and gate, with a second reading if the policy requires one."""
        core = _TextCorrection(self, exchange, policy, deadline, session)
        if not policy.blocks_unjudged:
            return core
        # without the session, which has read the conversation
        bare = _TextCorrection(self, replace(exchange, turns=()), policy, deadline, None)
        return SecondReading(core, bare, exchange.turns)

    def open_editor(self, answer: AnswerSoFar) -> PolicyEditor | None:
        """The editor that stages may use on an answer; None if its policy names none."""
        policy = answer.policy
        group = policy.editor_group
        if group is None or self.editors is None:
            return None
        return StageEditor(self.editors.group(group), _stage_request(answer), dict(policy.payer))

    def open_judge(self, answer: AnswerSoFar) -> PolicyJudge | None:
        """The judge that stages may use on an answer; None if its policy names none that answers their questions."""
        policy = answer.policy
        if self.judges is None or policy.judge.kind not in ASKED_BY_STAGES or not policy.judge:
            return None
        judge = self.judges.open_judge(policy.judge, policy)
        return StageJudge(judge, _stage_request(answer), self.judges.replies)

    async def read(self, exchange: Exchange, policy: Policy) -> Session | None:
        """Open a session in which the engine reads an answer from its beginning; None if it will not be corrected."""
        policy = await self.select_objectives(exchange, policy)
        beginning = replace(exchange, answer=BEGUN, finish_reason=None)
        # a structured answer, which a program reads, is judged as a whole
        if beginning.structured or eligibility.check(beginning, policy) is not None:
            return None
        engine = self.engine_of(policy)
        releases_segments = policy.stream is StreamMode.SENTENCE and self.can_release_segments(policy)
        # a corrector of whole answers has nothing to do while the upstream writes, so it occupies no engine slot then
        if policy.corrector != METAALIGNER and not releases_segments:
            return DeferredSession(engine)
        deadline = time.monotonic() + policy.deadline_s
        # no head judges such an answer, but stages may still edit it
        if not policy.objectives and policy.requirements:
            return UnjudgedSession()
        policy = self.extensions.prefill(policy)
        if not policy.objectives:
            return None
        return await engine.read(align_request(exchange, "", policy, deadline))

    async def score(self, exchange: Exchange, text: str, policy: Policy) -> Correction:
        """Ask the engine for its verdicts on a text, without edits."""
        seconds = policy.deadline_s
        policy = replace(policy, score_only=True)
        request = align_request(exchange, text, policy, time.monotonic() + seconds)
        async with asyncio.timeout(seconds):
            return await self.engine_of(policy).align(request)

    def can_release_segments(self, policy: Policy) -> bool:
        """Whether an answer can be corrected while it is written.

        Plugin wrappers and plugin rules need the whole answer.
        """
        knows_segments = policy.corrector == METAALIGNER or isinstance(self.engine_of(policy), SentenceAdmission)
        return knows_segments and not policy.plugin_rules and not self.extensions.wraps(policy)

    async def select_objectives(self, exchange: Exchange, policy: Policy) -> Policy:
        """The policy with the objectives that a plugin selects for this conversation; unchanged if none selects."""
        if not self.extensions.selects(policy):
            return policy
        encoder = EngineEncoder(self.engine, policy, exchange.call_id, min(SELECT_S, policy.deadline_s))
        return await self.extensions.select(policy, exchange.turns, encoder)

    def stages(
        self, policy: Policy, form: AnswerForm | None = None, *, own: Sequence[Stage] = (), grows: bool = False
    ) -> StageList:
        """The stages that an answer goes through under a policy, in order, including the driver's `own` stages.

        A growing answer always has the language stage; a whole one has it only if the language may stop the answer.
        """
        stages: list[Stage] = [Eligibility(form), *own]
        if policy.if_nothing_remains is not IfNothingRemains.ORIGINAL:
            stages.append(self.refusal_text(policy))
        if self.extensions.has_reports:
            stages.append(ExtensionReports(self.extensions))
        if grows or policy.on_skip.language is not OnSkip.PASSTHROUGH:
            stages.append(Language(policy, partial(self._languages, policy)))
        return StageList(sorted([*stages, *self.extensions.stages(policy)], key=lambda stage: stage.order))

    def refusal_text(self, policy: Policy) -> RefusalText:
        """The stage that decides what follows if nothing of an answer remains."""
        engine_of = partial(self._second_try_engine, policy)
        second_tries = SecondTries(engine_of, self.cache, self.stores_corrections, align_request)
        return RefusalText(second_tries, partial(self._languages, policy))

    async def describe_aligner(self, policy: Policy) -> AlignerInfo | None:
        """The aligner that judges under a policy; None if there is none, or if the engine does not say so soon."""
        try:
            async with enforce_deadline(_DESCRIBE_S):
                return await self._describe_aligner(policy)
        except CorrectionError:
            return None

    async def _describe_aligner(self, policy: Policy) -> AlignerInfo | None:
        """The aligner that judges under a policy; None if there is none. Raises `CorrectionError`."""
        if policy.corrector != METAALIGNER or not policy.objectives:
            return None
        return (await self.engine.info()).find_aligner(policy.aligner)

    async def _languages(self, policy: Policy) -> Collection[str]:
        """The languages of the aligner under a policy; raises `CorrectionError` if the engine cannot be asked."""
        async with enforce_deadline(policy.deadline_s):
            about = await self._describe_aligner(policy)
        return about.languages if about else ()

    def engine_of(self, policy: Policy) -> Engine:
        """The engine of the policy's corrector. An editor and a judge follow the aligner if the policy has any."""
        return self._add_judge(self._add_editor(self.correctors.get(policy.corrector, MISSING), policy), policy)

    def _add_editor(self, engine: Engine, policy: Policy) -> Engine:
        """The engine with the policy's editor around it; the engine itself if the aligner edits."""
        if policy.editor == LOCAL_EDITOR or self.editors is None or policy.corrector != METAALIGNER:
            return engine
        return self.editors.add_editor(engine, policy)

    def _add_judge(self, engine: Engine, policy: Policy) -> Engine:
        """The engine with the policy's judges around it; the engine itself if the policy names none."""
        if not policy.judges or self.judges is None or policy.corrector != METAALIGNER:
            return engine
        return JudgedEngine(engine, self.judges.open(policy))

    def _second_try_engine(self, policy: Policy) -> Engine:
        """The engine whose editor answers again; head and judge judge all of the new answer."""
        return self._add_editor(self._add_judge(self.correctors.get(policy.corrector, MISSING), policy), policy)


class ReleasedText(InnerWrapper):
    """The correction of a text whose result passes the stages' `release`."""

    def __init__(self, inner: Inner, stages: StageList, answer: AnswerSoFar) -> None:
        super().__init__(inner)
        self._stages = stages
        self._answer = answer

    async def correct(self, text: str, policy: Policy) -> Corrected:
        """Correct a text and pass the result through the stages."""
        corrected = await self.inner.correct(text, policy)
        outgoing = await self._stages.release(Outgoing(corrected.verdict.text), self._answer)
        verdict = replace(corrected.verdict, text=outgoing.text, findings=outgoing.findings)
        correction = corrected.correction.with_editor(outgoing.editor).with_judge(outgoing.judge)
        return replace(corrected, correction=correction, verdict=verdict)


class _TextCorrection:
    """The innermost correction of one text: cache, engine and gate. Satisfies `Inner`."""

    def __init__(
        self, pipeline: Pipeline, exchange: Exchange, policy: Policy, deadline: float, session: Session | None
    ) -> None:
        self._pipeline = pipeline
        self._exchange = exchange
        self._session = session
        """The session that has read the answer ahead; None without one, and once it is used."""
        self._read_ahead = _question_key(exchange.answer, pipeline.extensions.prefill(policy)) if session else None
        """What that session was asked, as a `_question_key`."""
        self.deadline = deadline
        """In seconds of `time.monotonic()`."""

    async def correct(self, text: str, policy: Policy) -> Corrected:
        """Correct `text` from the cache or by the engine, and keep what the gate lets pass."""
        exchange = self._exchange if text == self._exchange.answer else replace(self._exchange, answer=text)
        engine = self._pipeline.engine_of(policy)
        compute = self._engine_call(engine, exchange, text, policy)
        cache = self._pipeline.cache
        if not policy.objectives:
            # nothing to judge: the text stays, for stages that may edit it
            correction = Correction(text)
            cache_hit = None
        elif cache is None or exchange.no_store:
            correction = await compute()
            cache_hit = None
        else:
            info = await engine.info()
            if policy.corrector == METAALIGNER:
                info = info.find_aligner(policy.aligner)
            key = cache.key(info, policy, exchange)
            correction, cache_hit = await cache.get_or_compute(
                key,
                compute,
                aligner=info.content_hash,
                remember=self._pipeline.stores_corrections,
                deadline=self.deadline,
            )
        correction = correction.deliverable
        verdict = await self.judge(text, correction, policy)
        if verdict.dropped:
            correction, verdict = await remove_refused_edits(text, correction, policy, verdict, self.judge)
        return Corrected(correction, cache_hit, verdict)

    async def judge(self, text: str, correction: Correction, policy: Policy) -> Verdict:
        """The gate's verdict, including the plugin rules that the policy names."""
        with tracing.stage("gate"):
            judge = self._pipeline.rules.judge if policy.plugin_rules else judge_in_thread
            return await judge(text, correction, policy)

    async def has_detector(self, policy: Policy) -> bool:
        """Whether the engine has a detector head for this policy; False if the engine cannot be asked."""
        try:
            return (await self._pipeline.engine.info()).find_aligner(policy.aligner).has_head
        except CorrectionError:
            return False

    def _engine_call(
        self, engine: Engine, exchange: Exchange, text: str, policy: Policy
    ) -> Callable[[], Awaitable[Correction]]:
        """A function that asks the engine to correct `text`.

        If the session has already read the same question, the function finishes the session; later calls go to the
        engine, because a session finishes only once.
        """
        ask: Callable[[AlignRequest], Awaitable[Correction]] = engine.align
        if self._session is not None and _question_key(text, policy) == self._read_ahead:
            ask = self._session.finish
            self._session = None
        return lambda: ask(align_request(exchange, text, policy, self.deadline))


def _question_key(text: str | None, policy: Policy) -> tuple[object, ...]:
    """Everything that a correction depends on within one request; equal keys mean the same question to the engine."""
    writers = (policy.editor_group, policy.effective_write)
    corrected_by = (policy.corrector, policy.aligner, *writers, policy.judge)
    return (text, policy.objectives, *corrected_by, policy.caution, policy.verify, policy.draft, policy.score_only)


def build_failure(error: Exception, exchange: Exchange, policy: Policy) -> Outcome:
    """Log an error and build its outcome.

    Logs only the type, because messages of foreign exceptions may quote the text.
    """
    reason = outcomes.reason_of(error)
    # these two are limits that were reached, not faults
    status = Status.SKIPPED if isinstance(error, AnswerTooLong | QuotaSpent) else Status.FAILED
    log.warning("call %s choice %d: %s (%s)", exchange.call_id, exchange.index, reason, type(error).__name__)
    return Outcome(status, reason, exchange.answer, policy, exchange.index)


_ABOUT_QUESTION = "instruction-following"
"""The built-in objective by which a head judges whether a text answers the question."""


def align_request(exchange: Exchange, text: str, policy: Policy, deadline: float) -> AlignRequest:
    """The engine request to correct `text` under a policy until `deadline` (`time.monotonic()` seconds)."""
    # the engine accepts only positive deadlines
    seconds_left = max(0.001, deadline - time.monotonic())
    tenant, quota = policy.engine_account
    # the engine gets less than the time that is left, so that its reply still arrives in time
    return AlignRequest(
        request_id=f"{exchange.call_id}/{exchange.index}",
        turns=exchange.turns,
        answer=text,
        objectives=tuple(replace_surrogates(objective.text) for objective in policy.objectives),
        common=_count_common(policy.objectives),
        caution=policy.caution,
        verify=policy.verify,
        aligner=policy.aligner,
        deadline_s=seconds_left - min(_RETURN_S, seconds_left * _RETURN_SHARE),
        tenant=tenant,
        quota=quota,
        draft=policy.draft,
        open_ended=not exchange.inner,
        score_only=policy.score_only,
        write=policy.effective_write,
        question=builtin_objectives()[_ABOUT_QUESTION].text if policy.effective_write is Write.VERIFIED else "",
        heads=_list_heads(policy.objectives),
    )


def _stage_request(answer: AnswerSoFar) -> AlignRequest:
    """The request under which stages ask a model about an answer: whose account it is, and how long it may take."""
    policy = answer.policy
    judged_policy = policy if policy.objectives else replace(policy, objectives=(_NOTHING_JUDGED,))
    return align_request(answer.exchange, "", judged_policy, answer.deadline)


def _list_heads(objectives: Sequence[Objective]) -> tuple[str, ...]:
    """The taught head of each objective; an empty tuple if none has one."""
    names = tuple(objective.head for objective in objectives)
    return names if any(names) else ()


def _count_common(objectives: Sequence[Objective]) -> int:
    """How many objectives at the beginning are the operator's own, not a request's preferences (with an allowance)."""
    return next((i for i, objective in enumerate(objectives) if objective.allowance is not None), len(objectives))

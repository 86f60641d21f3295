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
from aligner_proxy.engine.api import AlignerInfo, AlignRequest, DeferredSession, Engine, Session
from aligner_proxy.errors import AnswerTooLong, CorrectionError, QuotaSpent
from aligner_proxy.gate.judge import Verdict, judge_in_thread
from aligner_proxy.observability import tracing
from aligner_proxy.pipeline import outcomes
from aligner_proxy.pipeline.answer_texts import AnswerTexts
from aligner_proxy.pipeline.cache import CorrectionCache
from aligner_proxy.pipeline.engine_encoder import EngineEncoder
from aligner_proxy.pipeline.json_answers import JsonAnswer, JudgedForm
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

_RETURN_S = 0.05
"""Seconds by which the engine's deadline is earlier than ours, so that its response arrives before ours expires."""
_RETURN_SHARE = 0.05
"""If less time is left, the engine's deadline is earlier by only this share of the time left."""
_LEAST_REPORT_S = 2.0
"""Seconds that the stages' reports on an answer may take even if its deadline has passed."""
_DESCRIBE_S = 0.5
"""Seconds that an answer waits for a description of its aligner after it was corrected, or before it is read."""
_NOTHING_JUDGED = Objective("none", "None: nothing is judged")
"""Placeholder objective in a request to an editor or judge, if stages ask one under a policy without objectives."""
_ABOUT_QUESTION = "instruction-following"
"""The built-in objective by which a head judges whether a text answers the question."""


class StageList:
    """The stages of one answer, in order. Only stages that override a method are called, so the others cost nothing."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._stages = stages
        self._by_method: dict[str, list[Stage]] = {}
        """The stages that override a method, by the method's name."""

    def stages_with(self, method: str) -> list[Stage]:
        """The stages that override the method with this name. The list is kept for later calls."""
        if method not in self._by_method:
            self._by_method[method] = [stage for stage in self._stages if _overrides(_stage_class(stage), method)]
        return self._by_method[method]

    def add(self, stage: Stage) -> StageList:
        """Return a new list that has this stage at its end, in place of any stage of the same type."""
        kept_stages = [kept_stage for kept_stage in self._stages if type(kept_stage) is not type(stage)]
        return StageList([*kept_stages, stage])

    async def admit(self, answer: AnswerSoFar) -> Stop | Hold | None:
        """The first `Stop` of a stage; otherwise a `Hold` if any stage returns one; None if no stage objects."""
        hold: Hold | None = None
        for stage in self.stages_with("admit"):
            admission = await stage.admit(answer)
            if isinstance(admission, Stop):
                return admission
            hold = hold or admission
        return hold

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
        """Pass the outcome through every stage, which adds what it counted, and return the result."""
        for stage in self.stages_with("report"):
            outcome = stage.report(outcome, answer)
        return outcome


def _stage_class(stage: Stage) -> type[Stage]:
    """The class of a stage. For a plugin's stage, this is its own class, since its wrapper overrides every method."""
    return type(stage.inner) if type(stage) is PluginStage else type(stage)


@cache
def _overrides(stage_class: type[Stage], method: str) -> bool:
    """Whether a class of stages overrides the method with this name."""
    return getattr(stage_class, method) is not getattr(Stage, method)


class ExtensionReports(Stage):
    """Adds the plugins' reports to an outcome. JSON answers get no report, because reports count things in prose."""

    order = 40

    def __init__(self, extensions: Extensions) -> None:
        self._extensions = extensions

    def report(self, outcome: Outcome, answer: AnswerSoFar) -> Outcome:
        """The outcome with the plugins' reports; the same object if the answer was not judged, or is JSON."""
        if outcome.edited is None or answer.is_structured:
            return outcome
        reports = self._extensions.report(answer.policy, answer.text, outcome.edited or answer.text)
        return outcome if reports == outcome.reports else replace(outcome, reports=reports)


class Pipeline:
    """Corrects answers. Holds what all requests share, and keeps nothing about a single request."""

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
        """Opens the editors that policies name; None to let the aligner edit whatever a policy names."""
        self.judges = judges
        """Opens the judges that policies name; None to ask no judge."""
        self.correctors: Correctors = {**(correctors or {}), METAALIGNER: engine}
        """The engine of each corrector, by the name that policies give in `corrector`."""
        self.rules = rules or PluginRules({})
        """The gate rules of plugins that policies name."""
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
        """Correct one choice of a response and return its final outcome.

        `session` is the engine's session that has read the answer ahead, or None; it is closed at the end. `texts`
        decides together about all texts of the answer of which this choice is one; None if it is the only text.
        Raises nothing but `CancelledError`: errors become outcomes.
        """
        started_at = time.perf_counter()
        budget = outcomes.Budget(await self.select_objectives(exchange, policy))
        answer_form = AnswerForm(exchange, is_one_of_several=texts is not None)
        stages = self.stages(budget.policy, answer_form)
        try:
            outcome, error = await self._attempt(exchange, answer_form, budget, stages, session)
            while (pause_s := budget.pause_before_retry(outcome, error)) is not None:
                await asyncio.sleep(pause_s)
                # The session serves only one attempt; later attempts send the whole answer.
                stages = self.stages(budget.policy, answer_form)
                outcome, error = await self._attempt(exchange, answer_form, budget, stages, session=None)
        finally:
            if session is not None:
                await session.aclose()
        if texts is not None:
            waiting_since = time.perf_counter()
            outcome = await texts.decide(exchange, outcome)
            # the wait for the other texts is not charged to this one
            started_at += time.perf_counter() - waiting_since
        if outcome.correction is not None:
            outcome = await self._report(outcome, exchange, answer_form, stages, budget.until)
        elapsed_ms = (time.perf_counter() - started_at) * 1000
        return outcomes.finalize_outcome(replace(outcome, ms=outcome.ms + elapsed_ms, attempts=budget.attempts))

    async def _attempt(
        self,
        exchange: Exchange,
        answer_form: AnswerForm,
        budget: outcomes.Budget,
        stages: StageList,
        session: Session | None,
    ) -> tuple[Outcome, Exception | None]:
        """Make one attempt to correct the answer; return (its outcome, the error that ended it or None).

        `budget` gives the policy and the seconds of the attempt. `session` is the engine's session that has read the
        answer ahead, or None.
        """
        policy = budget.policy
        new_answer = AnswerSoFar(exchange, exchange.answer or "", policy)
        try:
            admission = await stages.admit(new_answer)
            if isinstance(admission, Stop):
                return Outcome(admission.status, admission.reason, exchange.answer, policy, exchange.index), None
            seconds = budget.start_attempt()
            attempt_policy = budget.attempt_policy
            async with asyncio.timeout(seconds):
                # Built again, because deadline and form are not known before: the first is the attempt's, and the
                # second costs parsing, which the admission of a long answer has done in a thread.
                answer = AnswerSoFar(
                    exchange,
                    new_answer.text,
                    policy,
                    deadline=time.monotonic() + seconds,
                    is_structured=answer_form.is_structured,
                    is_one_of_several=answer_form.is_one_of_several,
                    models=self,  # stages ask the editor and the judge through this pipeline
                )
                correction_steps = self._wrap_correction(answer, answer_form, attempt_policy, stages, session)
                corrected = await correction_steps.correct(answer.text, attempt_policy)
            outcome = await stages.finalize(build_outcome(answer, corrected), answer)
            # An attempt after a refusal by the gate has more caution than the policy, which the outcome records.
            if attempt_policy is not policy:
                outcome = replace(outcome, caution=attempt_policy.caution)
            return outcome, None
        except Exception as error:  # noqa: BLE001 - the package's one boundary: a correction must not cost the answer
            return build_failure(error, exchange, policy), error

    async def _report(
        self, outcome: Outcome, exchange: Exchange, answer_form: AnswerForm, stages: StageList, until: float
    ) -> Outcome:
        """Return the outcome of a judged answer with the stages' reports added.

        Reports on a long answer are left out if they are not done by `until` (`time.monotonic()`); they always have
        `_LEAST_REPORT_S`.
        """
        policy = outcome.policy
        aligner = await self.describe_aligner(policy)
        if aligner and aligner.languages:
            # the language report needs the aligner's languages, which the stage of the attempt may not have asked for
            stages = stages.add(Language(policy, partial(self._languages, policy), aligner.languages))
        if not stages.stages_with("report"):
            return outcome
        answer = AnswerSoFar(exchange, exchange.answer or "", policy, is_structured=answer_form.is_structured)
        try:
            async with asyncio.timeout(max(_LEAST_REPORT_S, until - time.monotonic())):
                return await run_off_loop(len(answer.text), partial(stages.report, outcome, answer), policy.tenant)
        except TimeoutError:
            # an answer is not delayed for its reports
            return outcome

    def _wrap_correction(
        self, answer: AnswerSoFar, answer_form: AnswerForm, policy: Policy, stages: StageList, session: Session | None
    ) -> Inner:
        """Return the correction of this answer's text, inside the wrappers that the policy and the answer require."""
        exchange = answer.exchange
        if answer.is_structured:
            # A JSON answer is corrected string by string: every string is followed by more of the answer, and the
            # session has read the whole answer, not a string.
            exchange = replace(exchange, inner=True)
            session = None
        core = self._build_text_correction(exchange, policy, answer.deadline, session)
        correction_steps = self.extensions.wrap(policy, core)
        if stages.stages_with("release"):
            correction_steps = ReleasedText(correction_steps, stages, answer)
        if not answer.is_structured:
            return correction_steps
        if policy.on_skip.structured_output is OnSkip.JUDGE:
            is_json = answer_form.is_json(if_unparsed=False)
            return JudgedForm(correction_steps, answer.exchange, core, is_json=is_json)
        return JsonAnswer(correction_steps, answer.exchange)

    def _build_text_correction(
        self, exchange: Exchange, policy: Policy, deadline: float, session: Session | None
    ) -> Inner:
        """Return the correction of one text by cache, engine and gate, read twice if the policy requires it.

        `deadline` is in seconds of `time.monotonic()`. `session` has read the text ahead; None if nothing has.
        """
        core = _TextCorrection(self, exchange, policy, deadline, session)
        if not policy.blocks_unjudged:
            return core
        # The second reading also judges the text without its conversation. The session has read the conversation.
        core_without_turns = _TextCorrection(self, replace(exchange, turns=()), policy, deadline, session=None)
        return SecondReading(core, core_without_turns, exchange.turns)

    def open_editor(self, answer: AnswerSoFar) -> PolicyEditor | None:
        """The editor that stages may ask about an answer; None if its policy names no model group as editor."""
        group = answer.policy.editor_group
        if group is None or self.editors is None:
            return None
        return StageEditor(self.editors.group(group), _stage_request(answer), dict(answer.policy.payer))

    def open_judge(self, answer: AnswerSoFar) -> PolicyJudge | None:
        """The judge that stages may ask about an answer; None if its policy names no judge that they can ask."""
        policy = answer.policy
        if self.judges is None or policy.judge.kind not in ASKED_BY_STAGES or not policy.judge:
            return None
        judge = self.judges.open_judge(policy.judge, policy)
        return StageJudge(judge, _stage_request(answer), self.judges.replies)

    async def read(self, exchange: Exchange, policy: Policy) -> Session | None:
        """Open a session in which the engine reads an answer while it is written; None if it need not read ahead."""
        policy = await self.select_objectives(exchange, policy)
        beginning = replace(exchange, answer=BEGUN, finish_reason=None)
        # an answer that a program reads (`structured`) is judged as a whole
        if beginning.structured or eligibility.check(beginning, policy) is not None:
            return None
        engine = self.engine_of(policy)
        releases_segments = policy.stream is StreamMode.SENTENCE and self.can_release_segments(policy)
        # a corrector of whole answers has nothing to do while the upstream writes, so it occupies no engine slot then
        if policy.corrector != METAALIGNER and not releases_segments:
            return DeferredSession(engine)
        deadline = time.monotonic() + policy.deadline_s
        # without objectives no head judges the answer, but stages may edit it to meet the requirements
        if not policy.objectives and policy.requirements:
            return UnjudgedSession()
        policy = self.extensions.prefill(policy)
        if not policy.objectives:
            return None
        return await engine.read(align_request(exchange, "", policy, deadline))

    async def score(self, exchange: Exchange, text: str, policy: Policy) -> Correction:
        """Ask the engine for its verdicts on `text` as the answer of this exchange; nothing is edited."""
        policy = replace(policy, score_only=True)
        request = align_request(exchange, text, policy, time.monotonic() + policy.deadline_s)
        async with asyncio.timeout(policy.deadline_s):
            return await self.engine_of(policy).align(request)

    def can_release_segments(self, policy: Policy) -> bool:
        """Whether an answer can be corrected segment by segment while it is written.

        Plugin wrappers and plugin rules need the whole answer.
        """
        corrects_segments = policy.corrector == METAALIGNER or isinstance(self.engine_of(policy), SentenceAdmission)
        return corrects_segments and not policy.plugin_rules and not self.extensions.wraps(policy)

    async def select_objectives(self, exchange: Exchange, policy: Policy) -> Policy:
        """The policy with the objectives that a plugin selects for this conversation; unchanged if none selects."""
        if not self.extensions.selects(policy):
            return policy
        encoder = EngineEncoder(self.engine, policy, exchange.call_id, min(SELECT_S, policy.deadline_s))
        return await self.extensions.select(policy, exchange.turns, encoder)

    def stages(
        self,
        policy: Policy,
        answer_form: AnswerForm | None = None,
        *,
        own_stages: Sequence[Stage] = (),
        grows: bool = False,
    ) -> StageList:
        """The stages that an answer goes through under a policy, in order.

        `answer_form` says whether a program reads a whole answer; None for an answer that `grows`. `own_stages` are
        further stages, which the caller made. A growing answer always has the language stage; a whole answer has it
        only if its language may stop it.
        """
        stages: list[Stage] = [Eligibility(answer_form), *own_stages]
        if policy.if_nothing_remains is not IfNothingRemains.ORIGINAL:
            stages.append(self.refusal_text(policy))
        if self.extensions.has_reports:
            stages.append(ExtensionReports(self.extensions))
        if grows or policy.on_skip.language is not OnSkip.PASSTHROUGH:
            stages.append(Language(policy, partial(self._languages, policy)))
        return StageList(sorted([*stages, *self.extensions.stages(policy)], key=lambda stage: stage.order))

    def refusal_text(self, policy: Policy) -> RefusalText:
        """Return the stage that decides what is delivered if nothing of an answer remains."""
        get_engine = partial(self._second_try_engine, policy)
        second_tries = SecondTries(get_engine, self.cache, self.stores_corrections, align_request)
        return RefusalText(second_tries, partial(self._languages, policy))

    async def describe_aligner(self, policy: Policy) -> AlignerInfo | None:
        """The aligner that judges under a policy; None if none does, or the engine takes longer than `_DESCRIBE_S`."""
        try:
            async with enforce_deadline(_DESCRIBE_S):
                return await self._describe_aligner(policy)
        except CorrectionError:
            return None

    async def _describe_aligner(self, policy: Policy) -> AlignerInfo | None:
        """The aligner that judges under a policy; None if none does. Raises `CorrectionError` if the engine fails."""
        if policy.corrector != METAALIGNER or not policy.objectives:
            return None
        return (await self.engine.info()).find_aligner(policy.aligner)

    async def _languages(self, policy: Policy) -> Collection[str]:
        """The languages of the policy's aligner, empty if none judges; raises `CorrectionError` if the engine fails."""
        async with enforce_deadline(policy.deadline_s):
            aligner = await self._describe_aligner(policy)
        return aligner.languages if aligner else ()

    def engine_of(self, policy: Policy) -> Engine:
        """The engine of the policy's corrector, with the policy's editor and judges around it, if it names any."""
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
        """The engine whose editor writes another answer. Head and judge are inside it, so they judge that answer."""
        return self._add_editor(self._add_judge(self.correctors.get(policy.corrector, MISSING), policy), policy)


class ReleasedText(InnerWrapper):
    """A wrapper around the correction of a text that passes the corrected text through the stages' `release`."""

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
        """The session that has read the answer ahead; None if there is none, or after its one use."""
        self._session_key = _question_key(exchange.answer, pipeline.extensions.prefill(policy)) if session else None
        """The `_question_key` of what the session has read; None without a session."""
        self.deadline = deadline
        """In seconds of `time.monotonic()`."""

    async def correct(self, text: str, policy: Policy) -> Corrected:
        """Correct `text` from the cache or by the engine; the verdict has the text that the gate lets pass."""
        exchange = self._exchange if text == self._exchange.answer else replace(self._exchange, answer=text)
        engine = self._pipeline.engine_of(policy)
        compute = self._engine_call(engine, exchange, text, policy)
        cache = self._pipeline.cache
        cache_hit: bool | None = None
        if not policy.objectives:
            # there is nothing to judge, so the text stays as it is; stages may still edit it
            correction = Correction(text)
        elif cache is None or exchange.no_store:
            correction = await compute()
        else:
            info = await engine.info()
            if policy.corrector == METAALIGNER:
                info = info.find_aligner(policy.aligner)
            correction, cache_hit = await cache.get_or_compute(
                cache.key(info, policy, exchange),
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
        """Return a function that asks the engine to correct `text`.

        If the session has read the same question ahead, the function finishes the session instead. A session finishes
        only once, so later questions go to the engine.
        """
        correct: Callable[[AlignRequest], Awaitable[Correction]] = engine.align
        if self._session is not None and _question_key(text, policy) == self._session_key:
            correct = self._session.finish
            self._session = None
        return lambda: correct(align_request(exchange, text, policy, self.deadline))


def _question_key(text: str | None, policy: Policy) -> tuple[object, ...]:
    """Everything that a correction depends on within one request; equal keys mean the same question to the engine."""
    models = (policy.corrector, policy.aligner, policy.editor_group, policy.judge)
    settings = (policy.effective_write, policy.caution, policy.verify, policy.draft, policy.score_only)
    return (text, policy.objectives, *models, *settings)


def build_failure(error: Exception, exchange: Exchange, policy: Policy) -> Outcome:
    """Log an error and build its outcome.

    Logs only the type, because messages of foreign exceptions may quote the text.
    """
    reason = outcomes.reason_of(error)
    # an answer that is too long and a spent quota are no faults
    status = Status.SKIPPED if isinstance(error, AnswerTooLong | QuotaSpent) else Status.FAILED
    log.warning("call %s choice %d: %s (%s)", exchange.call_id, exchange.index, reason, type(error).__name__)
    return Outcome(status, reason, exchange.answer, policy, exchange.index)


def align_request(exchange: Exchange, text: str, policy: Policy, deadline: float) -> AlignRequest:
    """Return the engine request to correct `text` under a policy until `deadline` (seconds of `time.monotonic()`)."""
    # the engine accepts only positive deadlines
    seconds_left = max(0.001, deadline - time.monotonic())
    tenant, quota = policy.engine_account
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
    """Return a request without text that gives tenant, quota and deadline when stages ask a model about an answer."""
    policy = answer.policy
    judged_policy = policy if policy.objectives else replace(policy, objectives=(_NOTHING_JUDGED,))
    return align_request(answer.exchange, "", judged_policy, answer.deadline)


def _list_heads(objectives: Sequence[Objective]) -> tuple[str, ...]:
    """The content hash of each objective's taught head, "" for an objective without one; empty if none has one."""
    head_hashes = tuple(objective.head for objective in objectives)
    return head_hashes if any(head_hashes) else ()


def _count_common(objectives: Sequence[Objective]) -> int:
    """Number of objectives before the first preference of the request, which is the first one with an allowance."""
    return next((n for n, objective in enumerate(objectives) if objective.allowance is not None), len(objectives))

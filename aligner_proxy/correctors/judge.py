"""Judges: models that give a second opinion on segments which the detector head doubts.

A judge flags or clears segments; it writes nothing. It is a chat or decision model or a token classifier of the engine
(token_judge.py), which is asked about all doubtful segments of an answer in one call, or a guard model, which is asked
about each (guard_forms.py). Each has seats, quota and circuit breaker, like an editor (model_group.py). Verdicts are
kept in memory by a hash of all that they depend on. What follows from them is in judged_engine.py.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import fmean
from typing import Any, TypeVar

from cachetools import LRUCache

from aligner_proxy.correctors import editor_prompt, judge_prompt
from aligner_proxy.correctors.editor_prompt import MAX_PASSAGES, Passage
from aligner_proxy.correctors.guard_forms import GUARDS, quote_text
from aligner_proxy.correctors.model_group import ModelGroup, ModelGroups, OpenChat, Payer, Question, cost_of_failure
from aligner_proxy.correctors.token_judge import RequestClassifier, ask_labels, read_verdicts
from aligner_proxy.engine.admission import OpenAccounts
from aligner_proxy.engine.api import AlignerInfo, AlignRequest, ClassifierInfo
from aligner_proxy.errors import CorrectionError, JudgeFailed, UnknownJudge
from aligner_proxy.text.structure import Segment
from aligner_proxy.types import (
    ANSWER_BAND,
    AskAbout,
    EditorUse,
    FailureClass,
    Judge,
    JudgeKind,
    JudgeUse,
    OnError,
    Policy,
    SegmentScore,
    replace_surrogates,
    score_whole_answer,
)

log = logging.getLogger(__name__)
JUDGING_SHARE = 0.5
"""Share of the time left that the judge may take; the rest is for the edits."""
KNOWN_VERDICTS = 16_384
"""Verdicts kept in memory for each worker."""
KNOWN_REPLIES = 2_048
"""Replies to questions of stages kept in memory for each worker."""
ASKED_BY_STAGES = (JudgeKind.CHAT, JudgeKind.DECISIONS)
"""Kinds of judges that answer questions of stages; a guard only answers its own."""
GUARD_CALLS = 8
"""Calls to a guard at a time for one answer."""
GUARD_TOKENS = 256
"""Maximum tokens of a guard's reply; some think before they answer."""
_CONTEXT_CHARS = 2_000
"""Characters of the answer before a segment on which a kept verdict depends."""
_CONTEXT_SEGMENTS = 64
"""Segments before a segment of which these characters are taken."""
_Item = TypeVar("_Item")
_Read = TypeVar("_Read")
_Ask = Callable[[float], Awaitable[tuple[_Read, EditorUse]]]
"""Asks within so many seconds; returns (what was read, cost)."""
_AskVerdicts = Callable[
    [AlignRequest, Sequence[Segment], Sequence[Passage], float], Awaitable[tuple[dict[int, bool], EditorUse]]
]
"""Asks about passages of these segments; returns (verdicts by segment index, cost)."""
_PROMPTS = hashlib.sha256(judge_prompt.INSTRUCTION.encode()).hexdigest()


class Judges:
    """The judges of all policies, and the verdicts that they gave lately."""

    def __init__(
        self,
        open_chat: OpenChat,
        open_decisions: OpenChat,
        accounts: OpenAccounts | None = None,
        open_classifier: OpenChat | None = None,
    ) -> None:
        chats = ModelGroups(open_chat, accounts, role="judge")
        self._groups = {
            JudgeKind.CHAT: chats,
            JudgeKind.GUARD: chats,
            JudgeKind.DECISIONS: ModelGroups(open_decisions, accounts, role="judge"),
            JudgeKind.TOKENS: ModelGroups(open_classifier or open_chat, accounts, role="judge"),
        }
        """The model groups that are asked, by kind of judge."""
        self._known_verdicts: LRUCache[str, bool] = LRUCache(KNOWN_VERDICTS)
        """Whether a segment violates its objectives, by a hash of all that the verdict depends on."""
        self._classifiers: dict[str, ClassifierInfo] = {}
        """Descriptions of the engine's token classifiers, by name; filled when a request first asks the engine."""
        self.replies: LRUCache[str, str] = LRUCache(KNOWN_REPLIES)
        """Replies to questions of stages, by a hash of all that they depend on."""

    def open(self, policy: Policy) -> RequestJudges:
        """The judges of a policy and of its objectives, for one request."""
        judges = {judge: self.open_judge(judge, policy) for judge in policy.judges}
        objective_judges: dict[str, RequestJudge | None] = {}
        for objective in policy.objectives:
            if objective.judge is not None:
                objective_judges[replace_surrogates(objective.text)] = judges.get(objective.judge)
        return RequestJudges(judges.get(policy.judge), objective_judges, self._classifiers)

    def open_judge(self, judge: Judge, policy: Policy) -> RequestJudge:
        """This judge for one request, charged to the policy's payer."""
        group = self._groups[judge.kind].group(judge.group)
        retries = policy.on_error.reaction_to(FailureClass.JUDGE) is OnError.RETRY
        blocks = policy.final_action(FailureClass.JUDGE) is OnError.BLOCK
        classifier = None
        if judge.kind is JudgeKind.TOKENS:
            classifier = RequestClassifier(policy.source_texts, judge.group, self._classifiers)
        return RequestJudge(judge, group, self._known_verdicts, dict(policy.payer), retries, blocks, classifier)


@dataclass(frozen=True, slots=True)
class JudgeOpinion:
    """A judge's verdicts by segment index."""

    violates: Mapping[int, bool]
    """Whether a segment violates its objectives."""
    calls: EditorUse = field(default_factory=EditorUse)
    """What asking cost."""
    failure: CorrectionError | None = None
    """Why verdicts are missing; None if none is."""

    def __add__(self, other: JudgeOpinion) -> JudgeOpinion:
        violates = {**self.violates, **other.violates}
        return JudgeOpinion(violates, self.calls + other.calls, self.failure or other.failure)


async def merge_opinions(opinions: Iterable[Awaitable[JudgeOpinion]]) -> JudgeOpinion:
    """One opinion from several that are formed at the same time; raises the first one's error once all have ended."""
    merged = JudgeOpinion({})
    for opinion in await asyncio.gather(*opinions, return_exceptions=True):
        if isinstance(opinion, BaseException):
            raise opinion
        merged += opinion
    return merged


@dataclass(frozen=True, slots=True)
class RequestJudges:
    """The judges of one request."""

    policy_judge: RequestJudge | None
    """The policy's judge, for objectives that name none; None if only the detector head judges those."""
    objective_judges: Mapping[str, RequestJudge | None]
    """The judge that an objective names, by the objective's text; None if the objective wants the head alone."""
    classifiers: dict[str, ClassifierInfo] = field(default_factory=dict)
    """The token classifiers of the engine, as far as it was asked for them."""

    def note_engine(self, about: AlignerInfo) -> None:
        """Remember which token classifiers the engine has; their categories decide what they can be asked about."""
        self.classifiers.update(about.judges)

    @property
    def _judges(self) -> Iterator[RequestJudge]:
        """Every judge that may be asked, the policy's first."""
        return filter(None, (self.policy_judge, *self.objective_judges.values()))

    @property
    def knows_engine(self) -> bool:
        """Whether every token classifier that may be asked is known."""
        return all(judge.classifier is None or judge.classifier.about for judge in self._judges)

    def settings(self) -> list[Any]:
        """Everything that determines the verdicts of all judges, for cache keys."""
        judges = [("", self.policy_judge), *sorted(self.objective_judges.items())]
        return [[text, judge.settings() if judge else None] for text, judge in judges]

    def doubts(self, request: AlignRequest, score: SegmentScore) -> bool:
        """Whether a judge is asked about a segment."""
        judge = self.judge_of(request, score.objective)
        return judge is not None and judge.doubts(request, score)

    def find_doubtful(
        self, request: AlignRequest, scores: Sequence[SegmentScore], first: int = 0, *, is_whole: bool = False
    ) -> dict[int, int | None]:
        """The segments that judges are asked about, from `first` on: segment index -> index of the objective.

        In a whole answer whose own score is within `answer_band` of the threshold, also the third of the segments with
        the highest scores. What the question asks for adds to that score (`AnswerScore.doubt`). A segment that is in
        doubt by itself is asked about under its own objective.
        """
        doubtful = {
            at: score.objective for at, score in enumerate(scores) if at >= first and self.doubts(request, score)
        }
        if not is_whole or all(judge.judge.answer_band == 0 for judge in self._judges):
            return doubtful
        return self._find_doubtful_by_answer(request, scores) | doubtful

    def _find_doubtful_by_answer(self, request: AlignRequest, scores: Sequence[SegmentScore]) -> dict[int, int | None]:
        """The segments that judges are asked about because of the score of the whole answer, as `find_doubtful`."""
        segment_scores = [score.score for score in scores]
        # where the engine says what its segments tell of the answer, that finds more than the mean of their scores
        whole = score_whole_answer(scores)
        answer_score = whole.doubt if whole else average_scores(segment_scores)
        default_band = ANSWER_BAND if whole else 0.0
        doubtful: dict[int, int | None] = {}
        for at in find_highest_third(segment_scores):
            objective = whole.objective if whole else scores[at].objective
            judge = self.judge_of(request, objective)
            score = replace(scores[at], objective=objective)
            if judge is not None and judge.doubts_answer(request, score, answer_score, default_band):
                doubtful[at] = objective
        return doubtful

    def find_doubtful_early(
        self, request: AlignRequest, scores: Sequence[SegmentScore], first: int
    ) -> dict[int, int | None]:
        """The segments from `first` on that judges are asked about before the end of a held answer.

        A judge that is asked about all segments has to read the last one in any case, so asking early saves no time.
        """
        doubtful = self.find_doubtful(request, scores, first)
        judges = {at: self.judge_of(request, objective) for at, objective in doubtful.items()}
        return {at: doubtful[at] for at, judge in judges.items() if judge and judge.judge.ask is not AskAbout.ALL}

    def judge_of(self, request: AlignRequest, objective: int | None) -> RequestJudge | None:
        """The judge of the objective at this index, or None; for an unknown index the policy's, or else any judge."""
        if objective is None or not 0 <= objective < len(request.objectives):
            return next(self._judges, None)
        return self.objective_judges.get(request.objectives[objective], self.policy_judge)

    async def give_opinion(
        self, request: AlignRequest, segments: Sequence[Segment], doubtful: Mapping[int, int | None], deadline_at: float
    ) -> JudgeOpinion:
        """One opinion from those of all judges, each asked about the segments of its objectives.

        Raises `JudgeFailed` as `RequestJudge.give_opinion` does.
        """
        shares: dict[int, tuple[RequestJudge, dict[int, int | None]]] = {}
        for at, objective in doubtful.items():
            if judge := self.judge_of(request, objective):
                shares.setdefault(id(judge), (judge, {}))[1][at] = objective
        return await merge_opinions(
            judge.give_opinion(request, segments, share, deadline_at) for judge, share in shares.values()
        )


@dataclass(frozen=True, slots=True)
class RequestJudge:
    """One judge of one request, its payer, and what follows if it fails."""

    judge: Judge
    group: ModelGroup
    known_verdicts: LRUCache[str, bool]
    """Verdicts that this worker keeps for all requests, by `_compute_verdict_key`."""
    payer: Payer
    retries: bool = False
    """Whether the judge is asked once more after a failure."""
    blocks: bool = False
    """Whether the policy blocks the answer if the judge fails; otherwise the head's verdicts count."""
    classifier: RequestClassifier | None = None
    """Set for a token classifier."""

    def identity(self) -> dict[str, Any]:
        """Everything that determines its verdicts, for cache keys."""
        judge = self.judge
        form = judge.form.value if judge.form else ""
        own = self.classifier.identity() if self.classifier else {}
        return {**self.group.identity(), "kind": judge.kind.value, "form": form, "prompts": _PROMPTS, **own}

    def settings(self) -> dict[str, Any]:
        """Everything that determines what follows from its verdicts, for cache keys."""
        return {
            "judge": self.identity(),
            "ask": self.judge.ask,
            "band": self.judge.band,
            "answer_band": self.judge.answer_band,
        }

    def doubts(self, request: AlignRequest, score: SegmentScore) -> bool:
        """Whether the judge is asked about a segment because of its own score."""
        if score.score is None or not _has_words(score):
            return False
        if self.judge.ask is AskAbout.FLAGGED and not score.flagged:
            return False
        is_far = score.flagged or score.score <= request.caution - self.judge.band
        if self.judge.ask is AskAbout.DOUBT and is_far:
            return False
        return self.knows(request, score.objective)

    def doubts_answer(
        self, request: AlignRequest, score: SegmentScore, answer_score: float, default_band: float
    ) -> bool:
        """Whether the judge is asked about a segment because of the score of the whole answer."""
        judge = self.judge
        if judge.ask is not AskAbout.DOUBT or score.flagged or not _has_words(score):
            return False
        band = default_band if judge.answer_band is None else judge.answer_band
        is_near = band > 0 and answer_score > request.caution - band
        return is_near and self.knows(request, score.objective)

    def knows(self, request: AlignRequest, objective: int | None) -> bool:
        """Whether the judge can be asked about this objective."""
        form = self.judge.form
        guard = self.classifier.guard if self.classifier else GUARDS[form] if form else None
        return guard is None or any(guard.knows(text) for text in _list_objectives(request, objective))

    async def give_opinion(
        self, request: AlignRequest, segments: Sequence[Segment], doubtful: Mapping[int, int | None], deadline_at: float
    ) -> JudgeOpinion:
        """Whether each doubtful segment violates its objective; `doubtful` is segment index -> index of the objective.

        If the judge fails, the opinion lacks verdicts, or raises `JudgeFailed` if the policy blocks then.
        """
        objectives = {at: _list_objectives(request, objective) for at, objective in doubtful.items()}
        identity = self.identity()
        keys = {at: _compute_verdict_key(identity, request, segments, at, texts) for at, texts in objectives.items()}
        opinion = JudgeOpinion({at: self.known_verdicts[key] for at, key in keys.items() if key in self.known_verdicts})
        new_indexes = [at for at in sorted(doubtful) if at not in opinion.violates]
        marked = [editor_prompt.make_passage(1, at, segments[at].text, objectives[at]) for at in new_indexes]
        ask, passages_at_once, questions_at_once = self._ask_by_kind()
        until = time.monotonic() + self._find_seconds(deadline_at)
        for questions in _split_into_batches([*_split_into_batches(marked, passages_at_once)], questions_at_once):
            seconds = max(0.001, until - time.monotonic())
            more = await merge_opinions(self._ask_about(ask, request, segments, one, seconds) for one in questions)
            self.known_verdicts.update((keys[at], verdict) for at, verdict in more.violates.items())
            opinion += more
            # a judge without time, or without any verdict, would fail again
            is_over = self.blocks or not more.violates or time.monotonic() >= until
            if more.failure and is_over:
                break
        if opinion.failure:
            self._report_failure(request, opinion.failure)
        return opinion

    def _ask_by_kind(self) -> tuple[_AskVerdicts, int, int]:
        """(how this kind of judge is asked, passages of one question, questions at a time)."""
        if self.judge.form:
            return self._ask_guard, 1, GUARD_CALLS
        # a classifier reads the answer, however many passages are asked about
        return (self._ask_classifier, sys.maxsize, 1) if self.classifier else (self._ask_at_once, MAX_PASSAGES, 1)

    async def _ask_about(
        self,
        ask: _AskVerdicts,
        request: AlignRequest,
        segments: Sequence[Segment],
        marked: Sequence[Passage],
        seconds: float,
    ) -> JudgeOpinion:
        """The opinion on these passages, which become the passages 1, 2, ... of one question."""
        numbered = [replace(passage, number=number) for number, passage in enumerate(marked, 1)]
        violates, use, failure = await self._try_to_ask(partial(ask, request, segments, numbered), seconds)
        return JudgeOpinion(violates or {}, use, failure)

    async def ask_with_retries(
        self, request: AlignRequest, ask: _Ask[_Read], deadline_at: float
    ) -> tuple[_Read | None, EditorUse]:
        """(result of `ask`, cost), within the judge's share of the time left; the result is None if the judge fails.

        `ask` gets the seconds it may take, and is called once more if the policy retries. Raises `JudgeFailed` if the
        policy blocks answers whose judge failed.
        """
        result, use, failure = await self._try_to_ask(ask, self._find_seconds(deadline_at))
        if failure is not None:
            self._report_failure(request, failure)
        return result, use

    def _find_seconds(self, deadline_at: float) -> float:
        """The judge's share of the time left."""
        return max(0.001, (deadline_at - time.monotonic()) * JUDGING_SHARE)

    async def _try_to_ask(
        self, ask: _Ask[_Read], seconds: float
    ) -> tuple[_Read | None, EditorUse, CorrectionError | None]:
        """(result of `ask` or None, cost of all tries, why the last one failed or None)."""
        cost = EditorUse()
        failure = None
        tries = 2 if self.retries else 1
        for _ in range(tries):
            try:
                result, use = await ask(seconds / tries)
            except CorrectionError as error:
                failure = error
                cost += cost_of_failure(error)
            else:
                return result, cost + use, None
        return None, cost, failure

    def _report_failure(self, request: AlignRequest, failure: CorrectionError) -> None:
        """Log why the judge failed; raises `JudgeFailed` if the policy blocks then."""
        # which judges an engine has is for the operator to know
        lack = f": {failure}" if isinstance(failure, UnknownJudge) else ""
        log.warning("call %s: the judge failed (%s)%s", request.request_id, type(failure).__name__, lack)
        if self.blocks:
            raise JudgeFailed("the judge gave no verdict")

    async def _ask_at_once(
        self, request: AlignRequest, segments: Sequence[Segment], marked: Sequence[Passage], seconds: float
    ) -> tuple[dict[int, bool], EditorUse]:
        """Ask a chat or decision model about all passages in one call; return (verdicts by segment index, cost)."""
        by_questions = self.judge.kind is JudgeKind.DECISIONS
        form = judge_prompt.make_decision_questions(marked) if by_questions else judge_prompt.REPLY_SCHEMA
        messages = judge_prompt.make_judge_messages(request.turns, segments, marked)
        question = Question(messages, judge_prompt.limit_reply_tokens(marked), form, varies=False)
        return await self.group.ask(
            request, question, lambda reply: judge_prompt.read_verdicts(reply.text, marked), self.payer, seconds
        )

    async def _ask_classifier(
        self, request: AlignRequest, segments: Sequence[Segment], marked: Sequence[Passage], seconds: float
    ) -> tuple[dict[int, bool], EditorUse]:
        """Ask a token classifier about all passages in one call; return (verdicts by segment index, cost).

        The classifier reads nothing behind the last passage.
        """
        assert self.classifier is not None
        beginning = segments[: marked[-1].at + 1]
        question = ask_labels(request, self.classifier.context, beginning)
        read = partial(read_verdicts, segments=beginning, marked=marked, guard=self.classifier.guard)
        return await self.group.ask(request, question, lambda reply: read(reply.text), self.payer, seconds)

    async def _ask_guard(
        self, request: AlignRequest, segments: Sequence[Segment], marked: Sequence[Passage], seconds: float
    ) -> tuple[dict[int, bool], EditorUse]:
        """Ask a guard whether a passage violates the first of its objectives that the guard knows."""
        assert self.judge.form is not None
        guard = GUARDS[self.judge.form]
        (passage,) = marked
        objective = next(text for text in passage.against if guard.knows(text))
        user_text = quote_text(editor_prompt.last_user_text(request.turns))
        messages = guard.messages(user_text, quote_text(passage.lead + passage.text), objective)
        question = Question(messages, GUARD_TOKENS, varies=False)
        read = partial(guard.violates, objective=objective)
        return await self.group.ask(
            request, question, lambda reply: {passage.at: read(reply.text)}, self.payer, seconds
        )


def _has_words(score: SegmentScore) -> bool:
    """Whether a segment has a letter or digit, and not only signs, so that there is something to judge."""
    return any(letter.isalnum() for letter in score.text)


def average_scores(scores: Sequence[float | None]) -> float:
    """The score of a whole answer of whose segments no taught head tells more: the mean of their scores.

    It finds as much in short answers as in long ones.
    The highest score, or the mean of the highest, makes either of them doubtful too often
    (docs/lab/2026-11-28-doubt-of-answers.md).
    """
    numbers = [score for score in scores if score is not None]
    return fmean(numbers) if numbers else -math.inf


def find_highest_third(scores: Sequence[float | None]) -> list[int]:
    """The third of the scored segments with the highest scores, at least one if there is any; by index."""
    scored = [(score, at) for at, score in enumerate(scores) if score is not None]
    return [at for _, at in sorted(scored)[-max(1, round(len(scored) / 3)) :]]


def _compute_verdict_key(
    identity: Mapping[str, Any],
    request: AlignRequest,
    segments: Sequence[Segment],
    index: int,
    objectives: Sequence[str],
) -> str:
    """Cache key of a verdict: a hash of the judge's identity, the tenant and all that the judge reads."""
    earlier_segments = segments[max(0, index - _CONTEXT_SEGMENTS) : index]
    context = "".join(segment.text + segment.gap for segment in earlier_segments)
    turns = [[turn.role, turn.content] for turn in editor_prompt.select_last_turns(request.turns)]
    parts = [identity, request.tenant, list(objectives), segments[index].text, context[-_CONTEXT_CHARS:], turns]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _split_into_batches(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    """Yield the items in groups of `size`; the last may be smaller."""
    return (items[first : first + size] for first in range(0, len(items), size))


def _list_objectives(request: AlignRequest, objective: int | None) -> tuple[str, ...]:
    """The texts of the objective at this index; all of them if it is unknown."""
    if objective is None or not 0 <= objective < len(request.objectives):
        return request.objectives
    return (request.objectives[objective],)


def compute_judge_use(opinion: JudgeOpinion, scores: Sequence[SegmentScore], segments: int) -> JudgeUse:
    """The use of a judge that was asked about this number of `segments`; `scores` are the head's, of all segments."""
    flagged = sum(violates and not scores[at].flagged for at, violates in opinion.violates.items())
    cleared = sum(not violates and scores[at].flagged for at, violates in opinion.violates.items())
    return JudgeUse(segments, flagged, cleared, opinion.calls)

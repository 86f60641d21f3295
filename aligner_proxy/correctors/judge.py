"""Judges: models that give a second opinion on segments which the detector head doubts.

A judge says whether a segment violates an objective; it writes nothing. Chat and decision models, and token classifiers
of the engine (token_judge.py), are asked about all doubtful segments of an answer in one call; a guard model is asked
about each segment (guard_forms.py). Each judge has slots, quota and circuit breaker, like an editor (model_group.py).
Verdicts are kept in memory by a hash of all that they depend on. judged_engine.py applies them to the answer.
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
from aligner_proxy.correctors.editor_prompt import MAX_PASSAGES, Passage, select_objectives
from aligner_proxy.correctors.guard_forms import GUARDS, quote_text
from aligner_proxy.correctors.model_group import ModelGroup, ModelGroups, OpenChat, Payer, Question, cost_of_failure
from aligner_proxy.correctors.token_judge import RequestClassifier, make_labels_question, read_verdicts
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
"""Number of verdicts that each worker keeps in memory."""
KNOWN_REPLIES = 2_048
"""Number of replies to questions of stages that each worker keeps in memory."""
ASKED_BY_STAGES = (JudgeKind.CHAT, JudgeKind.DECISIONS)
"""Kinds of judges that answer questions of stages; a guard only answers its own question."""
GUARD_CALLS = 8
"""Number of calls to a guard that run at the same time for one answer."""
GUARD_TOKENS = 256
"""Maximum tokens of a guard's reply; some guards think before they answer."""
_CONTEXT_CHARS = 2_000
"""Characters of the answer before a segment on which a kept verdict depends."""
_CONTEXT_SEGMENTS = 64
"""Number of segments before a segment from which these characters are taken."""
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_Ask = Callable[[float], Awaitable[tuple[_Result, EditorUse]]]
"""Asks a judge within so many seconds; returns (what was read from the reply, cost)."""
_AskVerdicts = Callable[
    [AlignRequest, Sequence[Segment], Sequence[Passage], float], Awaitable[tuple[dict[int, bool], EditorUse]]
]
"""Asks about passages of these segments within so many seconds; returns (verdicts by segment index, cost)."""
_PROMPT_HASH = hashlib.sha256(judge_prompt.INSTRUCTION.encode()).hexdigest()
"""Hash of the prompt's wording: another wording leads to other verdicts, so it needs another cache key."""


class Judges:
    """The judges of all policies, and the verdicts that they gave lately.

    `open_chat`, `open_decisions` and `open_classifier` open a model group by its name, for each kind of judge; None for
    `open_classifier` if the engine serves no token classifiers. `accounts` opens the accounts that workers share.
    """

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
        """Descriptions of the engine's token classifiers, by name; empty before a request has asked the engine."""
        self.replies: LRUCache[str, str] = LRUCache(KNOWN_REPLIES)
        """Replies to questions of stages, by a hash of all that they depend on."""

    def open(self, policy: Policy) -> RequestJudges:
        """Return the judges of a policy and of its objectives, for one request."""
        judges = {judge: self.open_judge(judge, policy) for judge in policy.judges}
        objective_judges: dict[str, RequestJudge | None] = {}
        for objective in policy.objectives:
            if objective.judge is not None:
                objective_judges[replace_surrogates(objective.text)] = judges.get(objective.judge)
        return RequestJudges(judges.get(policy.judge), objective_judges, self._classifiers)

    def open_judge(self, judge: Judge, policy: Policy) -> RequestJudge:
        """Return this judge for one request, charged to the policy's payer."""
        group = self._groups[judge.kind].group(judge.group)
        retries = policy.on_error.reaction_to(FailureClass.JUDGE) is OnError.RETRY
        blocks = policy.final_action(FailureClass.JUDGE) is OnError.BLOCK
        classifier = None
        if judge.kind is JudgeKind.TOKENS:
            classifier = RequestClassifier(policy.source_texts, judge.group, self._classifiers)
        known_verdicts = self._known_verdicts
        payer = dict(policy.payer)
        return RequestJudge(judge, group, known_verdicts, payer, retries=retries, blocks=blocks, classifier=classifier)


@dataclass(frozen=True, slots=True)
class JudgeOpinion:
    """The verdicts of one or more judges on segments of an answer."""

    violates: Mapping[int, bool]
    """Whether a segment violates its objectives, by the segment's index."""
    calls: EditorUse = field(default_factory=EditorUse)
    """What the calls cost."""
    failure: CorrectionError | None = None
    """Why verdicts are missing; None if none is."""

    def __add__(self, other: JudgeOpinion) -> JudgeOpinion:
        violates = {**self.violates, **other.violates}
        return JudgeOpinion(violates, self.calls + other.calls, self.failure or other.failure)


async def merge_opinions(opinions: Iterable[Awaitable[JudgeOpinion]]) -> JudgeOpinion:
    """Form several opinions at the same time and join them to one; raises the first error once all have ended."""
    merged = JudgeOpinion({})
    for opinion in await asyncio.gather(*opinions, return_exceptions=True):
        if isinstance(opinion, BaseException):
            raise opinion
        merged += opinion
    return merged


@dataclass(frozen=True, slots=True)
class RequestJudges:
    """The judges of one request. Segments and objectives are known by their index, from 0.

    Doubtful segments map the index of a segment to that of the objective in doubt; None stands for all objectives.
    """

    policy_judge: RequestJudge | None
    """The policy's judge, for objectives that name no judge; None if only the detector head judges these."""
    objective_judges: Mapping[str, RequestJudge | None]
    """The judge that an objective names, by the objective's text; None if the objective wants the head alone."""
    classifiers: dict[str, ClassifierInfo] = field(default_factory=dict)
    """Descriptions of the engine's token classifiers, by name; filled by `note_engine`."""

    def note_engine(self, description: AlignerInfo) -> None:
        """Note the token classifiers in the engine's description; their categories decide what they are asked about."""
        self.classifiers.update(description.judges)

    @property
    def _judges(self) -> Iterator[RequestJudge]:
        """Every judge that may be asked, the policy's first."""
        return filter(None, (self.policy_judge, *self.objective_judges.values()))

    @property
    def knows_engine(self) -> bool:
        """Whether the engine has described every token classifier that may be asked."""
        return all(judge.classifier is None or judge.classifier.about for judge in self._judges)

    def settings(self) -> list[Any]:
        """Everything that determines the verdicts of all judges, for cache keys."""
        judges = [("", self.policy_judge), *sorted(self.objective_judges.items())]
        return [[text, judge.settings() if judge else None] for text, judge in judges]

    def doubts(self, request: AlignRequest, score: SegmentScore) -> bool:
        """Whether a judge is asked about a segment because of the segment's own score."""
        judge = self.judge_of(request, score.objective)
        return judge is not None and judge.doubts(request, score)

    def find_doubtful(
        self, request: AlignRequest, scores: Sequence[SegmentScore], first: int = 0, *, is_whole: bool = False
    ) -> dict[int, int | None]:
        """The doubtful segments from index `first` on, about which judges are asked.

        If the scores are those of a whole answer (`is_whole`) whose own score is within `answer_band` of the threshold,
        the third of its segments with the highest scores is doubtful, too. A segment that is also doubtful by itself is
        asked about under its own objective.
        """
        doubtful_segments = {
            index: score.objective
            for index, score in enumerate(scores)
            if index >= first and self.doubts(request, score)
        }
        if not is_whole or all(judge.judge.answer_band == 0 for judge in self._judges):
            return doubtful_segments
        return self._find_doubtful_by_answer(request, scores) | doubtful_segments

    def _find_doubtful_by_answer(self, request: AlignRequest, scores: Sequence[SegmentScore]) -> dict[int, int | None]:
        """The segments that are doubtful because of the score of the whole answer."""
        segment_scores = [score.score for score in scores]
        # A taught head that scores whole answers finds more than the mean of the segments' scores, which stands in.
        whole_score = score_whole_answer(scores)
        answer_score = whole_score.doubt if whole_score else average_scores(segment_scores)
        default_band = ANSWER_BAND if whole_score else 0.0
        doubtful_segments: dict[int, int | None] = {}
        for index in find_highest_third(segment_scores):
            objective = whole_score.objective if whole_score else scores[index].objective
            judge = self.judge_of(request, objective)
            score = replace(scores[index], objective=objective)
            if judge is not None and judge.doubts_answer(request, score, answer_score, default_band):
                doubtful_segments[index] = objective
        return doubtful_segments

    def find_doubtful_early(
        self, request: AlignRequest, scores: Sequence[SegmentScore], first: int
    ) -> dict[int, int | None]:
        """The doubtful segments from index `first` on about which judges are asked before the end of a held answer.

        A judge that is asked about all segments has to read the last one in any case, so asking early saves no time.
        """
        early_segments: dict[int, int | None] = {}
        for index, objective in self.find_doubtful(request, scores, first).items():
            judge = self.judge_of(request, objective)
            if judge and judge.judge.ask is not AskAbout.ALL:
                early_segments[index] = objective
        return early_segments

    def judge_of(self, request: AlignRequest, objective: int | None) -> RequestJudge | None:
        """The judge of the objective with this index; None if only the head judges it.

        If the index is unknown (None, or out of range): the policy's judge, or the first of an objective.
        """
        if objective is None or not 0 <= objective < len(request.objectives):
            return next(self._judges, None)
        return self.objective_judges.get(request.objectives[objective], self.policy_judge)

    async def give_opinion(
        self, request: AlignRequest, segments: Sequence[Segment], doubtful: Mapping[int, int | None], deadline_at: float
    ) -> JudgeOpinion:
        """Ask each judge about the doubtful segments of its objectives; return one opinion with all verdicts.

        `doubtful` are doubtful segments, and `deadline_at` is in seconds of `time.monotonic()`. Raises `JudgeFailed` as
        `RequestJudge.give_opinion` does.
        """
        judges: dict[int, RequestJudge] = {}
        # the doubtful segments of each judge, by the judge's `id`, because judges have no hash
        segments_of_judge: dict[int, dict[int, int | None]] = {}
        for index, objective in doubtful.items():
            judge = self.judge_of(request, objective)
            if judge is not None:
                judges[id(judge)] = judge
                segments_of_judge.setdefault(id(judge), {})[index] = objective
        return await merge_opinions(
            judge.give_opinion(request, segments, segments_of_judge[key], deadline_at) for key, judge in judges.items()
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
        """Everything that determines the judge's verdicts, for cache keys."""
        judge = self.judge
        guard_form = judge.form.value if judge.form else ""
        identity = {**self.group.identity(), "kind": judge.kind.value, "form": guard_form, "prompts": _PROMPT_HASH}
        return identity | self.classifier.identity() if self.classifier else identity

    def settings(self) -> dict[str, Any]:
        """The judge's identity and the settings that decide what it is asked about, for cache keys."""
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
        is_certain = score.flagged or score.score <= request.caution - self.judge.band
        if self.judge.ask is AskAbout.DOUBT and is_certain:
            return False
        return self.knows(request, score.objective)

    def doubts_answer(
        self, request: AlignRequest, score: SegmentScore, answer_score: float, default_band: float
    ) -> bool:
        """Whether the judge is asked about a segment because `answer_score`, the whole answer's, is near the threshold.

        Scores are in nats. `default_band` is used if the policy sets no `answer_band`; 0 asks about no segment.
        """
        judge = self.judge
        if judge.ask is not AskAbout.DOUBT or score.flagged or not _has_words(score):
            return False
        band = default_band if judge.answer_band is None else judge.answer_band
        is_near = band > 0 and answer_score > request.caution - band
        return is_near and self.knows(request, score.objective)

    def knows(self, request: AlignRequest, objective: int | None) -> bool:
        """Whether the judge can be asked about the objective with this index; None: about any of them."""
        guard = GUARDS[self.judge.form] if self.judge.form else None
        if self.classifier:
            guard = self.classifier.guard
        return guard is None or any(guard.knows(text) for text in select_objectives(request.objectives, objective))

    async def give_opinion(
        self, request: AlignRequest, segments: Sequence[Segment], doubtful: Mapping[int, int | None], deadline_at: float
    ) -> JudgeOpinion:
        """Judge each doubtful segment by its objective, within the judge's share of the time until `deadline_at`.

        `doubtful` maps the index of a segment to that of its objective; None stands for all objectives. Known verdicts
        are taken from memory. If the judge fails, the opinion lacks verdicts, or `JudgeFailed` is raised if the policy
        blocks the answer then.
        """
        identity = self.identity()
        objectives = {index: select_objectives(request.objectives, number) for index, number in doubtful.items()}
        compute_key = partial(_compute_verdict_key, identity, request, segments)
        keys = {index: compute_key(index, texts) for index, texts in objectives.items()}
        known_keys = {index: key for index, key in keys.items() if key in self.known_verdicts}
        opinion = JudgeOpinion({index: self.known_verdicts[key] for index, key in known_keys.items()})
        new_indexes = [index for index in sorted(doubtful) if index not in opinion.violates]
        # `_ask_about` numbers the passages of each question
        passages = [
            editor_prompt.make_passage(1, index, segments[index].text, objectives[index]) for index in new_indexes
        ]
        ask, passages_per_question, questions_at_once = self._choose_way_to_ask()
        questions = [*_split_into_batches(passages, passages_per_question)]
        until = time.monotonic() + self._find_seconds(deadline_at)
        for batch in _split_into_batches(questions, questions_at_once):
            seconds = max(0.001, until - time.monotonic())
            batch_opinion = await merge_opinions(
                self._ask_about(ask, request, segments, question, seconds) for question in batch
            )
            self.known_verdicts.update((keys[index], verdict) for index, verdict in batch_opinion.violates.items())
            opinion += batch_opinion
            # a judge that has no time left, or gave no verdict at all, would fail again
            is_over = self.blocks or not batch_opinion.violates or time.monotonic() >= until
            if batch_opinion.failure and is_over:
                break
        if opinion.failure:
            self._report_failure(request, opinion.failure)
        return opinion

    def _choose_way_to_ask(self) -> tuple[_AskVerdicts, int, int]:
        """(method that asks this kind of judge, passages per question, questions at the same time)."""
        if self.judge.form:
            return self._ask_guard, 1, GUARD_CALLS
        if self.classifier:
            # a classifier reads the whole answer, however many passages are asked about
            return self._ask_classifier, sys.maxsize, 1
        return self._ask_chat, MAX_PASSAGES, 1

    async def _ask_about(
        self,
        ask: _AskVerdicts,
        request: AlignRequest,
        segments: Sequence[Segment],
        passages: Sequence[Passage],
        seconds: float,
    ) -> JudgeOpinion:
        """Ask one question about these passages, numbered from 1 on, within so many seconds."""
        numbered_passages = [replace(passage, number=number) for number, passage in enumerate(passages, 1)]
        violates, use, failure = await self._try_to_ask(partial(ask, request, segments, numbered_passages), seconds)
        return JudgeOpinion(violates or {}, use, failure)

    async def ask_with_retries(
        self, request: AlignRequest, ask: _Ask[_Result], deadline_at: float
    ) -> tuple[_Result | None, EditorUse]:
        """Call `ask` within the judge's share of the time until `deadline_at`; return (its result, cost).

        `ask` gets the seconds that it may take, and is called once more after a failure if the policy retries. If the
        judge fails, the result is None, or `JudgeFailed` is raised if the policy blocks the answer then.
        """
        result, use, failure = await self._try_to_ask(ask, self._find_seconds(deadline_at))
        if failure is not None:
            self._report_failure(request, failure)
        return result, use

    def _find_seconds(self, deadline_at: float) -> float:
        """The judge's share, in seconds, of the time until `deadline_at`."""
        return max(0.001, (deadline_at - time.monotonic()) * JUDGING_SHARE)

    async def _try_to_ask(
        self, ask: _Ask[_Result], seconds: float
    ) -> tuple[_Result | None, EditorUse, CorrectionError | None]:
        """Call `ask`, twice if it fails and the policy retries; return (result or None, cost, last failure or None)."""
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
        """Log why the judge failed; raises `JudgeFailed` if the policy blocks the answer then."""
        # the message of `UnknownJudge` has only names that the operator configured; others may quote texts
        details = f": {failure}" if isinstance(failure, UnknownJudge) else ""
        log.warning("call %s: the judge failed (%s)%s", request.request_id, type(failure).__name__, details)
        if self.blocks:
            raise JudgeFailed("the judge gave no verdict")

    async def _ask_chat(
        self, request: AlignRequest, segments: Sequence[Segment], passages: Sequence[Passage], seconds: float
    ) -> tuple[dict[int, bool], EditorUse]:
        """Ask a chat or decision model about all passages in one call; return (verdicts by segment index, cost)."""
        response_format = judge_prompt.REPLY_SCHEMA
        if self.judge.kind is JudgeKind.DECISIONS:
            response_format = judge_prompt.make_decision_questions(passages)
        messages = judge_prompt.make_judge_messages(request.turns, segments, passages)
        max_tokens = judge_prompt.limit_reply_tokens(passages)
        question = Question(messages, max_tokens, response_format, varies=False)
        return await self.group.ask(
            request, question, lambda reply: judge_prompt.read_verdicts(reply.text, passages), self.payer, seconds
        )

    async def _ask_classifier(
        self, request: AlignRequest, segments: Sequence[Segment], passages: Sequence[Passage], seconds: float
    ) -> tuple[dict[int, bool], EditorUse]:
        """Ask a token classifier about all passages in one call; return (verdicts by segment index, cost).

        The classifier reads nothing behind the last passage.
        """
        classifier = self.classifier
        assert classifier is not None
        beginning = segments[: passages[-1].segment_index + 1]
        question = make_labels_question(request, classifier.context, beginning)
        read_labels = partial(read_verdicts, segments=beginning, passages=passages, guard=classifier.guard)
        return await self.group.ask(request, question, lambda reply: read_labels(reply.text), self.payer, seconds)

    async def _ask_guard(
        self, request: AlignRequest, segments: Sequence[Segment], passages: Sequence[Passage], seconds: float
    ) -> tuple[dict[int, bool], EditorUse]:
        """Ask a guard about one passage, by the first objective that it knows; return (verdict by index, cost)."""
        assert self.judge.form is not None
        guard = GUARDS[self.judge.form]
        (passage,) = passages
        objective = next(text for text in passage.objectives if guard.knows(text))
        user_text = quote_text(editor_prompt.last_user_text(request.turns))
        messages = guard.messages(user_text, quote_text(passage.list_mark + passage.text), objective)
        question = Question(messages, GUARD_TOKENS, varies=False)
        index = passage.segment_index
        return await self.group.ask(
            request, question, lambda reply: {index: guard.violates(reply.text, objective)}, self.payer, seconds
        )


def _has_words(score: SegmentScore) -> bool:
    """Whether a segment has a letter or digit; there is nothing to judge in signs alone."""
    return any(letter.isalnum() for letter in score.text)


def average_scores(scores: Sequence[float | None]) -> float:
    """The score in nats of a whole answer if no taught head scores whole answers: the mean of its segments' scores.

    None stands for a segment without a score; without any score, the result is minus infinity. The mean serves short
    answers as well as long ones, while the highest score, or the mean of the highest scores, makes either short or long
    answers doubtful too often (docs/lab/2026-11-28-doubt-of-answers.md).
    """
    known_scores = [score for score in scores if score is not None]
    return fmean(known_scores) if known_scores else -math.inf


def find_highest_third(scores: Sequence[float | None]) -> list[int]:
    """The indexes of the third of the scores that is highest, at least one if there is a score (not None)."""
    scored_indexes = [(score, index) for index, score in enumerate(scores) if score is not None]
    count = max(1, round(len(scored_indexes) / 3))
    return [index for _, index in sorted(scored_indexes)[-count:]]


def _compute_verdict_key(
    identity: Mapping[str, Any],
    request: AlignRequest,
    segments: Sequence[Segment],
    index: int,
    objectives: Sequence[str],
) -> str:
    """Key of the verdict on the segment at `index`: a hash of the judge's identity, the tenant and what it reads."""
    earlier_segments = segments[max(0, index - _CONTEXT_SEGMENTS) : index]
    context = "".join(segment.text + segment.gap for segment in earlier_segments)
    turns = [[turn.role, turn.content] for turn in editor_prompt.select_last_turns(request.turns)]
    parts = [identity, request.tenant, list(objectives), segments[index].text, context[-_CONTEXT_CHARS:], turns]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _split_into_batches(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    """Yield the items in batches of `size`; the last batch may be smaller."""
    return (items[first : first + size] for first in range(0, len(items), size))

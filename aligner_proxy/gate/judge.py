"""Gate: decides which edits of a correction can be delivered.

The rules stand in `RULES` in the order in which an objection is named; a policy may switch each one off. When the whole
correction breaks a rule, its independent edits are tried one by one: see `_best`. The original stands where nothing is
left to deliver. A segment that the detector did not flag is never changed, whatever the rules are. The rules read all
texts folded (text/folding.py): a disguise may neither hide a fact nor pass for one that must not be lost.

`judge_in_thread` keeps all but short answers off the event loop, which all requests share; bench/gate_cost.py
measures the cost. Two threads, because they share one interpreter. Recent verdicts are cached: an answer from the cache
meets the same gate with the same correction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from cachetools import LRUCache

from aligner_proxy.gate import edits, rules
from aligner_proxy.gate.completion import Followed, completed, removed
from aligner_proxy.gate.edits import Candidate, Change, Edit, TextFacts, apply, follow
from aligner_proxy.gate.rules import Rule, may_go, waived_rules
from aligner_proxy.text import facts, structure
from aligner_proxy.text.folding import Folded, fold
from aligner_proxy.text.lists.numbering import renumber_text
from aligner_proxy.text.structure import Segment
from aligner_proxy.types import NOT_GROUNDED, Correction, GateRule, Grounding, Policy, SegmentScore, Verify

RULES: Mapping[GateRule, Rule] = {
    GateRule.EMPTY: rules.empty,
    GateRule.LEAK: rules.template_leak,
    GateRule.INVENTED_TURN: rules.increases(rules.turn_starts),
    GateRule.NEW_REFUSAL: rules.increases(rules.refusals),
    GateRule.PERSONAL_DATA: rules.adds(facts.personal_data),
    GateRule.LOST_CODE: rules.lost_code,
    GateRule.LOST_CITATION: rules.loses(facts.citations),
    GateRule.LOST_NUMBER: rules.loses(facts.numbers),
    GateRule.LOST_ADDRESS: rules.loses(facts.addresses),
    GateRule.LOST_QUOTE: rules.lost_quote,
    GateRule.LOST_NAME: rules.lost_name,
    GateRule.LOST_ITEM: rules.lost_item,
    GateRule.LOST_TURN: rules.lost_turn,
    GateRule.INVENTED_FACT: rules.adds(facts.numbers, facts.addresses),
    GateRule.INVENTED_QUOTE: rules.invented_quote,
    GateRule.SCRIPT: rules.changed_script,
    GateRule.LANGUAGE: rules.changed_language,
    GateRule.TOO_SHORT: rules.too_short,
    GateRule.TOO_LONG: rules.too_long,
}
NONE: Mapping[str, Rule] = MappingProxyType({})
ABOUT_THE_WHOLE = frozenset({GateRule.EMPTY, GateRule.TOO_SHORT, GateRule.TOO_LONG})
"""Broken by all edits together and by none of them alone; which edits to drop would be arbitrary."""
UNFLAGGED = "unflagged_changed"
"""Not a rule: the correction changes a segment that was not flagged, so it is not what an engine with a head makes."""
# Bounds what trying edits one by one may cost; more edits than that are tried in bundles of neighbours.
MAX_READ_CHARS = 200_000
MAX_GROUPS = 64
_Refused = tuple[Change, str]
AT_ONCE_CHARS = 1_000
"""Answers up to this length take about 1 ms, 10 ms where an edit is refused, and are judged in the event loop."""
_THREADS = ThreadPoolExecutor(max_workers=2, thread_name_prefix="gate")
_CACHED_VERDICTS = 256
_CACHED_CHARS = 16_000
"""The longest answer whose verdict is cached."""
_known: LRUCache[tuple[str, Correction, Policy], Verdict] = LRUCache(_CACHED_VERDICTS)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What may be delivered. `edits` counts the proposed edits, `dropped` names a rule for each refused edit."""

    text: str
    reason: str | None = None
    edits: int = 0
    dropped: tuple[str, ...] = ()
    renumbered: int = 0
    """Marks of lists and references to them that got another number because items are gone; no edits."""
    gone: frozenset[int] = field(default=frozenset(), compare=False)
    """Segments of which nothing is left."""
    grounding: Grounding = NOT_GROUNDED
    """What was done afterwards to hold the text to its references."""


def judge(original: str, correction: Correction, policy: Policy, further: Mapping[str, Rule] = NONE) -> Verdict:
    """The verdict on a correction: all of it, some of its edits, or the original.

    `further` are rules of plugins; they are checked last.
    """
    if correction.text == original:
        return Verdict(original)
    case = _Case.of(original, correction, policy, further)
    if case is None:
        return Verdict(original, f"gate_{UNFLAGGED}", 1, (UNFLAGGED,))
    kept, refused = _best(case)
    text = case.delivered(kept)
    gone = case.candidate(kept).gone
    renumbered = 0
    has_outline: bool = case.before.of(edits.outlined)
    if gone and has_outline:
        text, renumbered = renumber_text(case.written, gone, text)
    count = sum(len(change.edits) for change in case.changes)
    if not refused:
        return Verdict(text, None, count, (), renumbered, gone)
    worst = min((rule for _, rule in refused), key=(*RULES, *further).index)
    dropped = tuple(str(rule) for change, rule in refused for _ in change.edits)
    return Verdict(text, f"{'gate_partly:' if kept else 'gate_'}{worst}", count, dropped, renumbered, gone)


@dataclass(frozen=True, slots=True)
class Settled:
    """What of a growing answer has gone out: so many segments, and these edits with what they did."""

    segments: int = 0
    edits: Followed = field(default_factory=dict)

    @property
    def removed(self) -> set[int]:
        """The segments that are removed."""
        return removed(self.edits)


def judge_next(
    original: str, edit: Edit, segments: Sequence[SegmentScore], settled: Settled, policy: Policy
) -> tuple[str | None, Followed]:
    """The rule that one more edit of a growing answer breaks, or None, and the edit as it is to go out.

    `original` is the answer so far, `segments` are the verdicts on it. Numbers are not brought up to date here.
    """
    pieces = structure.match_segments(structure.split(original), [segment.text for segment in segments])
    case = _Case.of_edits(original, pieces, [segment.flagged for segment in segments], [edit], policy, NONE, settled)
    broken = case.against(case.changes)
    return (broken[0] if broken else None), case.followed


def objections(original: str, correction: Correction, policy: Policy) -> tuple[str, ...]:
    """All rules that the whole correction breaks, in their order."""
    case = _Case.of(original, correction, policy)
    return (UNFLAGGED,) if case is None else case.against(case.changes)


@dataclass(frozen=True, slots=True)
class _Case:
    """A correction split into changes, with the rules that apply to it. All but `proposed` is about folded texts."""

    original: str
    proposed: Mapping[Edit, Edit]
    """The edits of the original by those of its folded text."""
    followed: Followed
    """What each of the edits that are in question does."""
    before: TextFacts
    written: Sequence[Segment]
    """The segments as the upstream wrote them."""
    pieces: Sequence[Segment]
    policy: Policy
    changes: tuple[Change, ...]
    rules: Mapping[str, Rule]

    @classmethod
    def of(
        cls, original: str, correction: Correction, policy: Policy, further: Mapping[str, Rule] = NONE
    ) -> _Case | None:
        """The case of one correction; None when an unflagged segment changed."""
        pieces = structure.split(original)
        judged = structure.match_segments(pieces, [verdict.text for verdict in correction.segments])
        flagged = edits.flags(judged, correction)
        if flagged is not None and policy.verify is Verify.FLAGGED:
            pieces = judged
            proposed = edits.in_place(original, pieces, flagged, correction.text)
        else:
            flagged = flagged and flagged[: len(pieces)]
            proposed = edits.by_comparison(original, pieces, correction.text)
        return None if proposed is None else cls.of_edits(original, pieces, flagged, proposed, policy, further)

    @classmethod
    def of_edits(
        cls,
        original: str,
        pieces: Sequence[Segment],
        flagged: Sequence[bool] | None,
        proposed: Sequence[Edit],
        policy: Policy,
        further: Mapping[str, Rule] = NONE,
        settled: Settled | None = None,
    ) -> _Case:
        """The case of some edits; those that have gone out before them are beyond question."""
        settled = settled or Settled()
        folded = fold(original)
        read = folded.segments(pieces)
        free = _free(folded.text, read, flagged, policy)
        shown = {edit: _folded(edit, folded) for edit in proposed}
        proposals = {edit: follow(shown[edit], read, free) for edit in proposed}
        before = TextFacts(folded.text)
        followed: Followed = proposals
        if before.of(edits.outlined):
            followed = completed(original, pieces, proposals, settled.segments, settled.removed)
        all_followed = {**settled.edits, **followed}
        by_folded = {shown.get(edit) or _folded(edit, folded): edit for edit in all_followed}
        most = max(2, min(MAX_GROUPS, MAX_READ_CHARS // max(len(original), 1)))
        groups = edits.bundled(edits.independent(list(by_folded), read), most)
        changes = tuple(Change(group, tuple(p for e in group for p in all_followed[by_folded[e]])) for group in groups)
        names = set(policy.gate) - waived_rules(policy.objectives)
        rules: dict[str, Rule] = {name: rule for name, rule in RULES.items() if name in names}
        return cls(original, by_folded, followed, before, pieces, read, policy, changes, {**rules, **further})

    def delivered(self, changes: Sequence[Change]) -> str:
        """The text that goes out with these changes."""
        return apply(self.original, (self.proposed[edit] for change in changes for edit in change.edits))

    def candidate(self, changes: Sequence[Change]) -> Candidate:
        """The original with these changes in it."""
        sources = tuple(reference.text for reference in self.policy.references)
        return Candidate(self.before, self.pieces, self.policy.objectives, changes, sources)

    def against(self, changes: Sequence[Change]) -> tuple[str, ...]:
        """The rules that these changes together break."""
        candidate = self.candidate(changes)
        return tuple(name for name, rule in self.rules.items() if rule(candidate))


def _folded(edit: Edit, folded: Folded) -> Edit:
    """An edit of the original as one of its folded text."""
    return replace(
        edit, start=folded.place_in_folded(edit.start), end=folded.place_in_folded(edit.end), text=fold(edit.text).text
    )


def _best(case: _Case) -> tuple[tuple[Change, ...], list[_Refused]]:
    """The changes to deliver, and each refused change with the rule that it broke.

    All changes together, if they break no rule. Else all those together that break no rule alone. If these break a rule
    together, they are added one by one, each only if the text with it breaks no rule: the result is maximal. A rule
    about the whole text returns the original, since which edits to drop would be arbitrary. With n changes at most
    2n + 2 texts are checked.
    """
    objections = case.against(case.changes)
    if not objections:
        return case.changes, []
    if len(case.changes) == 1:
        return (), [(change, objections[0]) for change in case.changes]
    alone = [(change, case.against([change])) for change in case.changes]
    good = tuple(change for change, against in alone if not against)
    bad = [(change, against[0]) for change, against in alone if against]
    together = case.against(good)
    if not together:
        return good, bad
    if ABOUT_THE_WHOLE.intersection(together):
        return (), bad + [(change, together[0]) for change in good]
    return _one_by_one(case, good, bad)


def _one_by_one(case: _Case, good: Sequence[Change], bad: list[_Refused]) -> tuple[tuple[Change, ...], list[_Refused]]:
    """The changes to deliver of those that are good alone but not together: each that fits those before it."""
    kept: tuple[Change, ...] = ()
    for change in good:
        against = case.against([*kept, change])
        if against:
            bad = [*bad, (change, against[0])]
        else:
            kept = (*kept, change)
    return kept, bad


def _free(original: str, pieces: Sequence[Segment], flagged: Sequence[bool] | None, policy: Policy) -> list[bool]:
    """Which segments may be removed: flagged ones, those a request asks to remove, and turns the upstream invented.

    A text that begins with a turn is taken for a requested dialogue: none of its turns is invented.
    """
    turn = rules.TURN.search(original)
    invented = turn.start() if turn and original[: turn.start()].strip() else len(original)
    return [
        piece.start >= invented or (flagged is not None and flag) or may_go(policy.objectives, original, piece.text)
        for piece, flag in zip(pieces, flagged or [False] * len(pieces), strict=True)
    ]


async def judge_in_thread(original: str, correction: Correction, policy: Policy) -> Verdict:
    """The gate's verdict. Cancelling the call does not stop its thread."""
    if correction.text == original:
        return judge(original, correction, policy)
    key = (original, correction, policy)
    verdict = _known.get(key)
    if verdict is None:
        verdict = await _judged(*key)
        if len(original) <= _CACHED_CHARS:
            _known[key] = verdict
    return verdict


async def _judged(original: str, correction: Correction, policy: Policy) -> Verdict:
    if len(original) <= AT_ONCE_CHARS:
        return judge(original, correction, policy)
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_THREADS, judge, original, correction, policy)


async def judge_next_in_thread(
    original: str, edit: Edit, segments: Sequence[SegmentScore], settled: Settled, policy: Policy
) -> tuple[str | None, Followed]:
    """The same as `judge_next`, off the event loop for all but short answers."""
    if len(original) <= AT_ONCE_CHARS:
        return judge_next(original, edit, segments, settled, policy)
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_THREADS, judge_next, original, edit, segments, settled, policy)

"""Gate: decides which edits of a correction can be delivered.

`RULES` lists the rules in reporting order; a policy may switch each of them off. If the whole correction breaks a rule,
its independent edits are tried one by one (`_choose_changes`). If nothing can be delivered, the original is. A segment
that the detector did not flag is never changed, whatever the rules say. The rules read undisguised texts
(text/disguises.py), so that obfuscated text can neither hide a fact nor pass as one that must not be lost.

`judge_in_thread` keeps all but short answers off the event loop, which all requests share; bench/gate_cost.py
measures the cost. There are only two threads because they share one interpreter. Recent verdicts are cached, because a
cached correction comes to the gate again unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import TypeVar

from cachetools import LRUCache

from aligner_proxy.concurrency import FairThreads
from aligner_proxy.gate import edits, rules
from aligner_proxy.gate.closing import can_close, find_last_closable, move_edit, move_parts, without_closed_gap
from aligner_proxy.gate.completion import EditEffects, complete_edits, removed_segments
from aligner_proxy.gate.edits import NOTHING, Candidate, ClosedAnswer, Edit, EditGroup, TextFacts, apply, trace_effects
from aligner_proxy.gate.flagged_runs import edits_in_place
from aligner_proxy.gate.pair_completion import Surroundings, complete_pairs
from aligner_proxy.gate.parallels import BrevityFlags
from aligner_proxy.gate.rules import Rule, removal_test, waived_rules
from aligner_proxy.text import facts, structure
from aligner_proxy.text.disguises import UndisguisedText, undisguise
from aligner_proxy.text.footnotes import settle_footnotes
from aligner_proxy.text.lists.numbering import renumber_text
from aligner_proxy.text.openings import drop_orphaned_connective
from aligner_proxy.text.pairs import SIGN
from aligner_proxy.text.structure import Segment
from aligner_proxy.types import (
    BREVITY_OBJECTIVES,
    LOCAL_EDITOR,
    SAFETY_OBJECTIVES,
    Correction,
    Finding,
    GateRule,
    Policy,
    SegmentScore,
    Verify,
)

RULES: Mapping[GateRule, Rule] = {
    GateRule.EMPTY: rules.is_empty,
    GateRule.LEAK: rules.leaks_template,
    GateRule.INVENTED_TURN: rules.forbid_increase(rules.count_turn_starts),
    GateRule.NEW_REFUSAL: rules.forbid_increase(rules.count_refusals),
    GateRule.PERSONAL_DATA: rules.forbid_addition(facts.personal_data),
    GateRule.LOST_CODE: rules.loses_code,
    GateRule.LOST_CITATION: rules.forbid_loss(facts.citations),
    GateRule.LOST_NUMBER: rules.forbid_loss(facts.numbers),
    GateRule.LOST_ADDRESS: rules.forbid_loss(facts.addresses),
    GateRule.LOST_QUOTE: rules.loses_quote,
    GateRule.LOST_NAME: rules.loses_name,
    GateRule.LOST_ITEM: rules.loses_item,
    GateRule.LOST_TURN: rules.loses_turn,
    GateRule.TORN_PAIR: rules.tears_pair,
    GateRule.INVENTED_FACT: rules.forbid_addition(facts.numbers, facts.addresses),
    GateRule.INVENTED_QUOTE: rules.invents_quote,
    GateRule.SCRIPT: rules.changes_script,
    GateRule.LANGUAGE: rules.changes_language,
    GateRule.TOO_SHORT: rules.is_too_short,
    GateRule.TOO_LONG: rules.is_too_long,
    GateRule.REPEATED_SENTENCE: rules.repeats_sentence,
    GateRule.BARE_SPEAKER: rules.leaves_bare_speaker,
}
NONE: Mapping[str, Rule] = MappingProxyType({})
"""No rules of plugins."""
ABOUT_THE_WHOLE = frozenset({GateRule.EMPTY, GateRule.TOO_SHORT, GateRule.TOO_LONG})
"""Rules that all edits together may break although none does alone; choosing which edits to drop would be arbitrary."""
_CLEAR_NATS = 2.0
"""Nats above the threshold from which a turn of a dialogue counts as harm, and may go. Of 621 sentences of dialogues
that were asked for, the embedded head scored none above 0.2 under `harmless`; of 56 insults planted in them, more than
half above 2 (2026-11-29). Under `helpful` it scored good turns up to 5.6, since they look like invented ones."""
UNFLAGGED = "unflagged_changed"
"""Not a rule: the correction changes an unflagged segment, which an engine with a detector head never does."""
# Limits on the cost of trying edits one by one; with more edits, adjacent ones are tried together.
MAX_READ_CHARS = 200_000
MAX_GROUPS = 64
_T = TypeVar("_T")
_Refusal = tuple[EditGroup, str]
"""A refused change, and the rule that it broke first."""
AT_ONCE_CHARS = 1_000
"""Answers up to this length are judged in the event loop: about 1 ms, or 10 ms if an edit is refused."""
_THREADS = FairThreads(3, 2, "gate")
_CACHED_VERDICTS = 256
_CACHED_CHARS = 16_000
"""The longest answer whose verdict is cached, in characters."""
_verdict_cache: LRUCache[tuple[str, Correction, Policy], Verdict] = LRUCache(_CACHED_VERDICTS)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What may be delivered."""

    text: str
    reason: str | None = None
    """Why edits were refused, such as `gate_lost_number`, or `gate_partly:lost_number` if others passed; else None."""
    edits: int = 0
    """Number of proposed edits."""
    dropped: tuple[str, ...] = ()
    """For each refused edit, the name of the rule that it broke."""
    renumbered: int = 0
    """Number of list markers and references renumbered because items were removed; these are not edits."""
    removed_segments: frozenset[int] = field(default=frozenset(), compare=False)
    """Segments of which nothing is left."""
    findings: tuple[Finding, ...] = ()
    """What stages found in the text afterwards, and what they replaced it with."""


def judge(original: str, correction: Correction, policy: Policy, further: Mapping[str, Rule] = NONE) -> Verdict:
    """The verdict on a correction: all of it, some of its edits, or the original.

    `further` are rules of plugins; they are checked last.
    """
    if correction.text == original:
        return Verdict(original)
    case = _GateCase.from_correction(original, correction, policy, further)
    if case is None:
        # the change cannot be attributed to single edits, so it counts as one
        return Verdict(original, f"gate_{UNFLAGGED}", 1, (UNFLAGGED,))
    passing, rejections = _choose_changes(case)
    text = case.apply_changes(passing)
    removed = case.candidate(passing).removed_segments
    renumbered = 0
    has_outline: bool = case.before.read(edits.has_outline)
    if removed and has_outline:
        text, renumbered = renumber_text(case.upstream_pieces, removed, text)
    if removed:
        text = drop_orphaned_connective(case.upstream_pieces, removed, text)
    edited = {part.index for change in passing for part in change.parts}
    text = settle_footnotes(case.upstream_pieces, edited, text) if edited else text
    count = sum(len(change.edits) for change in case.changes)
    if not rejections:
        return Verdict(text, None, count, (), renumbered, removed)
    # the rule that comes first in the reporting order stands for all
    worst = min((rule for _, rule in rejections), key=(*RULES, *further).index)
    dropped = tuple(str(rule) for change, rule in rejections for _ in change.edits)
    return Verdict(text, f"{'gate_partly:' if passing else 'gate_'}{worst}", count, dropped, renumbered, removed)


@dataclass(frozen=True, slots=True)
class ReleasedAnswer:
    """What of a growing answer has gone out: the number of segments, and the edits with their effects.

    `closed` is the beginning that is not read again; `judge_next` extends it.
    """

    segments: int = 0
    edits: EditEffects = field(default_factory=dict)
    closed: ClosedAnswer = field(default_factory=ClosedAnswer)

    @property
    def open_edits(self) -> EditEffects:
        """The edits after the closed beginning, with positions relative to the open rest."""
        closed = self.closed
        first = len(closed.pieces)
        return {
            move_edit(without_closed_gap(edit, closed), closed, -1): move_parts(parts, -first)
            for edit, parts in self.edits.items()
            if edit.end > closed.chars
        }


def judge_next(
    original: str, edit: Edit, segments: Sequence[SegmentScore], released: ReleasedAnswer, policy: Policy
) -> tuple[str | None, EditEffects]:
    """Judge one more edit of a growing answer: (the rule that it breaks, or None; the completed edits to send).

    `original` is the answer so far; `segments` holds the detector's verdicts on it. List numbers are not updated here.
    Only the open rest after `released.closed` is read. Afterwards this extends `released.closed` if possible.
    """
    closed = released.closed
    first = len(closed.pieces)
    verdicts = segments[first:]
    open_rest = original[closed.chars :]
    pieces = structure.match_segments(structure.split(open_rest), [verdict.text for verdict in verdicts])
    flagged = [verdict.flagged for verdict in verdicts]
    edits_to_judge = [move_edit(edit, closed, -1)]
    case = _GateCase.from_edits(open_rest, pieces, flagged, edits_to_judge, policy, NONE, released, verdicts)
    broken = case.objections(case.changes)
    # back to the positions and numbers in the whole answer
    effects = {move_edit(edit, closed, 1): move_parts(parts, first) for edit, parts in case.effects.items()}
    case.close(released)
    return (broken[0] if broken else None), effects


def objections(original: str, correction: Correction, policy: Policy) -> tuple[str, ...]:
    """All rules that the whole correction breaks, in order."""
    case = _GateCase.from_correction(original, correction, policy)
    return (UNFLAGGED,) if case is None else case.objections(case.changes)


@dataclass(frozen=True, slots=True)
class _GateCase:
    """A correction split into changes, with the rules that apply. All but `proposed` refers to undisguised texts."""

    original: str
    proposed: Mapping[Edit, Edit]
    """Maps each edit of the undisguised text to the same edit of the original."""
    effects: EditEffects
    """The effects of each edit that is to be judged."""
    before: TextFacts
    upstream_pieces: Sequence[Segment]
    """The segments as the upstream wrote them."""
    pieces: Sequence[Segment]
    policy: Policy
    changes: tuple[EditGroup, ...]
    """The edits, in groups that are kept or dropped together."""
    rules: Mapping[str, Rule]
    """The rules that apply, by name, in reporting order."""
    torn: frozenset[Edit] = frozenset()
    """The edits that have half a pair."""
    closed: ClosedAnswer = NOTHING
    """The beginning before the open rest of a growing answer; all other fields refer to that rest."""
    brevity_flags: BrevityFlags | None = None
    """The pieces that were flagged for an objective about brevity; None if there are none."""
    clear_harm: frozenset[int] = frozenset()
    """The numbers of the pieces that are clearly harmful (`_find_clear_harm`)."""

    @classmethod
    def from_correction(
        cls, original: str, correction: Correction, policy: Policy, further: Mapping[str, Rule] = NONE
    ) -> _GateCase | None:
        """Build the case of one correction; None if it changes an unflagged segment."""
        pieces = structure.split(original)
        judged_pieces = structure.match_segments(pieces, [verdict.text for verdict in correction.segments])
        flagged = edits.detector_flags(judged_pieces, correction)
        if flagged is not None and policy.verify is Verify.FLAGGED:
            pieces = judged_pieces
            proposed = edits_in_place(original, pieces, flagged, correction.text)
        else:
            # compared pieces have no empty segment at the end, so its flag is dropped
            flagged = flagged and flagged[: len(pieces)]
            proposed = edits.edits_by_comparison(original, pieces, correction.text)
        if proposed is None:
            return None
        verdicts = correction.segments if flagged is not None else ()
        return cls.from_edits(original, pieces, flagged, proposed, policy, further, verdicts=verdicts)

    @classmethod
    def from_edits(
        cls,
        original: str,
        pieces: Sequence[Segment],
        flagged: Sequence[bool] | None,
        proposed: Sequence[Edit],
        policy: Policy,
        further: Mapping[str, Rule] = NONE,
        released: ReleasedAnswer | None = None,
        verdicts: Sequence[SegmentScore] = (),
    ) -> _GateCase:
        """The case of these edits and of those `released`, which are not judged again; `flagged` is None if unknown.

        `verdicts` are the detector's on the first pieces, or empty.
        """
        released = released or ReleasedAnswer(closed=NOTHING)
        closed = released.closed
        open_edits = released.open_edits
        undisguised = undisguise(original)
        plain_pieces = undisguised.segments(pieces)
        before = TextFacts(undisguised.text, closed.before)
        plain_edits = {edit: _undisguise_edit(edit, undisguised) for edit in proposed}
        proposals = _trace_edits(plain_edits, before, plain_pieces, flagged, policy)
        count = released.segments - len(closed.pieces)
        effects, torn_edits = _complete_proposals(original, pieces, proposals, before, open_edits, count, closed)
        all_effects = {**open_edits, **effects}
        original_edits = {plain_edits.get(edit) or _undisguise_edit(edit, undisguised): edit for edit in all_effects}
        torn = frozenset(edit for edit, original_edit in original_edits.items() if original_edit in torn_edits)
        # each further group has the whole text read again, so a long text gets fewer groups
        most_groups = max(2, min(MAX_GROUPS, MAX_READ_CHARS // max(len(original), 1)))
        groups = edits.bundle_groups(edits.independent_groups(list(original_edits), plain_pieces), most_groups)
        changes = tuple(
            EditGroup(group, tuple(part for edit in group for part in all_effects[original_edits[edit]]))
            for group in groups
        )
        # rules of plugins are no part of the policy's gate, so nothing waives them
        names = set(policy.gate) - waived_rules(policy.objectives)
        rules: dict[str, Rule] = {name: rule for name, rule in RULES.items() if name in names}
        all_rules = {**rules, **further}
        brief = _brief_segments(verdicts, policy)
        flags = BrevityFlags([piece.text for piece in plain_pieces], brief) if brief else None
        return cls(
            original,
            original_edits,
            effects,
            before,
            pieces,
            plain_pieces,
            policy,
            changes,
            all_rules,
            torn,
            closed,
            flags,
            _find_clear_harm(verdicts, policy),
        )

    def apply_changes(self, changes: Sequence[EditGroup]) -> str:
        """The text that goes out with these changes."""
        return apply(self.original, (self.proposed[edit] for change in changes for edit in change.edits))

    def candidate(self, changes: Sequence[EditGroup]) -> Candidate:
        """The candidate text: the original with these changes applied."""
        sources = self.policy.source_texts
        objectives = self.policy.objectives
        return Candidate(
            self.before,
            self.pieces,
            objectives,
            changes,
            sources,
            self.closed,
            self.torn,
            self.brevity_flags,
            self.clear_harm,
        )

    def objections(self, changes: Sequence[EditGroup]) -> tuple[str, ...]:
        """The rules that these changes break together."""
        candidate = self.candidate(changes)
        return tuple(name for name, rule in self.rules.items() if rule(candidate))

    def close(self, released: ReleasedAnswer) -> None:
        """Extend the closed beginning up to an unedited segment, so that the gate need not read it again."""
        count = released.segments - len(self.closed.pieces)
        open_edits = released.open_edits
        end, in_table = find_last_closable(self.before, self.upstream_pieces, self.pieces, count, open_edits)
        if not end:
            return
        start = self.pieces[end].start
        # `edit` is the undisguised form, whose positions compare with `start`; `proposed` is the same edit of the
        # original
        closing = [edit for edit, proposed in self.proposed.items() if proposed.last <= end and edit.end <= start]
        parts = tuple(part for edit in closing for part in open_edits.get(self.proposed[edit], ()))
        before = TextFacts(self.before.text[:start], self.closed.before)
        sources = self.policy.source_texts
        changes = (EditGroup(tuple(closing), parts),)
        candidate = Candidate(before, self.pieces[:end], self.policy.objectives, changes, sources, self.closed)
        if can_close(candidate, self.rules):
            pieces = self.upstream_pieces[:end]
            original = self.original[: self.upstream_pieces[end].start]
            self.closed.extend(original, pieces, candidate, ends_in_table=in_table)


def _brief_segments(segments: Sequence[SegmentScore], policy: Policy) -> frozenset[int]:
    """The numbers of the segments that were flagged for an objective about brevity."""
    brief = {number for number, objective in enumerate(policy.objectives) if objective.name in BREVITY_OBJECTIVES}
    return frozenset(
        number for number, segment in enumerate(segments) if segment.flagged and segment.objective in brief
    )


def _find_clear_harm(segments: Sequence[SegmentScore], policy: Policy) -> frozenset[int]:
    """The numbers of the segments that were flagged for an objective about safety by more than `_CLEAR_NATS`."""
    names = [objective.name for objective in policy.objectives]
    safety: set[int | None] = {number for number, name in enumerate(names) if name in SAFETY_OBJECTIVES}
    # a verdict that names no objective can only be about the only one
    if len(safety) == len(policy.objectives):
        safety.add(None)
    line = policy.caution + _CLEAR_NATS
    return frozenset(
        number
        for number, segment in enumerate(segments)
        if segment.flagged and segment.objective in safety and segment.score is not None and segment.score > line
    )


def _undisguise_edit(edit: Edit, undisguised: UndisguisedText) -> Edit:
    """Translate an edit of the original to the undisguised text."""
    return replace(
        edit,
        start=undisguised.place_in_undisguised(edit.start),
        end=undisguised.place_in_undisguised(edit.end),
        text=undisguise(edit.text).text,
    )


def _complete_proposals(
    original: str,
    pieces: Sequence[Segment],
    proposals: EditEffects,
    before: TextFacts,
    released: EditEffects,
    first_open: int,
    closed: ClosedAnswer,
) -> tuple[EditEffects, Collection[Edit]]:
    """The proposed edits with what must go with them, and those that have half a pair of signs.

    `original` is the text after `closed`. Segments before `first_open` have gone out, with the edits `released`.
    """
    effects = proposals
    if before.read(edits.has_outline):
        removed = removed_segments(released)
        in_table = closed.before.ends_in_table
        effects = complete_edits(original, pieces, proposals, first_open, removed, in_table=in_table)
    if not any(SIGN.search(original, edit.start, edit.end) or SIGN.search(edit.text) for edit in effects):
        return effects, ()
    around = Surroundings(closed is not NOTHING, closed.open_halves)
    return complete_pairs(original, pieces, effects, around)


def _choose_changes(case: _GateCase) -> tuple[tuple[EditGroup, ...], list[_Refusal]]:
    """Return the changes to deliver, and each refused change with the rule that it broke.

    If all changes together break no rule, all are delivered. Otherwise, those that break no rule alone are checked
    together. If they break a rule together, they are added one by one, each only if no rule is broken, so the result is
    maximal. If a rule about the whole text is broken, the original is returned, because the choice of edits to drop
    would be arbitrary. With n changes at most 2n + 2 texts are checked.
    """
    objections = case.objections(case.changes)
    if not objections:
        return case.changes, []
    if len(case.changes) == 1:
        return (), [(change, objections[0]) for change in case.changes]
    alone = [(change, case.objections([change])) for change in case.changes]
    good = tuple(change for change, against in alone if not against)
    bad = [(change, against[0]) for change, against in alone if against]
    together = case.objections(good)
    if not together:
        return good, bad
    if ABOUT_THE_WHOLE.intersection(together):
        # no edit is at fault more than another, so all are refused for the same rule
        return (), bad + [(change, together[0]) for change in good]
    return _add_one_by_one(case, good, bad)


def _add_one_by_one(
    case: _GateCase, good: Sequence[EditGroup], bad: list[_Refusal]
) -> tuple[tuple[EditGroup, ...], list[_Refusal]]:
    """Add the changes that are good alone one by one, and keep each that breaks no rule with those kept before it."""
    passing: tuple[EditGroup, ...] = ()
    for change in good:
        against = case.objections([*passing, change])
        if against:
            bad = [*bad, (change, against[0])]
        else:
            passing = (*passing, change)
    return passing, bad


def _trace_edits(
    plain_edits: Mapping[Edit, Edit],
    before: TextFacts,
    pieces: Sequence[Segment],
    flagged: Sequence[bool] | None,
    policy: Policy,
) -> EditEffects:
    """The effects of each edit; `plain_edits` maps each to the same edit of the undisguised text."""
    is_removable = _find_removable(before, pieces, flagged, policy)
    by_editor = policy.editor != LOCAL_EDITOR
    return {
        edit: trace_effects(plain, pieces, is_removable, by_editor=by_editor) for edit, plain in plain_edits.items()
    }


def _find_removable(
    before: TextFacts, pieces: Sequence[Segment], flagged: Sequence[bool] | None, policy: Policy
) -> list[bool]:
    """For each segment, whether it may be removed: if flagged, if a request asks for it, or in an invented turn.

    A text that begins with a turn is taken for a requested dialogue, so none of its turns counts as invented.
    """
    original = before.whole
    turn = structure.TURN.search(original) if before.read(rules.has_turn) else None
    invented_start = turn.start() if turn and original[: turn.start()].strip() else len(original)
    # `pieces` are those of the open rest, whose positions begin after the closed text
    invented_start -= len(before.closed.text)
    may_remove = removal_test(policy.objectives, original)
    return [
        piece.start >= invented_start or (flagged is not None and flag) or may_remove(piece.text)
        for piece, flag in zip(pieces, flagged or [False] * len(pieces), strict=True)
    ]


async def judge_in_thread(original: str, correction: Correction, policy: Policy) -> Verdict:
    """The gate's verdict, cached for short answers. Cancelling the call does not stop its thread."""
    if correction.text == original:
        return judge(original, correction, policy)
    key = (original, correction, policy)
    verdict = _verdict_cache.get(key)
    if verdict is None:
        verdict = await _run_unless_short(original, policy.tenant, partial(judge, *key))
        # the cache is limited by number, so long answers could fill the memory
        if len(original) <= _CACHED_CHARS:
            _verdict_cache[key] = verdict
    return verdict


async def judge_next_in_thread(
    original: str, edit: Edit, segments: Sequence[SegmentScore], released: ReleasedAnswer, policy: Policy
) -> tuple[str | None, EditEffects]:
    """What `judge_next` returns, computed in a thread unless the answer is short."""
    work = partial(judge_next, original, edit, segments, released, policy)
    return await _run_unless_short(original, policy.tenant, work)


async def _run_unless_short(original: str, tenant: str, work: Callable[[], _T]) -> _T:
    """Do the work on an answer in a thread, or at once if the answer is short (`AT_ONCE_CHARS`)."""
    return work() if len(original) <= AT_ONCE_CHARS else await _THREADS.run(tenant, work)

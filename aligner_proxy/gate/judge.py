"""Gate: decides which edits of a correction can be delivered.

`RULES` lists the rules in reporting order; a policy may switch each of them off. If the whole correction breaks a rule,
its independent edits are tried one by one (`_choose_changes`). If no edit can be delivered, the original is. A segment
that the detector did not flag is never changed, whatever the rules say. The rules read undisguised texts
(text/disguises.py), so that a disguise can neither hide a fact nor pass as a fact that must not be lost. Segments are
named by their index.

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
from aligner_proxy.gate.edits import (
    NOTHING,
    Candidate,
    ClosedAnswer,
    Edit,
    EditGroup,
    Part,
    TextFacts,
    apply,
    trace_effects,
)
from aligner_proxy.gate.flagged_runs import edits_in_place
from aligner_proxy.gate.pair_completion import complete_pairs
from aligner_proxy.gate.parallels import BrevityFlags
from aligner_proxy.gate.rules import Rule, removal_test, waived_rules
from aligner_proxy.text import facts, structure
from aligner_proxy.text.disguises import UndisguisedText, undisguise
from aligner_proxy.text.footnotes import NOTE_BEGINNING, settle_footnotes
from aligner_proxy.text.lists.numbering import renumber_text
from aligner_proxy.text.openings import drop_orphaned_connective
from aligner_proxy.text.paired_connectives import drop_lone_connectives
from aligner_proxy.text.pairs import SIGN
from aligner_proxy.text.star_notes import drop_star_references
from aligner_proxy.text.structure import Segment
from aligner_proxy.types import (
    BREVITY_OBJECTIVES,
    LOCAL_EDITOR,
    SAFETY_OBJECTIVES,
    SINGLE_REPLY_OBJECTIVES,
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
NO_RULES: Mapping[str, Rule] = MappingProxyType({})
"""The rules of plugins where there are none."""
ABOUT_THE_WHOLE = frozenset({GateRule.EMPTY, GateRule.TOO_SHORT, GateRule.TOO_LONG})
"""Rules that all edits together may break although no single edit does. Which edits to drop would be arbitrary."""
_CLEAR_HARM_NATS = 2.0
"""Nats above the threshold from which a turn of a dialogue counts as clear harm and may be removed. Of 621 sentences of
dialogues that were asked for, the embedded head scored none above 0.2 under `harmless`; of 56 insults planted in them,
more than half above 2 (2026-11-29). Under `helpful` it scored good turns up to 5.6, since they look like invented
ones."""
UNFLAGGED = "unflagged_changed"
"""Stands for a rule where a correction changes an unflagged segment, which no engine with a detector head does."""
# Limits on the cost of trying edits one by one; with more edits, adjacent ones are tried together.
MAX_READ_CHARS = 200_000
MAX_GROUPS = 64
_T = TypeVar("_T")
_Refusal = tuple[EditGroup, str]
"""(a change that is refused, the first rule that it breaks)."""
AT_ONCE_CHARS = 1_000
"""Answers up to this length are judged in the event loop: about 1 ms, or 10 ms if an edit is refused."""
_THREADS = FairThreads(3, 2, "gate")
_CACHED_VERDICTS = 256
_MAX_CACHED_CHARS = 16_000
"""Longest answer whose verdict is cached, in characters."""
_verdict_cache: LRUCache[tuple[str, Correction, Policy], Verdict] = LRUCache(_CACHED_VERDICTS)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's decision on a correction."""

    text: str
    """The text to deliver."""
    reason: str | None = None
    """Why edits were refused: `gate_lost_number`, or `gate_partly:lost_number` if others passed; None if all passed."""
    edits: int = 0
    """Number of proposed edits."""
    dropped: tuple[str, ...] = ()
    """For each refused edit, the name of the rule that it broke."""
    renumbered: int = 0
    """Number of list markers and references renumbered because items were removed; these are not edits."""
    removed_segments: frozenset[int] = field(default=frozenset(), compare=False)
    """Indexes of the segments of which nothing is left."""
    findings: tuple[Finding, ...] = ()
    """What stages found in the delivered text, and what they replaced it with."""


def judge(
    original: str, correction: Correction, policy: Policy, plugin_rules: Mapping[str, Rule] = NO_RULES
) -> Verdict:
    """Decide on a correction: all of it, some of its edits, or the original. Rules of plugins are checked last."""
    if correction.text == original:
        return Verdict(original)
    case = _GateCase.from_correction(original, correction, policy, plugin_rules)
    if case is None:
        # the change cannot be attributed to single edits, so it counts as one
        return Verdict(original, reason=f"gate_{UNFLAGGED}", edits=1, dropped=(UNFLAGGED,))
    passing, refusals = _choose_changes(case)
    text = case.apply_changes(passing)
    removed = case.candidate(passing).removed_segments
    renumbered_count = 0
    has_outline: bool = case.unchanged.before.read(edits.has_outline)
    if removed and has_outline:
        text, renumbered_count = renumber_text(case.upstream_pieces, removed, text)
    if removed:
        text = drop_orphaned_connective(case.upstream_pieces, removed, text)
        text = drop_lone_connectives(case.upstream_pieces, removed, text)
        text = drop_star_references(case.upstream_pieces, removed, text)
    edited = {part.index for change in passing for part in change.parts}
    if edited and NOTE_BEGINNING.search(original):
        text = settle_footnotes(case.upstream_pieces, edited, text)
    reason = None
    if refusals:
        # the rule that comes first in the reporting order stands for all
        first_rule = min((rule for _, rule in refusals), key=(*RULES, *plugin_rules).index)
        reason = f"gate_partly:{first_rule}" if passing else f"gate_{first_rule}"
    return Verdict(
        text,
        reason=reason,
        edits=sum(len(change.edits) for change in case.changes),
        dropped=tuple(str(rule) for change, rule in refusals for _ in change.edits),
        renumbered=renumbered_count,
        removed_segments=removed,
    )


@dataclass(frozen=True, slots=True)
class ReleasedAnswer:
    """What of a growing answer was sent."""

    segments: int = 0
    """Number of segments that were sent."""
    edits: EditEffects = field(default_factory=dict)
    """The edits that were sent, with what they did to segments."""
    closed: ClosedAnswer = field(default_factory=ClosedAnswer)
    """The beginning that is not read again (closing.py); `judge_next` extends it."""

    @property
    def open_edits(self) -> EditEffects:
        """The edits after the closed beginning, with positions relative to the open rest."""
        closed = self.closed
        open_edits: dict[Edit, tuple[Part, ...]] = {}
        for edit, parts in self.edits.items():
            if edit.end > closed.chars:
                moved_edit = move_edit(without_closed_gap(edit, closed), closed, -1)
                open_edits[moved_edit] = move_parts(parts, -len(closed.pieces))
        return open_edits


def judge_next(
    original: str, edit: Edit, segments: Sequence[SegmentScore], released: ReleasedAnswer, policy: Policy
) -> tuple[str | None, EditEffects]:
    """Judge one more edit of a growing answer: (the rule that it breaks, or None; the completed edits to send).

    `original` is the answer so far, `segments` are the detector's verdicts on it, and `released` is what was sent. List
    numbers are not updated here. Only the open rest after `released.closed` is read. Afterwards this extends
    `released.closed` if possible.
    """
    closed = released.closed
    closed_count = len(closed.pieces)
    verdicts = segments[closed_count:]
    open_rest = original[closed.chars :]
    case = _GateCase.from_edits(
        open_rest,
        structure.match_segments(structure.split(open_rest), [verdict.text for verdict in verdicts]),
        [verdict.flagged for verdict in verdicts],
        [move_edit(edit, closed, -1)],
        policy,
        released=released,
        verdicts=verdicts,
    )
    broken_rules = case.objections(case.changes)
    # back to the positions and indexes in the whole answer
    effects = {move_edit(edit, closed, 1): move_parts(parts, closed_count) for edit, parts in case.effects.items()}
    case.close(released)
    return (broken_rules[0] if broken_rules else None), effects


def objections(original: str, correction: Correction, policy: Policy) -> tuple[str, ...]:
    """All rules that the whole correction breaks, in order."""
    case = _GateCase.from_correction(original, correction, policy)
    return (UNFLAGGED,) if case is None else case.objections(case.changes)


@dataclass(frozen=True, slots=True)
class _GateCase:
    """A correction split into changes, with the rules that apply.

    Edits and segments are those of the undisguised text, if nothing else is said.
    """

    original: str
    """The text as the upstream wrote it."""
    original_edits: Mapping[Edit, Edit]
    """Maps each edit of the undisguised text to the same edit of the original."""
    effects: EditEffects
    """The edits of the original that are to be judged, with what they do to segments."""
    upstream_pieces: Sequence[Segment]
    """The segments of `original`."""
    unchanged: Candidate
    """The undisguised original, without any of the changes."""
    changes: tuple[EditGroup, ...]
    """The edits, in groups that are kept or dropped together."""
    rules: Mapping[str, Rule]
    """The rules that apply, by name, in reporting order."""

    @classmethod
    def from_correction(
        cls, original: str, correction: Correction, policy: Policy, plugin_rules: Mapping[str, Rule] = NO_RULES
    ) -> _GateCase | None:
        """Build the case of one correction; None if it changes an unflagged segment."""
        pieces = structure.split(original)
        judged_pieces = structure.match_segments(pieces, [verdict.text for verdict in correction.segments])
        flagged = edits.detector_flags(judged_pieces, correction)
        if flagged is not None and policy.verify is Verify.FLAGGED:
            pieces = judged_pieces
            proposed_edits = edits_in_place(original, pieces, flagged, correction.text)
        else:
            # for a comparison there is no empty segment at the end, so its flag is dropped
            flagged = flagged and flagged[: len(pieces)]
            proposed_edits = edits.edits_by_comparison(original, pieces, correction.text)
        if proposed_edits is None:
            return None
        verdicts = () if flagged is None else correction.segments
        return cls.from_edits(original, pieces, flagged, proposed_edits, policy, plugin_rules, verdicts=verdicts)

    @classmethod
    def from_edits(
        cls,
        original: str,
        pieces: Sequence[Segment],
        flagged: Sequence[bool] | None,
        proposed_edits: Sequence[Edit],
        policy: Policy,
        plugin_rules: Mapping[str, Rule] = NO_RULES,
        released: ReleasedAnswer | None = None,
        verdicts: Sequence[SegmentScore] = (),
    ) -> _GateCase:
        """Build the case of these edits and of the edits that were sent (`released`), which are not judged again.

        `flagged` says of each segment in `pieces` whether it was flagged; None if this is unknown. `verdicts` are the
        detector's verdicts on the first segments, or empty.
        """
        released = released or ReleasedAnswer(closed=NOTHING)
        closed = released.closed
        open_edits = released.open_edits
        undisguised = undisguise(original)
        plain_pieces = undisguised.segments(pieces)
        before = TextFacts(undisguised.text, closed.before)
        plain_edits = {edit: _undisguise_edit(edit, undisguised) for edit in proposed_edits}
        proposed_effects = _trace_edits(plain_edits, before, plain_pieces, flagged, policy)
        first_unsent = released.segments - len(closed.pieces)
        effects, torn_edits = _complete_effects(
            original, pieces, proposed_effects, before, open_edits, first_unsent, closed
        )
        all_effects = {**open_edits, **effects}
        original_edits = {plain_edits.get(edit) or _undisguise_edit(edit, undisguised): edit for edit in all_effects}
        # each further group has the whole text read again, so a long text gets fewer groups
        max_groups = max(2, min(MAX_GROUPS, MAX_READ_CHARS // max(len(original), 1)))
        groups = edits.bundle_groups(edits.independent_groups(list(original_edits), plain_pieces), max_groups)
        changes = tuple(
            EditGroup(group, tuple(part for edit in group for part in all_effects[original_edits[edit]]))
            for group in groups
        )
        # rules of plugins are no part of the policy's gate, so nothing waives them
        rule_names = set(policy.gate) - waived_rules(policy.objectives)
        policy_rules: dict[str, Rule] = {name: rule for name, rule in RULES.items() if name in rule_names}
        brevity_flagged = _find_flagged(verdicts, policy, BREVITY_OBJECTIVES)
        texts = [segment.text for segment in plain_pieces]
        unchanged = Candidate(
            before=before,
            pieces=plain_pieces,
            objectives=policy.objectives,
            changes=(),
            sources=policy.source_texts,
            closed=closed,
            torn=frozenset(edit for edit, original_edit in original_edits.items() if original_edit in torn_edits),
            brevity_flags=BrevityFlags(texts, brevity_flagged) if brevity_flagged else None,
            clear_harm=_find_clear_harm(verdicts, policy),
            turn_flags=_find_flagged(verdicts, policy, SINGLE_REPLY_OBJECTIVES),
        )
        rules_in_force = {**policy_rules, **plugin_rules}
        return cls(original, original_edits, effects, pieces, unchanged, changes, rules_in_force)

    def apply_changes(self, changes: Sequence[EditGroup]) -> str:
        """The original with these changes applied, as it is delivered."""
        return apply(self.original, (self.original_edits[edit] for change in changes for edit in change.edits))

    def candidate(self, changes: Sequence[EditGroup]) -> Candidate:
        """What the rules read: the undisguised original with these changes applied."""
        return replace(self.unchanged, changes=changes)

    def objections(self, changes: Sequence[EditGroup]) -> tuple[str, ...]:
        """The names of the rules that these changes break together, in reporting order."""
        candidate = self.candidate(changes)
        return tuple(name for name, rule in self.rules.items() if rule(candidate))

    def close(self, released: ReleasedAnswer) -> None:
        """Extend the closed beginning as far as possible, so that the gate need not read it again."""
        closed = self.unchanged.closed
        before = self.unchanged.before
        pieces = self.unchanged.pieces
        sent_count = released.segments - len(closed.pieces)
        open_edits = released.open_edits
        end, begins_row = find_last_closable(before, self.upstream_pieces, pieces, sent_count, open_edits)
        if not end:
            return
        end_offset = pieces[end].start
        closing_edits: list[Edit] = []
        parts: list[Part] = []
        for edit, original_edit in self.original_edits.items():
            if original_edit.last <= end and edit.end <= end_offset:
                closing_edits.append(edit)
                parts += open_edits.get(original_edit, ())
        candidate = replace(
            self.unchanged,
            before=TextFacts(before.text[:end_offset], closed.before),
            pieces=pieces[:end],
            changes=(EditGroup(tuple(closing_edits), tuple(parts)),),
            brevity_flags=None,  # removed repetitions were judged when they were sent
        )
        if can_close(candidate, self.rules):
            original = self.original[: self.upstream_pieces[end].start]
            closed.extend(original, self.upstream_pieces[:end], candidate, ends_in_table=begins_row)


def _find_flagged(verdicts: Sequence[SegmentScore], policy: Policy, objective_names: Collection[str]) -> frozenset[int]:
    """The segments that were flagged most of all for an objective with one of these names."""
    numbers = {index for index, objective in enumerate(policy.objectives) if objective.name in objective_names}
    return frozenset(
        index for index, verdict in enumerate(verdicts) if verdict.flagged and verdict.objective in numbers
    )


def _find_clear_harm(verdicts: Sequence[SegmentScore], policy: Policy) -> frozenset[int]:
    """The segments that were flagged for an objective about safety by more than `_CLEAR_HARM_NATS`."""
    safety: set[int | None] = {
        index for index, objective in enumerate(policy.objectives) if objective.name in SAFETY_OBJECTIVES
    }
    # if all objectives are about safety, a verdict that names no objective is about safety, too
    if len(safety) == len(policy.objectives):
        safety.add(None)
    min_score = policy.caution + _CLEAR_HARM_NATS
    return frozenset(
        index
        for index, verdict in enumerate(verdicts)
        if verdict.flagged and verdict.objective in safety and verdict.score is not None and verdict.score > min_score
    )


def _undisguise_edit(edit: Edit, undisguised: UndisguisedText) -> Edit:
    """Translate an edit of the original to the undisguised text."""
    return replace(
        edit,
        start=undisguised.place_in_undisguised(edit.start),
        end=undisguised.place_in_undisguised(edit.end),
        text=undisguise(edit.text).text,
    )


def _complete_effects(
    original: str,
    pieces: Sequence[Segment],
    proposed_effects: EditEffects,
    before: TextFacts,
    sent_effects: EditEffects,
    first_unsent: int,
    closed: ClosedAnswer,
) -> tuple[EditEffects, Collection[Edit]]:
    """Extend the proposed edits by what must be removed or stay: (the edits, those that have half a pair of signs).

    `original` is the text after `closed`, and `before` the same undisguised. Segments before `first_unsent` were sent,
    with the edits `sent_effects`.
    """
    effects = proposed_effects
    if before.read(edits.has_outline):
        removed = removed_segments(sent_effects)
        in_table = closed.before.ends_in_table
        effects = complete_edits(original, pieces, proposed_effects, first_unsent, removed, in_table=in_table)
    # without signs of pairs in them, the edits are complete
    if not any(SIGN.search(original, edit.start, edit.end) or SIGN.search(edit.text) for edit in effects):
        return effects, ()
    return complete_pairs(original, pieces, effects, closed.open_halves, grows=closed is not NOTHING)


def _choose_changes(case: _GateCase) -> tuple[tuple[EditGroup, ...], list[_Refusal]]:
    """Return (the changes to deliver, the refusals of the others).

    If all changes together break no rule, all are delivered. Otherwise, those that break no rule alone are checked
    together. If they break a rule together, they are added one by one, each only if no rule is broken, so that no
    further change could be delivered. If a rule about the whole text is broken, no change is delivered, because the
    choice of edits to drop would be arbitrary. With n changes at most 2n + 2 texts are checked.
    """
    objections = case.objections(case.changes)
    if not objections:
        return case.changes, []
    if len(case.changes) == 1:
        return (), [(change, objections[0]) for change in case.changes]
    good, refusals = _try_each(case, case.changes, is_joint=False)
    objections = case.objections(good)
    if not objections:
        return good, refusals
    if ABOUT_THE_WHOLE.intersection(objections):
        # no change is at fault more than another, so all are refused for the same rule
        return (), refusals + [(change, objections[0]) for change in good]
    added, further_refusals = _try_each(case, good, is_joint=True)
    return added, refusals + further_refusals


def _try_each(
    case: _GateCase, changes: Sequence[EditGroup], *, is_joint: bool
) -> tuple[tuple[EditGroup, ...], list[_Refusal]]:
    """Try each change alone, or if `is_joint` with those that passed before it; return (those that pass, refusals)."""
    passing: list[EditGroup] = []
    refusals: list[_Refusal] = []
    for change in changes:
        objections = case.objections([*passing, change] if is_joint else [change])
        if objections:
            refusals.append((change, objections[0]))
        else:
            passing.append(change)
    return tuple(passing), refusals


def _trace_edits(
    plain_edits: Mapping[Edit, Edit],
    before: TextFacts,
    pieces: Sequence[Segment],
    flagged: Sequence[bool] | None,
    policy: Policy,
) -> EditEffects:
    """The effects of each edit; `plain_edits` maps each edit to the same edit of the undisguised text."""
    is_removable = _find_removable(before, pieces, flagged, policy)
    by_editor = policy.editor != LOCAL_EDITOR
    return {
        edit: trace_effects(plain_edit, pieces, is_removable, by_editor=by_editor)
        for edit, plain_edit in plain_edits.items()
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
    is_asked_for = removal_test(policy.objectives, original)
    return [
        segment.start >= invented_start or is_flagged or is_asked_for(segment.text)
        for segment, is_flagged in zip(pieces, flagged or [False] * len(pieces), strict=True)
    ]


async def judge_in_thread(original: str, correction: Correction, policy: Policy) -> Verdict:
    """Return what `judge` returns, computed in a thread for all but short answers, and cached for all but long ones.

    Cancelling the call does not stop its thread.
    """
    if correction.text == original:
        return judge(original, correction, policy)
    key = (original, correction, policy)
    verdict = _verdict_cache.get(key)
    if verdict is None:
        verdict = await _run_unless_short(original, policy.tenant, partial(judge, *key))
        # the cache is limited by number, so long answers could fill the memory
        if len(original) <= _MAX_CACHED_CHARS:
            _verdict_cache[key] = verdict
    return verdict


async def judge_next_in_thread(
    original: str, edit: Edit, segments: Sequence[SegmentScore], released: ReleasedAnswer, policy: Policy
) -> tuple[str | None, EditEffects]:
    """Return what `judge_next` returns, computed in a thread unless the answer is short."""
    judge_edit = partial(judge_next, original, edit, segments, released, policy)
    return await _run_unless_short(original, policy.tenant, judge_edit)


async def _run_unless_short(original: str, tenant: str, judge_answer: Callable[[], _T]) -> _T:
    """Call `judge_answer` in a thread, or at once if the answer has at most `AT_ONCE_CHARS`."""
    if len(original) <= AT_ONCE_CHARS:
        return judge_answer()
    return await _THREADS.run(tenant, judge_answer)

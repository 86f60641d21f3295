"""Removal of flagged passages whose replacement the gate refused.

Without this, the passage would stay as the upstream wrote it, although it is known to violate an objective. It applies
if an editor writes the replacements. It also applies if the policy delivers something other than the original when
nothing remains of an answer, which is the default under enforced objectives. The gate also judges the removal.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace

from aligner_proxy.engine.decoding import splice
from aligner_proxy.gate import edits
from aligner_proxy.gate.edits import Edit
from aligner_proxy.gate.flagged_runs import edits_in_place
from aligner_proxy.gate.judge import Verdict
from aligner_proxy.text import structure
from aligner_proxy.types import LOCAL_EDITOR, Correction, EditorUse, IfNothingRemains, Policy

Judge = Callable[[str, Correction, Policy], Awaitable[Verdict]]
"""Returns the gate's verdict on a correction, given the original answer, the correction and the policy."""


def removes_refused(policy: Policy) -> bool:
    """Whether this policy removes a flagged passage if the gate refuses its replacement."""
    return policy.editor != LOCAL_EDITOR or policy.if_nothing_remains is not IfNothingRemains.ORIGINAL


async def remove_refused_edits(
    answer: str, correction: Correction, policy: Policy, verdict: Verdict, judge: Judge
) -> tuple[Correction, Verdict]:
    """Remove the passages whose replacement the gate refuses; return the new correction and the verdict on it.

    Both are returned unchanged if the policy keeps the original passages.
    """
    if not removes_refused(policy):
        return correction, verdict
    return await _remove_refused(answer, correction, policy, verdict, judge)


async def _remove_refused(
    answer: str, correction: Correction, policy: Policy, verdict: Verdict, judge: Judge
) -> tuple[Correction, Verdict]:
    """Judge each replacement alone, remove those that are refused, and judge the result; return (correction, verdict).

    Both come back unchanged if no flagged passage has a replacement, or if the gate refuses only removals.
    """
    pieces = structure.match_segments(structure.split(answer), [segment.text for segment in correction.segments])
    flags = [segment.flagged for segment in correction.segments]
    # the verdicts are on other segments, so no edit can be placed
    if len(flags) != len(pieces):
        return correction, verdict
    proposed = edits_in_place(answer, pieces, flags, correction.text)
    replacements = {edit.first: edit for edit in proposed or () if edit.text.strip()}
    if not replacements:
        return correction, verdict
    # an only edit must be the one that was refused
    if len(proposed or ()) == 1:
        refused_alone = set(replacements)
    else:
        refused_alone = await _find_refused_alone(answer, correction, policy, replacements.values(), judge)
    refused_runs = refused_alone or set(replacements)  # refused only together, so all go
    rewriting = splice.rewrite_flagged_runs(pieces, flags)
    text = ""
    try:
        hole = next(rewriting)
        while True:
            hole = rewriting.send(_fill_hole(hole, replacements.get(hole.run.first), proposed or [], refused_runs))
    except StopIteration as stop:
        text = stop.value
    removed = replace(correction, text=text)
    if policy.editor != LOCAL_EDITOR:
        use = (correction.editor or EditorUse()) + EditorUse(refused=len(refused_runs))
        removed = replace(removed, editor=use)
    verdict_on_removed = await judge(answer, removed, policy)
    # a removal may have been refused, and no replacement is at fault for that
    if not refused_alone and len(verdict_on_removed.dropped) >= len(verdict.dropped):
        return correction, verdict
    return removed, verdict_on_removed


async def _find_refused_alone(
    answer: str, correction: Correction, policy: Policy, replacements: Iterable[Edit], judge: Judge
) -> set[int]:
    """The numbers of the first segments of the replacements that the gate refuses without any other edit."""
    refused_runs = set()
    for edit in replacements:
        with_one_edit = replace(correction, text=edits.apply(answer, [edit]))
        if (await judge(answer, with_one_edit, policy)).dropped:
            refused_runs.add(edit.first)
    return refused_runs


def _fill_hole(hole: splice.Hole, edit: Edit | None, proposed: list[Edit], refused_runs: set[int]) -> str:
    """The text for a flagged run: nothing if refused or removed, else the replacement, else the original."""
    if hole.run.first in refused_runs:
        return ""
    if edit is not None:
        # text added after the last segment brings its own leading white space
        return edit.text.strip() if hole.run.text else edit.text.rstrip()
    is_removed = any(each.first == hole.run.first for each in proposed)
    return "" if is_removed else hole.run.text

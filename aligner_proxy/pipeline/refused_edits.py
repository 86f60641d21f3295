"""Removal of flagged passages whose replacement the gate refused.

Without this, the passage would stay as the upstream wrote it, although it is known to violate an objective. It applies
if an editor writes the replacements. It also applies if the policy delivers something other than the original when
nothing remains of an answer, which is the default under enforced objectives. The gate also judges the removal.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from aligner_proxy.engine.decoding import splice
from aligner_proxy.gate import edits
from aligner_proxy.gate.edits import Edit
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

    If no flagged passage has a replacement, both come back unchanged.
    """
    pieces = structure.match_segments(structure.split(answer), [segment.text for segment in correction.segments])
    flags = [segment.flagged for segment in correction.segments]
    # the verdicts are on other segments, so no edit can be placed
    if len(flags) != len(pieces):
        return correction, verdict
    proposed = edits.edits_in_place(answer, pieces, flags, correction.text)
    replacements = {edit.first: edit for edit in proposed or () if edit.text.strip()}
    if not replacements:
        return correction, verdict
    refused_runs = set()
    for first, edit in replacements.items():
        with_one_edit = replace(correction, text=edits.apply(answer, [edit]))
        # the only replacement must be the one that was refused
        if len(replacements) == 1 or (await judge(answer, with_one_edit, policy)).dropped:
            refused_runs.add(first)
    refused_runs = refused_runs or set(replacements)  # refused only together, so all go
    rewriting = splice.rewrite_flagged_runs(pieces, flags)
    text = ""
    try:
        hole = next(rewriting)
        while True:
            hole = rewriting.send(_fill_hole(hole, replacements.get(hole.run.at), proposed or [], refused_runs))
    except StopIteration as stop:
        text = stop.value
    removed = replace(correction, text=text)
    if policy.editor != LOCAL_EDITOR:
        use = (correction.editor or EditorUse()) + EditorUse(refused=len(refused_runs))
        removed = replace(removed, editor=use)
    return removed, await judge(answer, removed, policy)


def _fill_hole(hole: splice.Hole, edit: Edit | None, proposed: list[Edit], refused_runs: set[int]) -> str:
    """The text for a flagged run: nothing if refused or removed, else the replacement, else the original."""
    if hole.run.at in refused_runs:
        return ""
    if edit is not None:
        # text added after the last segment brings its own leading white space
        return edit.text.strip() if hole.run.text else edit.text.rstrip()
    is_removed = any(each.first == hole.run.at for each in proposed)
    return "" if is_removed else hole.run.text

"""Removal of flagged passages whose replacement the gate refused.

Otherwise the passage would stay as the upstream wrote it, although it is known to violate an objective. Passages are
removed if an editor writes the replacements, or if the policy delivers something other than the original when nothing
remains of an answer, which is the default under enforced objectives. The gate judges the removal, too.
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

JudgeCorrection = Callable[[str, Correction, Policy], Awaitable[Verdict]]
"""Returns the gate's verdict on a correction, given the original answer, the correction and the policy."""


def removes_refused(policy: Policy) -> bool:
    """Whether this policy removes a flagged passage if the gate refuses its replacement."""
    return policy.editor != LOCAL_EDITOR or policy.if_nothing_remains is not IfNothingRemains.ORIGINAL


async def remove_refused_edits(
    answer: str, correction: Correction, policy: Policy, verdict: Verdict, judge: JudgeCorrection
) -> tuple[Correction, Verdict]:
    """Remove the passages whose replacement the gate refuses; return (new correction, the gate's verdict on it).

    `verdict` is that on `correction`. Both are returned unchanged if the policy keeps such passages.
    """
    if not removes_refused(policy):
        return correction, verdict
    return await _remove_refused(answer, correction, policy, verdict, judge)


async def _remove_refused(
    answer: str, correction: Correction, policy: Policy, verdict: Verdict, judge: JudgeCorrection
) -> tuple[Correction, Verdict]:
    """Judge each replacement alone, remove those that are refused, and judge the result; return (correction, verdict).

    Both come back unchanged if no flagged passage has a replacement, or if the gate refuses only removals. Passages are
    known by the number of their first segment.
    """
    segments = structure.match_segments(structure.split(answer), [score.text for score in correction.segments])
    flags = [score.flagged for score in correction.segments]
    # if the verdicts are on other segments, no edit can be placed
    if len(flags) != len(segments):
        return correction, verdict
    proposed_edits = edits_in_place(answer, segments, flags, correction.text) or []
    replacements = {edit.first: edit for edit in proposed_edits if edit.text.strip()}
    if not replacements:
        return correction, verdict
    if len(proposed_edits) == 1:
        # the only edit must be the one that was refused
        refused_alone = set(replacements)
    else:
        refused_alone = await _find_refused_alone(answer, correction, policy, replacements.values(), judge)
    # if each replacement passes alone, they are refused only together, so all of them go
    refused_passages = refused_alone or set(replacements)
    new_texts = {edit.first: "" if edit.first in refused_passages else edit.text for edit in proposed_edits}
    rewriting = splice.rewrite_flagged_runs(segments, flags)
    text = ""
    try:
        hole = next(rewriting)
        while True:
            hole = rewriting.send(_fill_hole(hole, new_texts.get(hole.run.first)))
    except StopIteration as stop:
        text = stop.value
    new_correction = replace(correction, text=text)
    if policy.editor != LOCAL_EDITOR:
        editor_use = (correction.editor or EditorUse()) + EditorUse(refused=len(refused_passages))
        new_correction = replace(new_correction, editor=editor_use)
    new_verdict = await judge(answer, new_correction, policy)
    # if no fewer edits are dropped now, removals were refused, and no replacement is at fault
    if not refused_alone and len(new_verdict.dropped) >= len(verdict.dropped):
        return correction, verdict
    return new_correction, new_verdict


async def _find_refused_alone(
    answer: str, correction: Correction, policy: Policy, replacements: Iterable[Edit], judge: JudgeCorrection
) -> set[int]:
    """The passages whose replacement the gate refuses without any other edit, by the number of the first segment."""
    refused_passages = set()
    for edit in replacements:
        correction_of_one_edit = replace(correction, text=edits.apply(answer, [edit]))
        verdict = await judge(answer, correction_of_one_edit, policy)
        if verdict.dropped:
            refused_passages.add(edit.first)
    return refused_passages


def _fill_hole(hole: splice.Hole, new_text: str | None) -> str:
    """The text for a flagged run: its new text, or the original if that is None."""
    if new_text is None:
        return hole.run.text
    # text added after the last segment brings its own leading white space
    return new_text.strip() if hole.run.text else new_text.rstrip()

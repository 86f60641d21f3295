"""The stages that fulfil a request's preferences without weakening the operator's objectives. The gate checks the edits
of each stage. A preference is checkable if a rule can check whether a text meets it, and fixable if a rule can fulfil
it.

1. The corrector edits the answer for preferences that no rule can fulfil and that are not met yet. If all of them are
   checkable, its edits count only if they meet at least one.
2. The corrector edits the result for the operator's objectives alone. This prompt contains nothing of the request's
   preferences, so they cannot talk an objective away. If the gate drops an edit here, the edits of stage 1 are
   discarded, so that they cannot block the operator's edits. If the gate refuses the whole correction here, the
   original is delivered, as it would be without preferences.
3. Rules fulfil what they can with certainty (fixes.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

from aligner_proxy.concurrency import run_off_loop
from aligner_proxy.gate.judge import Verdict
from aligner_proxy.pipeline import outcomes
from aligner_proxy.plugins.api import Corrected, Inner
from aligner_proxy.types import Correction, FailureClass, Policy, SegmentScore, all_cached
from aligner_proxy_systems.metaalign.checks import is_met
from aligner_proxy_systems.metaalign.fixes import fix_text
from aligner_proxy_systems.metaalign.objectives import operator_policy, preferences_of
from aligner_proxy_systems.metaalign.types import Preference

UNMET = "unmet_preference"
"""Reason for dropping edits that were made for preferences but meet none; listed like a gate rule."""


async def correct(answer: str, policy: Policy, inner: Inner) -> Corrected:
    """Run the stages in order and return one correction; a stage without work is skipped."""
    preferences = preferences_of(policy)
    results: list[Corrected] = []
    asked_preferences = await run_off_loop(len(answer), partial(_select_for_corrector, preferences, answer))
    if asked_preferences:
        corrected = await inner.correct(answer, _preference_policy(policy, asked_preferences))
        results.append(_drop_unmet_edits(asked_preferences.values(), answer, corrected))
    own_policy = operator_policy(policy)
    if own_policy.objectives:
        results.append(await inner.correct(results[-1].verdict.text if results else answer, own_policy))
        if len(results) > 1 and results[0].verdict.text != answer and results[1].verdict.dropped:
            # text that stage 1 added must not block the operator's edits, so the original is corrected
            results = [await inner.correct(answer, own_policy)]
        # if the gate refused the whole correction, the original is delivered, as without preferences
        if outcomes.class_of(results[-1].verdict.reason) is FailureClass.GATE:
            return _combine_results(results, replace(results[-1].verdict, text=answer))
    text = results[-1].verdict.text if results else answer
    fixable = {name: preference for name, preference in preferences.items() if preference.fixable}
    unmet_kinds = await run_off_loop(
        len(text), lambda: {preference.kind for preference in fixable.values() if not is_met(preference, text)}
    )
    # in a thread, like the gate, so that the rules do not block the event loop
    fixed_text = await asyncio.to_thread(fix_text, text, unmet_kinds) if unmet_kinds else text
    if fixed_text != text:
        verdict = await inner.judge(text, Correction(fixed_text), _preference_policy(policy, fixable))
        results.append(Corrected(Correction(fixed_text), None, verdict))
        text = verdict.text
    # dropped edits are reported only if others are delivered: otherwise the answer is as it would be without
    # preferences
    reason = _find_drop_reason(results) if text != answer else None
    return _combine_results(results, Verdict(text, reason))


def _select_for_corrector(preferences: Mapping[str, Preference], answer: str) -> dict[str, Preference]:
    """Return the preferences that no rule can fulfil and the answer does not meet, by the names of their objectives."""
    return {
        name: preference
        for name, preference in preferences.items()
        if not preference.fixable and not (preference.checkable and is_met(preference, answer))
    }


def _preference_policy(policy: Policy, preferences: Mapping[str, Preference]) -> Policy:
    """Return the policy with only the objectives of these preferences, which are by the names of their objectives."""
    objectives = (
        objective
        for objective in policy.objectives
        if objective.allowance is not None and objective.name in preferences
    )
    return replace(policy, objectives=tuple(objectives))


def _drop_unmet_edits(preferences: Collection[Preference], answer: str, corrected: Corrected) -> Corrected:
    """Drop the stage's edits if every preference is checkable and the edits meet none."""
    verdict = corrected.verdict
    if verdict.text == answer or not all(preference.checkable for preference in preferences):
        return corrected
    if any(is_met(preference, verdict.text) for preference in preferences):
        return corrected
    # the edits that the gate had kept count as dropped, too
    unmet_edits = (UNMET,) * (verdict.edits - len(verdict.dropped))
    return replace(corrected, verdict=replace(verdict, text=answer, dropped=verdict.dropped + unmet_edits))


def _find_drop_reason(results: Sequence[Corrected]) -> str | None:
    """Return `gate_partly:` with the first gate rule that dropped an edit; None if no edit was dropped."""
    dropped_by = [rule for result in results for rule in result.verdict.dropped]
    return outcomes.gate_reason(dropped_by, is_changed=True)


def _combine_results(results: Sequence[Corrected], verdict: Verdict) -> Corrected:
    """Return one result for all stages, with the text and reason of `verdict`; its segments are those scored last."""
    corrections = [result.correction for result in results]
    segments: tuple[SegmentScore, ...] = ()
    aligner = ""
    # later stages overwrite earlier ones
    for stage_correction in corrections:
        segments = stage_correction.segments or segments
        aligner = stage_correction.aligner or aligner
    is_accepted = all(result.verdict.text == result.correction.text for result in results)
    text = verdict.text if is_accepted else corrections[-1].text
    correction = Correction(text=text, segments=segments, aligner=aligner).with_cost_of(corrections)
    dropped_by = tuple(rule for result in results for rule in result.verdict.dropped)
    edits = sum(result.verdict.edits for result in results)
    is_cached = all_cached(result.cache_hit for result in results)
    return Corrected(correction, is_cached, replace(verdict, edits=edits, dropped=dropped_by))

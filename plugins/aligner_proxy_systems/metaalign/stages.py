"""Stages in which a request's preferences are met, and the operator's objectives all the same; each is gated.

1. The corrector reads the answer for those preferences that no rule can meet and that are not met yet; where all of
them can be checked, its edits count only if one of them is met then.
2. It reads the result for the operator's objectives alone, in a prompt in which no word of the request's preferences
stands: nothing that is said there can talk one away. Where the gate refuses an edit of that, the edits of stage 1 are
given up, so that they cannot stand in its way. Where it refuses the operator's correction as a whole, the original
stands, as it would without preferences.
3. Rules meet what they can meet for certain (fixes.py).
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
from aligner_proxy.types import Correction, FailureClass, Policy, all_cached
from aligner_proxy_systems.metaalign.checks import met
from aligner_proxy_systems.metaalign.fixes import fixed
from aligner_proxy_systems.metaalign.objectives import operators, preferences_of
from aligner_proxy_systems.metaalign.types import Preference

UNMET = "unmet_preference"
"""Reason for edits for the sake of preferences that meet none of them; it stands where a rule of the gate would."""


async def correct(answer: str, policy: Policy, inner: Inner) -> Corrected:
    """The stages, one after the other, as one correction; a stage that has nothing to do is left out."""
    preferences = preferences_of(policy)
    done: list[Corrected] = []
    for_corrector = await run_off_loop(len(answer), partial(_for_corrector, preferences, answer))
    if for_corrector:
        corrected = await inner.correct(answer, _preferring(policy, for_corrector))
        done.append(_unless_unmet(for_corrector.values(), answer, corrected))
    own = operators(policy)
    if own.objectives:
        done.append(await inner.correct(done[-1].verdict.text if done else answer, own))
        if len(done) > 1 and done[0].verdict.text != answer and done[1].verdict.dropped:
            # What a preference brought in must not be what keeps the operator's edits out.
            done = [await inner.correct(answer, own)]
        if outcomes.class_of(done[-1].verdict.reason) is FailureClass.GATE:
            return _combined(done, replace(done[-1].verdict, text=answer))
    text = done[-1].verdict.text if done else answer
    fixable = {name: one for name, one in preferences.items() if one.fixable}
    kinds = await run_off_loop(len(text), lambda: {one.kind for one in fixable.values() if not met(one, text)})
    # In a thread, as the gate: it must not hold up the event loop.
    edited = await asyncio.to_thread(fixed, text, kinds) if kinds else text
    if edited != text:
        verdict = await inner.judge(text, Correction(edited), _preferring(policy, fixable))
        done.append(Corrected(Correction(edited), None, verdict))
        text = verdict.text
    return _combined(done, Verdict(text, _refusal(done) if text != answer else None))


def _for_corrector(preferences: Mapping[str, Preference], answer: str) -> dict[str, Preference]:
    """The preferences that a corrector is asked for."""
    return {name: one for name, one in preferences.items() if _is_for_corrector(one, answer)}


def _is_for_corrector(preference: Preference, answer: str) -> bool:
    """Whether a corrector is asked for a preference: rules cannot meet it, and it is not met already."""
    return not preference.fixable and not (preference.checkable and met(preference, answer))


def _preferring(policy: Policy, preferences: Mapping[str, Preference]) -> Policy:
    """The policy with the objectives of these preferences alone."""
    objectives = (one for one in policy.objectives if one.allowance is not None and one.name in preferences)
    return replace(policy, objectives=tuple(objectives))


def _unless_unmet(preferences: Collection[Preference], answer: str, corrected: Corrected) -> Corrected:
    """The stage without its edits where every preference can be checked and none is met by them."""
    verdict = corrected.verdict
    if verdict.text == answer or not all(preference.checkable for preference in preferences):
        return corrected
    if any(met(preference, verdict.text) for preference in preferences):
        return corrected
    refused = (UNMET,) * (verdict.edits - len(verdict.dropped))
    return replace(corrected, verdict=replace(verdict, text=answer, dropped=verdict.dropped + refused))


def _refusal(done: Sequence[Corrected]) -> str | None:
    """What the gate refused of an answer that changed; a preference that it refused as a whole is no failure."""
    dropped = [rule for corrected in done for rule in corrected.verdict.dropped]
    return f"gate_partly:{dropped[0]}" if dropped else None


def _combined(done: Sequence[Corrected], verdict: Verdict) -> Corrected:
    """All stages as one; the segments are those that were judged last."""
    corrections = [corrected.correction for corrected in done]
    accepted = all(corrected.verdict.text == corrected.correction.text for corrected in done)
    correction = Correction(
        text=verdict.text if accepted else corrections[-1].text,
        segments=next((one.segments for one in reversed(corrections) if one.segments), ()),
        aligner=next((one.aligner for one in reversed(corrections) if one.aligner), ""),
    ).with_cost_of(corrections)
    dropped = tuple(rule for corrected in done for rule in corrected.verdict.dropped)
    edits = sum(corrected.verdict.edits for corrected in done)
    hit = all_cached(corrected.cache_hit for corrected in done)
    return Corrected(correction, hit, replace(verdict, edits=edits, dropped=dropped))

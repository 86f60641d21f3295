"""How are a request's preferences met, and the operator's objectives all the same? In three steps, each gated.

1. The corrector reads the answer for those wishes that no rule can meet and that are not met yet; where all of them can
be checked, what it writes counts only if one of them is met then. 2. It reads the result for the operator's objectives
alone, in a prompt in which no word of the request's preferences stands: nothing that is said there can talk one away.
Where the gate refuses an edit of that, the preferences' edits are given up, so that they cannot stand in its way.
3. Rules meet what they can meet for certain (preferences/repairs.py). Where the operator's correction is refused as a
whole, the original stands, as it would without preferences.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from aligner_proxy import failures
from aligner_proxy.gate import Verdict
from aligner_proxy.preferences import wishes
from aligner_proxy.preferences.checks import met
from aligner_proxy.preferences.repairs import repaired
from aligner_proxy.types import Correction, DecodeCounts, FailureClass, Objective, Policy
from aligner_proxy.wishes import Wish

Correct = Callable[[str, Policy], Awaitable[tuple[Correction, bool | None]]]
"""The correction of a text under a policy, and whether the cache had it."""
UNMET = "unmet_preference"
"""No rule of the gate, and like one: an edit for the sake of preferences that none of them is met by."""
Judge = Callable[[str, Correction, Policy], Awaitable[Verdict]]


@dataclass(frozen=True, slots=True)
class Met:
    """What the three steps came to, as one correction with one verdict."""

    correction: Correction
    cache_hit: bool | None
    verdict: Verdict


def asked(policy: Policy) -> Policy:
    """The policy with the operator's objectives alone."""
    return _only(policy, [objective for objective in policy.objectives if objective.wish is None])


def _only(policy: Policy, objectives: Sequence[Objective]) -> Policy:
    return replace(policy, objectives=tuple(objectives))


async def prefer(answer: str, policy: Policy, correct: Correct, judge: Judge) -> Met:
    """The three steps, one after the other; a step that has nothing to ask is left out."""
    steps, own = list[_Step](), asked(policy)
    if due := [objective for objective in policy.objectives if objective.wish and _due(objective.wish, answer)]:
        steps.append(_helpful(due, answer, await _step(answer, _only(policy, due), correct, judge)))
    if own.objectives:
        steps.append(await _step(steps[-1].verdict.text if steps else answer, own, correct, judge))
        if len(steps) > 1 and steps[0].verdict.text != answer and steps[1].verdict.dropped:
            # What a preference brought in must not be what keeps the operator's edits out.
            steps = [await _step(answer, own, correct, judge)]
        if failures.class_of(steps[-1].verdict.reason) is FailureClass.GATE:
            return _together(answer, steps, replace(steps[-1].verdict, text=answer))
    text = steps[-1].verdict.text if steps else answer
    kinds = {wish.kind for wish in wishes(policy).values() if wish.certain and not met(wish, text)}
    # In a thread, as the gate: what holds up the event loop holds up everybody.
    fixed = await asyncio.to_thread(repaired, text, kinds) if kinds else text
    if fixed != text:
        certain = _only(policy, [one for one in policy.objectives if one.wish is not None and one.wish.certain])
        steps.append(_Step(Correction(fixed), None, await judge(text, Correction(fixed), certain)))
        text = steps[-1].verdict.text
    return _together(answer, steps, Verdict(text, _partly(text != answer, steps)))


@dataclass(frozen=True, slots=True)
class _Step:
    correction: Correction
    cache_hit: bool | None
    verdict: Verdict


def _due(wish: Wish, answer: str) -> bool:
    """Whether an aligner is asked for a wish: rules cannot meet it, and it is not met already."""
    return not wish.certain and not (wish.checkable and met(wish, answer))


def _helpful(due: Sequence[Objective], answer: str, step: _Step) -> _Step:
    """The step, without its edits where every wish can be checked and none is met by them: nobody asked for these."""
    found = [objective.wish for objective in due if objective.wish is not None]
    verdict = step.verdict
    if verdict.text == answer or not all(wish.checkable for wish in found):
        return step
    if any(met(wish, verdict.text) for wish in found):
        return step
    refused = (UNMET,) * (verdict.edits - len(verdict.dropped))
    return replace(step, verdict=replace(verdict, text=answer, dropped=verdict.dropped + refused))


async def _step(text: str, part: Policy, correct: Correct, judge: Judge) -> _Step:
    """One correction for some of the objectives."""
    correction, cache_hit = await correct(text, part)
    return _Step(correction, cache_hit, await judge(text, correction, part))


def _partly(changed: bool, steps: Sequence[_Step]) -> str | None:
    """What the gate refused of an answer that changed; a preference that it refused as a whole is no failure."""
    dropped = [rule for step in steps for rule in step.verdict.dropped]
    return f"gate_partly:{dropped[0]}" if changed and dropped else None


def _together(answer: str, steps: Sequence[_Step], verdict: Verdict) -> Met:
    """All steps as one; the segments are those that the aligner judged last."""
    judged = [step.correction for step in steps if step.correction.segments]
    made = [step.correction for step in steps if step.correction.aligner]
    whole = all(step.verdict.text == step.correction.text for step in steps)
    correction = Correction(
        verdict.text if whole or not steps else steps[-1].correction.text,
        judged[-1].segments if judged else (),
        sum((step.correction.counts for step in steps), DecodeCounts()),
        sum(step.correction.prompt_tokens for step in steps),
        sum(step.correction.ms for step in steps),
        made[-1].aligner if made else "",
    )
    hits = {step.cache_hit for step in steps} - {None}
    dropped = tuple(rule for step in steps for rule in step.verdict.dropped)
    edits = sum(step.verdict.edits for step in steps)
    return Met(correction, False not in hits if hits else None, replace(verdict, edits=edits, dropped=dropped))

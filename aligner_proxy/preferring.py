"""How are a request's preferences met, and the operator's objectives all the same? In three steps, each gated.

1. The corrector reads the answer for the wishes that no rule can meet. 2. It reads the result for the operator's
objectives alone, in a prompt in which no word of the request's preferences stands: so nothing that is said there can
talk one away. 3. Rules meet what they can meet for certain (preferences/repairs.py). Where the operator's correction is
refused as a whole, the original stands, as it would without preferences.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from aligner_proxy import failures
from aligner_proxy.gate import Verdict
from aligner_proxy.preferences import wishes
from aligner_proxy.preferences.checks import met
from aligner_proxy.preferences.repairs import repaired
from aligner_proxy.types import Correction, DecodeCounts, FailureClass, Objective, Policy

Correct = Callable[[str, Policy], Awaitable[tuple[Correction, bool | None]]]
"""The correction of a text under a policy, and whether the cache had it."""
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
    wished = [objective for objective in policy.objectives if objective.wish is not None]
    uncertain = [objective for objective in wished if objective.wish and not objective.wish.certain]
    steps, text = list[_Step](), answer
    for part in (_only(policy, uncertain), asked(policy)):
        if not part.objectives:
            continue
        correction, cache_hit = await correct(text, part)
        verdict = await judge(text, correction, part)
        steps.append(_Step(correction, cache_hit, verdict))
        text = verdict.text
        own = part.objectives[0].wish is None
        if own and failures.class_of(verdict.reason) is FailureClass.GATE:
            return _together(answer, steps, replace(verdict, text=answer))
    due = {wish.kind for wish in wishes(policy).values() if wish.certain and not met(wish, text)}
    if (fixed := repaired(text, due)) != text:
        certain = _only(policy, [objective for objective in wished if objective.wish and objective.wish.certain])
        steps.append(_Step(Correction(fixed), None, await judge(text, Correction(fixed), certain)))
        text = steps[-1].verdict.text
    return _together(answer, steps, Verdict(text, _partly(text != answer, steps)))


@dataclass(frozen=True, slots=True)
class _Step:
    correction: Correction
    cache_hit: bool | None
    verdict: Verdict


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

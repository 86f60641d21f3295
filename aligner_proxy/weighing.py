"""What do the objectives of a policy weigh for this conversation? The net's word laid over the policy.

Without the net's word (no net, no engine, too late, nonsense) all weigh the same and the reason is kept; the order of
the file then decides which candidates stay. A request is never worse off than with a list of objectives.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any

from aligner_proxy import eligibility, failures
from aligner_proxy.account import account
from aligner_proxy.auto import Auto, worded
from aligner_proxy.engine.protocol import Engine, WeighRequest, weigh
from aligner_proxy.errors import InvalidOutput
from aligner_proxy.types import Objective, Policy, Turn

log = logging.getLogger(__name__)

WAIT_S = 2.0
"""How long the net may take: it reads one prompt, and mostly does so while the upstream writes."""
_SUM = 0.01


def wants(policy: Policy) -> bool:
    """Whether the objectives of this policy are still to be weighed."""
    return policy.auto is not None and not policy.auto.weights and eligibility.by_policy(policy) is None


async def weighed(engine: Engine, policy: Policy, turns: Sequence[Turn], call_id: str) -> Policy:
    """The same policy with its objectives chosen, ordered and weighed; itself where nothing is to be weighed.

    Only `CancelledError` leaves this.
    """
    auto = policy.auto
    if auto is None or not wants(policy):
        return policy
    asking = asyncio.create_task(_asked(engine, policy, turns, call_id))
    try:
        # A task, so that whatever goes wrong in it is looked at here and raised nowhere.
        await asyncio.wait({asking}, timeout=min(WAIT_S, policy.deadline_s))
        error = asking.exception() if asking.done() and not asking.cancelled() else TimeoutError()
        if error is None:
            return laid(policy, auto, asking.result(), None)
    finally:
        asking.cancel()
    reason = failures.reason_of(error) if isinstance(error, Exception) else failures.INTERNAL
    log.warning("call %s: objectives weigh the same: %s (%s)", call_id, reason, type(error).__name__)
    return laid(policy, auto, [1.0 / len(policy.objectives)] * len(policy.objectives), reason)


def laid(policy: Policy, auto: Auto, weights: Sequence[float], reason: str | None) -> Policy:
    """Choose, lift to the floor, and order: enforced objectives first as they stand, then the rest by weight."""
    told = dict(zip((o.name for o in policy.objectives), weights, strict=True))
    ranked = sorted(auto.candidates, key=lambda name: -told[name])  # equals stay in the order of the file
    dropped = set(ranked[auto.keep :]) if auto.keep else set[str]()
    kept = [o for o in policy.objectives if o.name not in dropped]
    final = floored({o.name: told[o.name] for o in kept}, auto.enforced, auto.floor)
    first = [o for o in kept if o.name in auto.enforced]
    rest = sorted((o for o in kept if o.name not in auto.enforced), key=lambda o: -final[o.name])
    ordered = [*first, *rest]
    told_auto = replace(auto, weights=tuple((o.name, final[o.name]) for o in ordered), reason=reason)
    texts = tuple(_told(o, final[o.name] * len(ordered)) if auto.words else o for o in ordered)
    return replace(policy, objectives=texts, auto=told_auto)


def floored(weights: dict[str, float], enforced: Sequence[str], floor: float) -> dict[str, float]:
    """Weights that sum to 1, none of the enforced ones below the floor; the others give what these get."""
    names = [name for name in weights if name in enforced]
    floor = min(floor, 1.0 / len(names)) if names else 0.0
    shared = _scaled(weights, 1.0)
    # Whoever is lifted takes from the others, which may bring another enforced one below the floor.
    lifted: set[str] = set()
    while low := {n for n in names if n not in lifted and shared[n] < floor}:
        lifted |= low
        rest = _scaled({n: w for n, w in shared.items() if n not in lifted}, max(0.0, 1.0 - floor * len(lifted)))
        shared = {n: floor if n in lifted else rest[n] for n in shared}
    return shared


def _scaled(weights: dict[str, float], total: float) -> dict[str, float]:
    whole = sum(weights.values())
    return {n: total * (w / whole if whole else 1.0 / len(weights)) for n, w in weights.items()}


def _told(objective: Objective, share: float) -> Objective:
    return replace(objective, text=worded(objective.text, share))


async def _asked(engine: Engine, policy: Policy, turns: Sequence[Turn], call_id: str) -> tuple[float, ...]:
    """What the engine says, if it is weights."""
    weights = await weigh(engine, _request(policy, turns, call_id))
    if len(weights) != len(policy.objectives) or not all(0 <= w <= 1 for w in weights) or abs(sum(weights) - 1) > _SUM:
        raise InvalidOutput("what came back is no weights of these objectives")
    return weights


def _request(policy: Policy, turns: Sequence[Turn], call_id: str) -> WeighRequest:
    """As it is sent."""
    tenant, quota = account(policy)
    return WeighRequest(
        request_id=f"{call_id}/weigh",
        turns=tuple(turns),
        objectives=tuple(objective.text for objective in policy.objectives),
        aligner=policy.aligner,
        deadline_s=min(WAIT_S, policy.deadline_s),
        tenant=tenant,
        quota=quota,
    )


class Weighing:
    """One request's weights, asked for while the upstream works; whoever needs them waits here.

    `otherwise` is the policy where the work is lost, which then is weighed where it is used.
    """

    def __init__(self, work: Coroutine[Any, Any, Policy], otherwise: Policy) -> None:
        self._task, self._otherwise = asyncio.create_task(work), otherwise

    async def policy(self) -> Policy:
        """The weighed policy. Several may wait, and one that leaves leaves the others alone."""
        await asyncio.wait({self._task})
        lost = self._task.cancelled() or self._task.exception() is not None
        return self._otherwise if lost else self._task.result()

    def __deepcopy__(self, memo: object) -> Weighing:
        """LiteLLM copies metadata for its own records; a task belongs to its loop and is the same in every copy."""
        return self

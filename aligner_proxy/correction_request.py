"""What the gateway sends to an engine for one answer: corrections and hidden states, with the tenant as a digest."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import replace

from aligner_proxy.engine.protocol import MAX_TEXTS, AlignRequest, Engine, StatesRequest, text_states
from aligner_proxy.types import Exchange, Policy, Quota

# What the engine's answer may need for its way back: its own failure should arrive before our deadline ends the wait.
_RETURN_S = 0.05
_RETURN_SHARE = 0.05


def align_request(exchange: Exchange, text: str, policy: Policy, deadline: float) -> AlignRequest:
    """The correction of `text` under a policy until `deadline` (`time.monotonic()` seconds)."""
    left = max(0.001, deadline - time.monotonic())
    tenant, quota = account(policy)
    return AlignRequest(
        request_id=f"{exchange.call_id}/{exchange.index}",
        turns=exchange.turns,
        answer=text,
        objectives=tuple(objective.text for objective in policy.objectives),
        caution=policy.caution,
        verify=policy.verify,
        aligner=policy.aligner,
        deadline_s=left - min(_RETURN_S, left * _RETURN_SHARE),
        tenant=tenant,
        quota=quota,
        draft=policy.draft,
        open_ended=not exchange.inner,
        score_only=policy.score_only,
    )


class EngineEncoder:
    """Hidden states of texts for one request, from the aligner of its policy. Satisfies `TextEncoder`."""

    def __init__(self, engine: Engine, policy: Policy, call_id: str, deadline_s: float) -> None:
        self._engine = engine
        self._policy = policy
        self._call_id = call_id
        self._deadline_s = deadline_s

    async def identity(self) -> str:
        """The aligner's content hash."""
        return (await self._engine.info()).named(self._policy.aligner).content_hash

    async def states(self, texts: Sequence[str], layers: Sequence[int]) -> list[list[float]]:
        """Rows [texts, layers * hidden size]."""
        rows: list[list[float]] = []
        for first in range(0, len(texts), MAX_TEXTS):
            rows += await text_states(self._engine, self._request(texts[first : first + MAX_TEXTS], layers))
        return rows

    def _request(self, texts: Sequence[str], layers: Sequence[int]) -> StatesRequest:
        tenant, quota = account(self._policy)
        return StatesRequest(
            request_id=f"{self._call_id}/states",
            texts=tuple(texts),
            layers=tuple(layers),
            aligner=self._policy.aligner,
            deadline_s=self._deadline_s,
            tenant=tenant,
            quota=quota,
        )


def account(policy: Policy) -> tuple[str, Quota | None]:
    """The tenant of a policy and its quota, as digests: an engine shares out places without names."""
    quota = policy.quota
    return _digest(policy.tenant), quota and replace(quota, account=_digest(quota.account))


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]

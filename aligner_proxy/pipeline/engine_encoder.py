"""Encoder of texts for plugins: the hidden states that the engine computes for them."""

from __future__ import annotations

from collections.abc import Sequence

from aligner_proxy.engine.api import MAX_TEXTS, Engine, StatesRequest, text_states
from aligner_proxy.types import Policy


class EngineEncoder:
    """Hidden states of texts for one request, from the aligner of its policy. Satisfies `TextEncoder`."""

    def __init__(self, engine: Engine, policy: Policy, call_id: str, deadline_s: float) -> None:
        self._engine = engine
        self._policy = policy
        self._call_id = call_id
        self._deadline_s = deadline_s

    async def identity(self) -> str:
        return (await self._engine.info()).find_aligner(self._policy.aligner).content_hash

    async def states(self, texts: Sequence[str], layers: Sequence[int]) -> list[list[float]]:
        rows: list[list[float]] = []
        # in batches, because the engine takes at most `MAX_TEXTS` in one request
        for first in range(0, len(texts), MAX_TEXTS):
            rows += await text_states(self._engine, self._request(texts[first : first + MAX_TEXTS], layers))
        return rows

    def _request(self, texts: Sequence[str], layers: Sequence[int]) -> StatesRequest:
        """The engine request for the states of these texts, charged to the policy's tenant."""
        tenant, quota = self._policy.engine_account
        return StatesRequest(
            request_id=f"{self._call_id}/states",
            texts=tuple(texts),
            layers=tuple(layers),
            aligner=self._policy.aligner,
            deadline_s=self._deadline_s,
            tenant=tenant,
            quota=quota,
        )

"""Base class of wrappers around the correction of a text."""

from __future__ import annotations

from aligner_proxy.gate.judge import Verdict
from aligner_proxy.plugins.api import Inner
from aligner_proxy.types import Correction, Policy


class InnerWrapper:
    """A wrapper that passes the calls of `Inner` on to the correction inside it. Subclasses add `correct`."""

    def __init__(self, inner: Inner) -> None:
        self.inner = inner

    @property
    def deadline(self) -> float:
        return self.inner.deadline

    async def judge(self, text: str, correction: Correction, policy: Policy) -> Verdict:
        return await self.inner.judge(text, correction, policy)

    async def has_detector(self, policy: Policy) -> bool:
        return await self.inner.has_detector(policy)

"""Wrapper around the correction of a text, which passes everything on."""

from __future__ import annotations

from aligner_proxy.gate.judge import Verdict
from aligner_proxy.plugins.api import Inner
from aligner_proxy.types import Correction, Policy


class InnerWrapper:
    """Passes on what `Inner` asks; what wraps a correction corrects in its own way. Satisfies all but `correct`."""

    def __init__(self, inner: Inner) -> None:
        self.inner = inner

    @property
    def deadline(self) -> float:
        """When the correction must be there."""
        return self.inner.deadline

    async def judge(self, text: str, correction: Correction, policy: Policy) -> Verdict:
        """The gate's verdict."""
        return await self.inner.judge(text, correction, policy)

    async def has_detector(self, policy: Policy) -> bool:
        """Whether there is a detector head under this policy."""
        return await self.inner.has_detector(policy)

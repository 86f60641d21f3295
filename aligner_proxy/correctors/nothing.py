"""The corrector of a policy without objectives: it flags and changes nothing, and needs no engine.

An answer that is only held to its references goes the way of all others through it.
"""

from __future__ import annotations

from aligner_proxy.correctors.incremental import IncrementalSession
from aligner_proxy.engine.api import AlignerInfo, AlignRequest, Session
from aligner_proxy.types import Correction

_INFO = AlignerInfo("none", "", "", "", window=0, has_head=False, quantization="none", device="none")


class NothingFlagged:
    """Returns every answer as it is. Satisfies `Engine`."""

    async def info(self) -> AlignerInfo:
        """There is no aligner."""
        return _INFO

    async def align(self, request: AlignRequest) -> Correction:
        """The answer."""
        return Correction(request.answer)

    async def read(self, request: AlignRequest) -> Session:
        """A session in which every segment stays."""
        return IncrementalSession(_unchanged, self, request)

    async def aclose(self) -> None:
        """Nothing to let go of."""


async def _unchanged(request: AlignRequest, before: str, segment: str) -> Correction:
    return Correction(segment)

"""A plugin as a stranger might write it, for the gateway's tests: what the user asked first says how it misbehaves."""

from __future__ import annotations

import time

from aligner_proxy.plugins.api import Kind, hookimpl
from aligner_proxy.types import Correction


class Unreliable:
    async def identity(self) -> str:
        return "1"

    async def correct(self, request):
        script = request.turns[-1].content.split()[0]
        if script == "refine_raises":
            raise KeyError("the answer was " + request.answer)
        if script == "refine_blocks":
            time.sleep(3)
        if script == "refine_nonsense":
            return 42
        return Correction(request.answer.replace(" You are an idiot for asking.", ""))


@hookimpl
def correctors():
    return [Kind("unreliable", "misbehaves as it is told", lambda told: Unreliable())]

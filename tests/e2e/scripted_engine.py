"""The scripted engine as a process of its own: `python scripted_engine.py SOCKET LOG`.

It takes the insult out of an answer. A question that begins with `slow` takes long, one that begins with `gate` gets a
correction that the gate refuses. Every request is written to LOG as one JSON line when it begins, and
again if it is cancelled.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import uvicorn

from aligner_proxy.engine.protocol import AlignRequest
from aligner_proxy.engine.scripted import ScriptedEngine
from aligner_proxy.engine.server import create_app
from aligner_proxy.types import Correction, SegmentScore

INSULT = "You are an idiot for asking. "
SLOW_S = 3.0


def correct(request: AlignRequest) -> Correction:
    """The answer without its insult, which counts as flagged."""
    if request.turns and request.turns[-1].content.startswith("gate"):
        return Correction("")
    flagged = (SegmentScore(INSULT.strip(), 4.0, True),) if INSULT in request.answer else ()
    return Correction(request.answer.replace(INSULT, ""), flagged)


class Engine(ScriptedEngine):
    """A scripted engine that logs and may be slow."""

    def __init__(self, log: Path) -> None:
        super().__init__(correct)
        self.log = log

    async def align(self, request: AlignRequest) -> Correction:
        """Log, wait, correct."""
        self._note("asked", request)
        try:
            if request.turns and request.turns[-1].content.startswith("slow"):
                await asyncio.sleep(SLOW_S)
            return await super().align(request)
        except asyncio.CancelledError:
            self._note("cancelled", request)
            raise

    def _note(self, event: str, request: AlignRequest) -> None:
        with self.log.open("a") as file:
            file.write(json.dumps({"event": event, "id": request.request_id, "objectives": request.objectives}) + "\n")


if __name__ == "__main__":
    uvicorn.run(create_app(Engine(Path(sys.argv[2]))), uds=sys.argv[1], log_level="error")

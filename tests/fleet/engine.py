"""A scripted engine of the test bed: `python -m tests.fleet.engine HOST PORT ALIGNER SLOW CALLS`.

It takes the insult out as the aligner of this name does (texts.py), and its identity is that aligner's. SLOW is a file
with the seconds that each correction takes, if it is there; to CALLS it writes the word of each question that it
corrected.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import uvicorn

from aligner_proxy import connections
from aligner_proxy.connections import ConnectionLimits
from aligner_proxy.engine.admission import Admission
from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.engine.server.app import create_app
from aligner_proxy.types import Correction
from tests.fleet import texts
from tests.support.scripted import SCRIPTED, ScriptedSession, SegmentEngine

SEATS = 32


class Engine(SegmentEngine):
    """Finds the insult; may be slow."""

    def __init__(self, aligner: str, slow: Path, calls: Path) -> None:
        super().__init__(
            lambda text: 4.0 if text == texts.INSULT.strip() else -4.0, lambda _: texts.WRITTEN[aligner].strip()
        )
        self.about = replace(SCRIPTED, content_hash=identity(aligner), languages=("en",))
        self._slow = slow
        self._calls = calls

    async def align(self, request: AlignRequest) -> Correction:
        """Correct one answer, as slowly as the file says."""
        await asyncio.sleep(self.slow_s())
        with self._calls.open("a") as file:
            file.write(texts.word_in(request.answer) + "\n")
        return await super().align(request)

    async def read(self, request: AlignRequest) -> ScriptedSession:
        """Read along, as slowly."""
        return ScriptedSession(self, request, self.slow_s())

    def slow_s(self) -> float:
        """How slow it is now."""
        try:
            return float(self._slow.read_text())
        except (OSError, ValueError):
            return 0.0


def identity(aligner: str) -> str:
    """The content hash of an aligner."""
    return hashlib.sha256(aligner.encode()).hexdigest()


if __name__ == "__main__":
    app = create_app(Admission(Engine(sys.argv[3], Path(sys.argv[4]), Path(sys.argv[5])), slots=SEATS))
    host = sys.argv[1]
    port = int(sys.argv[2])
    uvicorn.run(app, host=host, port=port, log_level="error", **connections.uvicorn_settings(ConnectionLimits()))

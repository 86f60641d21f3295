"""An engine that fails as it is told, in a process of its own: `python -m tests.faults.faulty_engine SOCKET LOG`.

The first word of the question names the fault; any other word gets the answer without its insult. A word that ends in
`-once` fails only the first time a question is asked. What was asked, and what of that was cancelled or refused, is
written to LOG.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import uvicorn
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from aligner_proxy.engine.admission import Admission
from aligner_proxy.engine.api import AlignRequest, Span
from aligner_proxy.engine.server.app import create_app
from aligner_proxy.errors import AnswerTooLong, EngineOverloaded, EngineUnavailable
from aligner_proxy.types import Correction, SegmentScore
from tests.faults.faulty_upstream import INSULT
from tests.support.scripted import ScriptedSession, SegmentEngine, played

SEATS = 16
NOISE = bytes(range(256)) * 8
_HALF = b'{"text": "The capital'


class OnTheWire(Exception):
    """The answer is not to be one: `how` says what is sent in its place."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


def correct(request: AlignRequest, word: str) -> Correction | Exception:
    """What the engine says to a question that begins with `word`."""
    flagged = SegmentScore(INSULT.strip(), 4.0, flagged=True)
    good = Correction(request.answer.replace(INSULT, ""), (flagged,))
    said: dict[str, Correction | Exception] = {
        "memory": MemoryError("scripted"),
        "loading": EngineUnavailable("the aligner is still loading"),
        "window": AnswerTooLong("does not fit"),
        "another": Correction("Bananas are yellow.", (flagged,)),
        "nothing": good if request.caution > 0 else Correction("", (flagged,)),
        "invents": Correction(good.text + " See https://example.net/why for 99 more.", (flagged,)),
    }
    return said.get(word, good)


_WRITES = ("another", "nothing", "invents")
"""Words by which what it writes is no good."""


class Engine(SegmentEngine):
    """Fails by the word, also while it reads along; who is asked for whole answers only sees nothing of that."""

    def __init__(self, log: Path) -> None:
        super().__init__(lambda text: 4.0 if text == INSULT.strip() else -4.0)
        self.log = log
        self._failed: set[str] = set()

    async def read(self, request: AlignRequest) -> FaultySession:
        """Read along."""
        return FaultySession(self, request)

    async def align(self, request: AlignRequest) -> Correction:
        """Note it, wait as told, fail as told."""
        said = request.turns[-1].content if request.turns else ""
        async with self.noting(said):
            word = await self.fail(said)
            # It is wrong in what it writes; asked for verdicts alone, as in a second reading, it gives them.
            if request.score_only and word in _WRITES:
                return await super().align(request)
            return played(correct(request, word), self.about)

    @contextlib.asynccontextmanager
    async def noting(self, said: str) -> AsyncIterator[None]:
        """Note what is asked, and if it is given up."""
        self.note("asked", said)
        try:
            yield
        except asyncio.CancelledError:
            self.note("cancelled", said)
            raise
        self.note("answered", said)

    async def fail(self, said: str) -> str:
        """Wait as told, fail on the wire as told; else the word that says how to fail."""
        word = (said.split() or [""])[0]
        if word.endswith("-once"):
            word = "" if said in self._failed else word.removesuffix("-once")
            self._failed.add(said)
        if word == "slow":
            await asyncio.Event().wait()
        while word == "held" and not self.log.with_suffix(".open").exists():
            await asyncio.sleep(0.02)
        if word in ("noise", "half", "drip", "endless"):
            raise OnTheWire(word)
        return word

    def note(self, event: str, said: str) -> None:
        """Write it down."""
        with self.log.open("a") as file:
            file.write(json.dumps({"event": event, "said": said}) + "\n")


class FaultySession(ScriptedSession):
    """What it says of an answer that it reads: it fails when it is asked for the first verdict, or in the edit."""

    def __init__(self, engine: Engine, request: AlignRequest) -> None:
        super().__init__(engine, request)
        self._house = engine
        self._question_words = request

    async def wait_for_verdicts(self, known: int) -> tuple[SegmentScore, ...]:
        """The verdicts; the first question is where it fails."""
        said = self._question_words.turns[-1].content if self._question_words.turns else ""
        if not known:
            async with self._house.noting(said):
                played(correct(self._question_words, await self._house.fail(said)), self._house.about)
        return await super().wait_for_verdicts(known)

    async def replace(self, span: Span) -> Correction:
        """The insult goes; where a bad edit is told, that one comes in its place."""
        said = self._question_words.turns[-1].content if self._question_words.turns else ""
        bad = {"another": "Bananas cost 99 in Lima.", "invents": "See https://example.net/why for 99 more."}
        return Correction(bad.get((said.split() or [""])[0], ""))


class Door(Admission):
    """Notes whom it turns away."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, slots=SEATS)
        self._note = engine.note

    async def align(self, request: AlignRequest) -> Correction:
        """Correct one answer, if there is a place."""
        try:
            return await super().align(request)
        except EngineOverloaded:
            self._note("refused", request.turns[-1].content)
            raise


async def on_the_wire(_: Request, error: Exception) -> Response:
    """Bytes in place of an answer."""
    assert isinstance(error, OnTheWire)
    if error.how == "noise":
        return Response(NOISE, media_type="application/json")
    length = {"content-length": "4000"} if error.how == "half" else {}
    return StreamingResponse(_bytes(error.how), media_type="application/json", headers=length)


async def _bytes(how: str) -> AsyncIterator[bytes]:
    """Half an answer and then nobody; one byte at a time without an end; as many as the other side takes."""
    yield _HALF
    if how == "half":
        await asyncio.sleep(0.05)  # or the other side loses what it has not read yet
        raise ConnectionError("scripted")
    while True:
        await asyncio.sleep(0.02 if how == "drip" else 0)
        yield b" " if how == "drip" else NOISE * 32


if __name__ == "__main__":
    app = create_app(Door(Engine(Path(sys.argv[2]))))
    app.add_exception_handler(OnTheWire, on_the_wire)
    # Connections are closed after each answer, so that whoever listens on the socket next is asked the next question.
    uvicorn.run(app, uds=sys.argv[1], log_level="critical", headers=[("connection", "close")])

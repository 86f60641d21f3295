"""The scripted engine as a process of its own: `python scripted_engine.py SOCKET LOG`.

It reads answers as they come, flags the insult and takes it out. A question that begins with `slow` takes long, one
that begins with `held` until the file LOG.open is there, one that begins with `gate` gets a correction that the gate
refuses, one that begins with `broken` an error. A third word names the template that it says it serves. It has
`SEATS` places. Its token classifiers find fault with the Seine; `late` takes long, `wrong` fails. Every request is
written to LOG as one JSON line when it begins, and again if it is cancelled.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import uvicorn

from aligner_proxy import connections, prompts
from aligner_proxy.connections import ConnectionLimits
from aligner_proxy.engine.admission import Admission
from aligner_proxy.engine.api import AlignRequest, StatesRequest, TokenLabels, TokenLabelsRequest
from aligner_proxy.engine.server.app import create_app
from aligner_proxy.errors import EngineFault
from aligner_proxy.observability import tracing
from aligner_proxy.policy import environment
from aligner_proxy.types import Correction, SegmentScore
from tests.e2e.scripted_answers import THOUGHT
from tests.support.net_rows import rows_weighing
from tests.support.scripted import SCRIPTED, ScriptedSession, SegmentEngine, labelling

INSULT = "You are an idiot for asking. "
SLOW_S = 3.0
COSTLY_MS = 4000.0
"""What a question that begins with `costly` costs, as it says."""
SEATS = 4
CATEGORIES = ("Violent", "PII")
"""The categories of the guard `tiny-guard`."""
ASKED = ("stream", "response", "message", "text", "message stream", "response stream", "text stream", "shadow", "live")
"""What the tiny judges are asked for, behind their names."""


def correct(request: AlignRequest) -> Correction | Exception:
    """The answer without its insult, which counts as flagged."""
    if request.turns and request.turns[-1].content.startswith("broken"):
        return EngineFault("scripted fault")
    if request.turns and request.turns[-1].content.startswith("gate"):
        return Correction("")
    if request.answer == THOUGHT:
        return Correction(THOUGHT, (SegmentScore(THOUGHT, 4.0, True, 0),))
    flagged = (SegmentScore(INSULT.strip(), 4.0, True),) if INSULT in request.answer else ()
    costly = request.turns and request.turns[-1].content.startswith("costly")
    return Correction(request.answer.replace(INSULT, ""), flagged, ms=COSTLY_MS if costly else 0.0)


_ROWS = rows_weighing(lambda objective, _: 3.0 if objective.startswith("Humour") else 1.0)


def states(request: StatesRequest) -> list[list[float]] | Exception:
    """Hidden states by which humour weighs three times what another does; an error for a prompt that ends so."""
    if request.texts[0].endswith("unweighed"):
        return EngineFault("scripted fault")
    return _ROWS(request)


def hold_to_page(request: TokenLabelsRequest) -> TokenLabels:
    """Find fault with the Seine unless the page names it."""
    return labelling(*({"Seine"} - {*" ".join(request.context).rstrip(".").split()}))(request)


@cache
def tiny_judge(name: str) -> Any:
    """A real classifier in one of the published shapes, which has learned to find fault with the Seine."""
    from tests.support import tiny_classifiers

    answer = f"The capital of France is Paris. {INSULT}It lies on the Seine."
    questions = [f"rude {name} {kind} {mode}" for kind in ASKED for mode in ("hold", "sentence")]
    with tempfile.TemporaryDirectory() as folder:
        return tiny_classifiers.open_taught(name, Path(folder), "Seine", answer, questions)


class Engine(SegmentEngine):
    """A scripted engine that reads along, logs and may be slow."""

    def __init__(self, log: Path, template: str = SCRIPTED.template) -> None:
        super().__init__(lambda text: 4.0 if text.strip() == INSULT.strip() else -4.0)
        family = prompts.find_template(template)
        self.about = replace(SCRIPTED, template=template, template_hash=family.hash, languages=("en",))
        self.script = self._corrected
        self.log = log
        self.rows = states
        for name in ("facts", "late"):
            self.add_judge(name, labelling("Seine"))
        self.add_judge("tiny-facts", lambda request: tiny_judge(request.model).label_tokens(request))
        self.add_judge("tiny-guard", lambda request: tiny_judge(request.model).label_tokens(request), CATEGORIES)
        self.add_judge("guard", labelling("Seine", category="PII"), ("PII", "Violent"))
        self.add_judge("page", hold_to_page)
        self.add_judge("wrong", lambda _: EngineFault("scripted fault"))

    async def label_tokens(self, request: TokenLabelsRequest) -> TokenLabels:
        """Find fault with the Seine; the judge `late` takes too long."""
        if request.model == "late":
            await asyncio.sleep(2 * SLOW_S)
        if request.model.startswith("tiny-"):
            await asyncio.to_thread(tiny_judge, request.model)
        self._note("labelled", request)
        return await super().label_tokens(request)

    async def read(self, request: AlignRequest) -> ScriptedSession:
        """Read along, slowly where the question says so."""
        question = request.turns[-1].content if request.turns else ""
        return ScriptedSession(self, request, SLOW_S if question.startswith("slow") else 0.0)

    async def align(self, request: AlignRequest) -> Correction:
        """Log, wait, correct."""
        self._note("asked", request)
        try:
            question = request.turns[-1].content if request.turns else ""
            if question.startswith("slow"):
                await asyncio.sleep(SLOW_S)
            while question.startswith("held") and not self.log.with_suffix(".open").exists():
                await asyncio.sleep(0.02)
            return await super().align(request)
        except asyncio.CancelledError:
            self._note("cancelled", request)
            raise

    def _corrected(self, request: AlignRequest) -> Correction | Exception:
        """The scripted correction; for verdicts alone those on every segment."""
        done = correct(request)
        if isinstance(done, Exception) or not request.score_only or request.answer == THOUGHT:
            return done
        return Correction(request.answer, self.verdicts(request, ended=True))

    def _note(self, event: str, request: AlignRequest | TokenLabelsRequest) -> None:
        about = request.objectives if isinstance(request, AlignRequest) else request.model
        with self.log.open("a") as file:
            file.write(json.dumps({"event": event, "id": request.request_id, "objectives": about}) + "\n")


if __name__ == "__main__":
    if environment.is_traced():
        tracing.export("scripted-engine")
    app = create_app(Admission(Engine(Path(sys.argv[2]), *sys.argv[3:4]), slots=SEATS))
    uvicorn.run(app, uds=sys.argv[1], log_level="error", **connections.uvicorn_settings(ConnectionLimits()))

"""The same wrecked streams under `stream: sentence`: released segment by segment, by an engine that reads along."""

from __future__ import annotations

from typing import Any

from aligner_proxy import formats
from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.errors import AnswerTooLong, CorrectionError, EngineFault, EngineUnavailable, SessionLost
from aligner_proxy.gateway.guardrail import Blocked
from aligner_proxy.pipeline.outcomes import DECLINED
from aligner_proxy.types import SegmentScore
from tests.fuzz.cases import Case
from tests.fuzz.observed import events, frozen, only_texts_differ
from tests.support.harness import Rig
from tests.support.scripted import ScriptedSession, SegmentEngine
from tests.support.stream_fixtures import decoded

_COMMENT = b": aligner status="
MODELS = {"gpt": "released", "strict": "released-strict"}
"""The route of the case, as one that releases."""


class ReleasingEngine(SegmentEngine):
    """Flags some segments and writes by the script of the case; some scripts do not read to the end."""

    def __init__(self, script: str) -> None:
        super().__init__(lambda text: 2.0 if len(text) % 3 else -2.0, self._written)
        self.name = script
        self.reads = 0

    async def read(self, request: AlignRequest) -> ScriptedSession:  # type: ignore[override]
        """A reading, or the failure of one; the second one is a good one."""
        self.reads += 1
        if self.name == "deaf":
            raise EngineUnavailable("scripted") if len(request.turns) % 2 else RuntimeError("scripted")
        return Failing(self, request) if self.reads == 1 else ScriptedSession(self, request)

    def _written(self, text: str) -> str | CorrectionError:
        said: dict[str, str | CorrectionError] = {
            "leave": text,
            "fail": EngineFault("x"),
            "too long": AnswerTooLong("x"),
            "correct": f"{text} fine",
            "odd": f"{text}\ud800",
        }
        return said.get(self.name, "")


class Failing(ScriptedSession):
    """Fails in the way of its engine's script."""

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        """More of the answer."""
        if self._engine.name == "torn":  # type: ignore[attr-defined]
            raise RuntimeError("scripted")
        return await super().feed(text)

    async def wait_for_verdicts(self, known: int) -> tuple[SegmentScore, ...]:
        """Verdicts on other segments than there are, none any more, or an error of nobody's."""
        found = await super().wait_for_verdicts(known)
        name = self._engine.name  # type: ignore[attr-defined]
        if name == "bug" and known:
            raise KeyError("scripted")
        if name == "cut" and known:
            raise SessionLost("scripted")
        return (*found[:-1], SegmentScore("not there", float("nan"), True, 99)) if name == "odd" and known else found


def check(rig: Rig, one: Case) -> None:
    """Raises if a stream does not hold; cases that are no streams, or on routes that release nothing, hold."""
    route = MODELS.get(str(one.request["model"]))
    if one.items is None or route is None:
        return
    items = one.items
    before = frozen(one.items)
    played = list[Any]()
    request = {**one.request, "model": route}
    try:
        rig.stream_into(played, one.engine, request, one.route, items, one.error, one.leaves, make=ReleasingEngine)
    except Blocked:
        assert route == "released-strict", "blocked without being asked to"
        assert frozen(items) == before, "the upstream's own items were changed"
        return
    except Exception as error:
        if error is not one.error:
            raise
    assert frozen(items) == before, "the upstream's own items were changed"
    assert rig.ledger is not None
    assert rig.ledger.is_final
    ours = [item for item in played if not (isinstance(item, bytes) and item.startswith(_COMMENT))]
    assert len(played) - len(ours) <= 1, "more than one comment"
    if one.leaves is None:
        _whole(one, ours, items, rig)


def _whole(one: Case, ours: list[Any], theirs: list[Any], rig: Rig) -> None:
    """A stream that its client heard to the end."""
    wire = formats.wire(one.route)
    assert wire is not None
    assert rig.ledger is not None
    cut = events if one.route == "/v1/messages" else list
    mine = cut(ours)
    other = cut(theirs)
    only_texts_differ(frozen(mine), frozen(other))
    if frozen(mine) == frozen(other):
        assert one.route == "/v1/messages" or [id(item) for item in ours] == [id(item) for item in theirs], (
            "nothing edited, and other items"
        )
        return
    # A refusal stands in place of an answer that is all harm. Where the upstream's events disagree about the text,
    # those that repeat it whole agree with what went out.
    agrees = not any(exchange.inconsistent for exchange in decoded(wire, one.request, theirs, safely=True))
    is_edited = any(outcome.edits or outcome.reason == DECLINED for outcome in rig.ledger.outcomes)
    assert is_edited or not agrees, "edited by nobody"
    told = decoded(wire, one.request, ours, safely=True)
    if not any(exchange.fault or exchange.inconsistent for exchange in told):
        # What has no pieces of its own (a text that is only told whole) is none of these; one that stopped being
        # readable goes on behind what its outcome knows.
        heard = [exchange.answer or "" for exchange in told]
        for outcome in rig.ledger.outcomes:
            whole = outcome.text in heard
            begun = outcome.reason is not None and any(answer.startswith(outcome.text or "") for answer in heard)
            assert not outcome.edits or whole or begun, "a text was lost or misplaced"

"""What cannot be read or put in costs no answer, and the policy decides as for any other failure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from litellm.types.utils import ModelResponse, ModelResponseStream

from aligner_proxy import formats
from aligner_proxy.errors import NotPutIn
from aligner_proxy.formats import chat
from aligner_proxy.formats.safe import SafeDecoder, SafeFormat, replace_event_texts
from aligner_proxy.formats.stream_events import StreamDecoder
from aligner_proxy.gateway.guardrail import Blocked
from aligner_proxy.types import Outcome, Policy, Status
from tests.support.comments import without_id
from tests.support.harness import Rig, rigged
from tests.support.stream_fixtures import decoded

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

ROUTE = "/v1/chat/completions"
CORRECTED = Outcome(Status.CORRECTED, None, "new", Policy("p"), 0)


def response(**wrong: Any) -> ModelResponse:
    made = ModelResponse(choices=[{"index": 0, "message": {"role": "assistant", "content": "Yes."}}])
    made.__dict__.update(wrong)
    return made


def chunk(index: Any) -> ModelResponseStream:
    made = ModelResponseStream(choices=[{"index": 0, "delta": {"content": "Yes."}, "finish_reason": None}])
    made.choices[0].index = index
    return made


class Stuck:
    """A wire format that reads, and fails to write."""

    def __getattr__(self, name: str) -> Any:
        return getattr(chat, name)

    def apply(self, _response: object, _outcomes: object) -> Any:
        raise StopIteration

    def decoder(self, data: Any) -> StreamDecoder:
        made = chat.decoder(data)
        feed = made.feed
        made.feed = lambda item: [replace(event, rewrite=stuck) for event in feed(item)]  # type: ignore[method-assign]
        return made


def stuck(_item: object, _pieces: object, _wholes: object) -> Any:
    raise RuntimeError("new")


def test_what_cannot_be_read_is_an_exchange_that_says_so() -> None:
    wire = formats.wire(ROUTE)
    assert wire is not None
    (whole,) = wire.exchanges({"litellm_call_id": "c"}, response(choices=True))
    (streamed,) = decoded(wire, {"litellm_call_id": "c"}, [chunk("a"), chunk(0)], safely=True)
    assert (whole.call_id, whole.answer, whole.fault) == ("c", None, "TypeError")
    assert streamed.fault == "TypeError"


def test_what_cannot_be_put_in_has_a_name_without_the_text() -> None:
    (event,) = SafeDecoder(Stuck().decoder({}), {}).feed(chunk(0))
    with pytest.raises(NotPutIn, match="RuntimeError") as caught:
        replace_event_texts(event, ["new"], {})
    assert "new" not in str(caught.value)
    with pytest.raises(NotPutIn, match="StopIteration"):
        SafeFormat(Stuck()).apply(response(), [CORRECTED])


def test_the_policy_decides_what_follows(tmp_path: Path) -> None:
    with rigged(tmp_path) as rig:
        for made in (response(choices=True), response(choices=[SimpleNamespace(message=7)])):
            result, statuses = rig.whole("correct", {"model": "gpt"}, ROUTE, made)
            assert result in (None, made)
            assert statuses <= {"failed", "skipped"}
        with pytest.raises(Blocked, match="internal_error"):
            rig.whole("correct", {"model": "strict"}, ROUTE, response(choices=True))


@pytest.mark.parametrize("model", ["gpt", "strict"])
def test_a_correction_that_cannot_be_put_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    monkeypatch.setattr(formats, "wire", lambda _route: SafeFormat(Stuck()))
    items = [chunk(0)]
    with rigged(tmp_path) as rig:
        if model == "strict":
            with pytest.raises(Blocked, match="internal_error"):
                rig.whole("correct", {"model": model}, ROUTE, response())
            with pytest.raises(Blocked, match="internal_error"):
                rig.stream("correct", {"model": model}, ROUTE, items)
            return
        given = response()
        result, statuses = rig.whole("correct", {"model": model}, ROUTE, given)
        assert (result is given, statuses) == (True, {"failed"})
        _original_stands(rig, model, items)


def _original_stands(rig: Rig, model: str, items: list[Any]) -> None:
    played, statuses = rig.stream("correct", {"model": model}, ROUTE, items)
    assert ([id(item) for item in played], statuses) == ([id(items[0])], {"failed"})
    assert rig.ledger is not None
    assert without_id(rig.ledger.comment()) == b": aligner status=failed reason=internal_error\n\n"

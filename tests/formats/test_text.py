"""Text completions: prompts become the user turn, and nothing but the text is ever touched."""

from __future__ import annotations

from typing import Any

import pytest
from litellm.types.utils import TextCompletionResponse

from aligner_proxy.formats import text
from aligner_proxy.types import Outcome, Policy, Status, Turn
from tests.support.stream_fixtures import decoded, replayed

POLICY = Policy("p")


def response(*texts: str | None, **choice: Any) -> TextCompletionResponse:
    choices = [{"index": i, "text": t, "finish_reason": "stop", **choice} for i, t in enumerate(texts)]
    return TextCompletionResponse(id="1", created=1, model="m", choices=choices)


def chunk(said: str | None, index: int = 0, why: str | None = None) -> TextCompletionResponse:
    return TextCompletionResponse(id="1", created=1, choices=[{"index": index, "text": said, "finish_reason": why}])


def corrected(index: int, said: str) -> Outcome:
    return Outcome(Status.CORRECTED, None, said, POLICY, index)


def test_the_prompt_is_the_user_turn() -> None:
    (exchange,) = text.exchanges({"prompt": "Say A", "litellm_call_id": "c"}, response("A"))
    assert (exchange.turns, exchange.answer, exchange.call_id) == ((Turn("user", "Say A"),), "A", "c")
    assert exchange.non_text is False


def test_several_prompts_with_n_choices_each() -> None:
    exchanges = text.exchanges({"prompt": ["p", "q"], "n": 2}, response("a", "b", "c", "d"))
    assert [exchange.turns[0].content for exchange in exchanges] == ["p", "p", "q", "q"]


@pytest.mark.parametrize(
    "data",
    [
        {"prompt": [1, 2, 3]},
        {"prompt": [[1, 2], [3]]},
        {"prompt": []},
        {},
        {"prompt": "p", "echo": True},
        {"prompt": "p", "suffix": "s"},
    ],
)
def test_what_is_no_question_with_an_answer(data: dict[str, Any]) -> None:
    (exchange,) = text.exchanges(data, response("A"))
    assert exchange.non_text is True


def test_logprobs_and_finish_reason() -> None:
    logprobs = {"tokens": ["A"], "token_logprobs": [-0.1], "text_offset": [0], "top_logprobs": None}
    (exchange,) = text.exchanges({"prompt": "p"}, response("A", logprobs=logprobs))
    assert (exchange.logprobs, exchange.finish_reason) == (True, "stop")


def test_a_correction_touches_the_text_alone() -> None:
    original = response("A", "B")
    before = original.model_dump_json()
    assert text.apply(original, [Outcome(Status.SHADOW, None, "A", POLICY)]) is original
    edited = text.apply(original, [corrected(1, "X")])
    assert original.model_dump_json() == before
    assert edited.model_dump_json() == before.replace('"text":"B"', '"text":"X"')


def test_a_stream() -> None:
    items = [chunk("ab"), chunk("c", 1), chunk("cd"), chunk("", why="stop"), chunk(None), b"x"]
    before = [item.model_dump_json() for item in items[:-1]]  # type: ignore[union-attr]
    exchanges = decoded(text, {"prompt": ["p", "q"]}, items)
    assert [(e.index, e.answer, e.turns[0].content) for e in exchanges] == [(0, "abcd", "p"), (1, "c", "q")]
    edited: Any = replayed(text, items, [corrected(0, "XYZ")])
    assert [e is i for e, i in zip(edited, items, strict=True)] == [False, True, False, True, True, True]
    assert edited[0].choices[0].text + edited[2].choices[0].text == "XYZ"
    assert [item.model_dump_json() for item in items[:-1]] == before  # type: ignore[union-attr]

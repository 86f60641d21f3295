"""Hold-back for LiteLLM's `incremental_diff`: what has been released stays a beginning of what is released later."""

from __future__ import annotations

import random
from typing import Any

from tests.gateway.endpoints.application import INSULTS, Api

SENTENCES = (
    "Water boils at 100 °C at sea level.",
    "It costs $12.50 a month.",
    "The order 4711 was sent on 3 May.\n\n",
    "- First, open the lid.\n",
    "- Then wait.\n",
    *INSULTS,
)


async def release(api: Api, text: str, emitted: str, *, is_final: bool, model: str = "gpt") -> str:
    """What LiteLLM has sent after a round about a beginning of an answer; fails where it would refuse the round."""
    body: dict[str, Any] = {"input_type": "response", "texts": [text], "model": model}
    got = (await api.post("/beta/litellm_basic_guardrail_api", body)).json()
    corrected = str(got.get("texts", [text])[0])
    assert corrected.startswith(emitted), (text, emitted, corrected)
    held = 0 if is_final else got["stream_holdback_chars"][0]
    return corrected[: max(len(emitted), len(corrected) - held)]


async def test_what_is_released_stays_and_holds_no_insult(api: Api) -> None:
    draw = random.Random(7)
    early = edited = 0
    for _ in range(30):
        answer = " ".join(["Read this first.", *draw.choices(SENTENCES, k=draw.randint(2, 6)), "That is all."])
        whole = (await api.align(answer)).json()["answer"]
        emitted = ""
        for end in range(7, len(answer), draw.randint(5, 23)):
            emitted = await release(api, answer[:end], emitted, is_final=False)
            assert whole.startswith(emitted), (answer[:end], emitted)
        early += len(emitted) > len("Read this first.")
        edited += whole != answer
        assert await release(api, answer, emitted, is_final=True) == whole
    assert edited > 8
    assert early > 20, "it was all held to the end"


async def test_what_has_no_verdict_is_held_whole(api: Api) -> None:
    for text in ("You fool.", "You fool. ", '{"a": "Water boi', "You fool. And"):
        emitted = await release(api, text, "", is_final=False)
        assert "fool" not in emitted
    assert await release(api, "You are", "", is_final=False) == ""


async def test_nothing_is_held_where_nothing_is_corrected(api: Api) -> None:
    assert await release(api, "You fool. And", "", is_final=False, model="off") == "You fool. And"

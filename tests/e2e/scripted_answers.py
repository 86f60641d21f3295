"""What the scripted upstreams have in common: the texts, the script that a request names, and how frames are sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.responses import Response

GOOD = "Water boils at 100 °C at sea level.  It boils lower\n\n- in the mountains\t🏔\n- in a vacuum. "
RUDE = "The capital of France is Paris. You are an idiot for asking. It lies on the Seine."
RUDE_ARGUMENTS = {"place": "Paris", "note": RUDE}
INSULT = "You are an idiot for asking."
INSULTING = f"{INSULT} "
"""As a whole answer, of which nothing remains."""
UNICODE = "Ca\u0301fé – “naïve” 🇫🇷👩‍👩‍👧. You are an idiot for asking. 你好。 שלום \u2028 x\u0301 ends."
FOREIGN = "Der Kessel ist auf dem Herd und der Tee wird nicht kalt. Das ist auch gut."
REFUSED = "I'm sorry, but I can't help with that."
OUTDATED = "Gladly. Online orders can be returned within 30 days of delivery. Have a good day."
UP_TO_DATE = OUTDATED.replace("30", "28")
IN_DOUBT = "Gladly. We wrap it for £5. Have a good day."
THOUGHT = "You are an idiot, I think."
ANSWERS = {
    "outdated": OUTDATED,
    "up_to_date": UP_TO_DATE,
    "in_doubt": IN_DOUBT,
    "rude": RUDE,
    "costly": RUDE,
    "unicode": UNICODE,
    "foreign": FOREIGN,
    "foreign_rude": f"{FOREIGN} You are an idiot for asking. {FOREIGN}",
    "slow": RUDE,
    "broken": RUDE,
    "held": RUDE,
    "unstored": RUDE,
    "refuse": REFUSED,
    "empty": "",
    "huge": "All is well. " * 400,
    # In pieces (event_streams.py) no two in a row are alike: LiteLLM breaks off a stream that repeats one.
    "line": f"{RUDE} " + "Any word " * 2_350 + RUDE,
    "flood": f"{RUDE} " + "All is well. " * 2_300 + RUDE,
    "json": '{"you": "are an idiot"}',
    "length": RUDE,
    "filter": RUDE,
    "reasoning": RUDE,
    "thinks": f"<think>{THOUGHT}</think>\n\n{RUDE}",
    "thinks_well": f"<think>{THOUGHT}</think>\n\n{GOOD}",
    "thinks_on": f"<think>{THOUGHT} {THOUGHT}",
    "cited": RUDE,
    "torn": RUDE,
    "cut": RUDE,
    "break": RUDE,
    "paused": RUDE,
    "drip": RUDE,
    "late": RUDE,
    "error": RUDE,
    **dict.fromkeys(
        ("refine_garbage", "refine_harm", "refine_slow", "refine_down", "refine_raises", "refine_blocks"), RUDE
    ),
    "refine_nonsense": RUDE,
    **dict.fromkeys(("edit_garbage", "edit_harm", "edit_slow", "edit_down", "edit_obeys", "edit_again"), RUDE),
    "blank": " \n\u00a0" * 40 + f"{INSULT} It lies on the Seine.",
    "insult": INSULT,
    "insult_again": INSULT,
}
SEEN: list[dict[str, Any]] = []
"""Every body that arrived."""


def script(body: Mapping[str, Any]) -> str:
    """The first word of what the user said last."""
    return said_last(body).split()[0]


def said_last(body: Mapping[str, Any]) -> str:
    """What the user said last."""
    text = body.get("prompt") or body.get("input") or body.get("messages")
    while isinstance(text, list):
        text = [part for part in text if not isinstance(part, dict) or part.get("role", "user") == "user"][-1]
        text = text.get("content", text.get("text")) if isinstance(text, dict) else text
    return str(text)


def answer(name: str, index: int = 0) -> str:
    """What the upstream says; of several choices, the odd ones are good."""
    return GOOD if index % 2 else ANSWERS.get(name, GOOD)


OPEN: set[str] = set()
"""Gates that have been opened, by name."""
_BEFORE_THE_GATE = 16
LATE_S = 3.5
"""How long `late` is silent, before its first text and again in the middle of it."""
_LATE_BEFORE = ('"The "', '" for"')
"""Pieces of the answer before which it is silent, as they stand in the frames of every format."""


async def sse(lines: list[str], name: str, gate: str = "") -> AsyncIterator[str]:
    """The frames; `break` stops in the middle without a word, `torn` sends them cut anywhere, `drip` takes seconds, and
    `late` is silent twice.

    With a gate the stream waits after its first frames until somebody has opened it.
    """
    if name == "cut":  # in the middle of the event with the insult, the end of which is lost
        number = next(n for n, line in enumerate(lines) if "idiot" in line)
        lines = [*lines[:number], lines[number][: lines[number].index("idiot") + 5] + "\n\n"]
    if name == "torn":
        whole = "".join(lines)
        lines = [whole[i : i + 7] for i in range(0, len(whole), 7)]
    for number, line in enumerate(lines):
        if name == "break" and number == 6:
            await asyncio.sleep(0.3)  # or the client loses what it has not read yet
            raise ConnectionError("scripted break")
        while number == _BEFORE_THE_GATE and gate and gate not in OPEN:
            await asyncio.sleep(0.02)
        if name == "late" and any(piece in line for piece in _LATE_BEFORE):
            await asyncio.sleep(LATE_S)
        yield line
        await asyncio.sleep(0.15 if name == "drip" else 0)


def respond(body: dict[str, Any], name: str) -> Response:
    """A whole response; `cut` is not sent to its end."""
    content = json.dumps(body).encode()
    content = content[: content.index(b"idiot") + 15] if name == "cut" else content
    return Response(content, headers=control(name), media_type="application/json")


def gate_of(body: Mapping[str, Any]) -> str:
    """The gate that a request names: `paused NAME`."""
    words = said_last(body).split()
    return words[1] if words[0] == "paused" else ""


def control(name: str) -> dict[str, str]:
    """An upstream may forbid storing its answer."""
    return {"cache-control": "no-store"} if name == "unstored" else {}

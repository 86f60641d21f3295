"""A folder of research data written from sentences of our own, in the shape of the real files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from models.data.labelled_replies import FILES, NATURAL

_THINGS = ("kettle", "ladder", "compost", "violin", "lantern", "bicycle", "harvest", "canoe", "blanket", "orchard")
_PLACES = (
    "garden",
    "attic",
    "valley",
    "workshop",
    "harbour",
    "village",
    "cellar",
    "barn",
    "meadow",
    "museum",
    "schoolyard",
    "lighthouse",
)


def _answer(thing: str, place: str, voice: str) -> str:
    return (
        f"The {thing} in the {place} needs care every week. {voice} the {thing} dry and away from the window. "
        f"Most owners of a {thing} check the handles in spring.\n\n"
        f"- Clean the {thing} with water.\n- Store it in the {place}.\n\n"
        f"A neighbour with a {thing} can show how the parts fit together. Small repairs take about twenty minutes."
    )


def _long_answer(thing: str, place: str) -> str:
    more = (
        f"The wood of the {thing} swells when the {place} is damp. Two coats of wax are enough for a year. "
        f"Write the date of the last coat on a label. Screws come loose when the {thing} is moved. "
        f"Turn each of them a little in autumn. A cloth over the {thing} keeps out the dust. "
        f"Metal parts like a drop of oil. Spare parts for a {thing} are sold by the piece or in sets of four. "
        f"Ask for the colour of the {place} if it has to match."
    )
    return _answer(thing, place, "Keep") + "\n\n" + more


def _dialogue(text: str) -> str:
    return f"\n\nHuman: {text}\n\nAssistant:"


def _topics() -> list[tuple[str, str]]:
    return [(thing, place) for thing in _THINGS for place in _PLACES]


def write_rows(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    """One gzip file of JSON lines."""
    path = folder / f"{name}.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def research_data(folder: Path) -> Path:
    """All files that the mixture reads, 120 prompts each."""
    ask = "How do I look after the {0} in my {1} number {2}?"
    topics = _topics()
    write_rows(
        folder,
        "metaaligner_ultrafeedback_outputs",
        [
            {
                "prompt": ask.format(t, p, 1),
                "golden": _long_answer(t, p),
                "model": m,
                "output": _answer(t, p, "Leave"),
            }
            for t, p in topics
            for m in ("gpt-3.5-turbo", "Vicuna-7B")
        ],
    )
    write_rows(folder, "metaaligner_hh_outputs", [row for t, p in topics for row in _hh_outputs(t, p, ask)])
    write_rows(
        folder,
        "hh_rlhf_harmless_pairs",
        [
            {"prompt": _dialogue(ask.format(t, p, 3)), "chosen": _answer(t, p, "Hold"), "rejected": f"Break the {t}."}
            for t, p in topics
        ],
    )
    judged = [
        {
            "prompt": ask.format(t, p, 4), "response_1": _answer(t, p, "Have"), "response_2": f"Ask about the {t}.",
            "preference": 1.0, "gold": _answer(t, p, "Set"), "idx": i,
        }
        for i, (t, p) in enumerate(topics)
    ]  # fmt: skip
    for i, row in enumerate(judged):
        answer = str(row["response_1"])
        spot = answer.index("Most owners") if i % 2 else 0
        marks = [{"error type": "Irrelevant", "start": spot, "end": answer.index(".", spot) + 1}] if i % 3 else []
        row |= {"pair": [1, 2], "prediction_1_errors": marks}
    ties = [row | {"preference": 1.5} if i % 4 == 0 else row for i, row in enumerate(judged)]
    write_rows(folder, "pandalm_pairs", ties)
    write_rows(folder, "llmbar_pairs", judged)
    write_rows(folder, "finegrained_rlhf_dev", [row | {"prompt": row["prompt"] + " Why?"} for row in judged])
    write_rows(folder, "imhi_outputs", [{"task": "T", "query": "q", "golden": "g", "model": "m", "output": "o"}])
    (folder / "natural").mkdir(exist_ok=True)
    labelled = [
        {"prompt": ask.format(t, p, 5), "output": _answer(t, p, "Mind"), "harmful": i % 2}
        for i, (t, p) in enumerate(topics)
    ]
    for name in NATURAL:
        write_rows(folder, FILES[name], labelled)
    return folder


def _hh_outputs(thing: str, place: str, ask: str) -> list[dict[str, Any]]:
    prompt = _dialogue(ask.format(thing, place, 2))
    golden = _answer(thing, place, "Put")
    short = f"Oil the {thing} in the {place} twice a year. It lasts longer that way."
    run_on = f"{short}\n\nHuman: And the lid?\n\nAssistant: Oil that as well."
    outputs = {
        "gpt-3.5-turbo": _answer(thing, place, "Place"),
        "Claude-3-Sonnet": _answer(thing, place, "Lay"),
        "LLaMA2-chat-70B": run_on,
    }
    return [{"prompt": prompt, "golden": golden, "model": m, "output": o} for m, o in outputs.items()]

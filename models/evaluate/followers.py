"""Harmless sentences directly behind an insult: how many are flagged, and how many without the insult.

    python -m models.evaluate.followers aligner_proxy/embedded --out runs/followers [--streamed]

Eighty pairs of the insults and the harmless sentences in `forms.yaml`, each within plain sentences, under `harmless`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from aligner_proxy.types import Exchange, Policy, StreamMode, Turn
from models.reporting import output
from models.reporting.statistics import Rate

from .forms import CASES, Frame
from .gateway import find_objectives, open_gateway, stream_answer

PAIRS = 80


@dataclass(frozen=True, slots=True)
class FollowerOutcome:
    """Whether a harmless sentence was flagged after an insult and without it, and whether the insult was."""

    sentence: str
    insult_found: bool
    removed_behind_insult: bool
    removed_alone: bool


def find_pairs() -> Iterator[tuple[Frame, str, str]]:
    """Yield a frame, an insult and a harmless sentence, eighty times, each pair once."""
    texts = yaml.safe_load(CASES.read_text(encoding="utf-8"))
    frames = [Frame(**frame) for frame in texts["frames"]]
    insults = texts["kinds"]["insults"]["against"]
    fine = [sentence for kind in texts["kinds"].values() for sentence in kind["fine"]]
    for number in range(PAIRS):
        # in other steps than the insults, so that no pair comes twice
        fine_number = (number * 5 + number // len(fine)) % len(fine)
        yield frames[number % len(frames)], insults[number % len(insults)], fine[fine_number]


async def run(aligner: Path, *, is_streamed: bool) -> list[FollowerOutcome]:
    """Send each answer with and without the insult through the gateway's pipeline."""
    stream = StreamMode.SENTENCE if is_streamed else StreamMode.HOLD
    policy = Policy("followers", find_objectives(["harmless"]), deadline_s=600, stream=stream)
    results: list[FollowerOutcome] = []
    async with open_gateway(aligner) as pipeline:
        for frame, insult, sentence in find_pairs():
            texts = []
            for middle in (f"{insult} {sentence}", sentence):
                answer = f"{frame.before} {middle} {frame.after}"
                exchange = Exchange("followers", 0, (Turn("user", frame.question),), answer)
                if is_streamed:
                    outcome = await stream_answer(pipeline, exchange, policy)
                else:
                    outcome = await pipeline.align(exchange, policy)
                texts.append(outcome.text or "")
            text_behind, text_alone = texts
            results.append(
                FollowerOutcome(
                    sentence, insult not in text_behind, sentence not in text_behind, sentence not in text_alone
                )
            )
    return results


def format_table(results: list[FollowerOutcome]) -> str:
    """The table in Markdown."""
    rows = [
        ("insult removed", Rate.from_outcomes(outcome.insult_found for outcome in results)),
        (
            "harmless sentence removed behind the insult",
            Rate.from_outcomes(outcome.removed_behind_insult for outcome in results),
        ),
        (
            "harmless sentence removed without an insult",
            Rate.from_outcomes(outcome.removed_alone for outcome in results),
        ),
    ]
    return output.table(("", "rate"), rows)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("aligner", type=Path, help="aligner folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--streamed", action="store_true", help="release the answer sentence by sentence")
    arguments = parser.parse_args()
    results = asyncio.run(run(arguments.aligner, is_streamed=arguments.streamed))
    output.write(arguments.out, "followers", format_table(results), results)
    sys.stdout.write(f"{format_table(results)}\n")


if __name__ == "__main__":
    main()

"""What is left of harmful replies: those that are flagged, and what would be delivered of each, to be read by hand.

    python -m models.evaluate.nothing_left aligner_proxy/embedded --data DATA --out runs/left --seed 1
    python -m models.evaluate.nothing_left aligner_proxy/embedded --data DATA --out runs/left --seed 1 --read

Under `enforce: [harmless]`. The first call draws replies that people or a judge called harmful, from all sets in turn,
until so many are flagged, and writes `texts/SEED.jsonl` (hidden from git): question, answer, what goes out. A reader
puts the numbers of those of which harm is left into `texts/SEED.left`, one a line; `--read` counts them. Of the answers
written for this project (`--own`) it is known which segments are harmful, so nobody has to read them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.types import Exchange, IfNothingRemains, Objective, Outcome, Policy, Turn
from models.data.labelled_replies import (
    AGAINST,
    HARMLESS,
    NATURAL,
    LabelledReply,
    read_natural_replies,
    read_written_answers,
)
from models.reporting import output
from models.reporting.statistics import Rate

from .gateway import command_line, open_gateway

MAX_TRIED = 4000
"""Replies that are sent through the gateway at most."""
ENFORCED = Policy(
    "left",
    (Objective("harmless", HARMLESS),),
    deadline_s=600,
    if_nothing_remains=IfNothingRemains.DECLINE,
)
"""As a tenant with `enforce: [harmless]` has it."""


@dataclass(frozen=True, slots=True)
class FlaggedReply:
    """One harmful reply in which the gateway flags at least one segment."""

    number: int
    """Its place among the flagged replies of the draw, by which a reader names it."""
    source: str
    id: str
    segments: int
    flagged: int
    """How many of its segments are flagged."""
    status: str
    reason: str | None
    left: bool | None = None
    """Whether harm is left in what goes out; None until somebody has read it."""


def draw_harmful_replies(data: Path, seed: int) -> Iterator[LabelledReply]:
    """Harmful replies of all natural sets: the first of each set, then the second of each, and so on."""
    sets = [[reply for reply in read_natural_replies(data, name, MAX_TRIED, seed) if reply.harmful] for name in NATURAL]
    for number in range(max(map(len, sets))):
        yield from (replies[number] for replies in sets if number < len(replies))


def list_own_replies() -> Iterator[LabelledReply]:
    """The answers written for this project that are harmful under the built-in objective `harmless`."""
    yield from (reply for reply in read_written_answers() if reply.harmful and reply.objective == HARMLESS)


async def correct_reply(pipeline: Pipeline, reply: LabelledReply, within: float = ENFORCED.decline_within) -> Outcome:
    """Correct a reply under `ENFORCED`, with this `decline_within` (nats)."""
    exchange = Exchange(reply.id, 0, (Turn("user", reply.question),), reply.answer)
    return await pipeline.align(exchange, replace(ENFORCED, decline_within=within))


def delivers_labelled_harm(reply: LabelledReply, outcome: Outcome) -> bool | None:
    """Whether a segment that is labelled harmful stands in the delivered text.

    None for replies whose segments nobody labelled.
    """
    texts = [segment.text for segment in outcome.segments]
    if AGAINST not in reply.segments or len(texts) < len(reply.segments):
        return None
    pairs = zip(reply.segments, texts, strict=False)
    return any(label == AGAINST and text.strip() in (outcome.text or "") for label, text in pairs)


async def find_flagged_replies(
    aligner: Path, replies: Iterable[LabelledReply], texts: Path, most: int, within: float = ENFORCED.decline_within
) -> tuple[list[FlaggedReply], int]:
    """Send replies through the gateway until `most` of them are flagged.

    Returns the flagged replies and the number of replies that were tried. Question, answer and delivered text of each
    flagged reply are written to the file `texts`; the folder of `texts` keeps the corrections for the next run.
    """
    flagged_replies: list[FlaggedReply] = []
    tried_count = 0
    async with open_gateway(aligner, texts.parent) as pipeline:
        with texts.open("w", encoding="utf-8") as file:
            for reply in replies:
                if len(flagged_replies) >= most or tried_count >= MAX_TRIED:
                    break
                tried_count += 1
                outcome = await correct_reply(pipeline, reply, within)
                flags = [segment.flagged for segment in outcome.segments]
                if not any(flags):
                    continue
                flagged_reply = FlaggedReply(
                    len(flagged_replies),
                    reply.source,
                    reply.id,
                    segments=len(flags),
                    flagged=sum(flags),
                    status=outcome.status.value,
                    reason=outcome.reason,
                    left=delivers_labelled_harm(reply, outcome),
                )
                flagged_replies.append(flagged_reply)
                segments = [
                    (round(segment.score or 0.0, 2), segment.flagged, segment.text) for segment in outcome.segments
                ]
                row = {"question": reply.question, "judged": segments, "labels": reply.segments}
                file.write(json.dumps(asdict(flagged_reply) | row | {"out": outcome.text}, ensure_ascii=False) + "\n")
    return flagged_replies, tried_count


def name_draw(arguments: argparse.Namespace) -> str:
    """What the files of a draw are called: `own`, or the seed."""
    return "own" if arguments.own else str(arguments.seed)


def format_table(replies: Sequence[FlaggedReply], tried_count: int) -> str:
    """Markdown: for each set how many replies are flagged, declined, and delivered with harm left."""
    rows: list[tuple[object, ...]] = []
    for source in [*sorted({reply.source for reply in replies}), "all"]:
        selected = [reply for reply in replies if source in (reply.source, "all")]
        labelled = [reply for reply in selected if reply.left is not None]
        rows.append(
            (
                source,
                len(selected),
                Rate.from_outcomes(reply.reason == "declined" for reply in selected),
                Rate.from_outcomes(reply.left is True for reply in labelled),
            )
        )
    reasons = Counter(f"{reply.status} {reply.reason or ''}".strip() for reply in replies)
    head = f"{len(replies)} flagged of {tried_count} harmful ones."
    parts = (head, output.table(("set", "flagged", "declined", "harm left, of those read"), rows), f"{dict(reasons)}")
    return "\n\n".join(parts)


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("--n", type=int, default=100, help="flagged replies")
    parser.add_argument("--own", action="store_true", help="the answers written for this project")
    parser.add_argument("--within", type=float, default=ENFORCED.decline_within, help="decline_within of the policy")
    parser.add_argument("--read", action="store_true", help="count what was read by hand")
    arguments = parser.parse_args()
    replies = list_own_replies() if arguments.own else draw_harmful_replies(arguments.data, arguments.seed)
    texts = arguments.out / "texts" / f"{name_draw(arguments)}.jsonl"
    flagged_replies, tried_count = asyncio.run(
        find_flagged_replies(arguments.aligner, replies, texts, arguments.n, arguments.within)
    )
    if arguments.read:
        lines = texts.with_suffix(".left").read_text(encoding="utf-8").split()
        left_numbers = {int(line) for line in lines}
        flagged_replies = [
            FlaggedReply(**(asdict(reply) | {"left": reply.number in left_numbers})) for reply in flagged_replies
        ]
    text = format_table(flagged_replies, tried_count)
    output.write(arguments.out, f"left-{name_draw(arguments)}", text, {"tried": tried_count, "found": flagged_replies})
    print(text)


if __name__ == "__main__":
    main()

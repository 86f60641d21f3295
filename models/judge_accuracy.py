"""How often is a judge right? On pairs of replies that people compared, asked as it is asked about edits.

The judge sees the reply that people found worse as the original and the better one as the edit: a win says what they
said. Ties of people are left out; those of the judge are counted, and so is going by the place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

from aligner_proxy import prompts

from . import publish
from .answers import plain_query
from .defects.objectives import BUILT_IN
from .judge import Judge, Verdict
from .preferences import JUDGED, Ranked, load
from .rates import Rate

_FAMILY = "ultrafeedback"


@dataclass(frozen=True, slots=True)
class Agreement:
    """A judge and people on one set: `decided` leaves out what the judge did not decide."""

    source: str
    objective: str
    agrees: Rate
    opposes: Rate
    undecided: Rate
    decided: Rate


async def measure(judge: Judge, data: Path, each: int, seed: int) -> list[Agreement]:
    """One agreement a set of pairs that people compared; none where `each` is 0."""
    found = []
    for source, objective in JUDGED.items():
        pairs = _compared(data, source, each, seed)
        asked = [_ask(judge, pair, BUILT_IN[objective]) for pair in pairs]
        if asked:
            found.append(agreement(source, objective, await asyncio.gather(*asked)))
    return found


def agreement(source: str, objective: str, said: Sequence[Verdict]) -> Agreement:
    """From single verdicts, of which a win is right."""
    agrees, opposes, n = said.count("win"), said.count("lose"), len(said)
    undecided = Rate.among(n - agrees - opposes, n)
    decided = Rate.among(agrees, agrees + opposes)
    return Agreement(source, objective, Rate.among(agrees, n), Rate.among(opposes, n), undecided, decided)


def _compared(data: Path, source: str, each: int, seed: int) -> list[Ranked]:
    """Pairs in which people preferred one, in an order at random."""
    ranked = [item for item in load(data, source, BUILT_IN) if len({_score(item, i) for i in (0, 1)}) == 2]
    Random(f"{source}:{seed}").shuffle(ranked)
    return list(islice(ranked, each))


def _score(item: Ranked, place: int) -> float:
    (score,) = item.responses[place].scores.values()
    return score


async def _ask(judge: Judge, item: Ranked, objective: str) -> Verdict:
    worse, better = sorted(item.responses, key=lambda response: next(iter(response.scores.values())))
    aspects = prompts.aspects([objective])
    return await judge.compare(_FAMILY, plain_query(item.query), worse.text, better.text, aspects)


def text(agreed: Sequence[Agreement]) -> str:
    """Markdown: a row a set."""
    head = (
        "pairs that people compared",
        "judged on",
        "n",
        "says the same",
        "the other",
        "undecided",
        "same, ties apart",
    )
    rows = [(a.source, a.objective, a.agrees.n, a.agrees, a.opposes, a.undecided, a.decided) for a in agreed]
    return publish.table(head, rows) if rows else "Not measured (`--judge-known 0`)."

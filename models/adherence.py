"""Do answers of real upstreams meet checkable preferences more often after the gateway than before, and at what price?

    python -m models.adherence aligner_proxy/embedded --data DATA --out runs/adherence --each 40

Each answer gets one preference in a wording that reading was not made from; whether it is met is asked of the wording's
truth, not of what was read. McNemar's exact test. Damage: a number, address, code or name is gone,
or a number or address is new. Objectives of an operator are not asked for unless named, so that the figures speak of
preferences alone. Last, contradictions: whether the higher tier's word holds.
"""

from __future__ import annotations

import argparse
import asyncio
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from rich.progress import track

from aligner_proxy.facts import addresses, code, names, numbers
from aligner_proxy.gate.lost import words
from aligner_proxy.pipeline import Pipeline
from aligner_proxy.preferences import preferred, wishes
from aligner_proxy.preferences.checks import met
from aligner_proxy.preferences.dialogue import MetaPrompt, SystemInfo, UserInfo
from aligner_proxy.preferences.reading import read
from aligner_proxy.types import Exchange, Objective, Policy, Status, Turn
from aligner_proxy.wishes import Wish, WishKind, WishSource

from . import publish
from .delivered import gateway, objectives
from .rates import Rate
from .upstreams import STRONG, Completion, completions
from .wordings import WORDED, Side, of

BOUNDS = {WishKind.MAX_WORDS: (40, 80, 120), WishKind.MAX_SENTENCES: (2, 4, 6)}
OPPOSITE = (
    (WishKind.NO_LISTS, "Use bullet points."),
    (WishKind.NO_EMOJI, "Use many emojis."),
    (WishKind.UPPER_CASE, "Write in lower case."),
    (WishKind.LOWER_CASE, "All caps."),
    (WishKind.ENDS_WITH_QUESTION, "Do not ask questions."),
    (WishKind.NO_QUESTIONS, "End with a question."),
    (WishKind.MAX_WORDS, "Write at least 900 words."),
    (WishKind.MAX_SENTENCES, "Write at least 90 sentences."),
)
"""What contradicts a wish of this kind."""


@dataclass(frozen=True, slots=True)
class Case:
    """One answer under one preference: met before and after, understood, edited, damaged."""

    kind: WishKind
    read: bool
    before: bool
    after: bool
    edited: bool
    damaged: bool
    failed: bool


@dataclass(frozen=True, slots=True)
class Row:
    """The cases of one kind, or of all; `p` is McNemar's, exact and two-sided."""

    name: str
    n: int
    read: Rate
    before: Rate
    after: Rate
    gained: int
    lost: int
    p: float
    damaged: Rate
    needless: Rate
    """Of the answers that met the preference before: those that were edited all the same."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One preference as it is said, and what it truly wishes."""

    text: str
    wish: Wish


def asked(side: Side, rng: Random, kind: WishKind, wording: str, answer: str) -> Asked:
    """A wording filled in: with a bound, or with a word of the answer that could be said otherwise."""
    bound = rng.choice(BOUNDS.get(kind, (0,)))
    long_words = sorted(word for word in words(answer) if word.isalpha() and word.isascii() and len(word) > 5)
    word = rng.choice(long_words or ["delve"])
    banned = (word,) if kind is WishKind.BANNED_WORDS else ()
    return Asked(wording.format(n=bound, word=word), Wish(kind, WishSource.REQUEST, bound, banned))


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p of a change in one direction among the pairs that changed."""
    n, least = gained + lost, min(gained, lost)
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(least + 1)) / 2**n) if n else 1.0


def damaged(before: str, after: str) -> bool:
    """Whether a fact of the answer is gone, or one is new that nobody said."""
    gone = any(reader(before) - reader(after) for reader in (numbers, addresses, code))
    new = any(reader(after) - reader(before) for reader in (numbers, addresses))
    return gone or new or bool(names(before) - words(after))


def policy_for(text: str, operator: Sequence[Objective], system: str = "") -> Policy:
    """What a request with this preference gets on a route that reads it."""
    sources = (WishSource.REQUEST, WishSource.SYSTEM)
    base = Policy("adherence", tuple(operator), deadline_s=600, preferences=sources)
    return preferred(base, MetaPrompt(SystemInfo(system), UserInfo(preference=text)), may=True)


async def measure(
    pipeline: Pipeline, answers: Sequence[Completion], operator: Sequence[Objective], side: Side, seed: int
) -> list[Case]:
    """One preference an answer, kinds and wordings in turns."""
    rng, sayings = Random(f"adherence:{seed}"), of(side)
    kinds, found = list(sayings), []
    for i, one in enumerate(track(answers, description="preferences")):
        kind = kinds[i % len(kinds)]
        wording = sayings[kind][i // len(kinds) % len(sayings[kind])]
        said = asked(side, rng, kind, wording, one.answer)
        found.append(await case(pipeline, one, said, policy_for(said.text, operator), f"adherence-{i}"))
    return found


async def case(pipeline: Pipeline, one: Completion, said: Asked, policy: Policy, call_id: str) -> Case:
    """What becomes of one answer."""
    outcome = await pipeline.align(Exchange(call_id, 0, (Turn("user", one.query),), one.answer), policy)
    text = outcome.text or ""
    understood = [(wish.number, wish.words) for wish in wishes(policy).values() if wish.kind is said.wish.kind]
    meant = any(abs(number - said.wish.number) <= 1 and banned == said.wish.words for number, banned in understood)
    return Case(
        said.wish.kind,
        meant,
        met(said.wish, one.answer),
        met(said.wish, text),
        text != one.answer,
        damaged(one.answer, text),
        outcome.status is Status.FAILED,
    )


def row(name: str, cases: Sequence[Case]) -> Row:
    """The figures of some cases."""
    gained = sum(not one.before and one.after for one in cases)
    lost = sum(one.before and not one.after for one in cases)
    return Row(
        name,
        len(cases),
        Rate.of(one.read for one in cases),
        Rate.of(one.before for one in cases),
        Rate.of(one.after for one in cases),
        gained,
        lost,
        mcnemar(gained, lost),
        Rate.of(one.damaged for one in cases),
        Rate.of(one.edited for one in cases if one.before),
    )


def rows(cases: Sequence[Case]) -> list[Row]:
    """All together, those that rules can meet, the others, and kind by kind."""
    kinds = list(dict.fromkeys(one.kind for one in cases))
    groups = [
        ("all", list(cases)),
        ("met by rules", [one for one in cases if Wish(one.kind).certain]),
        ("left to the aligner", [one for one in cases if not Wish(one.kind).certain]),
        *((kind.value, [one for one in cases if one.kind is kind]) for kind in kinds),
    ]
    return [row(name, group) for name, group in groups if group]


def contradictions(side: Side, seed: int) -> Iterator[tuple[str, bool]]:
    """(which tiers, whether the higher one's wish held): a pair said by system and user, and by operator and user."""
    rng = Random(f"contradictions:{seed}")
    for kind, other in OPPOSITE:
        for wording in of(side)[kind]:
            text = wording.format(n=5, word="delve")
            for above, below in ((text, other), (other, text)):
                higher = {wish.kind for wish in read(above, WishSource.SYSTEM).wishes}
                lower = {wish.kind for wish in read(below, WishSource.REQUEST).wishes}
                if not higher or not lower:
                    continue  # what was not read cannot contradict
                held = {wish.kind for wish in wishes(policy_for(below, (), above)).values()}
                yield "system over user", higher <= held and not (lower - higher) & held
                objective = Objective("house-style", f"House style: the response should be so: {above}")
                kept = policy_for(below, (objective, *objectives([rng.choice(("harmless", "honest", "fair"))])))
                left = {wish.kind for wish in wishes(kept).values()}
                yield "operator over user", kept.objectives[0] == objective and not (lower - higher) & left


def reading(side: Side) -> tuple[Rate, Rate]:
    """How many wordings are read as what they say, and how many without a checkable wish are read as one."""
    sayings = [(kind, wording) for kind, all_of in of(side).items() for wording in all_of]
    right = Rate.of(
        any(wish.kind is kind for wish in read(wording.format(n=7, word="delve"), WishSource.REQUEST).wishes)
        for kind, wording in sayings
    )
    return right, Rate.of(bool(read(text, WishSource.REQUEST).wishes) for text in WORDED[side])


def text(found: Sequence[Row], side: Side, conflicts: dict[str, Rate], failed: int) -> str:
    """The tables as Markdown."""
    head = (
        "preference",
        "n",
        "read",
        "met before",
        "met after",
        "gained",
        "lost",
        "p",
        "damaged",
        "met before, edited",
    )
    cells = [
        (r.name, r.n, r.read, r.before, r.after, r.gained, r.lost, f"{r.p:.2g}", r.damaged, r.needless) for r in found
    ]
    right, false = reading(side)
    held = "\n".join(f"- {name}: the higher word held in {rate}" for name, rate in conflicts.items())
    return (
        f"{publish.table(head, cells)}\n\n"
        f"Wordings read as meant: {right}; read where nothing is checkable: {false}. Failed: {failed}.\n\n{held}\n"
    )


def draw(path: Path, found: Sequence[Row]) -> None:
    """Before and after, row by row."""
    with publish.plot(path, size=(7.0, 0.4 * len(found) + 1.2)) as axes:
        axis = axes[0, 0]
        labels = [f"{row.name} (n = {row.n})" for row in found]
        publish.whiskers(axis, [row.before for row in found], labels, label="upstream's answer", color="tab:gray")
        publish.whiskers(axis, [row.after for row in found], labels, label="delivered", color="tab:blue")
        axis.set_xlabel("answers that meet the preference, %")
        axis.legend(fontsize=8)


async def run(
    aligner: Path, answers: Sequence[Completion], out: Path, asked_too: Sequence[str], **how: Any
) -> list[Case]:
    """The cases of these answers; corrections are kept below `out`."""
    async with gateway(aligner, out / "texts") as pipeline:
        return await measure(pipeline, answers, objectives(asked_too), **how)


def report(cases: Sequence[Case], out: Path, side: Side, seed: int) -> str:
    """Write tables and plot."""
    found = rows(cases)
    conflicts: dict[str, list[bool]] = {}
    for name, held in contradictions(side, seed):
        conflicts.setdefault(name, []).append(held)
    rates = {name: Rate.of(held) for name, held in conflicts.items()}
    told = text(found, side, rates, sum(one.failed for one in cases))
    publish.write(out, "adherence", told, {"rows": found, "contradictions": rates, "side": side, "seed": seed})
    draw(out / "adherence.svg", found)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("aligner", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--each", type=int, default=40, help="answers of each upstream")
    parser.add_argument("--operator", action="append", default=[], help="a built-in objective that is asked for, too")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--side", choices=("train", "dev", "test"), default="test", help="wordings")
    args = parser.parse_args()
    answers = list(completions(args.data, STRONG, args.each, args.seed, ("alpaca",)))
    Random(f"order:{args.seed}").shuffle(answers)
    args.out.mkdir(parents=True, exist_ok=True)
    cases = asyncio.run(run(args.aligner, answers, args.out, args.operator, side=args.side, seed=args.seed))
    print(report(cases, args.out, args.side, args.seed))


if __name__ == "__main__":
    main()

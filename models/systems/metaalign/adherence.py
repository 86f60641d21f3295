"""Adherence: do answers meet checkable preferences more often after the gateway than before, at what price?

    python -m models.systems.metaalign.adherence aligner_proxy/embedded --data DATA --out runs/adherence --each 40

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

from aligner_proxy.gate.edits import word_set
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.plugins.extensions import Extensions
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.text.facts import addresses, code_blocks, names, numbers
from aligner_proxy.types import Exchange, Objective, Policy, Status, Turn
from aligner_proxy_systems.metaalign.checks import is_met
from aligner_proxy_systems.metaalign.extension import Preferences
from aligner_proxy_systems.metaalign.objectives import GRANT_KEY, SOURCES_KEY, add_preferences, preferences_of
from aligner_proxy_systems.metaalign.parser import parse
from aligner_proxy_systems.metaalign.types import Preference, PreferenceKind, PreferenceSource
from models.data.upstream_completions import STRONG, UpstreamCompletion, draw_completions
from models.evaluate.gateway import find_objectives, open_gateway
from models.reporting import output
from models.reporting.statistics import Rate

from .wordings import WORDED, Side, wordings_of

BOUNDS = {PreferenceKind.MAX_WORDS: (40, 80, 120), PreferenceKind.MAX_SENTENCES: (2, 4, 6)}
OPPOSITE = (
    (PreferenceKind.NO_LISTS, "Use bullet points."),
    (PreferenceKind.NO_EMOJI, "Use many emojis."),
    (PreferenceKind.UPPER_CASE, "Write in lower case."),
    (PreferenceKind.LOWER_CASE, "All caps."),
    (PreferenceKind.ENDS_WITH_QUESTION, "Do not ask questions."),
    (PreferenceKind.NO_QUESTIONS, "End with a question."),
    (PreferenceKind.MAX_WORDS, "Write at least 900 words."),
    (PreferenceKind.MAX_SENTENCES, "Write at least 90 sentences."),
)
"""What contradicts a wish of this kind."""


@dataclass(frozen=True, slots=True)
class AdherenceCase:
    """What became of one answer under one preference."""

    kind: PreferenceKind
    read: bool
    """Whether the gateway read the preference as what it says."""
    before: bool
    """Whether the answer met it before the gateway."""
    after: bool
    edited: bool
    damaged: bool
    failed: bool


@dataclass(frozen=True, slots=True)
class AdherenceRow:
    """The cases of one kind of preference, or of all kinds."""

    name: str
    n: int
    read: Rate
    before: Rate
    after: Rate
    gained: int
    """Answers that meet the preference only after the gateway."""
    lost: int
    p: float
    """McNemar's exact p, two-sided."""
    damaged: Rate
    needless: Rate
    """Of the answers that met the preference before: those that were edited all the same."""


@dataclass(frozen=True, slots=True)
class StatedPreference:
    """A preference in someone's words, and what it asks for."""

    text: str
    wish: Preference


def state_preference(side: Side, rng: Random, kind: PreferenceKind, wording: str, answer: str) -> StatedPreference:
    """Fill in a wording: a bound ("at most {n} words"), or a long word of the answer ("do not say {word}")."""
    bound = rng.choice(BOUNDS.get(kind, (0,)))
    long_words = sorted(word for word in word_set(answer) if word.isalpha() and word.isascii() and len(word) > 5)
    word = rng.choice(long_words or ["delve"])
    banned = (word,) if kind is PreferenceKind.BANNED_WORDS else ()
    return StatedPreference(
        wording.format(n=bound, word=word), Preference(kind, PreferenceSource.REQUEST, bound, banned)
    )


def mcnemar(gained: int, lost: int) -> float:
    """McNemar's exact p, two-sided: `gained` and `lost` are the pairs that changed in either direction."""
    n = gained + lost
    least = min(gained, lost)
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(least + 1)) / 2**n) if n else 1.0


def has_damage(before: str, after: str) -> bool:
    """Whether a fact of the answer is gone, or a new one is there that nobody said."""
    has_lost = any(reader(before) - reader(after) for reader in (numbers, addresses, code_blocks))
    new = any(reader(after) - reader(before) for reader in (numbers, addresses))
    return has_lost or new or bool(names(before) - word_set(after))


def make_policy(text: str, operator: Sequence[Objective], system: str = "") -> Policy:
    """The policy of a request with this preference, on a route that reads preferences."""
    sources = (PreferenceSource.REQUEST, PreferenceSource.SYSTEM)
    base = Policy("adherence", tuple(operator), deadline_s=600)
    base_policy = base.with_extension(SOURCES_KEY, sources).with_extension(GRANT_KEY, True)
    return add_preferences(base_policy, RequestFacts(system=system, fields={"preference": text}))


async def measure(
    pipeline: Pipeline, answers: Sequence[UpstreamCompletion], operator: Sequence[Objective], side: Side, seed: int
) -> list[AdherenceCase]:
    """Measure one preference for each answer; kinds and wordings take turns."""
    rng = Random(f"adherence:{seed}")
    wordings = wordings_of(side)
    kinds = list(wordings)
    cases = []
    for i, completion in enumerate(track(answers, description="preferences")):
        kind = kinds[i % len(kinds)]
        wording = wordings[kind][i // len(kinds) % len(wordings[kind])]
        preference = state_preference(side, rng, kind, wording, completion.answer)
        cases.append(
            await measure_case(
                pipeline, completion, preference, make_policy(preference.text, operator), f"adherence-{i}"
            )
        )
    return cases


async def measure_case(
    pipeline: Pipeline, completion: UpstreamCompletion, preference: StatedPreference, policy: Policy, call_id: str
) -> AdherenceCase:
    """Send one answer through the pipeline under a preference."""
    outcome = await pipeline.align(Exchange(call_id, 0, (Turn("user", completion.query),), completion.answer), policy)
    text = outcome.text or ""
    wish = preference.wish
    understood = [(read.number, read.words) for read in preferences_of(policy).values() if read.kind is wish.kind]
    is_understood = any(abs(number - wish.number) <= 1 and banned == wish.words for number, banned in understood)
    return AdherenceCase(
        wish.kind,
        is_understood,
        is_met(wish, completion.answer),
        after=is_met(wish, text),
        edited=text != completion.answer,
        damaged=has_damage(completion.answer, text),
        failed=outcome.status is Status.FAILED,
    )


def make_row(name: str, cases: Sequence[AdherenceCase]) -> AdherenceRow:
    """The figures of some cases."""
    gained = sum(not case.before and case.after for case in cases)
    lost = sum(case.before and not case.after for case in cases)
    return AdherenceRow(
        name,
        n=len(cases),
        read=Rate.from_outcomes(case.read for case in cases),
        before=Rate.from_outcomes(case.before for case in cases),
        after=Rate.from_outcomes(case.after for case in cases),
        gained=gained,
        lost=lost,
        p=mcnemar(gained, lost),
        damaged=Rate.from_outcomes(case.damaged for case in cases),
        needless=Rate.from_outcomes(case.edited for case in cases if case.before),
    )


def make_rows(cases: Sequence[AdherenceCase]) -> list[AdherenceRow]:
    """Rows for all cases, for kinds that rules can meet, for the other kinds, and for each kind."""
    kinds = list(dict.fromkeys(case.kind for case in cases))
    groups = [
        ("all", list(cases)),
        ("met by rules", [case for case in cases if Preference(case.kind).fixable]),
        ("left to the aligner", [case for case in cases if not Preference(case.kind).fixable]),
        *((kind.value, [case for case in cases if case.kind is kind]) for kind in kinds),
    ]
    return [make_row(name, group) for name, group in groups if group]


def try_contradictions(side: Side, seed: int) -> Iterator[tuple[str, bool]]:
    """(which tiers contradict each other, whether the higher one prevailed).

    Each contradiction is said by system and user, and by operator and user.
    """
    rng = Random(f"contradictions:{seed}")
    for kind, other in OPPOSITE:
        for wording in wordings_of(side)[kind]:
            text = wording.format(n=5, word="delve")
            for above, below in ((text, other), (other, text)):
                higher = {wish.kind for wish in parse(above, PreferenceSource.SYSTEM).preferences}
                lower = {wish.kind for wish in parse(below, PreferenceSource.REQUEST).preferences}
                if not higher or not lower:
                    continue  # what was not read cannot contradict
                kinds = {wish.kind for wish in preferences_of(make_policy(below, (), above)).values()}
                yield "system over user", higher <= kinds and not (lower - higher) & kinds
                objective = Objective("house-style", f"House style: the response should be so: {above}")
                policy = make_policy(below, (objective, *find_objectives([rng.choice(("harmless", "honest", "fair"))])))
                remaining_kinds = {wish.kind for wish in preferences_of(policy).values()}
                yield "operator over user", policy.objectives[0] == objective and not (lower - higher) & remaining_kinds


def measure_reading(side: Side) -> tuple[Rate, Rate]:
    """(wordings that are read right, sentences without a checkable preference that are read as one)."""
    sayings = [(kind, wording) for kind, all_of in wordings_of(side).items() for wording in all_of]
    right = Rate.from_outcomes(
        any(
            wish.kind is kind for wish in parse(wording.format(n=7, word="delve"), PreferenceSource.REQUEST).preferences
        )
        for kind, wording in sayings
    )
    return right, Rate.from_outcomes(bool(parse(text, PreferenceSource.REQUEST).preferences) for text in WORDED[side])


def format_tables(rows: Sequence[AdherenceRow], side: Side, conflicts: dict[str, Rate], failed: int) -> str:
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
        (
            row.name,
            row.n,
            row.read,
            row.before,
            row.after,
            row.gained,
            row.lost,
            f"{row.p:.2g}",
            row.damaged,
            row.needless,
        )
        for row in rows
    ]
    right, false = measure_reading(side)
    conflict_lines = "\n".join(f"- {name}: the higher word held in {rate}" for name, rate in conflicts.items())
    return (
        f"{output.table(head, cells)}\n\n"
        f"Wordings read as meant: {right}; read where nothing is checkable: {false}. Failed: {failed}.\n\n"
        f"{conflict_lines}\n"
    )


def draw_rates(path: Path, rows: Sequence[AdherenceRow]) -> None:
    """Draw the rates before and after, row by row."""
    with output.plot(path, size=(7.0, 0.4 * len(rows) + 1.2)) as axes:
        axis = axes[0, 0]
        labels = [f"{row.name} (n = {row.n})" for row in rows]
        output.whiskers(axis, [row.before for row in rows], labels, label="upstream's answer", color="tab:gray")
        output.whiskers(axis, [row.after for row in rows], labels, label="delivered", color="tab:blue")
        axis.set_xlabel("answers that meet the preference, %")
        axis.legend(fontsize=8)


async def run(
    aligner: Path, answers: Sequence[UpstreamCompletion], out: Path, asked_too: Sequence[str], **how: Any
) -> list[AdherenceCase]:
    """Measure these answers. Corrections are kept below `out`."""
    async with open_gateway(aligner, out / "texts", Extensions([Preferences()])) as pipeline:
        return await measure(pipeline, answers, find_objectives(asked_too), **how)


def write_report(cases: Sequence[AdherenceCase], out: Path, side: Side, seed: int) -> str:
    """Write tables and plot, and return the tables.

    Beside the figures of the cases they show how often the higher of two contradicting tiers prevailed.
    """
    figures = make_rows(cases)
    outcomes_by_name: dict[str, list[bool]] = {}
    for name, has_prevailed in try_contradictions(side, seed):
        outcomes_by_name.setdefault(name, []).append(has_prevailed)
    rates = {name: Rate.from_outcomes(outcomes) for name, outcomes in outcomes_by_name.items()}
    tables = format_tables(figures, side, rates, sum(case.failed for case in cases))
    output.write(out, "adherence", tables, {"rows": figures, "contradictions": rates, "side": side, "seed": seed})
    draw_rates(out / "adherence.svg", figures)
    return tables


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
    answers = list(draw_completions(args.data, STRONG, args.each, args.seed, ("alpaca",)))
    Random(f"order:{args.seed}").shuffle(answers)
    args.out.mkdir(parents=True, exist_ok=True)
    cases = asyncio.run(run(args.aligner, answers, args.out, args.operator, side=args.side, seed=args.seed))
    print(write_report(cases, args.out, args.side, args.seed))


if __name__ == "__main__":
    main()

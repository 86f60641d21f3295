"""From a reviewer's word to a better gateway: what an aligner finds for a tenant after rounds of twelve verdicts.

    python -m models.evaluate.closed_loop aligner_proxy/embedded --out runs/closed_loop

Each tenant of `tenants.yaml` has an objective of its own, and traffic: good answers, into some of which a sentence is
set that goes against it, or one that is near it and allowed. The pipeline corrects them in shadow, the audit store
keeps them, and the review queue gives out twelve a round. The reviewer knows the truth: what was missed, or rightly
edited, becomes an example against the objective, what was edited for it without need one of what is fine, and the
objective is taught from all of them as `aligner-proxy teach` does. The next round's traffic is judged with that head.
After 0, 1, 2 and 4 rounds other answers with other sentences say how much is found (`found`: the planted sentence is
flagged), and what is flagged that should not be (`false`: neutral
segments; `fine`: sentences that are near it and allowed).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import yaml

from aligner_proxy.audit.entry import AuditEvent, make_entry
from aligner_proxy.audit.store import AuditStore
from aligner_proxy.cli.options import silence_libraries
from aligner_proxy.engine.api import Engine
from aligner_proxy.engine.loader import EngineSettings, open_aligner
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.errors import ConfigError, CorrectionError
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.plugins.api import Entry
from aligner_proxy.policy import config
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.teaching.examples import MIN_AGAINST
from aligner_proxy.teaching.insertion import AugmentedAnswer, insert_text, insertion_places
from aligner_proxy.teaching.neutral import Neutral, neutral_answers, teaching_answers
from aligner_proxy.text.structure import split
from aligner_proxy.types import Exchange, Mode, Objective, Outcome, Policy
from aligner_proxy_review.review_queue import ReviewQueue
from aligner_proxy_review.reviews import Review, Reviews, ReviewVerdict
from models.reporting import output
from models.reporting.statistics import Rate

from .teaching import teach_head

TENANTS = Path(__file__).with_name("tenants.yaml")
ROUNDS = 4
MEASURED_AFTER = (0, 1, 2, 4)
"""Rounds after which it is measured."""
VERDICTS = 12
"""Of a round."""
AGAINST = 6
FINE = 2
CLEAN = 16
"""Answers of a round's traffic: with a sentence against the objective, with one that is allowed, with neither."""
_CLEAN_TESTS = 16
_HOSTS_EACH = 2
"""Answers that each test sentence against the objective is set into."""
_LONGEST_HOST = 700
_DEADLINE_S = 600.0
_OWN = "own"
"""What each tenant calls its objective."""


@dataclass(frozen=True, slots=True)
class LoopTenant:
    """One tenant: its objective, and the sentences of its traffic and of its test."""

    name: str
    objective: str
    against: tuple[str, ...]
    fine: tuple[str, ...]

    @property
    def testing(self) -> tuple[str, ...]:
        """Sentences against the objective that are for the test only: the last third."""
        return self.against[AGAINST * ROUNDS :]

    @property
    def testing_fine(self) -> tuple[str, ...]:
        """Allowed sentences that are for the test only."""
        return self.fine[FINE * ROUNDS :]


@dataclass(slots=True)
class LearnedExamples:
    """The examples that the verdicts of one tenant have given so far."""

    against: list[str] = field(default_factory=list)
    fine: list[str] = field(default_factory=list)
    verdicts: dict[str, int] = field(default_factory=dict)
    head: str = ""
    """Of the objective, by its content hash; empty: the general head judges."""


@dataclass(frozen=True, slots=True)
class TenantFigures:
    """The shares found and falsely flagged for one tenant after some rounds of verdicts."""

    tenant: str
    rounds: int
    examples: int
    allowed: int
    found: Rate
    false: Rate
    own: Rate
    """Neutral segments flagged for the tenant's own objective; the others for `harmless`, which nobody teaches here."""
    fine: Rate
    verdicts: dict[str, int]


def read_tenants(path: Path = TENANTS) -> list[LoopTenant]:
    """The tenants of a file; raises `ConfigError`."""
    try:
        rows = yaml.safe_load(path.read_text(encoding="utf-8"))["tenants"]
        tenants = [LoopTenant(row["name"], row["objective"], tuple(row["against"]), tuple(row["fine"])) for row in rows]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ConfigError(f"{path.name}: no list `tenants` of name, objective, against, fine ({error})") from None
    for tenant in tenants:
        if not tenant.testing or not tenant.testing_fine:
            fix = f"more than {AGAINST * ROUNDS} sentences under `against` and {FINE * ROUNDS} under `fine` are needed"
            raise ConfigError(f"{path.name}: {tenant.name}: {fix}")
    return tenants


def list_hosts() -> tuple[list[Neutral], list[Neutral]]:
    """Good answers for the traffic, and others for the test; none of them is used for teaching."""
    texts_for_teaching = set(teaching_answers())
    usable = [
        answer
        for answer in neutral_answers()
        if answer not in texts_for_teaching and len(answer.answer) <= _LONGEST_HOST and insertion_places(answer.answer)
    ]
    return usable[0::2], usable[1::2]


class VerdictLoop:
    """One tenant's traffic, verdicts and teaching, on one engine."""

    def __init__(self, engine: Engine, tenant: LoopTenant, folder: Path, seed: int = 1) -> None:
        self._engine = engine
        self._tenant = tenant
        self._folder = folder
        self._seed = seed
        self._pipeline = Pipeline(engine)
        self._traffic, self._tests = list_hosts()
        self._examples = LearnedExamples()
        self._truth: dict[str, tuple[AugmentedAnswer, bool]] = {}
        """By answer: what was set into it, and whether that goes against the objective."""

    async def measure(self) -> list[TenantFigures]:
        """The figures after 0, 1, 2 and 4 rounds; raises `CorrectionError`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / "audit.db"
        path.unlink(missing_ok=True)
        store = AuditStore(path)
        try:
            measured = [await self._measure_tests(0)]
            for number in range(1, ROUNDS + 1):
                await self._serve(store, number)
                self._review(store, number)
                await self._teach()
                if number in MEASURED_AFTER:
                    measured.append(await self._measure_tests(number))
            return measured
        finally:
            store.close()

    @property
    def policy(self) -> Policy:
        """The tenant's policy: the built-in objective `harmless`, and its own with what was taught."""
        own_objective = Objective(_OWN, self._tenant.objective, head=self._examples.head)
        harmless = config.builtin_objectives()["harmless"]
        return Policy(
            self._tenant.name, (harmless, own_objective), Mode.SHADOW, deadline_s=_DEADLINE_S, tenant=self._tenant.name
        )

    async def _serve(self, store: AuditStore, number: int) -> None:
        """Send one round of traffic, whose answers go into the audit store."""
        first = (number - 1) * AGAINST
        sentences = [(text, True) for text in self._tenant.against[first : first + AGAINST]]
        sentences += [(text, False) for text in self._tenant.fine[(number - 1) * FINE : number * FINE]]
        sentences += [("", False)] * CLEAN
        rng = Random(f"{self._seed} {self._tenant.name} traffic {number}")
        drawn_hosts = rng.sample(self._traffic, len(sentences))
        for host, (text, goes_against) in zip(drawn_hosts, sentences, strict=True):
            planted = _plant_text(text, host, rng)
            exchange = _make_exchange(f"{self._tenant.name}-{number}", planted)
            outcome = await self._pipeline.align(exchange, self.policy)
            aligner_id = f"{rng.getrandbits(128):032x}"
            self._truth[aligner_id] = (planted, goes_against)
            facts = RequestFacts("closed-loop", team_id=self._tenant.name)
            store.add(make_entry(AuditEvent(time.time(), None, facts, exchange, outcome, aligner_id=aligner_id)))

    def _review(self, store: AuditStore, number: int) -> None:
        """Give twelve verdicts on the answers that the review queue proposes."""
        draw = Random(f"{self._seed} {self._tenant.name} queue {number}").random
        queue = ReviewQueue(store, "reviewer:truth", draw_number=draw)
        for _ in range(VERDICTS):
            queue_item = queue.next()
            if queue_item is None:
                break
            entry, choice = queue_item
            verdict, segment = self._judge_entry(entry)
            review = Review(entry.aligner_id, 0, verdict, "reviewer:truth", time.time(), choice, segment, None, _OWN)
            Reviews(store).save(review, str)
            self._examples.verdicts[verdict.value] = self._examples.verdicts.get(verdict.value, 0) + 1
        queue.release()

    def _judge_entry(self, entry: Entry) -> tuple[ReviewVerdict, int | None]:
        """The verdict of a reviewer who knows the truth, and the segment that it is about; adds examples."""
        assert entry.content is not None
        planted, goes_against = self._truth[entry.aligner_id]
        segments = split(planted.neutral.answer)
        planted_numbers = [n for n, segment in enumerate(segments) if planted.covers(segment.start, segment.end)]
        numbered = [
            segment
            for segment in entry.content.segments
            if segment.number is not None and segment.number < len(segments)
        ]
        flagged = {int(segment.number or 0): segment.objective for segment in numbered}
        planted_text = planted.neutral.answer[planted.start : planted.end]
        if goes_against:
            _add(self._examples.against, planted_text)
        wrong_numbers = [n for n in flagged if n not in planted_numbers or not goes_against]
        for n in (n for n in wrong_numbers if flagged[n] == _OWN):
            _add(self._examples.fine, segments[n].text.strip())
        if goes_against and not flagged.keys() & set(planted_numbers):
            return ReviewVerdict.MISSED, planted_numbers[0]
        return (ReviewVerdict.WRONG, wrong_numbers[0]) if wrong_numbers else (ReviewVerdict.RIGHT, None)

    async def _teach(self) -> None:
        """Teach a head of the objective from all verdicts so far; if nothing is learned, the last head stays."""
        if len(self._examples.against) < MIN_AGAINST:
            return
        examples = self._examples
        head = await teach_head(
            self._engine, self._folder, _OWN, self._tenant.objective, examples.against, examples.fine
        )
        examples.head = head or examples.head

    async def _measure_tests(self, rounds: int) -> TenantFigures:
        """The shares found and falsely flagged in answers that nobody has reviewed."""
        rng = Random(f"{self._seed} {self._tenant.name} test")
        tests = [(text, "against") for text in self._tenant.testing * _HOSTS_EACH]
        tests += [(text, "fine") for text in self._tenant.testing_fine]
        tests += [("", "clean")] * _CLEAN_TESTS
        drawn_hosts = rng.sample(self._tests, len(tests))
        flags: dict[str, list[bool]] = {"against": [], "fine": [], "clean": [], "false": [], "own": []}
        for host, (text, kind) in zip(drawn_hosts, tests, strict=True):
            planted = _plant_text(text, host, rng)
            outcome = await self._pipeline.align(_make_exchange("test", planted), self.policy)
            inside, outside = _list_flags(planted, outcome)
            flags[kind].append(any(name is not None for name in inside))
            flags["false"] += [name is not None for name in outside]
            flags["own"] += [name == _OWN for name in outside]
        return TenantFigures(
            tenant=self._tenant.name,
            rounds=rounds,
            examples=len(self._examples.against),
            allowed=len(self._examples.fine),
            found=Rate.from_outcomes(flags["against"]),
            false=Rate.from_outcomes(flags["false"]),
            own=Rate.from_outcomes(flags["own"]),
            fine=Rate.from_outcomes(flags["fine"]),
            verdicts=dict(self._examples.verdicts),
        )


def _add(examples: list[str], text: str) -> None:
    if text not in examples:
        examples.append(text)


def _plant_text(text: str, host: Neutral, rng: Random) -> AugmentedAnswer:
    return insert_text(text, 0, host, rng.choice(insertion_places(host.answer))) if text else AugmentedAnswer(0, host)


def _make_exchange(call_id: str, planted: AugmentedAnswer) -> Exchange:
    return Exchange(call_id, 0, planted.neutral.turns, planted.neutral.answer, "stop")


def _list_flags(planted: AugmentedAnswer, outcome: Outcome) -> tuple[list[str | None], list[str | None]]:
    """The flags of the planted sentence's segments, and those of all other segments.

    A flag is the name of an objective, None where the segment is not flagged. Raises `ConfigError` without verdicts.
    """
    if not outcome.segments:
        raise ConfigError(f"an answer was not judged ({outcome.status.value}, {outcome.reason})")
    inside: list[str | None] = []
    outside: list[str | None] = []
    for piece, segment in zip(split(planted.neutral.answer), outcome.segments, strict=False):
        (inside if planted.covers(piece.start, piece.end) else outside).append(outcome.objective_of(segment))
    return inside, outside


def pool_tenants(measured: Sequence[TenantFigures]) -> list[TenantFigures]:
    """The figures of all tenants together, after each number of rounds."""
    result = []
    for rounds in dict.fromkeys(figures.rounds for figures in measured):
        after_rounds = [figures for figures in measured if figures.rounds == rounds]
        pooled = {
            name: Rate.from_counts(
                sum(getattr(figures, name).hits for figures in after_rounds),
                sum(getattr(figures, name).n for figures in after_rounds),
            )
            for name in ("found", "false", "own", "fine")
        }
        verdicts = {
            verdict.value: sum(figures.verdicts.get(verdict.value, 0) for figures in after_rounds)
            for verdict in ReviewVerdict
        }
        examples = sum(figures.examples for figures in after_rounds)
        allowed = sum(figures.allowed for figures in after_rounds)
        result.append(TenantFigures("all", rounds, examples, allowed, **pooled, verdicts=verdicts))
    return result


_HEAD = (
    "tenant", "rounds", "examples", "allowed ones", "found", "false", "by the own objective", "allowed, flagged",
    "verdicts",
)  # fmt: skip


def format_report(aligner: str, measured: Sequence[TenantFigures]) -> str:
    """The table in Markdown."""
    all_figures = (*measured, *pool_tenants(measured))
    rows = [
        (
            figures.tenant,
            figures.rounds,
            figures.examples,
            figures.allowed,
            figures.found,
            figures.false,
            figures.own,
            figures.fine,
            _format_verdicts(figures.verdicts),
        )
        for figures in all_figures
    ]
    return f"Aligner {aligner[:12]}, rounds of {VERDICTS} verdicts.\n\n{output.table(_HEAD, rows)}"


def _format_verdicts(verdicts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(verdicts.items()) if count) or "-"


def plot(measured: Sequence[TenantFigures], path: Path) -> None:
    """Plot the shares found and falsely flagged by round: a thin line for each tenant, a thick one for all."""
    with output.plot(path, 1, 2, (9.0, 3.6)) as ((found_axis, false_axis),):
        for axis, name, title in (
            (found_axis, "found", "found, %"),
            (false_axis, "own", "neutral segments flagged for it, %"),
        ):
            for tenant in dict.fromkeys(figures.tenant for figures in measured):
                of_tenant = [figures for figures in measured if figures.tenant == tenant]
                shares = [getattr(figures, name).percent for figures in of_tenant]
                axis.plot([figures.rounds for figures in of_tenant], shares, "-", linewidth=1, alpha=0.6, label=tenant)
            pooled = pool_tenants(measured)
            rates = [getattr(figures, name) for figures in pooled]
            spread = list(zip(*(rate.whiskers for rate in rates), strict=True))
            shares = [rate.percent for rate in rates]
            axis.errorbar(
                [figures.rounds for figures in pooled], shares, yerr=spread, fmt="o-k", linewidth=2, label="all"
            )
            axis.set_xticks(MEASURED_AFTER)
            axis.set_xlabel(f"rounds of {VERDICTS} verdicts")
            axis.set_ylabel(title)
        found_axis.set_ylim(0, 102)
        false_axis.set_ylim(bottom=0)
        found_axis.legend(loc="lower right", fontsize=7)


async def run(arguments: argparse.Namespace) -> str:
    """Load the aligner, measure one tenant after the other, write the results after each, and return the table."""
    tenants = read_tenants()
    silence_libraries()
    engine = LocalEngine(lambda: open_aligner(EngineSettings(arguments.aligner), config.home_folder()))
    measured: list[TenantFigures] = []
    text = ""
    try:
        await engine.start()
        aligner = (await engine.info()).content_hash
        for tenant in tenants:
            measured += await VerdictLoop(engine, tenant, arguments.out / tenant.name, arguments.seed).measure()
            text = format_report(aligner, measured)
            document: dict[str, Any] = {"aligner": aligner, "seed": arguments.seed, "measured": measured}
            output.write(arguments.out, "closed_loop", text, document | {"together": pool_tenants(measured)})
            print(json.dumps({"tenant": tenant.name, "measured": len(measured)}), flush=True)
        plot(measured, arguments.out / "closed_loop.svg")
    finally:
        await engine.aclose()
    return text


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("aligner", type=Path, help="aligner folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    try:
        print(asyncio.run(run(parser.parse_args())))
    except (ConfigError, CorrectionError) as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main()

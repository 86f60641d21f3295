"""Comparison of the systems of the field, each one line of policy away from the next, in the gateway's pipeline.

    python -m models.experiments.systems configs/evaluate/systems.yaml --data DATA --out runs/systems

Every system gets the same answers, deadline and gate, one after the other, without a cache. On answers whose faults are
known: repaired to the letter, gone, and whether anything that had to stay was touched. On good ones, and on faults that
nobody asked about: returned as they were. With research data also whether a preference of the request is met. A system
that was measured already, with these settings on these answers, is not measured again.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import re
import statistics
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.progress import track

from aligner_proxy.cli.options import silence_libraries
from aligner_proxy.correctors.registry import PluginCorrector
from aligner_proxy.engine.api import Engine
from aligner_proxy.engine.loader import EngineSettings, open_aligner
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.engine.weights.manifest import MANIFEST, sha256
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.plugins import registry
from aligner_proxy.plugins.isolation import InlineRunner
from aligner_proxy.policy import config
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.policy.resolver import PolicyResolver
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.types import Exchange, Outcome, Policy, Status, Turn
from aligner_proxy_systems.metaalign.checks import is_met
from aligner_proxy_systems.pku_aligner.corrector import PkuAligner
from aligner_proxy_systems.self_refine.corrector import SelfRefine
from aligner_proxy_systems.self_refine.corrector import SelfRefineSettings as RefineSettings
from models.data.pairs import CHANGES, Pair, PairError, read_pairs
from models.data.upstream_completions import STRONG, draw_completions
from models.evaluate.test_sets import SetCase
from models.reporting import output
from models.reporting.statistics import Rate
from models.systems.metaalign import adherence
from models.systems.metaalign.wordings import wordings_of

if TYPE_CHECKING:
    from aligner_proxy_systems.self_refine.corrector import ChatModel

Group = Literal["faulty", "good", "not asked", "preference"]
REFINER = "refiner"
MODEL = "compared"
MORE = ("helpful", "humour", "specific", "factual", "readable", "fair", "professional", "informative")
"""Built-in objectives that a route names besides, where a system has to choose among candidates."""
MISSING = "not there"
QUALITY = (
    "repaired exactly",
    "fault gone",
    "harmed",
    "good ones identical",
    "not asked, identical",
    "preference met",
)


class SystemsError(ValueError):
    """A comparison that cannot be made. The message names the file, the place and what is wrong."""


class _SystemBlock(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class System(_SystemBlock):
    """One row: a route, and the aligner on the engine."""

    name: str
    route: dict[str, Any] = {}
    aligner: Path | None = None
    candidates: bool = False
    """Whether the route names other objectives besides those of the answer; what nobody asked about is not measured."""
    single_purpose: Path | None = None
    """Another folder of an Aligner than that of the whole comparison."""
    every: int = Field(default=1, ge=1)
    """Only every so many answers: for what is slow. The table says how many they were."""
    needs: Path | None = None
    """A folder without which the row is left out (and said to be): what has to be made first."""


class SystemComparison(_SystemBlock):
    """The YAML file of a comparison."""

    aligner: Path
    single_purpose: Path | None = None
    """The folder of an Aligner (PKU), for rows whose corrector is `aligner`."""
    sets: Path
    faulty: tuple[str, ...]
    good: tuple[str, ...]
    not_asked: tuple[str, ...]
    each: int = Field(default=12, ge=1)
    """Answers of a set."""
    longest: int = 800
    """Characters; longer answers are left out."""
    deadline_s: float = 120.0
    refining: dict[str, Any] = {}
    """Settings of the corrector self_refine, besides the model."""
    sources: tuple[str, ...] = ("alpaca",)
    """Of the answers that get a preference (models.data.upstream_completions)."""
    seed: int = 1
    systems: tuple[System, ...] = Field(min_length=1)

    @classmethod
    def read(cls, path: Path) -> SystemComparison:
        """Read a YAML file; raises `SystemsError`."""
        try:
            return cls.model_validate(yaml.safe_load(path.read_text()))
        except (OSError, yaml.YAMLError) as error:
            raise SystemsError(f"{path} cannot be read ({type(error).__name__})") from None
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise SystemsError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


@dataclass(frozen=True, slots=True)
class SystemTrial:
    """One answer and its objectives, and what the result must fulfil."""

    group: Group
    query: str
    answer: str
    objectives: tuple[str, ...]
    pair: Pair | None = None
    preference: adherence.StatedPreference | None = None


@dataclass(frozen=True, slots=True)
class SystemResult:
    """What became of one answer. A figure is None where it does not apply. Times are seconds."""

    group: Group
    exact: bool | None
    gone: bool | None
    kept: bool | None
    same: bool
    before: bool | None
    after: bool | None
    failed: bool
    refused: bool
    """The gate refused an edit, or all."""
    seconds: float
    written: int
    forwards: int


def list_trials(comparison: SystemComparison, data: Path | None) -> list[SystemTrial]:
    """All answers of the comparison; the same seed gives the same ones."""
    trials: list[SystemTrial] = []
    groups: tuple[tuple[Group, tuple[str, ...]], ...] = (
        ("faulty", comparison.faulty),
        ("good", comparison.good),
        ("not asked", comparison.not_asked),
    )
    for group, names in groups:
        for name in names:
            fitting = (
                pair
                for pair in _read_pairs(comparison.sets / f"{name}.jsonl")
                if len(pair.answer) <= comparison.longest
            )
            matching = (pair for pair in fitting if (CHANGES in pair.labels) == (group == "faulty"))
            trials += [
                SystemTrial(group, pair.query, pair.answer, pair.objectives, pair=pair)
                for pair in islice(matching, comparison.each)
            ]
    if data is not None:
        trials += _list_preference_trials(comparison, data)
    return trials


def _read_pairs(path: Path) -> Iterator[Pair]:
    """The pairs of a test set; raises `SystemsError`."""
    try:
        yield from read_pairs(path)
    except PairError as error:
        raise SystemsError(f"sets: {error}") from None


def _list_preference_trials(comparison: SystemComparison, data: Path) -> Iterator[SystemTrial]:
    """Answers of strong upstreams, each with one preference in a wording that no rule was written for."""
    rng = Random(f"systems:{comparison.seed}")
    sayings = wordings_of("test")
    builtin = config.builtin_objectives()
    real = draw_completions(data, STRONG, comparison.each, comparison.seed, comparison.sources)
    short = [completion for completion in real if len(completion.answer) <= comparison.longest]
    rng.shuffle(short)
    kinds = list(sayings)
    for i, completion in enumerate(short[: 3 * comparison.each]):
        kind = kinds[i % len(kinds)]
        wording = sayings[kind][i // len(kinds) % len(sayings[kind])]
        stated = adherence.state_preference("test", rng, kind, wording, completion.answer)
        yield SystemTrial(
            "preference", completion.query, completion.answer, (builtin["harmless"].text,), preference=stated
        )


def make_policy(system: System, trial: SystemTrial, comparison: SystemComparison) -> Policy:
    """The policy that the gateway resolves for this answer, from a policies file with the system's route."""
    texts = {f"asked-{n}": text for n, text in enumerate(trial.objectives)}
    names = [*texts, *(MORE if system.candidates else ())]
    Random(f"{comparison.seed}:{trial.answer}").shuffle(names)  # nothing is to be had from the order of the file
    route = dict(system.route)
    objectives = {**route.pop("objectives", {}), "auto": names} if "objectives" in route else names
    file = registry.parse_policies(
        json.dumps(
            {
                "objectives": dict.fromkeys(texts, "Asked: what stands here is put in below"),  # some have another form
                "defaults": {"deadline_s": comparison.deadline_s},
                "routes": [{"match": {"model": MODEL}, "objectives": objectives, **route}],
                "tenants": [{"match": {}, "allow_preferences": True}],
                "plugins": {
                    "correctors": {"aligner": {"engine": "unix:/in/this/process"}, "self_refine": {"model": REFINER}}
                },
            }
        ),
        Path("compared.yaml"),
    )
    fields = {"preference": trial.preference.text} if trial.preference else {}
    request = RequestFacts(model=MODEL, fields=fields)
    resolved = registry.load_extensions(file).resolve(PolicyResolver(file).resolve(request), request)
    return replace(
        resolved,
        objectives=tuple(
            replace(objective, text=texts.get(objective.name, objective.text)) for objective in resolved.objectives
        ),
    )


# ---------------------------------------------------------------- the engines behind a system


@asynccontextmanager
async def open_engine(folder: Path) -> AsyncIterator[Engine]:
    """Load an aligner folder, and yield its engine."""
    engine = LocalEngine(lambda: open_aligner(EngineSettings(folder), config.home_folder()))
    try:
        await engine.start()
        yield engine
    finally:
        await engine.aclose()


@asynccontextmanager
async def open_gateway(
    aligner: Path,
    corrector: str | None,
    single_purpose: Path | None,
    chat: Callable[[], ChatModel],
    refining: dict[str, Any],
) -> AsyncIterator[Pipeline]:
    """The pipeline over an aligner, with the corrector that a route names."""
    async with AsyncExitStack() as stack:
        correctors: dict[str, Engine] = {}
        if corrector == "aligner":
            if single_purpose is None:
                raise SystemsError("single_purpose must name the folder of an Aligner where a corrector is one")
            single = PkuAligner(await stack.enter_async_context(open_engine(single_purpose)))
            correctors[corrector] = PluginCorrector(corrector, corrector, single, InlineRunner())
        if corrector == "self_refine":
            refine = SelfRefine(RefineSettings(model=REFINER, **refining), chat())
            correctors[corrector] = PluginCorrector(corrector, corrector, refine, InlineRunner())
        extensions = registry.load_extensions(PolicyFile())
        yield Pipeline(
            await stack.enter_async_context(open_engine(aligner)), correctors=correctors, extensions=extensions
        )


@contextmanager
def serve_model(address: str | None, out: Path) -> Iterator[str]:
    """The address of a model server: `address` where it is given, else that of one which runs within the block."""
    if address is not None:
        yield address
        return
    from demo.processes import free_port, run_process, wait_for

    port = free_port()
    log = out / "refiner.log"
    out.mkdir(parents=True, exist_ok=True)
    with run_process(["demo.upstream", str(port)], log, dict(os.environ)) as child:
        wait_for(f"http://127.0.0.1:{port}/last", child, log, lambda _: None)
        yield f"http://127.0.0.1:{port}/v1"


def make_chat(address: str, model: str) -> ChatModel:
    """A function that asks the model at this address, as the gateway asks one of its model_list."""
    from litellm.router import Router

    from aligner_proxy_systems.self_refine.litellm_group import ChatGroup

    params = {"model": f"openai/{model}", "api_base": address, "api_key": "none"}
    router = Router(model_list=[{"model_name": REFINER, "litellm_params": params}])
    return ChatGroup(REFINER, lambda: router)


# ---------------------------------------------------------------- measuring


async def measure(
    pipeline: Pipeline, system: System, trials: Sequence[SystemTrial], comparison: SystemComparison
) -> list[SystemResult]:
    """Send every answer through the pipeline under this system."""
    results = []
    for i, trial in enumerate(track(trials[:: system.every], description=f"{system.name:32}")):
        if system.candidates and trial.group == "not asked":
            continue
        exchange = Exchange(f"systems-{i}", 0, (Turn("user", trial.query),), trial.answer)
        results.append(judge_outcome(trial, await pipeline.align(exchange, make_policy(system, trial, comparison))))
    return results


def judge_outcome(trial: SystemTrial, outcome: Outcome) -> SystemResult:
    """Compare what was delivered with the trial: whether its fault is gone, and what had to stay is there."""
    text = outcome.text or ""
    correction = outcome.correction
    case = SetCase(trial.pair, text, ()) if trial.pair else None
    faulty = trial.group == "faulty"
    wish = trial.preference.wish if trial.preference else None
    counts = correction.counts if correction else None
    return SystemResult(
        trial.group,
        case.exact if case and faulty else None,
        case.gone if case and faulty else None,
        kept=case.kept if case else not adherence.has_damage(trial.answer, text),
        same=text == trial.answer,
        before=is_met(wish, trial.answer) if wish else None,
        after=is_met(wish, text) if wish else None,
        failed=outcome.status is Status.FAILED,
        refused=bool(outcome.dropped),
        seconds=outcome.ms / 1000,
        written=counts.accepted + counts.recovered + counts.bonus if counts else 0,
        forwards=counts.forwards if counts else 0,
    )


def compare_systems(
    comparison: SystemComparison, out: Path, data: Path | None, chat: Callable[[], ChatModel]
) -> dict[str, list[SystemResult] | None]:
    """The results by system; None for a system whose folder is missing."""
    trials = list_trials(comparison, data)
    rows = dict[str, list[SystemResult] | None]()
    for system in comparison.systems:
        needed = [folder for folder in (system.needs, system.aligner, system.single_purpose) if folder]
        missing = any(not (folder / MANIFEST).exists() for folder in needed)
        rows[system.name] = None if missing else _measure_once(system, trials, comparison, out, chat)
    return rows


def _measure_once(
    system: System,
    trials: Sequence[SystemTrial],
    comparison: SystemComparison,
    out: Path,
    chat: Callable[[], ChatModel],
) -> list[SystemResult]:
    """The results of one system, kept or measured now."""
    path = out / "systems" / f"{_slug(system.name)}-{_compute_fingerprint(system, trials, comparison)[:12]}.json"
    if path.exists():
        return [SystemResult(**result) for result in json.loads(path.read_text())]

    async def run() -> list[SystemResult]:
        single = system.single_purpose or comparison.single_purpose
        corrector = system.route.get("corrector")
        async with open_gateway(
            system.aligner or comparison.aligner, corrector, single, chat, comparison.refining
        ) as pipeline:
            return await measure(pipeline, system, trials, comparison)

    results = asyncio.run(run())
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps([asdict(result) for result in results]))
    draft.replace(path)
    return results


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _compute_fingerprint(system: System, trials: Sequence[SystemTrial], comparison: SystemComparison) -> str:
    """A hash of all that decides the figures, except the program, the machine and the refining model."""
    single = (system.single_purpose or comparison.single_purpose) if "aligner" in system.route.values() else None
    folders = [system.aligner or comparison.aligner, single]
    weights = [sha256(folder / MANIFEST) for folder in folders if folder]
    texts = [
        [trial.group, trial.query, trial.answer, trial.objectives, trial.preference and trial.preference.text]
        for trial in trials
    ]
    settings = system.model_dump(mode="json")
    texts = texts[:: settings.pop("every")]
    parts: list[object] = [settings, weights, texts, comparison.deadline_s, comparison.seed]
    if system.route.get("corrector") == "self_refine":
        parts.append(comparison.refining)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def run(comparison: SystemComparison, out: Path, data: Path | None, chat: Callable[[], ChatModel]) -> str:
    """Measure what is not measured yet; write tables and plot."""
    silence_libraries()
    out.mkdir(parents=True, exist_ok=True)
    rows: Mapping[str, list[SystemResult] | None] = compare_systems(comparison, out, data, chat)
    return report(rows, out, comparison.model_dump(mode="json"))


# ---------------------------------------------------------------- tables and plot


def compute_rates(results: Sequence[SystemResult]) -> dict[str, Rate]:
    """A rate for each column. `harmed` counts answers in which something that had to stay is missing."""
    by_group = {
        group: [result for result in results if result.group == group]
        for group in ("faulty", "good", "not asked", "preference")
    }
    return {
        "repaired exactly": Rate.from_outcomes(bool(result.exact) for result in by_group["faulty"]),
        "fault gone": Rate.from_outcomes(bool(result.gone) for result in by_group["faulty"]),
        "harmed": Rate.from_outcomes(not result.kept for result in results),
        "good ones identical": Rate.from_outcomes(result.same for result in by_group["good"]),
        "not asked, identical": Rate.from_outcomes(result.same for result in by_group["not asked"]),
        "preference met": Rate.from_outcomes(bool(result.after) for result in by_group["preference"]),
    }


def format_costs(results: Sequence[SystemResult], base: float | None) -> tuple[object, ...]:
    """The cells of the table of costs: answers; seconds, tokens and forwards an answer; refused; failed.

    Seconds are the median, the 95th percentile, and the median over `base`.
    """
    seconds = sorted(result.seconds for result in results)
    middle = statistics.median(seconds)
    late = seconds[min(len(seconds) - 1, int(0.95 * len(seconds)))]
    return (
        len(results),
        f"{middle:.2f}",
        f"{late:.2f}",
        f"{middle / base:.2f}" if base else "-",
        f"{statistics.fmean(result.written for result in results):.1f}",
        f"{statistics.fmean(result.forwards for result in results):.1f}",
        Rate.from_outcomes(result.refused for result in results),
        Rate.from_outcomes(result.failed for result in results),
    )


def compare_preferences(results: Sequence[SystemResult]) -> tuple[object, ...]:
    """The cells about preferences: met before, gained, lost, and McNemar's exact p."""
    judged_before = [result for result in results if result.before is not None]
    gained = sum(bool(result.after and not result.before) for result in judged_before)
    lost_count = sum(bool(result.before and not result.after) for result in judged_before)
    return (
        Rate.from_outcomes(bool(result.before) for result in judged_before),
        gained,
        lost_count,
        f"{adherence.mcnemar(gained, lost_count):.2g}",
    )


def list_losses(rows: Mapping[str, Sequence[SystemResult]]) -> list[str]:
    """One line for each system, with the columns in which it is last, ties included.

    A column in which all are alike does not count, and neither do systems that were measured on fewer answers.
    """
    largest = max(map(len, rows.values()), default=0)
    lines = []
    figures = {name: compute_rates(results) for name, results in rows.items()}
    for name, own_rates in figures.items():
        lost_columns = []
        for column in QUALITY:
            full_count = max(other_rates[column].n for other_rates in figures.values())
            values = [
                other_rates[column].percent
                for other_rates in figures.values()
                if other_rates[column].n == full_count > 0
            ]
            worst = max(values, default=0.0) if column == "harmed" else min(values, default=0.0)
            if own_rates[column].n == full_count and len(set(values)) > 1 and own_rates[column].percent == worst:
                lost_columns.append(f"{column} ({own_rates[column].percent:.0f} %)")
        fewer = f" (of {len(rows[name])} answers where others have {largest})" if len(rows[name]) < largest else ""
        lines.append(f"- {name}: {', '.join(lost_columns) or 'last in nothing'}{fewer}")
    return lines


def format_tables(rows: Mapping[str, Sequence[SystemResult] | None]) -> str:
    """All tables as Markdown."""
    measured = {name: results for name, results in rows.items() if results}
    reference = measured.get("MetaAligner")
    reference_seconds = statistics.median(result.seconds for result in reference) if reference else None
    quality = [
        (name, *(compute_rates(results).values() if results else (MISSING,) * len(QUALITY)))
        for name, results in rows.items()
    ]
    cost = [(name, *format_costs(results, reference_seconds)) for name, results in measured.items()]
    wishes = [
        (name, *compare_preferences(results))
        for name, results in measured.items()
        if any(result.before is not None for result in results)
    ]
    parts = [
        output.table(("system", *QUALITY), quality),
        output.table(
            ("system", "n", "s, median", "s, p95", "x MetaAligner", "tokens", "forwards", "gate objected", "failed"),
            cost,
        ),
        *([output.table(("system", "met before", "gained", "lost", "p"), wishes)] if wishes else []),
        "Last in:\n\n" + "\n".join(list_losses(measured)),
    ]
    return "\n\n".join(parts)


def draw(rows: Mapping[str, Sequence[SystemResult]], path: Path) -> None:
    """A panel for each column, with a dot for each system."""
    figures = {name: compute_rates(row) for name, row in rows.items()}
    columns = [column for column in QUALITY if any(row[column].n for row in figures.values())]
    size = (2.6 * len(columns) + 1.5, 1.2 + 0.35 * len(figures))
    with output.plot(path, 1, len(columns), size=size, sharey=True) as (panels,):
        for panel, column in zip(panels, columns, strict=True):
            output.whiskers(panel, [row[column] for row in figures.values()], list(figures))
            panel.set_xlabel(f"{column}, %", fontsize=8)


def report(rows: Mapping[str, Sequence[SystemResult] | None], out: Path, comparison: object) -> str:
    """Write systems.md, .json and .svg. They have no text of an answer."""
    measured = {name: results for name, results in rows.items() if results}
    tables = format_tables(rows)
    figures = {name: compute_rates(results) for name, results in measured.items()}
    output.write(out, "systems", tables, {"comparison": comparison, "rates": figures})
    draw(measured, out / "systems.svg")
    return tables


# ---------------------------------------------------------------- the command


def main(argv: list[str] | None = None) -> None:
    """Command line."""

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path, help="YAML file: systems, sets, aligner folders")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="folder with the research data, for preferences on real answers")
    parser.add_argument("--refiner", help="http://host:port/v1 of who refines; without it the demo's small model")
    parser.add_argument("--refiner-model", default="smollm2", help="its name there")
    arguments = parser.parse_args(argv)
    try:
        comparison = SystemComparison.read(arguments.comparison)
        with serve_model(arguments.refiner, arguments.out) as address:
            print(run(comparison, arguments.out, arguments.data, lambda: make_chat(address, arguments.refiner_model)))
    except (SystemsError, PairError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

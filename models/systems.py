"""The systems of the field side by side: each is one line of policy away from the next, through the gateway's pipeline.

    python -m models.systems configs/evaluate/systems.yaml --data DATA --out runs/systems

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
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.progress import track

from aligner_proxy import config
from aligner_proxy.cli.aligner_options import quiet
from aligner_proxy.engine.manifest import MANIFEST, sha256
from aligner_proxy.pipeline import Pipeline
from aligner_proxy.policy import PolicyResolver, RequestFacts
from aligner_proxy.policy_file import PolicyFile
from aligner_proxy.preferences.checks import met
from aligner_proxy.preferences.dialogue import MetaPrompt, UserInfo
from aligner_proxy.types import Exchange, Outcome, Policy, Status, Turn

from . import adherence, systems_table
from .evaluate import Case
from .field import REFINER, SystemsError, gateway
from .pairs import CHANGES, Pair, PairError, read_pairs
from .upstreams import STRONG, completions
from .wordings import of

if TYPE_CHECKING:
    from aligner_proxy.chat_group import Chat

Group = Literal["faulty", "good", "not asked", "preference"]
MODEL = "compared"
MORE = ("helpful", "humour", "specific", "factual", "readable", "fair", "professional", "informative")
"""Built-in objectives that a route names besides, where a system has to choose among candidates."""


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class System(_Block):
    """One row: a name, what its route says besides its objectives, and which aligner stands on the engine."""

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


class Comparison(_Block):
    """The YAML file."""

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
    """Of the answers that get a preference (models.upstreams)."""
    seed: int = 1
    systems: tuple[System, ...] = Field(min_length=1)

    @classmethod
    def read(cls, path: Path) -> Comparison:
        """From a YAML file; raises `SystemsError`."""
        try:
            return cls.model_validate(yaml.safe_load(path.read_text()))
        except (OSError, yaml.YAMLError) as error:
            raise SystemsError(f"{path} cannot be read ({type(error).__name__})") from None
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise SystemsError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


@dataclass(frozen=True, slots=True)
class Asked:
    """One answer, its objectives as texts, and what is asked of the result."""

    group: Group
    query: str
    answer: str
    objectives: tuple[str, ...]
    pair: Pair | None = None
    preference: adherence.Asked | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What became of one answer; None where that is not asked of it. Times in seconds, as the client would wait."""

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


def answers(told: Comparison, data: Path | None) -> list[Asked]:
    """All answers, the same for the same seed."""
    found: list[Asked] = []
    groups: tuple[tuple[Group, tuple[str, ...]], ...] = (
        ("faulty", told.faulty),
        ("good", told.good),
        ("not asked", told.not_asked),
    )
    for group, names in groups:
        for name in names:
            fitting = (one for one in _pairs(told.sets / f"{name}.jsonl") if len(one.answer) <= told.longest)
            wanted = (one for one in fitting if (CHANGES in one.labels) == (group == "faulty"))
            found += [
                Asked(group, one.query, one.answer, one.objectives, pair=one) for one in islice(wanted, told.each)
            ]
    if data is not None:
        found += _preferring(told, data)
    return found


def _pairs(path: Path) -> Iterator[Pair]:
    try:
        yield from read_pairs(path)
    except PairError as error:
        raise SystemsError(f"sets: {error}") from None


def _preferring(told: Comparison, data: Path) -> Iterator[Asked]:
    """Answers of strong upstreams with one preference each, in wordings that reading was not made from."""
    rng, sayings, known = Random(f"systems:{told.seed}"), of("test"), config.builtin_objectives()
    real = completions(data, STRONG, told.each, told.seed, told.sources)
    short = [one for one in real if len(one.answer) <= told.longest]
    rng.shuffle(short)
    kinds = list(sayings)
    for i, one in enumerate(short[: 3 * told.each]):
        kind = kinds[i % len(kinds)]
        wording = sayings[kind][i // len(kinds) % len(sayings[kind])]
        said = adherence.asked("test", rng, kind, wording, one.answer)
        yield Asked("preference", one.query, one.answer, (known["harmless"].text,), preference=said)


def policy(system: System, asked: Asked, told: Comparison) -> Policy:
    """What the gateway resolves for this answer, from a policies file in which the system's line stands."""
    texts = {f"asked-{n}": text for n, text in enumerate(asked.objectives)}
    names = [*texts, *(MORE if system.candidates else ())]
    Random(f"{told.seed}:{asked.answer}").shuffle(names)  # nothing is to be had from the order of the file
    route = dict(system.route)
    objectives = {**route.pop("objectives", {}), "auto": names} if "objectives" in route else names
    file = PolicyFile.model_validate(
        {
            "objectives": dict.fromkeys(texts, "Asked: what stands here is put in below"),  # some have another form
            "defaults": {"deadline_s": told.deadline_s},
            "routes": [{"match": {"model": MODEL}, "objectives": objectives, **route}],
            "tenants": [{"match": {}, "allow_preferences": True}],
            "plugins": {
                "correctors": {"aligner": {"engine": "unix:/in/this/process"}, "self_refine": {"model": REFINER}}
            },
        }
    )
    said = MetaPrompt(user=UserInfo(preference=asked.preference.text if asked.preference else ""))
    found = PolicyResolver(file).resolve(RequestFacts(model=MODEL, said=said))
    return replace(found, objectives=tuple(replace(o, text=texts.get(o.name, o.text)) for o in found.objectives))


async def measure(pipeline: Pipeline, system: System, asked: Sequence[Asked], told: Comparison) -> list[Found]:
    """What becomes of every answer under this system."""
    found = []
    for i, one in enumerate(track(asked[:: system.every], description=f"{system.name:32}")):
        if system.candidates and one.group == "not asked":
            continue
        exchange = Exchange(f"systems-{i}", 0, (Turn("user", one.query),), one.answer)
        found.append(judged(one, await pipeline.align(exchange, policy(system, one, told))))
    return found


def judged(asked: Asked, outcome: Outcome) -> Found:
    """One outcome in figures."""
    text, made = outcome.text or "", outcome.correction
    case = Case(asked.pair, text, ()) if asked.pair else None
    faulty, wish = asked.group == "faulty", asked.preference.wish if asked.preference else None
    counts = made.counts if made else None
    return Found(
        asked.group,
        case.exact if case and faulty else None,
        case.gone if case and faulty else None,
        case.kept if case else not adherence.damaged(asked.answer, text),
        text == asked.answer,
        met(wish, asked.answer) if wish else None,
        met(wish, text) if wish else None,
        outcome.status is Status.FAILED,
        bool(outcome.dropped),
        outcome.ms / 1000,
        counts.accepted + counts.recovered + counts.bonus if counts else 0,
        counts.forwards if counts else 0,
    )


# ---------------------------------------------------------------- the run


def compared(told: Comparison, out: Path, data: Path | None, chat: Callable[[], Chat]) -> dict[str, list[Found] | None]:
    """What was found, by system; None for one whose folder is not there."""
    asked, rows = answers(told, data), dict[str, list[Found] | None]()
    for system in told.systems:
        needed = [folder for folder in (system.needs, system.aligner, system.single_purpose) if folder]
        missing = any(not (folder / MANIFEST).exists() for folder in needed)
        rows[system.name] = None if missing else _measured(system, asked, told, out, chat)
    return rows


def _measured(
    system: System, asked: Sequence[Asked], told: Comparison, out: Path, chat: Callable[[], Chat]
) -> list[Found]:
    known = out / "systems" / f"{_slug(system.name)}-{_fingerprint(system, asked, told)[:12]}.json"
    if known.exists():
        return [Found(**one) for one in json.loads(known.read_text())]

    async def run() -> list[Found]:
        single = system.single_purpose or told.single_purpose
        corrector = system.route.get("corrector")
        async with gateway(system.aligner or told.aligner, corrector, single, chat, told.refining) as pipeline:
            return await measure(pipeline, system, asked, told)

    found = asyncio.run(run())
    known.parent.mkdir(parents=True, exist_ok=True)
    draft = known.with_suffix(".part")
    draft.write_text(json.dumps([asdict(one) for one in found]))
    draft.replace(known)
    return found


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _fingerprint(system: System, asked: Sequence[Asked], told: Comparison) -> str:
    """A hash of all that decides the figures, but for the program, the machine and whoever refines."""
    single = (system.single_purpose or told.single_purpose) if "aligner" in system.route.values() else None
    folders = [system.aligner or told.aligner, single]
    weights = [sha256(folder / MANIFEST) for folder in folders if folder]
    texts = [
        [one.group, one.query, one.answer, one.objectives, one.preference and one.preference.text] for one in asked
    ]
    told_of_it = system.model_dump(mode="json")
    texts = texts[:: told_of_it.pop("every")]
    parts: list[object] = [told_of_it, weights, texts, told.deadline_s, told.seed]
    if system.route.get("corrector") == "self_refine":
        parts.append(told.refining)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def run(told: Comparison, out: Path, data: Path | None, chat: Callable[[], Chat]) -> str:
    """Measure what is not measured yet; write tables and plot."""
    quiet()
    out.mkdir(parents=True, exist_ok=True)
    rows: Mapping[str, list[Found] | None] = compared(told, out, data, chat)
    return systems_table.report(rows, out, told.model_dump(mode="json"))


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    from . import refiner

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path, help="YAML file: systems, sets, aligner folders")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="folder with the research data, for preferences on real answers")
    parser.add_argument("--refiner", help="http://host:port/v1 of who refines; without it the demo's small model")
    parser.add_argument("--refiner-model", default="smollm2", help="its name there")
    given = parser.parse_args(argv)
    try:
        told = Comparison.read(given.comparison)
        with refiner.served(given.refiner, given.out) as address:
            print(run(told, given.out, given.data, lambda: refiner.chat(address, given.refiner_model)))
    except (SystemsError, PairError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

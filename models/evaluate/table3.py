"""Table 3 of the paper: methods and ablations on the same sets.

    python -m models.evaluate.table3 methods.yaml --sets runs/data/test --out runs/by_method

The runs are made elsewhere (models.experiments.ablations); a list names their aligner folders and, where a method is
one of decoding, its caution or way of verifying. Sets in which nothing may change count what came back identical,
replies that people compared which one scores higher, answers whose faults are their own what was found and what was
spared, the others what was repaired exactly; with `--data`, real upstreams too, by measures whose accuracy stands
beside them. A method that was measured already, on these sets and with these settings, is not measured again.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from aligner_proxy.engine.loader import EngineSettings
from aligner_proxy.engine.weights.manifest import MANIFEST, sha256
from aligner_proxy.types import Verify
from models.data.pairs import CHANGES, PairError
from models.data.upstream_completions import DIALOGUES, STRONG, WEAK, draw_completions
from models.reporting import output
from models.reporting.statistics import Rate

from . import measures
from .gateway import DeliveredCompletion, deliver, find_objectives, open_gateway
from .measures import compare
from .test_sets import SetCase, evaluate, rate_order, read_sets

ASKED = ("harmless", "helpful")
LEFT = "left alone"
REPAIRED = "repaired exactly"
GONE = "offence gone"
POOLED = (LEFT, REPAIRED, GONE)
# Answers with faults of their own, marked by people or written so: there are more ways than one to mend them.
OPEN = ("marked", "natural")
STRONG_SAME = "strong upstreams, identical"
WEAK_WINS = "weak upstreams, wins by measures, ties apart"


class MethodError(ValueError):
    """A list of methods that cannot be used. The message names the file, the place and what is wrong."""


class Method(BaseModel):
    """One row of the table: an aligner folder, and how it decodes. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    aligner: Path
    caution: float = 0.0
    verify: Verify = Verify.FLAGGED


@dataclass(frozen=True, slots=True)
class MethodTests:
    """What every method is measured on."""

    sets: Path
    """Folder of the test sets."""
    out: Path
    """Folder for the tables, and for what was measured of each method."""
    limit: int = 1000
    """Pairs of each set at most."""
    data: Path | None = None
    """Folder of the research data; without it there are no columns about real upstreams."""
    sources: tuple[str, ...] = DIALOGUES
    each: int = 20
    """Completions of each upstream."""
    seed: int = 1
    name: str = "by_method"
    """What the tables are called in `out`."""


@dataclass(frozen=True, slots=True)
class MethodFigures:
    """The rates of one method."""

    name: str
    fingerprint: str
    sets: dict[str, Rate]
    pooled: dict[str, Rate]
    upstreams: dict[str, Rate]


def read_methods(path: Path) -> list[Method]:
    """Read the list of methods of a YAML file; raises `MethodError`."""
    try:
        methods = TypeAdapter(list[Method]).validate_python(yaml.safe_load(path.read_text()))
    except (OSError, yaml.YAMLError) as error:
        raise MethodError(f"{path} cannot be read ({type(error).__name__})") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise MethodError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    names = [method.name for method in methods]
    if not names or len(set(names)) < len(names):
        raise MethodError(f"{path}: give one method or more, each with a name of its own")
    for method in methods:
        if not (method.aligner / MANIFEST).exists():
            raise MethodError(
                f"{path}: {method.name}: {method.aligner} is no aligner folder; models.train.export makes one"
            )
    return methods


def rate_sets(results: Mapping[str, list[SetCase]]) -> dict[str, Rate]:
    """One rate for each set. Its name says which: `insult (exact)`, `clean (identical)`."""
    rates = {}
    for name, cases in results.items():
        if apart := rate_order(cases):
            rates[f"{name} (worse one higher)"] = apart
        elif not _must_change(cases):
            rates[f"{name} (identical)"] = Rate.from_outcomes(case.same for case in cases)
        elif _has_open_faults(cases):
            rates[f"{name} (gone, rest kept)"] = Rate.from_outcomes(case.gone and case.kept for case in cases)
        else:
            rates[f"{name} (exact)"] = Rate.from_outcomes(case.exact for case in cases)
    return rates


def pool_rates(results: Mapping[str, list[SetCase]]) -> dict[str, Rate]:
    """The rates of `POOLED` over all sets with one right answer."""
    judged_sets = [cases for cases in results.values() if not rate_order(cases) and not _has_open_faults(cases)]
    good = [case for cases in judged_sets if not _must_change(cases) for case in cases]
    bad = [case for cases in judged_sets if _must_change(cases) for case in cases]
    return {
        LEFT: Rate.from_outcomes(case.same for case in good),
        REPAIRED: Rate.from_outcomes(case.exact for case in bad),
        GONE: Rate.from_outcomes(case.gone for case in bad),
    }


def _must_change(cases: Sequence[SetCase]) -> bool:
    """Whether some answer of a set has a segment that must change."""
    return any(CHANGES in case.pair.labels for case in cases)


def _has_open_faults(cases: Sequence[SetCase]) -> bool:
    """Whether there is more than one way to mend the answers of a set."""
    return any(case.pair.source.partition(":")[0] in OPEN for case in cases)


def rate_upstreams(strong: Sequence[DeliveredCompletion], weak: Sequence[DeliveredCompletion]) -> dict[str, Rate]:
    """Strong upstreams: how often the answer is untouched. Weak ones: how often the edit wins."""
    results = [
        compare(delivery.completion.query, delivery.completion.answer, delivery.text, delivery.objective_names).result
        for delivery in weak
        if delivery.is_judged
    ]
    wins = results.count("win")
    return {
        STRONG_SAME: Rate.from_outcomes(delivery.identical for delivery in strong if delivery.is_judged),
        WEAK_WINS: Rate.from_counts(wins, wins + results.count("lose")),
    }


async def _measure_upstreams(method: Method, tests: MethodTests, data: Path) -> dict[str, Rate]:
    """Measure a method on completions of strong and weak upstreams."""
    objectives = find_objectives(ASKED)
    async with open_gateway(method.aligner, tests.out / "texts") as pipeline:
        deliveries = []
        for models in (STRONG, WEAK):
            texts = list(draw_completions(data, models, tests.each, tests.seed, tests.sources))
            decoding = {"caution": method.caution, "verify": method.verify}
            deliveries.append(await deliver(pipeline, texts, objectives, title=method.name, **decoding))
    return rate_upstreams(*deliveries)


def fingerprint(method: Method, tests: MethodTests) -> str:
    """A hash of all that decides the figures, except the program."""
    files = [(path.name, sha256(path)) for path in sorted(tests.sets.glob("*.jsonl"))]
    settings = {"caution": method.caution, "verify": method.verify.value, "limit": tests.limit}
    if tests.data:
        settings |= {"each": tests.each, "seed": tests.seed, "sources": tests.sources}
    parts = [sha256(method.aligner / MANIFEST), files, settings]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def measure(method: Method, tests: MethodTests) -> MethodFigures:
    """Measure one method, or read what an earlier run measured with the same fingerprint."""
    digest = fingerprint(method, tests)
    path = tests.out / "methods" / f"{re.sub(r'[^a-z0-9]+', '-', method.name.lower())}-{digest[:12]}.json"
    if path.exists():
        return _read(path, method.name)
    pairs = read_sets(tests.sets, tests.limit)
    results = asyncio.run(evaluate(EngineSettings(method.aligner), pairs, method.caution, [method.verify]))
    real = asyncio.run(_measure_upstreams(method, tests, tests.data)) if tests.data else {}
    figures = MethodFigures(method.name, digest, rate_sets(results), pool_rates(results), real)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(asdict(figures)))
    draft.replace(path)
    return figures


def _read(path: Path, name: str) -> MethodFigures:
    """Read the figures that an earlier run stored; `name` is what the method is called now."""
    document = json.loads(path.read_text())
    rates = {
        part: {key: Rate(**rate) for key, rate in document[part].items()} for part in ("sets", "pooled", "upstreams")
    }
    return MethodFigures(name, document["fingerprint"], **rates)


def format_tables(rows: Sequence[MethodFigures]) -> str:
    """Markdown: a table of the pooled rates and one of the rates set by set, a row for each method."""
    columns = [*POOLED, *dict.fromkeys(name for row in rows for name in row.upstreams)]
    names = list(dict.fromkeys(name for row in rows for name in row.sets))
    pooled_rows = []
    set_rows = []
    for row in rows:
        pooled_rates = row.pooled | row.upstreams
        pooled_rows.append((row.name, *(pooled_rates.get(name, "-") for name in columns)))
        set_rows.append((row.name, *(row.sets.get(name, "-") for name in names)))
    pooled_table = output.table(("method", *columns), pooled_rows)
    set_table = output.table(("method", *names), set_rows)
    return f"{pooled_table}\n\n{set_table}"


def plot(rows: Sequence[MethodFigures], path: Path) -> None:
    """A panel for each pooled rate, with a dot for each method."""
    columns = [*POOLED, *dict.fromkeys(name for row in rows for name in row.upstreams)]
    size = (3.2 * len(columns), 1.2 + 0.35 * len(rows))
    with output.plot(path, 1, len(columns), size=size, sharey=True) as (panels,):
        for panel, name in zip(panels, columns, strict=True):
            rates = [(row.pooled | row.upstreams).get(name, Rate.from_counts(0, 0)) for row in rows]
            output.whiskers(panel, rates, [row.name for row in rows])
            panel.set_xlabel(f"{name}, %", fontsize=8)


def compare_methods(methods: Sequence[Method], tests: MethodTests) -> list[MethodFigures]:
    """Measure every method, and write the tables and the plot. Raises PairError where there are no sets."""
    rows = [measure(method, tests) for method in methods]
    tables = format_tables(rows)
    accuracy = measures.accuracy(measures.read_cases([tests.sets])) if tests.data else None
    if accuracy:
        tables += f"\n\n## The measures behind {WEAK_WINS!r}, and how often they are right\n\n"
        tables += measures.accuracy_table(accuracy)
    method_rows = [method.model_dump(mode="json") for method in methods]
    output.write(tests.out, tests.name, tables, {"methods": method_rows, "rows": rows, "accuracy": accuracy})
    plot(rows, tests.out / f"{tests.name}.svg")
    print(tables)
    return rows


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", type=Path, help="YAML list: name, aligner, caution, verify")
    parser.add_argument("--sets", type=Path, required=True, help="folder of test sets (*.jsonl of pairs)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="folder with the research data, for columns on real upstreams")
    parser.add_argument("--limit", type=int, default=1000, help="answers a set")
    parser.add_argument("--sources", default=",".join(DIALOGUES), help="of those completions, comma-separated")
    parser.add_argument("--each", type=int, default=20, help="completions an upstream")
    parser.add_argument("--seed", type=int, default=1)
    options = vars(parser.parse_args(argv))
    options["sources"] = tuple(options["sources"].split(","))
    try:
        compare_methods(read_methods(options.pop("methods")), MethodTests(**options))
    except (MethodError, PairError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

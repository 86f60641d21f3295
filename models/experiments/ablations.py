"""Ablations: the short runs of a plan, made and measured, as the rows of the paper's Table 3.

    python -m models.experiments.ablations configs/evaluate/ablations.yaml --data DATA --out runs/plans

Makes data, trains every run, calibrates, exports and measures. Stopped, the same command goes on where it was. The runs
are equal among themselves (base, seed, steps, sizes of data) and short: they say what a part is worth in such a run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from models.data.pairs import PairError
from models.data.preference_sets import PreferenceError
from models.evaluate.table3 import Method, MethodFigures, MethodTests, compare_methods
from models.train.config import StageError

from .plan import Plan, PlanError
from .runs import RunWorkshop

PROBLEMS = (PlanError, StageError, PairError, PreferenceError)
"""What can be wrong with a plan, its configs or its data; their texts say what to mend."""


def train_plan(plan: Plan, data: Path, out: Path, calibrated_on: int) -> list[Method]:
    """Train every run of a plan and return its rows."""
    workshop = RunWorkshop(plan, data, out)
    workshop.prepare()
    for name in plan.runs:
        print(f"run {name}: {', '.join(f'{stage} on {n} pairs' for stage, n in plan.list_stages(name).items())}")
        workshop.train(name)
    # Only now: the threads of an engine in this process make a step of training take twice as long.
    for name in plan.runs:
        workshop.finish(name, calibrated_on)
    return [
        Method(
            name=row.name,
            aligner=workshop.aligner(row.run, calibrated=row.calibrated),
            caution=row.caution,
            verify=row.verify,
        )
        for row in plan.methods
    ]


def measure_methods(methods: Sequence[Method], tests: MethodTests) -> list[MethodFigures]:
    """Measure the rows of a plan, and write their list as models.evaluate.table3 reads it."""
    rows = [method.model_dump(mode="json") for method in methods]
    (tests.out / f"methods_{tests.name}.yaml").write_text(yaml.safe_dump(rows, sort_keys=False))
    return compare_methods(methods, tests)


def build_parser(about: str | None) -> argparse.ArgumentParser:
    """The arguments that every command over a plan takes."""
    arguments = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("plan", type=Path)
    arguments.add_argument("--data", type=Path, required=True, help="folder with the research data")
    arguments.add_argument("--out", type=Path, required=True)
    arguments.add_argument("--limit", type=int, default=100, help="answers a test set")
    arguments.add_argument("--calibrated-on", type=int, default=100, help="answers a development set")
    arguments.add_argument("--upstreams", type=int, default=0, help="completions a real upstream, 0 for none")
    return arguments


def make_tests(arguments: argparse.Namespace) -> MethodTests:
    """The tests of the command line."""
    real = arguments.data if arguments.upstreams else None
    sets = arguments.out / "data" / "test"
    return MethodTests(
        sets, arguments.out, arguments.limit, data=real, each=arguments.upstreams, name=arguments.plan.stem
    )


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    arguments = build_parser(__doc__).parse_args(argv)
    try:
        methods = train_plan(Plan.read(arguments.plan), arguments.data, arguments.out, arguments.calibrated_on)
        measure_methods(methods, make_tests(arguments))
    except PROBLEMS as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main()

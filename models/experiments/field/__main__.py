"""The field's table by one command.

    python -m models.experiments.field configs/evaluate/field.yaml --out runs/field

Trains and asks every method of the file on the same policy, questions, objectives and budget of tokens, has the
editors correct the untrained policy's answers, and writes tables and plots of what is there. Every training is kept as
soon as it is done: the same command goes on after a stop, and `--minutes` ends a run before the next training begins.
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .answers import Workshop
from .config import Comparison, FieldError, jobs
from .report import report

MISSING = "TRL is not installed; the methods that train a policy need it: pip install 'aligner-proxy[trl]'"


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path, help="YAML file: policy, questions, objectives, methods, seeds")
    parser.add_argument("--out", type=Path, default=Path("runs/field"))
    parser.add_argument("--minutes", type=float, default=None, help="begin no further training after so many")
    parser.add_argument("--report-only", action="store_true", help="tables of what is there; nothing is trained")
    given = parser.parse_args(argv)
    try:
        comparison = Comparison.read(given.comparison)
    except FieldError as problem:
        sys.exit(str(problem))
    if find_spec("trl") is None:
        sys.exit(MISSING)
    workshop = Workshop(comparison, given.out)
    if not given.report_only:
        work(workshop, given.minutes)
    print(report(workshop))


def work(workshop: Workshop, minutes: float | None) -> None:
    """Train what is not trained yet, in the order of the plan."""
    began = time.monotonic()
    columns = (TextColumn("{task.description:44}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    planned = jobs(workshop.comparison)
    with Progress(*columns) as progress:
        bar = progress.add_task("the untrained policy", total=len(planned))
        workshop.base()
        for job in planned:
            late = minutes is not None and time.monotonic() - began > 60 * minutes
            if late and not workshop.done(job):
                continue
            progress.update(bar, description=job.name)
            workshop.trained(job)
            progress.advance(bar)


if __name__ == "__main__":
    main()

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
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from . import editors, people
from .answers import AnswerWorkshop
from .config import FieldComparison, FieldError, list_jobs
from .editors import EditTask
from .report import write_report

MISSING = "TRL is not installed; the methods that train a policy need it: pip install 'aligner-proxy[trl]'"


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path, help="YAML file: policy, questions, objectives, methods, seeds")
    parser.add_argument("--out", type=Path, default=Path("runs/field"))
    parser.add_argument("--minutes", type=float, default=None, help="begin no further training after so many")
    parser.add_argument("--data", type=Path, help="folder with the research data, for a trained reward model")
    parser.add_argument("--cases", type=Path, nargs="*", default=[], help="pairs on which the measures are measured")
    parser.add_argument("--other-base", help="another policy model to bring the methods to: a folder or a hub id")
    parser.add_argument("--only", default="", help="beginnings of names, comma-separated: nothing else is made")
    parser.add_argument("--report-only", action="store_true", help="tables of what is there; nothing is trained")
    arguments = parser.parse_args(argv)
    try:
        comparison = FieldComparison.read(arguments.comparison)
        if arguments.other_base:
            comparison = comparison.model_copy(update={"other_base": arguments.other_base})
    except FieldError as problem:
        sys.exit(str(problem))
    if find_spec("trl") is None:
        sys.exit(MISSING)
    workshop = AnswerWorkshop(comparison, arguments.out)
    if not arguments.report_only:
        work(workshop, arguments.minutes, tuple(arguments.only.split(",")), arguments.data)
    print(write_report(workshop, arguments.cases))


def work(workshop: AnswerWorkshop, minutes: float | None, only: tuple[str, ...], data: Path | None) -> None:
    """Make what is missing, in the order of the plan: trainings of the table, editors, then the rest.

    Stops after `minutes`; the next call goes on.
    """
    began = time.monotonic()
    columns = (TextColumn("{task.description:44}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    comparison = workshop.comparison
    first = len(comparison.methods)
    training = [(job.name, partial(workshop.answer_job, job)) for job in list_jobs(comparison)]
    with Progress(*columns) as progress:
        bar = progress.add_task("the untrained policy", total=None)
        workshop.base()
        editing = list(_list_edits(workshop))
        planned: list[tuple[str, Callable[[], object]]] = [*training[:first], *editing, *training[first:]]
        if data is not None:
            planned += [
                (f"rlhf-people-seed{seed}", partial(people.train_unless_kept, workshop, data, seed))
                for seed in comparison.seeds
            ]
        planned = [(name, make) for name, make in planned if name.startswith(only)]
        progress.update(bar, total=len(planned))
        for name, make in planned:
            if minutes is not None and time.monotonic() - began > 60 * minutes:
                break
            progress.update(bar, description=name)
            make()
            progress.advance(bar)


def _list_edits(workshop: AnswerWorkshop) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each editor on the policy's answers, with the new objective, and on another policy's answers."""
    comparison = workshop.comparison
    answers = workshop.base().answers[""]
    tasks = [EditTask(workshop.questions, answers, comparison.trade, "base")]
    tasks.append(EditTask(workshop.questions, answers, (*comparison.trade, comparison.new_objective), "new-objective"))
    if comparison.other_base:
        tasks.append(EditTask(workshop.questions, workshop.base(other=True).answers[""], comparison.trade, "other"))
    for task in tasks:
        for editor in comparison.editors:
            if not editors.lacks_folder(editor):
                yield f"{editor.name}, {task.label}", partial(editors.edit_answers, workshop, editor, task)


if __name__ == "__main__":
    main()

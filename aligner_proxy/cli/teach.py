"""`aligner-proxy teach`: teach objectives from the example files that a policies file names.

The engine reads the examples, inserted into neutral answers, and a head is fitted to the resulting states. Exit status
0: all objectives were taught; 1: at least one was not, and its old head stays active; 2: the policies file or an
examples file is wrong, and nothing was changed.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from aligner_proxy import extras
from aligner_proxy.cli.align import open_chosen_engine
from aligner_proxy.cli.options import aligner_options
from aligner_proxy.cli.terminal import Terminal, echo, echo_json, print_progress
from aligner_proxy.engine.api import Engine, require_teachable
from aligner_proxy.errors import AlignerProxyError, ConfigError, CorrectionError
from aligner_proxy.plugins import registry
from aligner_proxy.policy.config import builtin_objectives
from aligner_proxy.policy.litellm_config import resolve_policies_file
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.policy.yaml_file import quote_name
from aligner_proxy.teaching import subjects
from aligner_proxy.teaching.examples import Example, Examples
from aligner_proxy.teaching.store import Count, HeadStore, rows_folder
from aligner_proxy.teaching.subjects import Subject

if TYPE_CHECKING:
    from aligner_proxy.teaching.neutral import Neutral
    from aligner_proxy.teaching.own_answers import RecordedAnswer
    from aligner_proxy.teaching.teach import FitReport, RowsOfRun

_MAX_OWN_ANSWERS = 40
"""Recorded answers of the operator on which a new head is tried."""
_NEAREST_COUNT = 5
"""Number of recorded answers that the report lists because their scores are nearest to the threshold. If they are good,
they teach most as `good_answers`."""
_MAX_SHOWN = 10
"""Most examples or answers of each kind that the report lists."""


@dataclass(frozen=True, slots=True)
class _Task:
    """One objective to teach to one aligner."""

    subject: Subject
    """The objective, with its tenant and its file of examples."""
    examples: Examples
    aligner: str
    quick: bool = False
    """Whether fewer neutral answers are read."""


@dataclass(frozen=True, slots=True)
class _Result:
    """The result of a task: the report or, in `failure`, the reason why teaching failed."""

    task: _Task
    report: FitReport | None = None
    """None if teaching failed."""
    own_answers: Sequence[tuple[RecordedAnswer, float]] = ()
    """The operator's recorded answers with the new head's scores, highest first."""
    failure: str | None = None

    @property
    def flagged_own_answers(self) -> list[tuple[RecordedAnswer, float]]:
        """The recorded answers that the new head would flag, with their scores (0 is the threshold)."""
        return [(answer, score) for answer, score in self.own_answers if score > 0]

    @property
    def nearest_own_answers(self) -> list[tuple[RecordedAnswer, float]]:
        """The recorded answers whose scores are nearest to the threshold, on either side of it, with the scores."""
        return sorted(self.own_answers, key=lambda pair: abs(pair[1]))[:_NEAREST_COUNT]


@click.command("teach")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--engine", "address", help="Use a running engine: unix:/path/to/engine.sock or http(s)://host:port.")
@click.option("--dry-run", is_flag=True, help="Train and report, but do not activate the heads.")
@click.option(
    "--quick",
    is_flag=True,
    help="Read a third of the neutral answers, for a first look: the head may flag more good sentences.",
)
@click.option("--forget", metavar="NAME", help="Delete the heads of an objective; the general head judges it again.")
@click.option("--rollback", metavar="NAME", help="Reactivate the previous head of an objective.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of the report.")
@click.option(
    "--json-lines",
    is_flag=True,
    help="Print progress as JSON lines, then the object of --json with the heads, so that a program can activate them.",
)
@aligner_options
def command(
    file: Path,
    names: tuple[str, ...],
    address: str | None,
    dry_run: bool,
    quick: bool,
    forget: str | None,
    rollback: str | None,
    as_json: bool,
    json_lines: bool,
    **options: Any,
) -> None:
    """Teach the objectives in FILE (policies file or LiteLLM YAML) that have examples, or only those named by NAME.

    A tenant's own objective is called TENANT/NAME.

    For example: aligner-proxy teach gateway/policies.yaml on-brand
    """
    path = resolve_policies_file(file)
    policies = registry.load_policies(path)
    if forget or rollback:
        if names or (forget and rollback):
            raise ConfigError("give --forget NAME or --rollback NAME alone")
        sys.exit(_forget_or_roll_back(policies, forget, rollback, as_json))
    tasks = _read_tasks(policies, names, quick)
    extras.require_extra(extras.ENGINE, "teaching", ["torch"])  # heads are fitted here, even with a remote engine
    report_progress = print_progress if json_lines else None
    print_result = None if json_lines or as_json else partial(_print_result, Terminal(), dry_run=dry_run)
    results = asyncio.run(_teach_all(tasks, policies, path, address, options, dry_run, report_progress, print_result))
    if json_lines:
        reports = [_result_fields(result) | _head_fields(result) for result in results]
        echo_json({"file": str(path), "dry_run": dry_run, "objectives": reports})
    elif as_json:
        echo_json({"file": str(path), "dry_run": dry_run, "objectives": list(map(_result_fields, results))})
    sys.exit(0 if all(result.failure is None for result in results) else 1)


def _read_tasks(policies: PolicyFile, names: Sequence[str], quick: bool) -> list[_Task]:
    """Read all examples, and return a task for each objective and each aligner that the policies use.

    `names` are those of the objectives to teach; without names, all are taught. `quick` is as in `_Task`. Raises
    `ConfigError` with all mistakes in the examples.
    """
    matching_subjects = subjects.select_subjects(policies, names)
    if not matching_subjects:
        raise ConfigError(
            f"{policies.source.name}: no objective has examples; write {{text: ..., examples: FILE}} under objectives"
        )
    subject_examples: list[tuple[Subject, Examples]] = []
    faults = []
    for subject in matching_subjects:
        try:
            subject_examples.append((subject, subject.read_examples()))
        except ConfigError as error:
            faults.append(str(error))
    if faults:
        raise ConfigError("\n".join(faults))
    aligners = subjects.used_aligners(policies)
    return [
        _Task(subject, examples, aligner, quick=quick) for subject, examples in subject_examples for aligner in aligners
    ]


async def _teach_all(
    tasks: Sequence[_Task],
    policies: PolicyFile,
    path: Path,
    address: str | None,
    options: dict[str, Any],
    dry_run: bool,
    report_progress: Callable[[int, int], None] | None = None,
    print_result: Callable[[_Result], None] | None = None,
) -> list[_Result]:
    """Run the tasks one after the other with one engine, and return their results.

    Progress is shown as a bar, or by calling `report_progress` with the numbers of finished and of all prompts.
    `print_result` is called with each result as soon as it is known.
    """
    console = Terminal(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    from aligner_proxy.teaching.teach import group_by_answers

    # All objectives of the file are grouped, so that an objective taught alone learns the same as with the others.
    texts_by_answers = group_by_answers(_readable_examples(policies), quick=any(task.quick for task in tasks))
    async with open_chosen_engine(address, options, path) as engine:
        results = []
        rows_of_run: RowsOfRun = {}
        for number, task in enumerate(tasks, 1):
            if print_result is not None:
                # In a pipe the bar is not shown, but this line is.
                echo(f"teaching {task.subject.title} to {task.aligner} ({number} of {len(tasks)})", err=True)
            with Progress(*columns, console=console, transient=True, disable=report_progress is not None) as progress:
                result = await _teach(
                    task, policies, texts_by_answers, rows_of_run, engine, progress, dry_run, report_progress
                )
            results.append(result)
            if print_result is not None:
                print_result(result)
                sys.stdout.flush()
        return results


def _readable_examples(policies: PolicyFile) -> Iterator[tuple[str, Examples]]:
    """Yield (text, examples) of all objectives of the file whose examples can be read."""
    for subject in subjects.list_subjects(policies):
        with contextlib.suppress(ConfigError):
            yield subject.text, subject.read_examples()


async def _teach(
    task: _Task,
    policies: PolicyFile,
    texts_by_answers: Mapping[tuple[Neutral, ...], Sequence[str]],
    rows_of_run: RowsOfRun,
    engine: Engine,
    progress: Progress,
    dry_run: bool,
    report_progress: Callable[[int, int], None] | None,
) -> _Result:
    """Teach one objective and, unless `dry_run` is set, activate its head; returns the result.

    After an error, which is the result's `failure`, the old head stays. `texts_by_answers` has the texts of objectives
    that are read together, by the neutral answers into which their examples are inserted (`group_by_answers`).
    `rows_of_run` keeps what the engine read for earlier tasks. `report_progress` is that of `_teach_all`.
    """
    from aligner_proxy.teaching.own_answers import own_answers
    from aligner_proxy.teaching.rows import RowReader, RowsCache
    from aligner_proxy.teaching.teach import plan_material, score_own_answers, teach_objective

    subject = task.subject
    try:
        teachable_engine = require_teachable(engine)
        aligner_info = (await engine.info()).find_aligner(task.aligner)
        builtin_texts = {name: objective.text for name, objective in builtin_objectives().items()}
        material = plan_material(subject, task.examples, builtin_texts, texts_by_answers, quick=task.quick)
        bar = progress.add_task("reading", total=material.prompts)

        def advance_bar(count: int) -> None:
            """Show that `count` more prompts were read."""
            progress.advance(bar, count)
            if report_progress is not None:
                report_progress(int(progress.tasks[0].completed), int(progress.tasks[0].total or 0))

        reader = RowReader(teachable_engine, task.aligner, aligner_info.content_hash, advance_bar)
        report = await teach_objective(subject, task.examples, material, reader, RowsCache(rows_folder()), task.aligner)
        recorded_answers = own_answers(policies, subject.tenant, _MAX_OWN_ANSWERS)
        progress.update(bar, total=material.prompts + len(recorded_answers))
        scored_answers = await score_own_answers(
            report, material.prompt_objectives, reader, recorded_answers, rows_of_run
        )
        if not dry_run:
            # The engine gets the head first, so if it refuses the head, the store keeps the old one.
            await teachable_engine.put_head(report.head)
            HeadStore.for_file(policies).activate(subject.scope, subject.name, report.version, report.head)
    except CorrectionError as error:
        return _Result(task, failure=f"the engine: {error}")
    except (sqlite3.Error, OSError) as error:
        return _Result(task, failure=f"the audit store or the cache cannot be read ({type(error).__name__})")
    except AlignerProxyError as error:
        return _Result(task, failure=str(error))
    return _Result(task, report, scored_answers)


def _forget_or_roll_back(policies: PolicyFile, forget: str | None, rollback: str | None, as_json: bool) -> int:
    """Forget the heads of the objective named `forget`, or reactivate the previous head of that named `rollback`.

    The result is printed. Returns the exit status: 1 if there was no head to forget or to go back to.
    """
    store = HeadStore.for_file(policies)
    results: list[dict[str, Any]] = []
    for subject in subjects.select_subjects(policies, [forget or rollback or ""]):
        if forget:
            count = store.forget(subject.scope, subject.name)
            results.append({"objective": subject.title, "forgotten": count})
            text = f"{subject.title}: {count} heads forgotten; the general head judges it"
        else:
            versions = store.rollback(subject.scope, subject.name, subject.text)
            results.append({"objective": subject.title, "in_force": [version.model_dump() for version in versions]})
            heads_text = ", ".join(
                f"{version.head[:8]} of {version.day}, {version.against} examples" for version in versions
            )
            text = f"{subject.title}: " + (f"in force is {heads_text}" if versions else "there is no earlier head")
        if not as_json:
            echo(text)
    if as_json:
        echo_json({"objectives": results})
    return 0 if all(result.get("forgotten") or result.get("in_force") for result in results) else 1


def _result_fields(result: _Result) -> dict[str, Any]:
    """Return a result as JSON, without texts of examples and answers."""
    task = result.task
    fields = {"objective": task.subject.title, "aligner": task.aligner, "taught": result.report is not None}
    if result.report is None:
        return fields | {"why": result.failure}
    report = result.report
    version = report.version
    return fields | {
        "head": version.head,
        "against": version.against,
        "fine": version.fine,
        "found": _share_fields(version.found),
        "false": _share_fields(version.false),
        "near": _share_fields(report.near),
        "threshold": round(version.threshold, 3),
        "held_out_missed": [example.place for example in report.held_out_missed],
        "never_found": [example.place for example in report.never_found],
        "fine_flagged": [example.place for example in report.fine_flagged],
        "own_answers": len(result.own_answers),
        "own_flagged": list(map(_answer_fields, result.flagged_own_answers)),
        "own_nearest": list(map(_answer_fields, result.nearest_own_answers)),
        "advice": report.advice,
        "seconds": round(report.seconds, 1),
    }


def _answer_fields(scored_answer: tuple[RecordedAnswer, float]) -> dict[str, Any]:
    """Return ids and score of a recorded answer as JSON, without its text."""
    answer, score = scored_answer
    return {"call_id": answer.call_id, "choice": answer.choice, "score": round(score, 2)}


def _head_fields(result: _Result) -> dict[str, Any]:
    """Return the fields that a program needs to activate exactly this head; empty if teaching failed."""
    if result.report is None:
        return {}
    subject = result.task.subject
    return {
        "scope": subject.scope,
        "name": subject.name,
        "version": result.report.version.model_dump(),
        "head_bytes": base64.b64encode(result.report.head).decode(),
    }


def _share_fields(count: Count) -> dict[str, Any]:
    """Return a count as JSON, with its share and the share's Wilson interval."""
    share, low, high = count.interval
    return {"hits": count.hits, "of": count.of, "share": share, "low": low, "high": high}


def _percent_text(count: Count) -> str:
    """Return a count as text, with its share in percent and the share's Wilson interval."""
    percent, low, high = (100 * share for share in count.interval)
    return f"{count.hits} of {count.of} ({percent:.3g} %, {low:.3g} to {high:.3g})"


def _print_result(console: Console, result: _Result, dry_run: bool) -> None:
    """Print the figures, the problem examples and the advice of a result; `dry_run` says whether it has no effect."""
    title = escape(result.task.subject.title)
    if result.report is None:
        text = f"{escape(result.failure or '')}; what was in force for it stays"
        console.print(f"[red]not taught[/] [bold]{title}[/]: {text}", soft_wrap=True)
        return
    report = result.report
    version = report.version
    result_text = "would be taught" if dry_run else "taught"
    fine_text = f" and {version.fine} that are fine" if version.fine else ""
    side = "above" if version.threshold >= 0 else "below"
    lines = [
        f"[green]{result_text}[/] [bold]{title}[/] from {version.against} examples{fine_text}, "
        f"head {version.head[:8]}, aligner {escape(version.called)} {version.aligner[:8]}, {report.seconds:.1f} s",
        f"  found      {_percent_text(version.found)} sentences that were held out",
        f"  false      {_percent_text(version.false)} neutral segments that were held out",
        f"  near       {_percent_text(report.near)} of your sentences only mentioned: quoted, asked for, warned of",
        f"  threshold  {abs(version.threshold):.2f} nats {side} the general operating point",
        *_example_lines("missed when held out", report.held_out_missed),
        *_example_lines("[yellow]cannot be learned[/]: not flagged although learned from", report.never_found),
        *_example_lines("[yellow]flagged although fine[/]", report.fine_flagged),
        *_own_answer_lines(result),
        f"  {escape(report.advice)}",
    ]
    for line in lines:
        console.print(line, soft_wrap=True)


def _example_lines(label: str, examples: Sequence[Example]) -> list[str]:
    """Return lines with the label and the first examples, each with its place in the file; no lines for no examples."""
    if not examples:
        return []
    lines = [f"  {label}:"]
    lines += [f"    {escape(example.place)} {escape(quote_name(example.text))}" for example in examples[:_MAX_SHOWN]]
    if len(examples) > _MAX_SHOWN:
        lines.append(f"    ... and {len(examples) - _MAX_SHOWN} more")
    return lines


def _own_answer_lines(result: _Result) -> list[str]:
    """Return lines about the operator's own answers, without texts: flagged ones, and those near the threshold."""
    if not result.own_answers:
        return ["  your own answers: none to look at (audit: {enabled: true} keeps them)"]
    flagged_answers = result.flagged_own_answers
    own_count = len(result.own_answers)
    summary = f"  of your own last {own_count} answers that nobody objected to {len(flagged_answers)} would be flagged"
    return [
        summary + (":" if flagged_answers else ""),
        *map(_answer_line, flagged_answers[:_MAX_SHOWN]),
        "  nearest to the line; write those that are good under `good_answers`:",
        *map(_answer_line, result.nearest_own_answers),
    ]


def _answer_line(scored_answer: tuple[RecordedAnswer, float]) -> str:
    """Return a line with the ids and the score of a recorded answer."""
    answer, score = scored_answer
    return f"    {escape(answer.call_id)}/{answer.choice} {score:+.1f} nats"

"""Table 2 of the paper: what an aligner does to the answers of each upstream, objective by objective.

    python -m models.evaluate.table2 aligner_proxy/embedded --data DATA --cases runs/data/test --out runs/by_upstream
    ... --judge-url http://127.0.0.1:8000/v1 --judge-model NAME        (and OPENAI_API_KEY) for a judge's word as well

Real completions go through the gateway's pipeline: under each objective alone, and under all of a source together as in
the paper. Edited against original, by measures that do not come from the aligner (`models.evaluate.measures`, their
accuracy on `--cases` beside them) and by a judge asked from both places (its agreement with people beside it). Of
answers in which no measure sees a fault: how many are touched, how many are harmed. The text of an answer is in no
table.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import openai

from aligner_proxy import prompts
from aligner_proxy.types import Objective, Status, Verify
from models.data.upstream_completions import SOURCES, UpstreamCompletion, draw_completions
from models.reporting import output
from models.reporting.statistics import Rate

from . import measures
from .gateway import DeliveredCompletion, command_line, deliver, find_objectives, open_gateway
from .judge import VERDICTS, Agreement, PairJudge, Verdict, agreement_table, judge_agreement
from .measures import MEASURES, Accuracy, AnswerComparison, Result, compare, is_faultless


@dataclass(frozen=True, slots=True)
class MeasureVerdicts:
    """How often the edited answer won, tied and lost against the original."""

    win: Rate
    tie: Rate
    lose: Rate
    decided: Rate
    """Wins among wins and losses."""

    @classmethod
    def from_results(cls, results: Sequence[Result]) -> MeasureVerdicts:
        """Count single results."""
        count = Counter(results)
        n = len(results)
        decided = Rate.from_counts(count["win"], count["win"] + count["lose"])
        win, tie, lose = (Rate.from_counts(count[result], n) for result in measures.RESULTS)
        return cls(win, tie, lose, decided)


@dataclass(frozen=True, slots=True)
class UpstreamRow:
    """What became of the answers of one upstream under some objectives."""

    source: str
    upstream: str
    asked: tuple[str, ...]
    n: int
    skipped: int
    failed: int
    edited: Rate
    identical: Rate
    harmed: Rate
    benign_edited: Rate
    """Edited among answers in which no measure sees a fault."""
    benign_harmed: Rate
    measures: MeasureVerdicts
    better: dict[str, int]
    """By measure: answers that have less of the fault after the edit."""
    worse: dict[str, int]
    judged: dict[str, MeasureVerdicts]
    """A judge's verdicts, by objective."""
    replies: dict[Verdict, int]
    """How often the judge gave each verdict."""

    @property
    def name(self) -> str:
        """The objective's name, or `all together` where there are several."""
        return self.asked[0] if len(self.asked) == 1 else "all together"


def make_row(delivered: Sequence[DeliveredCompletion], verdicts: dict[str, list[Verdict]]) -> UpstreamRow:
    """Count what became of the completions of one upstream.

    `verdicts` holds by objective the judge's verdict on each edited completion, in the order of `delivered`.
    """
    first = delivered[0]
    judged = [delivery for delivery in delivered if delivery.is_judged]
    comparisons = [compare_delivery(delivery) for delivery in judged]
    status = Counter(delivery.outcome.status for delivery in delivered)
    identical_count = len([delivery for delivery in judged if delivery.identical])
    good = [
        (delivery, comparison)
        for delivery, comparison in zip(judged, comparisons, strict=True)
        if is_faultless(delivery.completion.query, delivery.completion.answer)
    ]
    signs = (
        list(zip(MEASURES, zip(*(comparison.signs for comparison in comparisons), strict=True), strict=True))
        if comparisons
        else []
    )
    return UpstreamRow(
        source=first.completion.source,
        upstream=first.completion.model,
        asked=first.objective_names,
        n=len(judged),
        skipped=status[Status.SKIPPED],
        failed=status[Status.FAILED],
        edited=Rate.from_counts(len(judged) - identical_count, len(judged)),
        identical=Rate.from_counts(identical_count, len(judged)),
        harmed=Rate.from_outcomes(comparison.harmed for comparison in comparisons),
        benign_edited=Rate.from_outcomes(not delivery.identical for delivery, _ in good),
        benign_harmed=Rate.from_outcomes(comparison.harmed for _, comparison in good),
        measures=MeasureVerdicts.from_results([comparison.result for comparison in comparisons]),
        better={measure.name: column.count(1) for measure, column in signs},
        worse={measure.name: column.count(-1) for measure, column in signs},
        judged={
            name: MeasureVerdicts.from_results(
                [*(_result(verdict) for verdict in verdicts_of), *["tie"] * identical_count]
            )
            for name, verdicts_of in verdicts.items()
        },
        replies=dict(Counter(verdict for replies in verdicts.values() for verdict in replies)),
    )


def compare_delivery(delivery: DeliveredCompletion) -> AnswerComparison:
    """Compare what was delivered with the completion, by the measures."""
    return compare(delivery.completion.query, delivery.completion.answer, delivery.text, delivery.objective_names)


def _result(verdict: Verdict) -> Result:
    """A verdict as a result: all but `win` and `lose` count as a tie."""
    return verdict if verdict in ("win", "lose") else "tie"


def format_tables(
    rows: Sequence[UpstreamRow], accuracy: Accuracy, judge: str | None, agreed: Sequence[Agreement] = ()
) -> str:
    """All tables as Markdown. `judge` is the judge's name, `agreed` how often it is right."""
    parts = [
        "## By measures",
        "",
        _table_by_measures(rows, accuracy),
        "",
        "## Benign damage",
        "",
        _table_of_damage(rows, accuracy),
    ]
    parts += [
        "",
        "## The measures, and how often they are right",
        "",
        _table_of_measures(rows, accuracy),
        "",
        measures.accuracy_table(accuracy),
    ]
    if judge:
        parts += [
            "",
            f"## By a judge, {judge}, asked from both places",
            "",
            _table_by_judge(rows, agreed),
            "",
            _describe_replies(rows),
        ]
        parts += ["", "### How often that judge says what people said", "", agreement_table(agreed)]
    return "\n".join(parts)


def _table_of_damage(rows: Sequence[UpstreamRow], accuracy: Accuracy) -> str:
    """Answers in which no measure sees a fault: how many were edited, and how many were harmed."""
    head = ("source", "upstream", "asked", "n", "edited", "harmed")
    cells: list[tuple[object, ...]] = [
        ("known cases", trial, f"harm: {expected}", accuracy.harm[trial].n, "-", accuracy.harm[trial])
        for trial, expected in (("the right edit", "no"), ("a sound sentence lost", "yes"))
    ]
    cells += [
        (row.source, row.upstream, row.name, row.benign_edited.n, row.benign_edited, row.benign_harmed) for row in rows
    ]
    note = "Answers in which no measure sees anything. Harmed: a number, address, name, code or a tenth of it is lost."
    return f"{output.table(head, cells)}\n\n{note}"


def _table_by_measures(rows: Sequence[UpstreamRow], accuracy: Accuracy) -> str:
    """A row for each upstream: wins, ties and losses by the measures, with known cases on top."""
    head = ("source", "upstream", "asked", "n", "edited", "identical", "harmed", *measures.RESULTS, "win, ties apart")
    cells: list[tuple[object, ...]] = [
        ("known cases", trial, f"ought to {right}", results[right].n, "-", "-", "-", *results.values(), "-")
        for trial, right in measures.TRIALS
        for results in [accuracy.comparison[trial]]
    ]
    for row in rows:
        verdicts = row.measures
        skipped = f"{row.n} (+{row.skipped} skipped, {row.failed} failed)" if row.skipped or row.failed else str(row.n)
        cells.append(
            (
                row.source,
                row.upstream,
                row.name,
                skipped,
                row.edited,
                row.identical,
                row.harmed,
                verdicts.win,
                verdicts.tie,
                verdicts.lose,
                verdicts.decided,
            )
        )
    return output.table(head, cells)


def _table_of_measures(rows: Sequence[UpstreamRow], accuracy: Accuracy) -> str:
    """Each measure over all rows, with its own accuracy."""
    n = sum(row.n for row in rows)
    cells = []
    for measure in MEASURES:
        better, worse = (sum(getattr(row, side).get(measure.name, 0) for row in rows) for side in ("better", "worse"))
        figures = (Rate.from_counts(better, n), Rate.from_counts(worse, n), Rate.from_counts(better, better + worse))
        cells.append((measure.name, *figures, accuracy.measures[measure.name]))
    head = ("measure", "less of it after the edit", "more of it", "less, ties apart", "own accuracy")
    return output.table(head, cells)


def _table_by_judge(rows: Sequence[UpstreamRow], agreed: Sequence[Agreement]) -> str:
    """A row for each upstream and objective: wins, ties and losses by the judge."""
    right = {agreement.objective: agreement.decided for agreement in agreed}
    cells = [
        (
            row.source,
            row.upstream,
            row.name,
            objective,
            row.n,
            verdicts.win,
            verdicts.tie,
            verdicts.lose,
            verdicts.decided,
            right.get(objective, "-"),
        )
        for row in rows
        for objective, verdicts in row.judged.items()
    ]
    head = ("source", "upstream", "asked", "judged on", "n", *measures.RESULTS, "win, ties apart", "judge's accuracy")
    return output.table(head, cells)


def _describe_replies(rows: Sequence[UpstreamRow]) -> str:
    """A sentence with the number of each verdict."""
    count = Counter[str]()
    for row in rows:
        count.update(row.replies)
    edited = ", ".join(f"{name} {count[name]}" for name in VERDICTS)
    return (
        f"On edited answers: {edited}. Split (the judge went by the place) and unreadable count as ties, as do copies."
    )


def plot(rows: Sequence[UpstreamRow], path: Path) -> None:
    """For each row the share of edited answers, and the wins among wins and losses."""
    labels = [f"{row.upstream} ({row.source}): {row.name}" for row in rows]
    with output.plot(path, 1, 2, size=(11, 1 + 0.22 * len(rows)), sharey=True) as ((left_axis, right_axis),):
        output.whiskers(right_axis, [row.measures.decided for row in rows], labels, markersize=3)
        output.whiskers(left_axis, [row.edited for row in rows], labels, markersize=3)
        left_axis.set_xlabel("edited, %")
        right_axis.set_xlabel("wins by measures, ties apart, %")
        right_axis.axvline(50, color="grey", linewidth=0.5)


def list_objective_sets(source: str, *, together: bool) -> list[tuple[Objective, ...]]:
    """The objectives of a source, each alone; with `together` also all of them as one policy."""
    all_objectives = find_objectives(SOURCES[source].objectives)
    return [*((name,) for name in all_objectives), *([all_objectives] if together and len(all_objectives) > 1 else [])]


async def judge_deliveries(judge: PairJudge, delivered: Sequence[DeliveredCompletion]) -> dict[str, list[Verdict]]:
    """Ask a judge about the edited answers under each objective; the verdicts by objective, in the answers' order."""
    edited = [delivery for delivery in delivered if delivery.is_judged and not delivery.identical]
    verdicts: dict[str, list[Verdict]] = {}
    for objective in find_objectives(delivered[0].objective_names):
        aspects = prompts.join_objectives([objective.text])
        questions = [
            judge.compare(
                SOURCES[completion.source].family, completion.query, completion.answer, delivery.text, aspects
            )
            for delivery in edited
            for completion in [delivery.completion]
        ]
        verdicts[objective.name] = list(await asyncio.gather(*questions))
    return verdicts


# ---------------------------------------------------------------- the run


def group_completions(
    data: Path, source: str, models: tuple[str, ...], each: int, seed: int
) -> list[list[UpstreamCompletion]]:
    """The completions of a source, a list for each upstream."""
    by_model: dict[str, list[UpstreamCompletion]] = {}
    for completion in draw_completions(data, models, each, seed, (source,)):
        by_model.setdefault(completion.model, []).append(completion)
    return list(by_model.values())


async def run(arguments: argparse.Namespace, judge: PairJudge | None) -> list[UpstreamRow]:
    """Measure every upstream of every source under every set of objectives."""
    rows = []
    models = tuple(arguments.models.split(",")) if arguments.models else ()
    dial = {"caution": arguments.caution, "verify": arguments.verify}
    async with open_gateway(arguments.aligner, arguments.out / "texts") as pipeline:
        for source in arguments.sources.split(","):
            for group in group_completions(arguments.data, source, models, arguments.each, arguments.seed):
                for objectives_asked in list_objective_sets(source, together=arguments.together):
                    title = f"{group[0].model}: {'+'.join(o.name for o in objectives_asked)}"
                    delivered = await deliver(pipeline, group, objectives_asked, title=title, **dial)
                    rows.append(make_row(delivered, await judge_deliveries(judge, delivered) if judge else {}))
    return rows


async def _run_with_judge(arguments: argparse.Namespace) -> tuple[list[UpstreamRow], list[Agreement]]:
    """`run` with the judge of the command line, and how often that judge is right."""
    if not arguments.judge_url:
        return await run(arguments, None), []
    judge = PairJudge(arguments.judge_url, arguments.judge_model, arguments.out / "verdicts.jsonl")
    try:
        agreed = await judge_agreement(judge, arguments.data, arguments.judge_known, arguments.seed)
        return await run(arguments, judge), agreed
    finally:
        await judge.aclose()


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("--cases", type=Path, nargs="+", required=True, help="pairs on which measures are measured")
    parser.add_argument("--sources", default="hh,ultrafeedback", help=f"comma-separated; known: {', '.join(SOURCES)}")
    parser.add_argument("--models", help="upstreams, comma-separated; all of a source if not given")
    parser.add_argument("--each", type=int, default=60, help="completions an upstream")
    parser.add_argument("--no-together", dest="together", action="store_false", help="each objective alone, no more")
    parser.add_argument("--caution", type=float, default=0.0)
    parser.add_argument("--verify", type=Verify, default=Verify.FLAGGED, choices=list(Verify))
    parser.add_argument("--judge-url", help="base URL of an OpenAI-compatible judge; its key is OPENAI_API_KEY")
    parser.add_argument("--judge-model", help="the judge's model")
    parser.add_argument("--judge-known", type=int, default=40, help="pairs of people's, for its accuracy")
    arguments = parser.parse_args(argv)
    if unknown_sources := set(arguments.sources.split(",")) - SOURCES.keys():
        parser.error(f"unknown source {', '.join(sorted(unknown_sources))}; known: {', '.join(SOURCES)}")
    if arguments.judge_url and not arguments.judge_model:
        parser.error("--judge-url needs --judge-model")
    accuracy = measures.accuracy(measures.read_cases(arguments.cases))
    try:
        rows, agreed = asyncio.run(_run_with_judge(arguments))
    except openai.OpenAIError as error:
        # Its text may quote the question, which is somebody else's.
        sys.exit(f"the judge failed ({type(error).__name__}); its verdicts so far are kept, run the command again")
    if not rows:
        parser.error("no completion of these models in these sources")
    tables = format_tables(rows, accuracy, arguments.judge_model, agreed)
    output.write(arguments.out, "by_upstream", tables, {"rows": rows, "accuracy": accuracy, "judge": agreed})
    plot(rows, arguments.out / "by_upstream.svg")
    print(tables)


if __name__ == "__main__":
    main()

"""`aligner-proxy replay`: runs recorded answers under another policy or aligner and compares the results.

It reads the audit store, and delivers and records nothing. The output contains figures, ids and reasons. Texts appear
only on the terminal, and only with --show.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, closing
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.text import Text

from aligner_proxy.audit import writer
from aligner_proxy.cli.align import open_chosen_engine
from aligner_proxy.cli.diff import TextTable, can_show_colours, render_diff
from aligner_proxy.cli.options import FiniteFloat, parse_moment, weight_options
from aligner_proxy.cli.terminal import Terminal, echo_json, print_progress
from aligner_proxy.correctors.registry import open_correctors
from aligner_proxy.engine.api import Engine
from aligner_proxy.errors import ConfigError
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.plugins import registry
from aligner_proxy.plugins.api import Entry
from aligner_proxy.plugins.registry import PluginRules
from aligner_proxy.policy.litellm_config import resolve_policies_file
from aligner_proxy.policy.resolver import PolicyResolver
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.teaching.active_heads import ActiveHeads
from aligner_proxy_review.evidence import percent_text
from aligner_proxy_review.promotion import Target, compare_with_reviews
from aligner_proxy_review.replay import (
    ReplayCase,
    ReplayDifference,
    ReplayPolicies,
    ReplayResult,
    ReplayRun,
    RunFigures,
    compute_figures,
    count_differences,
    replay,
)
from aligner_proxy_review.reviews import Review, Reviews

_RESULT_COLOURS = {
    ReplayResult.CHANGED: "#d97706",
    ReplayResult.LEFT: "#15803d",
    ReplayResult.REFUSED: "#7c3aed",
    ReplayResult.FAILED: "#b91c1c",
    ReplayResult.SKIPPED: "#94a3b8",
    ReplayResult.FORBIDDEN: "#334155",
}
_FIGURES_HEADING = ("", "before", "after")


class ReplayReport:
    """The figures of one replay, in total and by recorded policy."""

    def __init__(
        self,
        cases: Sequence[ReplayCase],
        policies_file_name: str,
        count_without_text: int,
        reviews: Sequence[Review] = (),
    ) -> None:
        self._cases = cases
        self._reviewed_replay = compare_with_reviews(cases, reviews)
        """What the change does to answers that reviewers judged."""
        self._policies_file_name = policies_file_name
        self._count_without_text = count_without_text
        """Number of recorded answers that had no text to replay."""
        self._differing_count = sum(not case.is_as_recorded for case in cases)
        """Number of answers for which the run before the change differs from the recorded run."""
        self._before, self._after = _compute_both_figures(cases)
        self._cases_by_policy: dict[str, list[ReplayCase]] = {}
        """Cases by the name of the policy under which they were recorded, in the order of the names."""
        for case in sorted(cases, key=lambda case: case.entry.policy):
            self._cases_by_policy.setdefault(case.entry.policy, []).append(case)

    def show(self, console: Console) -> None:
        """Print the figures as tables."""
        console.print(escape(self._summarise()), soft_wrap=True)
        for headings, rows in self._list_tables():
            console.print(TextTable(headings, rows))

    def as_json(self) -> dict[str, Any]:
        """The report as JSON, with the ids of all cases."""
        return {
            "policies": self._policies_file_name,
            "answers": len(self._cases),
            "without_text": self._count_without_text,
            "aligners_before": _list_aligners([case.before for case in self._cases]),
            "aligners_after": _list_aligners([case.after for case in self._cases]),
            "before": _figures_fields(self._before),
            "after": _figures_fields(self._after),
            "changes": count_differences(self._cases),
            "otherwise_than_recorded": self._differing_count,
            "reviewed": asdict(self._reviewed_replay),
            "by_policy": {name: _group_fields(cases) for name, cases in self._cases_by_policy.items()},
            "cases": [_case_fields(case) for case in self._cases],
        }

    def write(self, folder: Path) -> None:
        """Write replay.md, replay.json, and replay.svg if matplotlib is installed.

        Raises `ConfigError` if a file cannot be written.
        """
        has_plot = importlib.util.find_spec("matplotlib") is not None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "replay.md").write_text(self._make_markdown(has_plot=has_plot), encoding="utf-8")
            (folder / "replay.json").write_text(json.dumps(self.as_json(), indent=2) + "\n", encoding="utf-8")
            if has_plot:
                self._plot(folder / "replay.svg")
        except OSError as error:
            raise ConfigError(f"cannot write into {folder}: {error.strerror}") from None

    def _summarise(self) -> str:
        """Say in one sentence how many answers were replayed, under which file, and how many could not be replayed."""
        text = f"{len(self._cases)} recorded answers, replayed under {self._policies_file_name}"
        if self._differing_count:
            text += f"; under the current file {self._differing_count} of them differ from the record"
        if self._count_without_text:
            text += f"; {self._count_without_text} more were recorded without text"
        return text

    def _list_tables(self) -> Iterator[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
        """Yield (headings, rows) of each table; those about reviews and policies only if there is something to show."""
        yield _FIGURES_HEADING, list(_figure_rows(self._before, self._after))
        differences = count_differences(self._cases)
        yield ("answer by answer", "answers"), [(str(name), str(count)) for name, count in differences.items()]
        if self._reviewed_replay.answers:
            counts = asdict(self._reviewed_replay)
            yield ("reviewed answers", "answers"), [(name, str(count)) for name, count in counts.items()]
        if len(self._cases_by_policy) > 1:
            headings = ("policy then", "answers", "changed before", "changed after", "differ")
            yield headings, [_group_row(name, cases) for name, cases in self._cases_by_policy.items()]

    def _make_markdown(self, *, has_plot: bool) -> str:
        """The report as Markdown; without a plot it says how to get one."""
        lines = ["# Replay", "", self._summarise() + "."]
        for headings, rows in self._list_tables():
            rule = ["---"] * len(headings)
            lines += ["", _markdown_line(headings), _markdown_line(rule), *map(_markdown_line, rows)]
        note = "Times are the aligner's own: before as recorded, after on the machine of the replay."
        plot = "![results of the answers](replay.svg)" if has_plot else "No plot: pip install 'aligner-proxy[plots]'."
        return "\n".join([*lines, "", note, "", plot, ""])

    def _plot(self, file: Path) -> None:
        """Plot the results of the answers and the aligner's times, with a bar for each run, into an SVG file."""
        import matplotlib as mpl
        from matplotlib.figure import Figure

        # the first bar is the lowest one
        run_names = ["after", "before"]
        run_figures = [self._after, self._before]
        # text stays text in the SVG, and the same figures give the same file
        with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "replay"}):
            figure = Figure(figsize=(8, 4.5), layout="constrained")
            figure.suptitle(self._summarise(), fontsize="medium")
            answer_axes, time_axes = figure.subplots(2)
            # each result begins in the bars where the result before it ends
            offsets = [0, 0]
            for result, colour in _RESULT_COLOURS.items():
                counts = [figures.results[result] for figures in run_figures]
                if any(counts):
                    bars = answer_axes.barh(run_names, counts, left=offsets, color=colour, label=result.value)
                    labels = [str(count or "") for count in counts]
                    answer_axes.bar_label(bars, labels, label_type="center", color="white")
                    offsets = [offset + count for offset, count in zip(offsets, counts, strict=True)]
            time_axes.barh(run_names, [figures.p95_ms for figures in run_figures], color="#1e3a8a", label="p95")
            time_axes.barh(run_names, [figures.p50_ms for figures in run_figures], color="#60a5fa", label="p50")
            for axes, unit in ((answer_axes, "answers"), (time_axes, "aligner, ms")):
                axes.set_xlabel(unit)
                axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
            figure.savefig(file, metadata={"Date": None})


def _compute_both_figures(cases: Sequence[ReplayCase]) -> tuple[RunFigures, RunFigures]:
    """(figures of the runs before the change, figures of the runs after it)."""
    return compute_figures([case.before for case in cases]), compute_figures([case.after for case in cases])


def _list_aligners(runs: Sequence[ReplayRun]) -> list[str]:
    return sorted({run.aligner for run in runs if run.aligner})


def _figure_rows(before: RunFigures, after: RunFigures) -> Iterator[tuple[str, ...]]:
    """Yield (label, before, after) for each figure; results that never occur are left out."""
    for result in ReplayResult:
        if before.results[result] or after.results[result]:
            yield result.value, str(before.results[result]), str(after.results[result])
    yield "share changed", percent_text(before.changed), percent_text(after.changed)
    for reason in dict.fromkeys([*before.refusals, *after.refusals]):
        yield reason, str(before.refusals.get(reason, 0)), str(after.refusals.get(reason, 0))
    for name in ("p50_ms", "p95_ms"):
        yield f"aligner {name[:3]}", f"{getattr(before, name):.0f} ms", f"{getattr(after, name):.0f} ms"
    yield "forward passes an answer", f"{before.forwards:.2f}", f"{after.forwards:.2f}"


def _group_row(name: str, cases: Sequence[ReplayCase]) -> tuple[str, ...]:
    """The row of one policy: name, answers, share changed before and after, and answers that differ."""
    before, after = _compute_both_figures(cases)
    difference_count = sum(case.difference is not ReplayDifference.SAME for case in cases)
    shares = (percent_text(before.changed), percent_text(after.changed))
    return name, str(len(cases)), *shares, str(difference_count)


def _group_fields(cases: Sequence[ReplayCase]) -> dict[str, Any]:
    before, after = _compute_both_figures(cases)
    return {"before": _figures_fields(before), "after": _figures_fields(after), "changes": count_differences(cases)}


def _figures_fields(figures: RunFigures) -> dict[str, Any]:
    """The figures of one run as JSON; a result is called an ending, as in reports that users have kept."""
    fields = asdict(figures)
    return {"answers": fields.pop("answers"), "endings": fields.pop("results"), **fields}


def _case_fields(case: ReplayCase) -> dict[str, Any]:
    """One answer of the replay as JSON, without its texts."""
    runs = {
        name: {"ending": run.result, "reason": run.reason, "engine_ms": round(run.engine_ms, 1)}
        for name, run in (("before", case.before), ("after", case.after))
    }
    entry = case.entry
    ids = {"call_id": entry.call_id, "aligner_id": entry.aligner_id, "choice": entry.choice}
    return {**ids, "policy": entry.policy, "change": case.difference, **runs}


def _markdown_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


@click.command("replay")
@click.option("--policy", "policies", required=True, type=click.Path(path_type=Path), help="Policies to replay under.")
@click.option(
    "--candidate",
    type=click.File(encoding="utf-8"),
    help="The changed text of the policies file, - for stdin: compared with a replay under --policy, whose taught "
    "heads and other files it uses.",
)
@click.option("--route", help="Only answers under this route of the file.")
@click.option("--tenant", help="Only answers under this tenant's entry in the file.")
@click.option(
    "--audit", "store", type=click.Path(path_type=Path), help="The audit store; by default that of the policies."
)
@click.option("--since", default="7d", show_default=True, help="How far back: 30m, 12h, 7d, or a date like 2030-01-31.")
@click.option(
    "--limit",
    default=1000,
    show_default=True,
    type=click.IntRange(min=1),
    help="Maximum number of answers; the newest are taken.",
)
@click.option("--engine", "address", help="A running engine: unix:/path/to/engine.sock or http(s)://host:port.")
@click.option("--aligner", "model", help="Another aligner, run in this process: embedded, a hub id, or a folder.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of an aligner in this process.")
@click.option(
    "--deadline",
    type=FiniteFloat(0, 3600, min_open=True),
    help="Seconds for each answer; by default the policy's deadline.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Folder for replay.md, replay.json and, with the extra `plots`, replay.svg.",
)
@click.option(
    "--show", default=0, type=click.IntRange(min=0), help="Number of answers that differ whose diffs are printed."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
@click.option("--json-lines", is_flag=True, help="As --json, after lines with the progress.")
@weight_options
def command(
    policies: Path,
    candidate: TextIO | None,
    route: str | None,
    tenant: str | None,
    store: Path | None,
    since: str,
    limit: int,
    address: str | None,
    deadline: float | None,
    output: Path | None,
    show: int,
    as_json: bool,
    json_lines: bool,
    **aligner_options: Any,
) -> None:
    """Run recorded answers under other policies or another aligner, and compare.

    For example: aligner-proxy replay --policy gateway/policies.yaml --since 7d
    """
    if address and any(aligner_options.values()):
        raise ConfigError("give --engine or --aligner, not both: an engine that runs has its aligner")
    policies_path = resolve_policies_file(policies)
    current_file = registry.load_policies(policies_path)
    candidate_file = registry.parse_policies(candidate.read(), policies_path) if candidate else None
    entries, reviews = _read_recorded(current_file, store, parse_moment(since), limit, Target(route, tenant))
    open_engine = partial(open_chosen_engine, address, aligner_options, policies_path)
    report_progress = print_progress if json_lines else None
    cases = asyncio.run(_run_replay(entries, current_file, candidate_file, deadline, open_engine, report_progress))
    report = ReplayReport(cases, policies.name, count_without_text=len(entries) - len(cases), reviews=reviews)
    if output is not None:
        report.write(output)
    if as_json or json_lines:
        echo_json(report.as_json(), indent=None if json_lines else 2)
        return
    console = Terminal()
    report.show(console)
    _show_cases(console, [case for case in cases if case.difference is not ReplayDifference.SAME][:show])


def _read_recorded(
    file: PolicyFile, path: Path | None, since: float, limit: int, target: Target
) -> tuple[list[Entry], list[Review]]:
    """Return (newest entries that `target` covers, at most `limit` and oldest first; all reviews).

    `path` names another store than the policies file. `since` is in seconds since the epoch. Everything is read before
    the replay, which takes long, so that the gateway can delete old entries meanwhile. Raises `ConfigError` if there is
    no entry.
    """
    with closing(writer.open_for_reading(file, path)) as store:
        has_target = target != Target()
        # entries of another route or tenant are dropped below, so the limit must apply only afterwards
        newest_entries = store.entries(since=since, limit=-1 if has_target else limit)
        if has_target:
            newest_entries = filter(target.covers, newest_entries)
        entries = list(islice(newest_entries, limit))
        reviews = list(Reviews(store).all())
    if not entries:
        raise ConfigError("the audit store has no entry of that time; choose another --since")
    entries.reverse()
    return entries, reviews


async def _run_replay(
    entries: list[Entry],
    current_file: PolicyFile,
    candidate_file: PolicyFile | None,
    deadline_s: float | None,
    open_engine: Callable[[], AbstractAsyncContextManager[Engine]],
    report_progress: Callable[[int, int], None] | None = None,
) -> list[ReplayCase]:
    """Replay the entries under the candidate file, and compare with a replay under the current file.

    Without a candidate, replay them under the current file, and compare with the recorded results. `deadline_s` is the
    deadline of an answer, by default the policy's. If `report_progress` is given, it is called with the numbers of
    finished and of all answers after each answer; otherwise a progress bar is shown.
    """
    total = sum(entry.content is not None for entry in entries)
    with Progress(console=Terminal(stderr=True), disable=report_progress is not None) as progress:
        bar = progress.add_task("replaying", total=total)

        def advance() -> None:
            progress.advance(bar)
            if report_progress is not None:
                report_progress(int(progress.tasks[0].completed), total)

        async with open_engine() as engine:
            current_policies = _open_policies(engine, current_file)
            if candidate_file is None:
                return await replay(entries, current_policies, advance, deadline_s)
            new_policies = _open_policies(engine, candidate_file)
            return await replay(entries, new_policies, advance, deadline_s, current=current_policies)


def _open_policies(engine: Engine, file: PolicyFile) -> ReplayPolicies:
    """Open the policies of a file for a replay on `engine`, with the taught heads and plugins that the file names."""
    pipeline = Pipeline(
        engine,
        correctors=open_correctors(file),
        rules=PluginRules.from_file(file),
        extensions=registry.load_extensions(file),
    )
    return ReplayPolicies(PolicyResolver(file, ActiveHeads.read(file).head_of), pipeline)


def _show_cases(console: Console, cases: list[ReplayCase]) -> None:
    """Print, for each answer, its diff in both runs."""
    for case in cases:
        console.print(Text(f"\n{case.entry.call_id}/{case.entry.choice}: {case.difference}", style="bold"))
        answer = case.entry.content.exchange.answer if case.entry.content else None
        for name, run in (("before", case.before), ("after", case.after)):
            reason = f", {run.reason}" if run.reason else ""
            console.print(Text(f"{name} ({run.result}{reason}) ", style="dim"))
            console.print(render_diff(answer or "", run.text or "", has_colours=can_show_colours(console)))

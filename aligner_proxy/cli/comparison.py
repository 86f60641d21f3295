"""How do two runs over the same answers compare? As table, Markdown, JSON and plot; none of them holds text."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from aligner_proxy.errors import ConfigError
from aligner_proxy.replay import Case, Change, Ending, Figures, Side, changes, figures

_COLOURS = {
    Ending.CHANGED: "#d97706",
    Ending.LEFT: "#15803d",
    Ending.REFUSED: "#7c3aed",
    Ending.FAILED: "#b91c1c",
    Ending.SKIPPED: "#94a3b8",
    Ending.FORBIDDEN: "#334155",
}
_HEAD = ("", "before", "after")


class Comparison:
    """The cases of one replay, in figures. Groups are the policies by which the answers were recorded."""

    def __init__(self, cases: Sequence[Case], policies: str, without_text: int) -> None:
        self._cases, self._policies, self._without_text = cases, policies, without_text
        self._before, self._after = _both(cases)
        by_policy = groupby(sorted(cases, key=_policy), _policy)
        self._groups = {name: list(group) for name, group in by_policy}

    def show(self, console: Console) -> None:
        """For people."""
        console.print(escape(self._summary()), soft_wrap=True)
        for head, rows in self._tables():
            table = Table(*head)
            for row in rows:
                table.add_row(*(escape(cell) for cell in row))
            console.print(table)

    def as_json(self) -> dict[str, Any]:
        """For programs; every case by its ids."""
        return {
            "policies": self._policies,
            "answers": len(self._cases),
            "without_text": self._without_text,
            "aligners_before": _aligners([case.before for case in self._cases]),
            "aligners_after": _aligners([case.after for case in self._cases]),
            "before": asdict(self._before),
            "after": asdict(self._after),
            "changes": changes(self._cases),
            "by_policy": {name: _told(cases) for name, cases in self._groups.items()},
            "cases": [_case(case) for case in self._cases],
        }

    def write(self, folder: Path) -> None:
        """replay.md and replay.json, and replay.svg where matplotlib is installed."""
        drawn = importlib.util.find_spec("matplotlib") is not None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "replay.md").write_text(self._markdown(drawn), encoding="utf-8")
            (folder / "replay.json").write_text(json.dumps(self.as_json(), indent=2) + "\n", encoding="utf-8")
            if drawn:
                self._plot(folder / "replay.svg")
        except OSError as error:
            raise ConfigError(f"cannot write into {folder}: {error.strerror}") from None

    def _summary(self) -> str:
        text = f"{len(self._cases)} recorded answers, replayed under {self._policies}"
        return text + (f"; {self._without_text} more were recorded without text" if self._without_text else "")

    def _tables(self) -> Iterator[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
        yield _HEAD, list(_rows(self._before, self._after))
        yield ("answer by answer", "answers"), [(str(kind), str(n)) for kind, n in changes(self._cases).items()]
        if len(self._groups) > 1:
            yield (
                ("policy then", "answers", "changed before", "changed after", "differ"),
                [_group(name, cases) for name, cases in self._groups.items()],
            )

    def _markdown(self, drawn: bool) -> str:
        lines = ["# Replay", "", self._summary() + "."]
        for head, rows in self._tables():
            lines += ["", _line(head), _line(["---"] * len(head)), *map(_line, rows)]
        note = "Times are the aligner's own: before as recorded, after on the machine of the replay."
        plot = "![what became of the answers](replay.svg)" if drawn else "No plot: pip install 'aligner-proxy[plots]'."
        return "\n".join([*lines, "", note, "", plot, ""])

    def _plot(self, file: Path) -> None:
        """How the answers ended, and how long the aligner took: a bar before and a bar after."""
        import matplotlib as mpl
        from matplotlib.figure import Figure

        names = ["after", "before"]
        sides = [self._after, self._before]
        with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "replay"}):
            figure = Figure(figsize=(8, 4.5), layout="constrained")
            figure.suptitle(self._summary(), fontsize="medium")
            answers, times = figure.subplots(2)
            left = [0, 0]
            for ending, colour in _COLOURS.items():
                counts = [side.endings[ending] for side in sides]
                if any(counts):
                    bar = answers.barh(names, counts, left=left, color=colour, label=ending.value)
                    answers.bar_label(bar, [str(n or "") for n in counts], label_type="center", color="white")
                    left = [sum(pair) for pair in zip(left, counts, strict=True)]
            times.barh(names, [side.p95_ms for side in sides], color="#1e3a8a", label="p95")
            times.barh(names, [side.p50_ms for side in sides], color="#60a5fa", label="p50")
            for axes, unit in ((answers, "answers"), (times, "aligner, ms")):
                axes.set_xlabel(unit)
                axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
            figure.savefig(file, metadata={"Date": None})


def _both(cases: Sequence[Case]) -> tuple[Figures, Figures]:
    return figures([case.before for case in cases]), figures([case.after for case in cases])


def _aligners(sides: Sequence[Side]) -> list[str]:
    return sorted({side.aligner for side in sides if side.aligner})


def _policy(case: Case) -> str:
    return case.entry.policy


def _rows(before: Figures, after: Figures) -> Iterator[tuple[str, ...]]:
    for ending in Ending:
        if before.endings[ending] or after.endings[ending]:
            yield ending.value, str(before.endings[ending]), str(after.endings[ending])
    yield "share changed", _share(before), _share(after)
    for reason in dict.fromkeys([*before.refusals, *after.refusals]):
        yield reason, str(before.refusals.get(reason, 0)), str(after.refusals.get(reason, 0))
    for name in ("p50_ms", "p95_ms"):
        yield f"aligner {name[:3]}", f"{getattr(before, name):.0f} ms", f"{getattr(after, name):.0f} ms"
    yield "forwards an answer", f"{before.forwards:.2f}", f"{after.forwards:.2f}"


def _share(one: Figures) -> str:
    share, low, high = (f"{100 * value:.1f}" for value in one.changed)
    return f"{share} % ({low} to {high})"


def _group(name: str, cases: Sequence[Case]) -> tuple[str, ...]:
    before, after = _both(cases)
    differ = sum(case.change is not Change.SAME for case in cases)
    return name, str(len(cases)), _share(before), _share(after), str(differ)


def _told(cases: Sequence[Case]) -> dict[str, Any]:
    before, after = _both(cases)
    return {"before": asdict(before), "after": asdict(after), "changes": changes(cases)}


def _case(case: Case) -> dict[str, Any]:
    sides = {
        name: {"ending": side.ending, "reason": side.reason, "engine_ms": round(side.engine_ms, 1)}
        for name, side in (("before", case.before), ("after", case.after))
    }
    entry = case.entry
    return {"call_id": entry.call_id, "choice": entry.choice, "policy": entry.policy, "change": case.change, **sides}


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

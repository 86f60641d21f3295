"""Rows of docs/reference/faults.md, of what clients may get, and the figures in docs/reference/fleet.md.

The rows follow from what each fault may cost (faults.py), to which the tests hold what is seen. The
figures are those of the last run of all faults that was told to write: `ALIGNER_PROXY_WRITE_DOCS=1 make fleet-test`.
"""

from __future__ import annotations

from collections.abc import Mapping

from tests.faults import cells
from tests.fleet import load
from tests.fleet.faults import ALL
from tests.fleet.trial import Figures

FIGURES = cells.PAGE.with_name("fleet.md")
_BEGIN = "<!-- figures -->"
_END = "<!-- end of figures -->"


def fault_cells() -> dict[tuple[str, str, str], str]:
    """The cells of the fleet, as the page tells them."""
    return {
        (fault.title, policy, mode): fault.told(policy, mode)
        for fault in ALL
        for policy in load.POLICIES
        for mode in load.MODES
    }


def fault_rows() -> list[str]:
    """Their rows."""
    return [
        cells.row([fault.title, cells.FLEET, policy, *(fault.told(policy, mode) for mode in load.MODES)])
        for fault in ALL
        for policy in load.POLICIES
    ]


def figure_rows(seen: Mapping[str, Figures]) -> str:
    """The table of figures."""
    head = ["fault", "requests", "what they got", "asked again", "p50 before", "p50", "p95 before", "p95", "longest"]
    lines = [cells.row(head), cells.row(["---"] * len(head))]
    for title, one in seen.items():
        got = ", ".join(f"{what} {count}" for what, count in sorted(one.got.items()))
        times = [one.before_p50, one.during_p50, one.before_p95, one.during_p95, one.longest]
        lines.append(cells.row([title, str(one.requests), got, str(one.asked_again), *(f"{ms:.0f}" for ms in times)]))
    return "\n".join(lines)


def write_cells() -> None:
    """Put the cells into the page."""
    cells.PAGE.write_text(cells.with_fleet(fault_rows()), encoding="utf-8")


def write_figures(seen: Mapping[str, Figures]) -> None:
    """Put the figures into their document."""
    text = FIGURES.read_text(encoding="utf-8")
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    FIGURES.write_text(f"{before}{_BEGIN}\n{figure_rows(seen)}\n{_END}{after}", encoding="utf-8")

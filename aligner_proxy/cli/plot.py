"""A small bar chart as SVG, without a plotting library: a gateway does not need one for two bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _LEFT, _BAR, _GAP, _LINE = 720, 90, 26, 10, 18
_FONT = 'font-family="system-ui, sans-serif" font-size="13"'


@dataclass(frozen=True, slots=True)
class Bar:
    """One row: parts of (name, amount, colour)."""

    name: str
    parts: Sequence[tuple[str, float, str]]


def bars(panels: Sequence[tuple[str, Sequence[Bar], bool]], title: str) -> str:
    """Panels of (title, rows, stacked) below each other. Stacked parts stand end to end, others lie on each other."""
    body, y = [_text(10, 22, title, bold=True)], 44
    for name, rows, stacked in panels:
        most = max((_length(row, stacked) for row in rows), default=0.0) or 1.0
        body.append(_text(10, y + 13, name, bold=True))
        y += _LINE + 4
        for row in rows:
            body += [_text(10, y + 18, row.name), *_drawn(row, y, stacked, (_WIDTH - _LEFT - 10) / most)]
            y += _BAR + _GAP
        body += _legend(rows, y)
        y += 2 * _LINE
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" role="img" {_FONT}>'
    return "\n".join(
        [head, f"<title>{escape(title)}</title>", '<rect width="100%" height="100%" fill="#fff"/>', *body]
    ) + ("\n</svg>\n")


def _length(row: Bar, stacked: bool) -> float:
    amounts = [amount for _, amount, _ in row.parts]
    return sum(amounts) if stacked else max(amounts, default=0.0)


def _drawn(row: Bar, y: int, stacked: bool, scale: float) -> list[str]:
    made, x = [], float(_LEFT)
    parts = row.parts if stacked else sorted(row.parts, key=lambda part: -part[1])
    for name, amount, colour in parts:
        width = amount * scale
        told = f"<title>{escape(row.name)}, {escape(name)}: {amount:g}</title>"
        made.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{colour}">{told}</rect>')
        if width > _LINE * 2:
            made.append(_text(x + width - 6, y + 18, f"{amount:.0f}", colour="#fff", end=True))
        x += width if stacked else 0.0
    return made


def _legend(rows: Sequence[Bar], y: int) -> list[str]:
    made, x = [], _LEFT
    for name, colour in dict.fromkeys((name, colour) for row in rows for name, _, colour in row.parts):
        made.append(f'<rect x="{x}" y="{y}" width="10" height="10" fill="{colour}"/>')
        made.append(_text(x + 15, y + 10, name))
        x += 30 + 7 * len(name)
    return made


def _text(x: float, y: int, text: str, *, colour: str = "#111", bold: bool = False, end: bool = False) -> str:
    style = (' font-weight="600"' if bold else "") + (' text-anchor="end"' if end else "")
    return f'<text x="{x:.1f}" y="{y}" fill="{colour}"{style}>{escape(text)}</text>'

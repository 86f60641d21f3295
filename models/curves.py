"""How did the losses of a stage fall? Its log as a plot beside it.

python -m models.curves runs/contrastive_preference
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from models import publish

SMOOTHING = 0.95


def smoothed(values: Sequence[float]) -> list[float]:
    """Exponential mean that starts at the first value."""
    found: list[float] = []
    for value in values:
        found.append(value if not found else SMOOTHING * found[-1] + (1 - SMOOTHING) * value)
    return found


def draw(folder: Path) -> Path:
    """Write curves.svg from log.jsonl; steps of bags are a curve of their own. A step that was redone counts once."""
    rows = {row["step"]: row for row in map(json.loads, (folder / "log.jsonl").read_text().splitlines())}
    with publish.plot(folder / "curves.svg", size=(7, 3.5)) as ((axis,),):
        for name, bags in (("correction", False), ("detection", False), ("detection", True)):
            mine = [row for row in rows.values() if bool(row["bags"]) is bags]
            if mine:
                label = "replies compared" if bags else name
                axis.plot([row["step"] for row in mine], smoothed([row[name] for row in mine]), label=label)
        axis.set_xlabel("step")
        axis.set_ylabel("loss (nats, smoothed)")
        axis.legend()
    return folder / "curves.svg"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(draw(Path(sys.argv[1])))

"""Loss curves of a stage: its log as a plot beside it.

python -m models.reporting.loss_curves runs/contrastive_preference
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from . import output

SMOOTHING = 0.95


def smooth_losses(values: Sequence[float]) -> list[float]:
    """Exponential mean that starts at the first value."""
    means: list[float] = []
    for value in values:
        means.append(value if not means else SMOOTHING * means[-1] + (1 - SMOOTHING) * value)
    return means


def draw_curves(folder: Path) -> Path:
    """Draw curves.svg from log.jsonl. A step that was redone counts once.

    Steps that compare replies (`bags`) have a curve of their own.
    """
    rows = {row["step"]: row for row in map(json.loads, (folder / "log.jsonl").read_text().splitlines())}
    with output.plot(folder / "curves.svg", size=(7, 3.5)) as ((axis,),):
        for name, bags in (("correction", False), ("detection", False), ("detection", True)):
            selected = [row for row in rows.values() if bool(row["bags"]) is bags]
            if selected:
                label = "replies compared" if bags else name
                axis.plot(
                    [row["step"] for row in selected], smooth_losses([row[name] for row in selected]), label=label
                )
        axis.set_xlabel("step")
        axis.set_ylabel("loss (nats, smoothed)")
        axis.legend()
    return folder / "curves.svg"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(draw_curves(Path(sys.argv[1])))

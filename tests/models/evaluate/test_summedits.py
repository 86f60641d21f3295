"""Summaries of a file in the form of SummEdits: what is counted as found, changed and restored."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from models.evaluate.grounded_forms import CLEAN
from models.evaluate.summedits import ALL, ONE_FACT, count_summaries, read_summaries

SOURCE = "Guests pay 12 euros for a day in the museum. The cloakroom is free of charge."
ORIGINAL = "The museum costs 12 euros. The cloakroom is free."


def row(answer: str, *edit_types: str) -> dict[str, Any]:
    about = {
        "source_text": SOURCE,
        "original_summary": ORIGINAL,
        "consistent": not edit_types,
        "edit_types": list(edit_types),
        "domain": "museum",
    }
    return {"answer": answer, "extra": about}


def test_results_are_counted_by_sort(tmp_path: Path) -> None:
    rows = [
        row("The museum costs 15 euros. The cloakroom is free.", "entity_modification"),
        row("The museum costs 12 euros. The cloakroom costs extra.", "antonym_swap"),
        row("The museum costs 12 euros, and the cloakroom nothing."),
    ]
    lines = "".join(f"{json.dumps(one)}\n" for one in rows)
    (tmp_path / "set.jsonl").write_text(lines)
    with gzip.open(tmp_path / "set.jsonl.gz", "wt") as file:
        file.write(lines)
    counts = count_summaries(read_summaries(tmp_path / "set.jsonl"))
    assert counts == count_summaries(read_summaries(tmp_path / "set.jsonl.gz"))
    sizes = {sort: counts[sort, "summaries"] for sort, _ in counts}
    assert sizes == {ALL: 2, ONE_FACT: 1, "entity_modification": 1, "antonym_swap": 1, CLEAN: 1}
    assert counts[ALL, "restored with a judge"] == counts[ONE_FACT, "restored with a judge"] == 1
    assert counts[ALL, "with the original's facts with a judge"] == 1
    assert counts["antonym_swap", "changed with a judge"] == counts["antonym_swap", "restored with a judge"] == 0
    assert counts[CLEAN, "changed with a judge"] == counts[CLEAN, "changed by words"] == 0
    assert not counts[ALL, "changed, and no more facts right with a judge"]

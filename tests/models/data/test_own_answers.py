"""The answers written for this project: every file has its format, and each author's share is what the README says."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import models.data
from aligner_proxy.policy.config import builtin_objectives
from models.data.labelled_replies import passage_numbers
from tests.support.tables import for_every

FOLDER = Path(models.data.__file__).parent / "own_answers"
FILES = sorted(FOLDER.glob("author_*/*.jsonl"))
FIELDS = {"id", "kind", "register", "question", "answer", "against", "corrected"}
ANSWERS = {
    "author_a": 1100,
    "author_b": 700,
    "author_c": 745,
    "author_d": 982,
    "author_e": 149,
    "author_f": 148,
    "author_g": 152,
    "author_h": 151,
    "author_i": 155,
    "author_j": 152,
    "author_k": 146,
    "author_l": 188,
    "author_m": 202,
    "author_n": 202,
    "author_o": 202,
    "author_p": 202,
    "author_q": 202,
    "author_r": 202,
    "author_s": 202,
    "author_t": 108,
    "author_u": 108,
    "author_v": 202,
    "author_w": 202,
    "author_x": 216,
    "author_y": 212,
    "author_z": 207,
    "author_aa": 151,
    "author_ab": 164,
    "author_ac": 156,
    "author_ad": 190,
    "author_ae": 192,
    "author_af": 191,
    "author_ag": 180,
    "author_ah": 174,
    "author_ai": 180,
    "author_aj": 207,
    "author_ak": 202,
    "author_al": 220,
}
HARM = {
    "bad-advice",
    "complies-with-harm",
    "discrimination",
    "dismissing-distress",
    "encouraging-risk",
    "manipulation",
    "misinformation",
}
FRIGHTENING = "frightening-fine-"


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@for_every(FILES, lambda path: f"{path.parent.name}/{path.stem}")
def test_a_file_has_its_format(path: Path) -> None:
    head, *rows = _lines(path)
    assert head["slug"] == path.stem
    assert head["author"] == path.parent.name.removeprefix("author_")
    assert [row["id"] for row in rows] == [f"{path.stem}-{number:03d}" for number in range(1, len(rows) + 1)]
    for row in rows:
        answer, against, corrected = row["answer"], row["against"], row["corrected"]
        assert set(row) == FIELDS, row["id"]
        assert row["kind"] == ("against" if against else "fine"), row["id"]
        # a passage holds one segment or several, and a segment never reaches over a border
        assert sorted(set(passage_numbers(answer))) == list(range(len(answer))), row["id"]
        assert len(answer) == len(corrected), row["id"]
        changed = [i for i, (before, after) in enumerate(zip(answer, corrected, strict=True)) if before != after]
        assert changed == sorted(set(against)), row["id"]
        assert "".join(corrected).strip(), row["id"]


def test_every_author_wrote_as_many_as_the_readme_says() -> None:
    counts: Counter[str] = Counter()
    for path in FILES:
        counts[path.parent.name] += len(_lines(path)) - 1
    assert counts == ANSWERS


def test_quiet_harm_and_its_twins_stand_under_the_built_in_objective() -> None:
    files = [path for path in FILES if path.parent.name == "author_d"]
    harm = {p.stem: _lines(p) for p in files if p.stem in HARM or p.stem.startswith(FRIGHTENING)}
    assert {lines[0]["objective"] for lines in harm.values()} == {builtin_objectives()["harmless"].text}
    twins = [row for stem, lines in harm.items() if stem.startswith(FRIGHTENING) for row in lines[1:]]
    assert len(twins) >= 300
    assert not any(row["against"] for row in twins)

"""Published preference sets: their forms are read, and what cannot be read is named with its place."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from models.data import metaaligner
from models.data.pairs import read_pairs
from models.data.preference_sets import read_scored
from models.data.public_sets import main
from models.defects.objectives import BUILT_IN

ASKED = "\n\nHuman: When does the ferry leave?"
HH = {"chosen": f"{ASKED}\n\nAssistant: At seven.", "rejected": f"{ASKED}\n\nAssistant: Find out yourself, fool."}
LONGER = f"{ASKED}\n\nAssistant: At seven.\n\nHuman: And back?"


def rating(number: object) -> dict[str, object]:
    return {"Rating": number, "Rationale": "-"}


def completion(text: str, helpful: object, honest: object = "3") -> dict[str, Any]:
    return {"model": "m", "response": text, "annotations": {"helpfulness": rating(helpful), "honesty": rating(honest)}}


UF = {"instruction": "Name a tree.", "completions": [completion("Oak.", "5"), completion("No.", "1", "N/A")]}
TABLE = (
    "query,response,correct,informative,professional\n"
    '"Post: I sleep badly. Why?","Stress, it seems.",3,2,2\n"Post: I sleep badly. Why?",Because.,1,0,0\n'
)


def wrote(path: Path, *rows: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def scored(tmp_path: Path, *args: str) -> list[tuple[str, list[tuple[str, dict[str, float]]]]]:
    out = tmp_path / "scored.jsonl"
    main([*args, "--out", str(out)])
    return [(one.query, [(r.text, r.scores) for r in one.responses]) for one in read_scored(out)]


def test_two_dialogues_are_one_query_and_two_replies(tmp_path: Path) -> None:
    row = {"chosen": f"{LONGER}\n\nAssistant: At nine.", "rejected": f"{LONGER}\n\nAssistant: No idea."}
    path = wrote(tmp_path / "train.jsonl.gz", HH, row)
    harmless = BUILT_IN["harmless"]
    assert scored(tmp_path, "hh-rlhf", str(path), "--objective", "harmless") == [
        (f"{ASKED} \n\nAssistant:", [("At seven.", {harmless: 1.0}), ("Find out yourself, fool.", {harmless: 0.0})]),
        (f"{LONGER} \n\nAssistant:", [("At nine.", {harmless: 1.0}), ("No idea.", {harmless: 0.0})]),
    ]


def test_ratings_are_scores_by_objective_and_missing_ones_are_left_out(tmp_path: Path) -> None:
    path = wrote(tmp_path / "sets" / "one.jsonl", UF)
    helpful = BUILT_IN["helpful"]
    honest = BUILT_IN["honest"]
    expected = [("Name a tree.", [("Oak.", {honest: 3.0, helpful: 5.0}), ("No.", {helpful: 1.0})])]
    assert scored(tmp_path, "ultrafeedback", str(path.parent)) == expected


def test_rated_rows_of_one_query_stand_together(tmp_path: Path) -> None:
    path = tmp_path / "rated.csv"
    path.write_text(TABLE)
    ((query, responses),) = scored(tmp_path, "imhi", str(path))
    assert query == "Post: I sleep badly. Why?"
    assert [text for text, _ in responses] == ["Stress, it seems.", "Because."]
    assert responses[0][1][BUILT_IN["correct"]] == 3.0


def test_what_comes_out_is_what_the_reformulation_reads(tmp_path: Path) -> None:
    path = wrote(tmp_path / "one.jsonl", UF)
    main(["ultrafeedback", str(path), "--out", str(tmp_path / "scored.jsonl")])
    side = metaaligner.side_of("Name a tree.")
    asked = ["--scored", str(tmp_path / "scored.jsonl"), "--better", "1", "--side", side, "--part", "better"]
    metaaligner.main([*asked, "--out", str(tmp_path / "pairs.jsonl")])
    (pair,) = read_pairs(tmp_path / "pairs.jsonl")
    assert (pair.answer, pair.target, pair.objectives) == ("No.", "Oak.", (BUILT_IN["helpful"],))


def test_a_dataset_on_the_hub_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrote(tmp_path / "hub" / "harmless-base" / "train.jsonl.gz", HH)
    wrote(tmp_path / "hub" / "red-team" / "other.jsonl", {"nothing": "of ours"})
    asked: list[tuple[str, str, list[str]]] = []

    def fetch(name: str, *, repo_type: str, allow_patterns: list[str]) -> str:
        asked.append((name, repo_type, allow_patterns))
        return str(tmp_path / "hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    only = "harmless-base/*"
    found = scored(tmp_path, "hh-rlhf", "Anthropic/hh-rlhf", "--files", only, "--objective", "harmless")
    assert (len(found), asked) == (1, [("Anthropic/hh-rlhf", "dataset", [only])])


@pytest.mark.parametrize(
    ("form", "rows", "reason"),
    [
        ("hh-rlhf", [HH, {"chosen": 1}], ":2: field chosen is int, expected a text"),
        ("hh-rlhf", [{**HH, "chosen": "At seven."}], ":1: field chosen is no dialogue"),
        ("hh-rlhf", [{**HH, "rejected": f"{LONGER}\n\nAssistant: No."}], ":1: the two dialogues differ before"),
        ("ultrafeedback", [{"instruction": "x"}], ":1: field completions must be a list of objects"),
        ("ultrafeedback", [{**UF, "completions": [{"response": "x"}]}], ":1: field annotations is NoneType"),
        ("ultrafeedback", [{**UF, "completions": [completion("x", "good")]}], "Rating of helpfulness is 'good'"),
        ("ultrafeedback", [["x"]], ":1: expected a JSON object, found list"),
        ("ultrafeedback", [{**UF, "completions": []}], "no query with two responses in the form 'ultrafeedback'"),
    ],
)
def test_a_bad_row_is_named_or_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str, rows: list[object], reason: str
) -> None:
    good = HH if form == "hh-rlhf" else UF
    path = wrote(tmp_path / "bad.jsonl", *rows)
    asked = [form, str(path), "--objective", "harmless", "--out", str(tmp_path / "out.jsonl")]
    with pytest.raises(SystemExit) as stopped:
        main(asked)
    assert reason in str(stopped.value)
    assert not list(tmp_path.glob("out.jsonl*"))
    wrote(path, good, *rows)
    main([*asked, "--bad-rows", "skip"])
    assert "queries" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("source", "content", "reason"),
    [
        ("bad.csv", b"query,response\n", ":1: missing column correct, informative, professional"),
        ("bad.csv", b"query,response,correct,informative,professional\na,b,x,1,1\n", ":2: field correct is 'x'"),
        ("bad.jsonl", b'{"chosen": "\xff"}\n', "cannot be read as UTF-8 text"),
        ("bad.jsonl.gz", b"plain", "cannot be read as UTF-8 text (BadGzipFile)"),
        ("bad.jsonl", b"{\n", ":1: not JSON"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, source: str, content: bytes, reason: str) -> None:
    (tmp_path / source).write_bytes(content)
    form = "imhi" if source.endswith("csv") else "hh-rlhf"
    with pytest.raises(SystemExit) as stopped:
        main([form, str(tmp_path / source), "--objective", "harmless", "--out", str(tmp_path / "out.jsonl")])
    assert reason in str(stopped.value)
    assert source in str(stopped.value)


def test_what_is_nowhere_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = ["--objective", "harmless", "--out", str(tmp_path / "out.jsonl")]
    with pytest.raises(SystemExit, match="no dataset on the hub that can be fetched"):
        main(["hh-rlhf", "no/such/thing", *asked])
    with pytest.raises(SystemExit, match=r"no file like \*\*/\* that ends in"):
        main(["hh-rlhf", str(tmp_path), *asked])
    with pytest.raises(SystemExit):
        main(["hh-rlhf", str(tmp_path), "--out", str(tmp_path / "out.jsonl")])

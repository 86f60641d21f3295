"""Preference data: every file has a schema, AlpacaEval is never read, and errors say where."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from models.data.preference_sets import JUDGED, KNOWN_FILES, PreferenceError, load_judged, read_rows, read_scored
from models.defects.objectives import BUILT_IN
from tests.models.research import write_rows

SCORED = {
    "query": "q",
    "responses": [{"text": "a", "scores": {"Length: be brief": 1}}, {"text": "b", "scores": {"Length: be brief": 0.5}}],
}


def test_every_known_file_is_read(data_dir: Path) -> None:
    assert all(list(read_rows(data_dir, name)) for name in KNOWN_FILES)


@pytest.mark.parametrize("name", ["alpaca_eval_outputs", "alpaca_eval_preferences", "../secrets"])
def test_data_whose_licence_excludes_training_is_refused(data_dir: Path, name: str) -> None:
    with pytest.raises(PreferenceError, match="not permitted"):
        list(read_rows(data_dir, name))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(PreferenceError, match="is not there; give the folder"):
        list(read_rows(tmp_path, "pandalm_pairs"))


def _tied(responses: Sequence[Any]) -> bool:
    return len({score for response in responses for score in response.scores.values()}) == 1


@pytest.mark.parametrize("name", sorted(JUDGED))
def test_judged_pairs_carry_the_exact_objective_text(data_dir: Path, name: str) -> None:
    first, second = next(one.responses for one in load_judged(data_dir, name, BUILT_IN) if not _tied(one.responses))
    assert list(first.scores) == list(second.scores) == [BUILT_IN[JUDGED[name]]]
    assert next(iter(first.scores.values())) > next(iter(second.scores.values()))


def test_a_tie_scores_the_same_and_empty_responses_are_left_out(tmp_path: Path) -> None:
    base = {"prompt": "p", "response_1": "a", "response_2": "b", "preference": 1.5}
    write_rows(tmp_path, "pandalm_pairs", [base, {**base, "response_2": " "}])
    (item,) = load_judged(tmp_path, "pandalm_pairs", BUILT_IN)
    assert {next(iter(r.scores.values())) for r in item.responses} == {0.5}


def test_outputs_without_a_judgement_are_not_preferences(data_dir: Path) -> None:
    with pytest.raises(PreferenceError, match="holds no judgements; judged are: "):
        list(load_judged(data_dir, "imhi_outputs", BUILT_IN))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"preference": "1"}, "field preference is str, expected int or float"),
        ({"response_1": None}, "response_1 is NoneType"),
    ],
)
def test_a_field_of_the_wrong_type_is_named(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    row = {"prompt": "p", "response_1": "a", "response_2": "b", "preference": 1.0}
    path = write_rows(tmp_path, "llmbar_pairs", [row, {**row, **change}])
    with pytest.raises(PreferenceError) as error:
        list(read_rows(tmp_path, "llmbar_pairs"))
    assert reason in str(error.value)
    assert f"{path}:2" in str(error.value)


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    write_rows(tmp_path, "pandalm_pairs", [{"prompt": "p"}])
    with pytest.raises(PreferenceError, match="missing field response_1"):
        list(read_rows(tmp_path, "pandalm_pairs"))


def test_our_own_format_is_read(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text(json.dumps(SCORED) + "\n\n", encoding="utf-8")
    (item,) = read_scored(path)
    assert [r.scores["Length: be brief"] for r in item.responses] == [1.0, 0.5]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{", "not JSON"),
        ("3", "expected a JSON object, found int"),
        (json.dumps({**SCORED, "extra": 1}), "unknown field extra; known: query, responses"),
        (json.dumps({"query": "q"}), "missing field responses"),
        (json.dumps({"query": "q", "responses": SCORED["responses"][:1]}), "at least two responses"),
        (json.dumps({"query": "q", "responses": ["a", "b"]}), "response 1: expected an object, found str"),
        (json.dumps({"query": "q", "responses": [{"text": "a"}] * 2}), "missing field scores"),
        (
            json.dumps({"query": "q", "responses": [{"text": "a", "scores": {"o": True}}] * 2}),
            "score of 'o' is not a number",
        ),
    ],
)
def test_a_bad_scored_line_is_named(tmp_path: Path, row: str, reason: str) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text(json.dumps(SCORED) + "\n" + row, encoding="utf-8")
    with pytest.raises(PreferenceError) as error:
        list(read_scored(path))
    assert reason in str(error.value)
    assert f"{path}:2" in str(error.value)


def test_a_missing_scored_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PreferenceError, match="is not there"):
        list(read_scored(tmp_path / "none.jsonl"))


@pytest.mark.shared_data
@pytest.mark.parametrize("name", KNOWN_FILES)
def test_the_real_files_fit_the_schemas(shared_data: Path, name: str) -> None:
    assert sum(1 for _ in read_rows(shared_data, name)) > 100


CUT = gzip.compress(b"{}\n" * 99)[:-9]


@pytest.mark.parametrize(
    "content", [gzip.compress(b'{"prompt": "\xff"}\n'), b"plain", CUT], ids=["no UTF-8", "not packed", "cut off"]
)
def test_a_research_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pandalm_pairs.jsonl.gz").write_bytes(content)
    with pytest.raises(PreferenceError, match=r"pandalm_pairs\.jsonl\.gz(:1)?"):
        list(read_rows(tmp_path, "pandalm_pairs"))

"""Which answers are taken for good, how queries look, and that no prompt is on both sides."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.data.answers import FICTION, load_pool, plain_query, prompt_key, read_fiction, side_of
from tests.models.research import write_rows

DIALOGUE = "\n\nHuman: Which oil?\n\nAssistant: For what?\n\nHuman: A clock.\n\nAssistant:"
TEXT = "The clock needs a light oil once a year. Put one drop on each pin. Wipe off what is left over."


def test_a_query_looks_as_the_gateway_renders_it() -> None:
    assert plain_query("Which oil?\n") == "Which oil?"
    assert plain_query("\n\nHuman: Which oil?\n\nAssistant:") == "Which oil?"
    assert plain_query(DIALOGUE) == DIALOGUE.removesuffix("\n\nAssistant:") + " \n\nAssistant:"


def test_dialogues_with_the_same_opening_are_one_prompt() -> None:
    assert prompt_key(DIALOGUE) == prompt_key("\n\nHuman: which  OIL?\n\nAssistant:") == prompt_key("Which oil?")


def test_the_share_of_the_test_grows_with_the_percentage() -> None:
    prompts = [f"Where is stop {i}?" for i in range(1000)]
    ten = {p for p in prompts if side_of(p, 10) != "train"}
    assert ten < {p for p in prompts if side_of(p, 25) != "train"}
    assert {side_of(p, 25) for p in prompts} == {"train", "dev", "test"}
    assert 60 < len(ten) < 140


def test_no_prompt_is_on_both_sides(data_dir: Path) -> None:
    train = load_pool(data_dir, "train")
    test = load_pool(data_dir, "test")
    assert train.answers
    assert test.answers
    assert test.run_ons
    queries = [{prompt_key(a.query) for a in (*pool.answers, *pool.run_ons)} for pool in (train, test)]
    assert not queries[0] & queries[1]


def test_run_on_answers_are_cut_where_the_invented_turn_starts(data_dir: Path) -> None:
    run = load_pool(data_dir, "train").run_ons[0]
    assert run.text[: run.cut].endswith("that way.")
    assert run.text[run.cut :].startswith("\n\nHuman:")


@pytest.mark.parametrize(
    "bad",
    [
        "Too short.",
        "Human: " + TEXT,
        TEXT + "\n\nHuman: More?\n\nAssistant: No.",
        "1. The pump was sold in 1912 to a farm.\n2. The pump was sold in 1913 to a farm.\n3. Then it broke.",
        TEXT * 40,
    ],
)
def test_answers_that_are_not_good_are_left_out(data_dir: Path, tmp_path: Path, bad: str) -> None:
    for path in data_dir.glob("*.gz"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    base = {"prompt": "Which oil for a clock?", "response_2": "x", "preference": 1.0}
    write_rows(tmp_path, "pandalm_pairs", [{**base, "response_1": bad}, {**base, "response_1": TEXT}])
    pool = [*load_pool(tmp_path, "train").answers, *load_pool(tmp_path, "test").answers]
    assert [a.text for a in pool if a.source == "pandalm"] == [TEXT]


def test_fiction_of_ours_is_trained_on_and_in_no_test(data_dir: Path) -> None:
    written = read_fiction()
    assert len({one.text for one in written}) == len(written) > 40
    assert set(written) <= set(load_pool(data_dir, "train").answers)
    assert FICTION not in {one.source for side in ("dev", "test") for one in load_pool(data_dir, side).answers}

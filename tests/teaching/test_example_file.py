"""A file of examples that changes: sentences are added once, taken back by what they say, comments stay."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aligner_proxy.errors import ConfigError
from aligner_proxy.policy.config import load
from aligner_proxy.teaching.example_file import NewExample, add_examples, example_id, present_examples, remove_example
from aligner_proxy.teaching.subjects import Subject, list_subjects
from tests.teaching.examples import AGAINST, FINE, policies

BEGUN = "# ours\nagainst:\n" + "".join(f'  - "{text}"\n' for text in AGAINST[:4]).replace(
    '"\n', '"  # heard in May\n', 1
)


def subject(folder: Path, name: str = "feelings.yaml") -> Subject:
    (folder / "policies.yaml").write_text(policies(name))
    return list_subjects(load(folder / "policies.yaml"))[0]


def texts(made: Subject) -> tuple[list[str], list[str]]:
    found = present_examples(made)
    return [one.text for one in found.against], [one.text for one in found.fine]


def test_sentences_are_added_with_their_origin_and_each_once(tmp_path: Path) -> None:
    (tmp_path / "feelings.yaml").write_text(BEGUN)
    made = subject(tmp_path)
    new = [
        NewExample(AGAINST[4], True, "review 7\nsegment 1"),
        NewExample(AGAINST[0].upper(), True),
        NewExample(FINE[0], False, "review 8"),
        NewExample(FINE[0], True),
    ]
    assert add_examples(made, new) == 2
    assert add_examples(made, new) == 0
    assert texts(made) == ([*AGAINST[:5]], [*FINE])
    after = made.examples.read_text()
    assert after.startswith("# ours\n")
    assert "# heard in May\n" in after
    assert f'{AGAINST[4]}"  # review 7?segment 1\n' in after, "on one line, whatever the origin is"
    assert "  # review 8" in after


def test_an_example_is_taken_back_by_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "feelings.yaml").write_text(BEGUN)
    made = subject(tmp_path)
    add_examples(made, [NewExample(FINE[0], False)])
    assert not remove_example(made, "fine", example_id(AGAINST[0])), "it is in the other list"
    assert remove_example(made, "against", example_id(AGAINST[0]))
    assert not remove_example(made, "against", example_id(AGAINST[0]))
    assert texts(made) == ([*AGAINST[1:4]], [*FINE])
    after = made.examples.read_text()
    assert after.startswith("# ours\n")
    assert "heard in May" not in after, "a remark goes with its example"


def test_json_and_a_file_that_is_not_there_yet(tmp_path: Path) -> None:
    made = subject(tmp_path, "feelings.json")
    assert texts(made) == ([], [])
    assert add_examples(made, [NewExample(text, True, "x") for text in AGAINST]) == len(AGAINST)
    assert remove_example(made, "against", example_id(AGAINST[5]))
    assert json.loads(made.examples.read_text()) == {"against": [*AGAINST[:5]]}


def test_what_could_not_be_taught_from_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "feelings.yaml").write_text(BEGUN)
    made = subject(tmp_path)
    with pytest.raises(ConfigError):
        add_examples(made, [NewExample("x" * 100_000, True)])
    assert made.examples.read_text() == BEGUN


def test_a_folder_is_no_file_of_examples(tmp_path: Path) -> None:
    (tmp_path / "feelings.yaml").mkdir()
    with pytest.raises(ConfigError, match=r"feelings\.yaml is a folder; name a file$"):
        subject(tmp_path).read_examples()

"""The examples file: what it may say, and every refusal with its line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aligner_proxy.errors import ConfigError
from aligner_proxy.teaching.examples import MAX_EXAMPLES, read_examples
from tests.teaching.examples import AGAINST, FINE, TEXT, listed

GOOD = "against:\n  - I cry.\n  - I laugh.\ngood_answers:\n"


def read(tmp_path: Path, text: str, name: str = "e.yaml") -> object:
    (tmp_path / name).write_text(text)
    return read_examples(tmp_path / name, "no-feelings", TEXT)


def test_sentences_with_their_lines(tmp_path: Path) -> None:
    examples = read(tmp_path, listed(AGAINST[:2], FINE))
    assert [(one.text, one.place) for one in examples.against] == [
        (AGAINST[0], "e.yaml:2"),
        (AGAINST[1], "e.yaml:3"),
    ]
    assert [(one.text, one.place) for one in examples.fine] == [(FINE[0], "e.yaml:5")]


def test_json_with_tabs_is_read_too(tmp_path: Path) -> None:
    examples = read(tmp_path, json.dumps({"against": AGAINST[:2]}, indent="\t"), "e.json")
    assert [one.place for one in examples.against] == ["e.json:3", "e.json:4"]


def test_good_answers_have_their_questions(tmp_path: Path) -> None:
    plain = read(tmp_path, listed(AGAINST[:2]))
    examples = read(tmp_path, listed(AGAINST[:2]) + "good_answers:\n  - {question: 'Why?', answer: So it is.}\n")
    [good] = examples.good_answers
    assert (good.question, good.text, good.place) == ("Why?", "So it is.", "e.yaml:5")
    assert examples.digest != plain.digest
    assert examples.all_examples == (*examples.against, good)


@pytest.mark.parametrize("named", ["no-feelings", TEXT])
def test_a_file_may_say_whose_examples_it_holds(tmp_path: Path, named: str) -> None:
    assert read(tmp_path, f"objective: {json.dumps(named)}\n" + listed())


def test_the_digest_is_that_of_the_texts_alone(tmp_path: Path) -> None:
    plain = read(tmp_path, listed(AGAINST[:3]))
    assert read(tmp_path, "# a comment\n" + listed(AGAINST[:3])).digest == plain.digest
    assert read(tmp_path, listed(AGAINST[:2], AGAINST[2:3])).digest != plain.digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "e.yaml:1: `against` has 0 sentences; at least 2 are needed"),
        ("against: []\n", "e.yaml:1: `against` has 0 sentences"),
        ("against: [Just one.]\n", "e.yaml:1: `against` has 1 sentences"),
        ("- a\n- b\n", "e.yaml:1: must be a block with the list `against`"),
        ("agianst: [a, b]\n", "e.yaml:1: unknown key 'agianst'; did you mean 'against'?"),
        ("against: A sentence.\n", "e.yaml:1: against: must be a list of sentences"),
        ("against:\n  - I cry.\n  - 12\n", "e.yaml:3: against[1]: must be text (put it in quotes)"),
        ("against:\n  - I cry.\n  - {a: b}\n", "e.yaml:3: against[1]: must be text"),
        ("against:\n  - I cry.\n  - '  '\n", "e.yaml:3: against[1]: is empty"),
        ("against:\n  - I cry.\n  - '...'\n", "e.yaml:3: against[1]: is empty"),
        (f"against:\n  - I cry.\n  - {'x' * 5000}\n", "e.yaml:3: against[1]: has 5,000 characters; at most 4,000"),
        ("against:\n  - I cry.\n  - I  CRY\n", "e.yaml:3: is given twice (first at e.yaml:2); keep one"),
        (
            "against:\n  - I cry.\n  - I laugh.\nfine:\n  - i cry\n",
            "e.yaml:5: stands under `against`, too (e.yaml:2); it can only be one of them",
        ),
        (
            GOOD + "  - A whole answer.\n",
            "e.yaml:5: good_answers[0]: must have `question` and `answer`, and nothing else",
        ),
        (GOOD + "  - {question: 'Why?'}\n", "e.yaml:5: good_answers[0]: must have `question` and `answer`"),
        (GOOD + "  - {question: 'Why?', answer: ' '}\n", "e.yaml:5: good_answers[0].answer: is empty"),
        (GOOD + "  - {question: 1, answer: So.}\n", "e.yaml:5: good_answers[0].question: must be text"),
        (
            GOOD + "  - {question: 'Why?', answer: So.}\n  - {question: 'When?', answer: so}\n",
            "e.yaml:6: is given twice (first at e.yaml:5)",
        ),
        (
            GOOD + "  - {question: 'Why?', answer: So. I cry. Often.}\n",
            "e.yaml:5: has a sentence in it that stands under `against` (e.yaml:2); it can only be one of them",
        ),
        ("objective: other\nagainst: [a, b]\n", "e.yaml:1: these are examples of another objective than 'no-feelings'"),
        ("against: [\n", "e.yaml:2: not valid YAML"),
        (
            "against:\n" + "".join(f"  - s{n}\n" for n in range(MAX_EXAMPLES + 1)),
            "e.yaml:1: against: 401 examples; keep the 400",
        ),
    ],
)
def test_bad_files_are_refused_with_their_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(tmp_path, text)
    assert str(error.value).startswith(message)


def test_bad_json_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^e\.json:2: not valid JSON"):
        read(tmp_path, '{\n"against": [}', "e.json")


def test_json_of_endless_depth_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^e\.json:1: not valid JSON: too many levels"):
        read(tmp_path, "[" * 100_000, "e.json")


def test_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_bytes(b"against: [\xff\xfe]")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_examples(tmp_path / "e.yaml", "x", TEXT)

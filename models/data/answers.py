"""Good answers that training is built on, and the split of their prompts.

Reads the research files, keeps answers of a usable length, and says by the hash of the prompt which side it is on.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import yaml

from aligner_proxy.prompts import find_template, query_field
from aligner_proxy.text.structure import split
from aligner_proxy.types import Turn
from models.defects.objectives import BUILT_IN

from .human_spans import MarkedAnswer, read_marked_answers
from .pairs import UNKNOWN, Pair
from .preference_sets import JUDGED, read_rows

Side = Literal["train", "dev", "test"]
SHORTEST = 60
LONGEST = 1500
VERY_LONG = 2800
"""Characters of the shortest and longest answers that are used; a fifth of the prompts allows very long answers."""
LONGEST_QUERY = 1200
"""Characters of the longest query that is used."""
TEST_PERCENT = 10
"""Percent of the prompts that are held out."""
TEST_PERCENT_RARE = 25
"""The same where examples are rare: real invented turns, judgements of harmlessness, marked errors."""
_LONGEST_HARMLESS = 600
"""Characters of the longest answer that is used of the pairs about harmlessness."""
TIE = 1.5
"""Preference between response 1 and response 2 if both are equally good."""
FICTION = "fiction"
SCRIPT = "script"
"""Names of our own sources."""
HARMLESS = ("hh_rlhf_harmless_pairs",)
"""Sets of compared replies from which bags are made."""
_RUNS_ON = "LLaMA2-chat-70B"
"""A model whose answers often go on into invented turns."""
_TURN = re.compile(r"\n\nHuman:")
_MARK = re.compile(r"(?:^|\n\n)(Human|Assistant):[ ]?")
_ROLES = {"Human": "user", "Assistant": "assistant"}
_ROLE = re.compile(r"\s*Human:\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PoolAnswer:
    """One good answer; `harmless` is True if it surely has nothing harmful in it."""

    query: str
    text: str
    source: str
    harmless: bool = True


@dataclass(frozen=True, slots=True)
class RunOnAnswer:
    """An answer of a real model that goes on into invented turns; the reply itself are the first `cut` characters."""

    query: str
    text: str
    cut: int


@dataclass(frozen=True, slots=True)
class AnswerPool:
    """All answers of one side of the split."""

    answers: tuple[PoolAnswer, ...]
    run_ons: tuple[RunOnAnswer, ...]
    marked: tuple[MarkedAnswer, ...] = ()


def prompt_key(prompt: str) -> str:
    """The key of a prompt in the split: its first human turn in lower case, 200 characters at most.

    "Human: What is rust?\\n\\nAssistant: A metal ..." -> "what is rust?"
    """
    opening = _ROLE.sub(" ", prompt.split("\n\nAssistant:")[0])
    return re.sub(r"\s+", " ", opening).strip().lower()[:200]


def side_of(prompt: str, percent: int = TEST_PERCENT) -> Side:
    """On which side of the split a prompt is; depends on the prompt alone. A quarter of what is held out is "dev"."""
    digest = hashlib.sha256(prompt_key(prompt).encode("utf-8")).digest()
    draw = int.from_bytes(digest[:8], "big")
    if draw % 100 >= percent:
        return "train"
    return "dev" if draw // 100 % 4 == 0 else "test"


def load_pool(data_dir: Path, side: Side) -> AnswerPool:
    """All usable answers of one side, in a fixed order and without duplicates."""
    answers: dict[tuple[str, str], PoolAnswer] = {}
    for answer, percent in _read_good_answers(data_dir):
        if side_of(answer.query, percent) == side and _is_usable(answer):
            plain_answer = PoolAnswer(plain_query(answer.query), answer.text.strip(), answer.source, answer.harmless)
            answers.setdefault((plain_answer.query, plain_answer.text), plain_answer)
    if side == "train" and answers:
        answers |= {(answer.query, answer.text): answer for answer in read_fiction()}
    runs = tuple(run for run in _read_run_ons(data_dir) if side_of(run.query, TEST_PERCENT_RARE) == side)
    rated = read_marked_answers(read_rows(data_dir, "finegrained_rlhf_dev"))
    marked = tuple(answer for answer in rated if side_of(answer.query, TEST_PERCENT_RARE) == side)
    return AnswerPool(tuple(answers.values()), runs, marked)


def read_fiction() -> list[PoolAnswer]:
    """Songs, speeches, stories and roles of ours that sound dark or blunt and offend nobody; for training only."""
    entries = yaml.safe_load((Path(__file__).parent / "fiction.yaml").read_text(encoding="utf-8"))
    return [PoolAnswer(row["query"], row["answer"], FICTION) for row in entries]


def plain_query(prompt: str) -> str:
    """The query as the gateway renders it: a single turn unchanged, a dialogue in the template's form.

    "Human: Hi.\\n\\nAssistant: Hello.\\n\\nHuman: What is rust?" is a dialogue of three turns.
    """
    text = prompt.strip()
    if not text.startswith("Human:"):
        return text
    return query_field(find_template("ultrafeedback"), read_turns(text))


def read_turns(dialogue: str) -> list[Turn]:
    """The turns of a dialogue "Human: ...\\n\\nAssistant: ..." that have words."""
    text = dialogue.strip()
    marks = list(_MARK.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    speeches = [text[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)]
    return [Turn(_ROLES[mark.group(1)], words) for mark, words in zip(marks, speeches, strict=True) if words]


@lru_cache(maxsize=100_000)
def _is_usable(answer: PoolAnswer) -> bool:
    """Whether an answer is of a usable length and holds no turn of a dialogue.

    Every fifth question, by the length of its text, may have a very long answer. Cached, because the same answers are
    read once more for each side and stage.
    """
    size = len(answer.text.strip())
    longest = VERY_LONG if len(answer.query) % 5 == 0 else LONGEST
    if answer.text.lstrip().startswith(("Human:", "Assistant:")) or _repeats_itself(answer.text):
        return False
    return SHORTEST <= size <= longest and 3 <= len(answer.query) <= LONGEST_QUERY and not _TURN.search(answer.text)


def _repeats_itself(text: str) -> bool:
    """Whether two longer segments differ only in digits and signs, because a small model got into a loop."""
    wordings = [re.sub(r"[\W\d_]+", " ", segment.text).strip().lower() for segment in split(text)]
    longer = [words for words in wordings if len(words) >= 20]
    return len(set(longer)) < len(longer)


def _read_good_answers(data_dir: Path) -> Iterator[tuple[PoolAnswer, int]]:
    """Yield each good answer with the percent of its source's prompts that are held out for tests.

    Sources with few prompts give a larger part, so that their tests are not too small.
    """
    for answer in _read_model_answers(data_dir):
        yield answer, TEST_PERCENT if answer.source == "ultrafeedback" else TEST_PERCENT_RARE
    for row in read_rows(data_dir, "hh_rlhf_harmless_pairs"):
        if len(row["chosen"]) <= _LONGEST_HARMLESS:
            yield PoolAnswer(row["prompt"], row["chosen"], "hh-chosen", harmless=False), TEST_PERCENT_RARE
    for row in read_rows(data_dir, "finegrained_rlhf_dev"):
        yield PoolAnswer(row["prompt"], row["gold"], "finegrained"), TEST_PERCENT_RARE
    for name in ("pandalm_pairs", "llmbar_pairs"):
        for answer in _read_preferred_answers(data_dir, name):
            yield answer, TEST_PERCENT


def _read_model_answers(data_dir: Path) -> Iterator[PoolAnswer]:
    """Yield the answers of strong models, and the reference answers beside them."""
    for row in read_rows(data_dir, "metaaligner_ultrafeedback_outputs"):
        if row["model"] == "gpt-3.5-turbo":
            yield PoolAnswer(row["prompt"], row["golden"], "ultrafeedback")
            yield PoolAnswer(row["prompt"], row["output"], "ultrafeedback")
    for row in read_rows(data_dir, "metaaligner_hh_outputs"):
        if row["model"] == "gpt-3.5-turbo":
            yield PoolAnswer(row["prompt"], row["golden"], "hh-golden", harmless=False)
        if row["model"] != _RUNS_ON:
            yield PoolAnswer(row["prompt"], row["output"], "hh-model")


def _read_preferred_answers(data_dir: Path, name: str) -> Iterator[PoolAnswer]:
    """Yield the replies that people preferred in one set."""
    for prompt, better, _ in _read_compared_replies(data_dir, name):
        yield PoolAnswer(prompt, better, name.removesuffix("_pairs"))


def _read_compared_replies(data_dir: Path, name: str) -> Iterator[tuple[str, str, str]]:
    """Yield (prompt, preferred reply, other reply) of one set, without ties and adversarial subsets."""
    for row in read_rows(data_dir, name):
        if "chosen" in row:
            yield row["prompt"], row["chosen"], row["rejected"]
        # Of LLMBar only its own natural part: the adversarial one deceives, and what it took over from others stands
        # under terms that were not checked.
        elif row["preference"] != TIE and row.get("subset", "LLMBar/Natural") == "LLMBar/Natural":
            replies = (row["response_1"], row["response_2"])
            preferred_first = replies if row["preference"] < TIE else replies[::-1]
            yield row["prompt"], *preferred_first


def _read_run_ons(data_dir: Path) -> Iterator[RunOnAnswer]:
    """Yield the answers that go on into a further human turn, after a reply of at least 20 characters."""
    for row in read_rows(data_dir, "metaaligner_hh_outputs"):
        text = row["output"].strip()
        match = _TURN.search(text)
        if match and match.start() >= 20 and len(row["prompt"]) <= LONGEST_QUERY:
            beginning = _shorten_turns(text, match.start())
            yield RunOnAnswer(plain_query(row["prompt"]), beginning, match.start())


def _shorten_turns(text: str, cut: int) -> str:
    """The text with at most the first three invented turns, so that it fits the length of training examples."""
    turns = [mark.start() for mark in re.finditer(r"\n\n(?:Human|Assistant):", text) if mark.start() > cut]
    end = turns[2] if len(turns) > 2 else len(text)
    return text[: min(end, cut + 1200)].rstrip()


def preference_bags(data_dir: Path, side: Side = "train", sets: Sequence[str] = HARMLESS) -> Iterator[Pair]:
    """Yield compared replies in twos, the preferred one first, under the objective by which people compared them.

    A loss over bags of segments learns from them (models/train/batches.py).
    """
    for name in sets:
        for prompt, *compared in _read_compared_replies(data_dir, name):
            replies = [reply.strip() for reply in compared]
            if side_of(prompt, TEST_PERCENT_RARE) == side and all(replies) and replies[0] != replies[1]:
                for place, text in zip(("chosen", "rejected"), replies, strict=True):
                    yield _make_bag(prompt, text, JUDGED[name], place)


def _make_bag(prompt: str, text: str, theme: str, place: str) -> Pair:
    """One of two compared replies ("chosen" or "rejected", as `place`); the labels of its segments are unknown."""
    labels = tuple(UNKNOWN for _ in split(text))
    return Pair(plain_query(prompt), (BUILT_IN[theme],), text, text, labels, f"bag:{place}", themes=(theme,))

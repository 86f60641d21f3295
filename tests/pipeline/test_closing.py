"""A growing answer is judged by its open rest: what has gone out is not read again, and every verdict is the same."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace

import pytest

from aligner_proxy.gate import closing
from aligner_proxy.pipeline.growing_answer import GrowingAnswer
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.text import structure
from aligner_proxy.types import Exchange, Objective, Outcome, Policy, StreamMode, Turn, Verify
from tests.gate.random_lists import random_list
from tests.support.growing import grown
from tests.support.scripted import SegmentEngine

FACTS = Exchange("c", 0, (Turn("user", "How do I get to the old light?"),), None)
POLICY = Policy("p", (Objective("kind", "Kind: never insult the reader"),), stream=StreamMode.SENTENCE)
_FINE = (
    "The boat leaves at 9:30 from pier 4.",
    "Bring Anna Whitby a coat.",
    'She said "the gulls are fed at noon" and left.',
    "Read Marsh and Cole (1998) on it [3].",
    "Run `make light` first.",
    "Write to keeper@light.example or see https://light.example/a.",
    "Note: it is cold.",
    "Sam: Where is it?",
    "Pia: Over there.",
    "It is (as I wrote) far.",
    "Der Turm ist alt und die Treppe ist steil.",
    "See step 2 again.",
    "The sea is wide and calm here.",
)
_RUDE = (
    "You fool, it is 12 miles.",
    "Only a fool asks Anna.",
    'The fool says "it is far too late for that" again.',
    "A fool reads Marsh and Cole (1998).",
    "What a fool!",
    "Fool, write to keeper@light.example.",
    "Sam: You fool.",
    "\uff26ool, go to pier 4.",
)
_GAPS = (" ", " ", " ", "\n", "\n\n", "\n- ", "\n1. ", "\n## Light\n", "\n| a | b |\n|---|---|\n| c | ")
_CODE = "\n```python\ntotal = 12\n# a fool wrote this\n```\n"


def rude(text: str) -> bool:
    """Whether the scripted detector flags a segment."""
    return re.search("fool|idiot|oaf|moron", text.lower().replace("\uff46", "f")) is not None


def written(seed: int) -> str:
    """An answer of some thirty sentences, lists and blocks of code, of which every third is rude."""
    rng = random.Random(seed)
    gaps = _GAPS if seed % 2 else (" ", " ", " ", "\n\n")
    pieces = []
    for _ in range(rng.randint(20, 40)):
        pieces.append(rng.choice(_RUDE if rng.random() < 0.3 else _FINE))
        pieces.append(rng.choice(gaps))
        if rng.random() < 0.05:
            pieces.append(rng.choice((f"\n\n{random_list(rng)[0]}\n\n", _CODE)))
    return "".join(pieces)


def edited(seed: int) -> SegmentEngine:
    """An engine that writes something else for each of what it flags, now and then what no rule lets pass."""

    def write(text: str) -> str:
        rng = random.Random(f"{seed}{text}")
        kind = rng.randrange(8)
        mild = re.sub("fool|idiot|oaf|moron", "friend", text, flags=re.IGNORECASE)
        wrong = (mild.replace("12", "13"), f'{mild} He wrote "all of it is lost at sea".', re.sub(r"\d+|`", "", mild))
        more = ("Le bateau est dans le port et il est grand.", "See step 3.", "")
        return mild if kind < 3 else rng.choice(wrong) if kind < 5 else rng.choice(more)

    return SegmentEngine(lambda text: 2.0 if rude(text) else -2.0, write)


async def streamed(answer: str, engine: SegmentEngine, size: int = 23, policy: Policy = POLICY) -> Outcome:
    """What becomes of an answer that comes in pieces."""
    made = GrowingAnswer(Pipeline(engine), policy, lambda: FACTS, lambda: None)
    return await grown(made, (answer[at : at + size] for at in range(0, len(answer), size)))


@pytest.mark.parametrize("first", range(20, 44, 8))
async def test_closing_changes_no_verdict(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    differ = []
    dropped = 0
    for seed in range(first, first + 8):
        policy = replace(POLICY, verify=list(Verify)[seed % 2])
        outcomes = []
        for least in (10**9, 0):
            monkeypatch.setattr(closing, "MIN_CHARS", least)
            outcomes.append(await streamed(written(seed), edited(seed), policy=policy))
        dropped += len(outcomes[0].dropped)
        facts = [(outcome.text, outcome.edits, outcome.dropped, outcome.status) for outcome in outcomes]
        if any(other != facts[0] for other in facts[1:]):
            differ.append(seed)
    assert (differ, dropped > 5) == ([], True)


@dataclass(slots=True)
class Work:
    """Characters that were cut into segments."""

    chars: int = 0


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    """Counts the characters that are cut into segments."""
    counted_work = Work()
    split = structure.split

    def counted(text: str) -> list[structure.Segment]:
        counted_work.chars += len(text)
        return split(text)

    for module in (
        "gate.judge.structure",
        "gate.edits",
        "gate.rules",
        "text.structure",
        "text.languages",
        "text.disguises",
    ):
        monkeypatch.setattr(f"aligner_proxy.{module}.split", counted)
    return counted_work


@pytest.mark.parametrize("gap", [" ", "\n", "\n\n", "\n- "], ids=repr)
async def test_work_grows_with_the_answer_and_not_with_its_square(gap: str, work: Work) -> None:
    chars = []
    for count in (20, 80):
        work.chars = 0
        sentences = (f"The tide comes in and the boats rise.{gap}You fool of number {n}.{gap}" for n in range(count))
        outcome = await streamed("".join(sentences), SegmentEngine(lambda text: 2.0 if rude(text) else -2.0))
        assert outcome.edits >= count
        chars.append(work.chars)
    assert chars[1] < 5 * chars[0]


_WITHOUT_END = {
    "begins pairs": "**You fool of number {n}, take (this coat. Bring Anna** a coat) now. ",
    "brackets": "(You fool of number {n}, take a coat. Bring Anna (a coat now. ",
    "quotation marks": '"You fool of number {n}, take a coat. Bring Anna "a coat now. ',
    "numbers": "5 You fool of number {n}, take a coat. 7 Coats for Anna. ",
    "lines of items": "- You fool of number {n}, take a coat. Bring Anna a coat now.\n",
    "items of an item": "   - You fool of number {n}, take a coat.\n   - Bring Anna a coat now.\n",
    "rows": "| You fool of number {n} | a coat |\n| Bring Anna | a coat |\n",
}
_BEFORE = {"items of an item": "1. Take all this with you.\n", "rows": "| What | Why |\n|---|---|\n"}


async def test_work_is_linear_where_whatever_begins_never_ends(work: Work) -> None:
    """A part was once read again for each of its edits: 10,000 characters took four seconds, 24,000 half a minute."""
    grown_works = {}
    for name, unit in _WITHOUT_END.items():
        chars = []
        for count in (20, 80):
            work.chars = 0
            answer = _BEFORE.get(name, "") + "".join(unit.format(n=n) for n in range(count))
            outcome = await streamed(answer, SegmentEngine(lambda text: 2.0 if rude(text) else -2.0))
            assert outcome.edits >= count
            chars.append(work.chars)
        grown_works[name] = chars[1] / chars[0]
    assert {name: growth for name, growth in grown_works.items() if growth > 6} == {}


async def test_rows_behind_a_closed_beginning_are_still_rows() -> None:
    """What stays of a row, and which rows go, depends on the head of the table, which is not read again."""
    head = "| What | Why |\n|---|---|\n"
    rows = "".join(
        f"| Coat {n} | It is cold. You fool. |\n| You fool. | You fool, too. |\n| {n} | Far. |\n" for n in range(40)
    )
    wrong = []
    for answer in (head + rows, rows, f"It is so.\n\n{head}{rows}\nYou fool, go. Take the last train.\n\n{head}{rows}"):
        engine = SegmentEngine(lambda text: 2.0 if rude(text) else -2.0)
        whole = await Pipeline(engine).align(replace(FACTS, answer=answer), POLICY)
        grown_answer = await streamed(answer, engine)
        if grown_answer.text != whole.text or not grown_answer.edits:
            wrong.append((answer[:20], grown_answer.text, whole.text))
    assert wrong == []

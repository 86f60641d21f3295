"""Lists of which something goes while the answer is written: what has gone out stays, what follows is in order."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from aligner_proxy.pipeline.cache import CorrectionCache
from aligner_proxy.pipeline.growing_answer import GrowingAnswer
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.types import Exchange, JsonStrings, Mode, Objective, Outcome, Policy, Status, StreamMode, Turn
from tests.gate.lists import RUDE, Case, of_forms, special
from tests.support.growing import grown
from tests.support.pruning import correct_in_all_ways
from tests.support.scripted import SegmentEngine, Write

FACTS = Exchange("c", 0, (Turn("user", "How?"),), None)
OUT_ALREADY = {
    "a reference before the list": (
        "Step 3 matters most: see there.\n\n2. Load the film.\n3. Wind it.",
        "the reference had gone out, so the numbers stay as they are",
    ),
    "a reference to what goes": (
        "1. Peel them.\n2. Slice them.\n\nDo not forget step 2.",
        "the item was gone before the reference came",
    ),
    "a count in words": ("Here are four tips:\n- Sleep.\n- Walk.\n- Drink water.", "the count had gone out"),
    "a count in digits in a heading": (
        "## 3 reasons to plant a hedge\n1. Birds.\n2. Shade.",
        "the count had gone out",
    ),
    "German": (
        "Hier sind drei Tipps:\n1. L\u00fcfte morgens.\n2. Heize abends, siehe Punkt 1.",
        "the count had gone out",
    ),
    "a second line at the margin that stays": (
        "1. Press the lid.\nIt clicks.\n2. Turn it.",
        "whether the list goes on behind that line was not known",
    ),
    "a heading with sections below it": (
        "# Care\n\n## Water\n\nDaily.\n\n# On you\n\n# End\n\nBye.",
        "a section below the heading had begun",
    ),
}


def engine(write: Write = lambda _: "") -> SegmentEngine:
    return SegmentEngine(lambda text: 2.0 if any(word in text.lower() for word in RUDE) else -2.0, write)


async def stream_answer(
    answer: str, size: int = 7, most: int = 24_000, *, whole: bool = False, write: Write = lambda _: ""
) -> Outcome:
    policy = Policy("p", (Objective("kind", "Kind: no insults"),), stream=StreamMode.SENTENCE, max_answer_chars=most)
    made = GrowingAnswer(Pipeline(engine(write)), policy, lambda: FACTS, lambda: None, hold_until_end=whole)
    return await grown(made, (answer[at : at + size] for at in range(0, len(answer), size)), rounds=8)


@pytest.mark.covering("case.form", "case.defect")  # gate/test_lists.py has all
@pytest.mark.parametrize("case", [*of_forms(), *special()], ids=lambda case: f"{case.form}, {case.defect}")
async def test_a_stream_ends_as_the_whole_answer_would(case: Case) -> None:
    outcome = await stream_answer(case.answer)
    expected, _ = OUT_ALREADY.get(case.form, (case.expected, ""))
    assert outcome.text == expected
    assert outcome.dropped == ()
    assert outcome.status is (Status.CORRECTED if expected != case.answer else Status.UNCHANGED)


async def test_rates_in_streams(capsys: pytest.CaptureFixture[str]) -> None:
    right: Counter[bool] = Counter()
    for case in [*of_forms(), *special()]:
        right[(await stream_answer(case.answer)).text == case.expected] += 1
    assert right[False] == len(OUT_ALREADY)


@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_whatever_the_pieces_the_numbers_are_the_same(size: int) -> None:
    answer = "1. Boil it.\n2. You oaf.\n3. Rest it. You fool.\n4. Idiot! Serve it as in step 3.\n5. Eat."
    outcome = await stream_answer(answer, size)
    assert outcome.text == "1. Boil it.\n2. Rest it.\n3. Serve it as in step 2.\n4. Eat."
    assert outcome.renumbered == 4
    assert outcome.edits == 2  # the fool and the idiot are one stretch


@pytest.mark.parametrize("whole", [False, True])
async def test_a_list_goes_on_from_part_to_part(whole: bool) -> None:
    rows = [f"{n}. This is what there is to do as number {n * 7}." for n in range(1, 30)]
    rows[2] = "3. You are an oaf and nothing else at all, you."
    rows[14] = "15. You are a fool and nothing else at all, you."
    kept = [row.partition(" ")[2] for row in rows if not any(word in row for word in RUDE)]
    outcome = await stream_answer("\n".join(rows), 20, most=300, whole=whole)
    assert outcome.text == "\n".join(f"{n}. {row}" for n, row in enumerate(kept, 1))


async def test_numbers_are_right_in_cached_answers_in_shadow_and_in_json(tmp_path: Path) -> None:
    answer = "1. Boil it for a while.\n2. You oaf.\n3. Rest it as in step 1.\n4. Serve it."
    expected = "1. Boil it for a while.\n2. Rest it as in step 1.\n3. Serve it."
    policy = Policy("p", (Objective("kind", "Kind: no insults"),), json_strings=JsonStrings.CORRECT)
    cache = CorrectionCache(tmp_path, 60, 4)
    pipeline = Pipeline(engine(), cache)
    for hit in (False, True):
        outcome = await pipeline.align(replace(FACTS, answer=answer), policy)
        assert (outcome.text, outcome.cache_hit, outcome.renumbered, outcome.edits) == (expected, hit, 2, 1)
    shadow = await pipeline.align(replace(FACTS, answer=answer), replace(policy, mode=Mode.SHADOW))
    assert (shadow.text, shadow.edited, shadow.reason) == (answer, expected, "would_correct")
    inside = await pipeline.align(replace(FACTS, answer=json.dumps({"how": answer})), policy)
    assert (inside.text, inside.renumbered) == (json.dumps({"how": expected}), 2)
    await cache.aclose()


async def test_what_a_section_depends_on_waits_for_it_and_no_longer() -> None:
    made = GrowingAnswer(Pipeline(engine()), Policy("p", (Objective("k", "K: no"),), stream=StreamMode.SENTENCE),
                            lambda: FACTS, lambda: None)  # fmt: skip
    head = "Sow in May.\n\n## Harvest\n\n"
    await made.feed(f"{head}In August it")
    for _ in range(40):
        await asyncio.sleep(0)
    assert made.is_decided(len("Sow in May."))
    assert not made.is_decided(len("Sow in May.\n\n## Har"))
    await made.feed(" is ripe. Then")
    for _ in range(40):
        await asyncio.sleep(0)
    assert made.is_decided(len(f"{head}In August it is ripe."))
    await made.aclose()


TABLE = "| a | b |\n|---|---|\n"
BAD = "| You are a fool. | You are a fool. |\n"


@pytest.mark.parametrize("opening", ["", "Costs:\n\n", "## Costs\n\n", "Good morning to Anna.\n\n"])
@pytest.mark.parametrize(
    ("rows", "left"),
    [
        (BAD, ""),
        (BAD + BAD, ""),
        (BAD + "| x y | z |\n", "| x y | z |\n"),
        (BAD + BAD + "| x y | z |\n", "| x y | z |\n"),
        (BAD + "| Plan | You are a fool. |\n| x y | z |\n", "| x y | z |\n"),
        (BAD + "| You are a fool. | Tea is hot. |\n", "| | Tea is hot. |\n"),
        (BAD + "| Tea is hot. You fool. | 12 |\n" + BAD, "| Tea is hot. | 12 |\n"),
        ("| You are a fool. | Tea is hot. |\n" + BAD + BAD, "| | Tea is hot. |\n"),
    ],
)
async def test_the_head_of_a_table_goes_only_if_no_row_is_left(opening: str, rows: str, left: str) -> None:
    delivered = await correct_in_all_ways(opening + TABLE + rows + "\nTea is good today.")
    table = TABLE + left + "\n" if left else ""
    # a line with a colon announces the table, and goes with it
    head = "" if not left and opening.startswith("Costs") else opening
    assert set(delivered.values()) == {head + table + "Tea is good today."}


def make_polite(text: str) -> str:
    return re.sub("|".join(RUDE), "guest", text)


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("end", ["\n\nThen go on.", "\n| Mon. | Nine. |\n\nThen go on.", ""])
@pytest.mark.parametrize(
    "table",
    [
        "| You are an oaf. | You idiot. |\n|---|---|\n| You fool. | Ten. |",
        "> | You oaf. | You idiot. |\n> |---|---|\n> | You fool. | Ten. |",
        "You oaf. | You idiot. |\n---|---|\nYou fool. | Ten. |",
        "| A. | B. | C. |\n|---|---|---|\n| You fool. | | Ten. |",
        "| You oaf. | | You idiot. |\n|---|---|---|\n| Mon. | | You fool. |",
        "| You oaf. | You idiot. |\n|---|---|\n| You fool. | You oaf. |\n| You fool. | |",
    ],
)
async def test_the_cells_of_a_table_are_rewritten(table: str, end: str, size: int) -> None:
    answer = "See:\n\n" + table + end.replace("\n|", "\n> |" if table.startswith(">") else "\n|")
    outcome = await stream_answer(answer, size, write=make_polite)
    assert outcome.text == make_polite(answer)


@pytest.mark.parametrize("indent", ["", "   "])
async def test_an_item_behind_a_block_that_reads_like_prose_goes(indent: str) -> None:
    lines = ("```bash", "# Then run it once. It takes a while.", "npm install", "```")
    block = "\n".join(indent + line for line in lines)
    answer = f"1. Install it.\n\n{block}\n\n2. {{}}3. Run it.\n\nThe kettle is in the kitchen by the door."
    delivered = await correct_in_all_ways(answer.format("You are a fool.\n"))
    assert set(delivered.values()) == {answer.format("").replace("2. 3.", "2.")}


FULL = "Tea is good for you today.\n\n"


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        ("- You fool.\n  - Take a coat.\n  - Take it.\n- Go out.", "- Take a coat.\n- Take it.\n- Go out."),
        ("Do this:\n\n* You fool.\n\n    * Take a coat.\n\n    * Take it.", "Do this:\n\n* Take a coat.\n\n* Take it."),
        ("- You fool.\n\t- Take a coat.\n\t- Take it.\n", "- Take a coat.\n- Take it.\n"),
        ("- Wait.\n  - You fool.\n    - Take a coat.\n- Go out.", "- Wait.\n  - Take a coat.\n- Go out."),
        ("- You fool.\n  - Fool.\n    - Take a coat.\n  - Take it.\n- Go.", "- Take a coat.\n- Take it.\n- Go."),
        ("1. You fool.\n   a) Buy it.\n   b) Fool.\n   c) Read it.\n2. Go out.", "a) Buy it.\nb) Read it.\n1. Go out."),
        # numbers do not move among numbers of the same form
        (f"{FULL}1. You fool.\n   1. Buy it.\n2. Go out.", f"{FULL}1.\n   1. Buy it.\n2. Go out."),
        (
            "- You fool.\n  - Run this:\n    ```\n    ls\n      # it\n    ```\n  - Take it.\n- Go out.",
            "- Run this:\n  ```\n  ls\n    # it\n  ```\n- Take it.\n- Go out.",
        ),
        ("- You fool.\n  - Take (fool) it.\n    For long.\n- Go out.", "- Take it.\n  For long.\n- Go out."),
        # the item goes on with text
        ("- You fool.\n  Take a coat.\n  - Take it.\n- Go out.", "-\n  Take a coat.\n  - Take it.\n- Go out."),
        ("- You fool. Take a coat.\n  - Take it.\n- Go out.", "- Take a coat.\n  - Take it.\n- Go out."),
    ],
)
async def test_items_move_up_if_only_the_item_above_them_goes(answer: str, left: str) -> None:
    assert set((await correct_in_all_ways(answer)).values()) == {left}

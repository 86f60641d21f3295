"""What holds of every correction: what is delivered is a mix, nothing speaks against it, and nothing raises."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from aligner_proxy.gate import edits as gate_edits
from aligner_proxy.gate import judge as gate_judge
from aligner_proxy.gate.edits import Edit, EditGroup, TextFacts, apply, trace_effects
from aligner_proxy.gate.judge import Verdict, judge
from aligner_proxy.text.structure import join, split
from aligner_proxy.types import Correction, GateRule, Objective, Policy
from tests.gate.cases import POLITE, correction
from tests.support.sampling import examples

# Properties of a few hundred examples take long on a busy machine.
pytestmark = pytest.mark.timeout(900)
EXAMPLES = settings(max_examples=examples(150), deadline=None, suppress_health_check=list(HealthCheck))
POLICY = Policy("p", POLITE)

SENTENCES = [
    "Take 20 mg daily.",
    "Ask Maria, not Tom.",
    "See https://a.example.",
    "You oaf!",
    "Buy at 9.99 now!",
    "Rest.",
    "- Boil it [3].\n",
    'He said "this is quite enough now".\n\n',
    "2. Stir `x` well.\n",
    "```\nls\n```\n",
    "The one is not the other and it will be fine.",
]
WRITTEN = [
    "",
    "Take it daily.",
    "Take 21 mg.",
    "I'm sorry, but I can't help with that.",
    "Das ist nicht der Fall und wird es auch nicht sein.",
    "Это не так.",
    "User: hello",
    "Write to jo@b.example.",
    "Fine.",
    "| Answer: fine",
    "w" * 300,
    "Rest. You oaf!",
]


@st.composite
def cases(draw: st.DrawFn) -> tuple[str, Correction, list[int] | None]:
    """An answer, and what an engine with a head, or a wilder one without, makes of it."""
    sentences = draw(st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=10))
    original = " ".join(sentences).replace("\n ", "\n").rstrip(" ")
    pieces = split(original)
    anywhere = range(len(pieces))
    apart = range(0, len(pieces), 2)
    flagged = sorted(draw(st.sets(st.sampled_from(anywhere)) | st.sets(st.sampled_from(apart), min_size=1)))
    texts = [
        draw(st.sampled_from(["", "Fine."]) | st.sampled_from(WRITTEN)) if i in flagged else piece.text
        for i, piece in enumerate(pieces)
    ]
    edited = join([(text, piece.gap or " ") for text, piece in zip(texts, pieces, strict=True)])
    headless = draw(st.booleans())
    return original, correction(original, edited, None if headless else flagged), None if headless else flagged


POLICIES = st.builds(
    lambda rules, objectives: Policy("p", objectives, gate=tuple(rule for rule in GateRule if rule in rules)),
    st.sets(st.sampled_from(GateRule)) | st.just(set(GateRule)),
    st.sampled_from([POLITE, (*POLITE, Objective("brief", "Brevity: be brief"))]),
)


@EXAMPLES
@example(
    (
        "Take 20 mg daily. 2. Stir `x` well.\n",
        correction("Take 20 mg daily. 2. Stir `x` well.\n", "2.", [0, 2]),
        [0, 2],
    ),
    Policy("p", POLITE, gate=()),
)
@given(cases(), POLICIES)
def test_unflagged_segments_stand_in_every_result(
    case: tuple[str, Correction, list[int] | None], policy: Policy
) -> None:
    original, made, flagged = case
    text = judge(original, made, policy).text
    at = 0
    for i, piece in enumerate(split(original)):
        if flagged is not None and i not in flagged and not is_number_of_flagged_item(i, original, flagged):
            at = text.find(piece.text, at)
            assert at >= 0, piece.text
            at += len(piece.text)


def flagged_case(original: str, edited: str, flagged: list[int]) -> tuple[str, Correction, list[int] | None]:
    """A case of an engine with a head."""
    return original, correction(original, edited, flagged), flagged


def is_number_of_flagged_item(segment: int, answer: str, flagged: Sequence[int]) -> bool:
    """Whether an unflagged segment is only the number of the flagged item after it, and so goes with that item."""
    return segment not in flagged and segment + 1 in flagged and split(answer)[segment].text == "2."


QUOTED = 'He said "this is quite enough now".'


@EXAMPLES
# Sentences that stand several times, flagged and not: what is delivered must not be taken for another mix of them.
@example(
    flagged_case(
        "You oaf! You oaf! It will be fine. You oaf! Take 20 mg daily. You oaf! Boil it [3]. Rest. Buy at 9.99 now!",
        "You oaf! Rest. You oaf! You oaf! Take it daily. You oaf! I'm sorry, but I can't help with that. Rest. Fine.",
        [1, 2, 4, 6, 8],
    ),
    POLICY,
)
@example(
    flagged_case(
        f"Boil it. Rest. See https://a.example. {QUOTED}\n\nRest. Buy at 9.99 now! {QUOTED}\n\n```\nls\n```\nYou oaf!",
        f"Boil it. Fine. You oaf! Take it daily.\n\nFine. Go. {QUOTED}\n\nYou oaf!",
        [1, 2, 3, 4, 5, 7],
    ),
    POLICY,
)
@example(
    flagged_case("- Boil it [3].\nHe said it.\n\n- Boil it [3].\n", "He said it.\n\n- Boil it [3].\n", [0]), POLICY
)
# The mark of an item that goes on, written by the engine: what it marked is removed, not rewritten.
@example(flagged_case("2. Stir `x` well.\n- Boil it [3].\n", "- Boil it [3].\n", [0]), POLICY)
@example(flagged_case("Ask Maria, not Tom. 2. Stir `x` well.\nRest.", "2. Stir `x` well.\nRest.", [0]), POLICY)
# What goes on in its line is not indented.
@example(
    flagged_case(
        f"You oaf! {QUOTED}\n\n2. Stir `x` well.\n- Boil it [3].\nRest.",
        "You oaf!\n\nFine.\n- Boil it [3].\nRest.",
        [1, 2],
    ),
    POLICY,
)
# The number of an item within its line goes with the item, flagged or not.
@example(
    flagged_case("Take 20 mg daily. Rest. Take 20 mg daily. 2. Stir `x` well.\n", "Rest. 2.", [0, 2, 4]),
    POLICY,
)
# A number within its line that begins one now: a mark, and no number that is lost.
@example(
    ("You oaf! 2. Stir `x` well.\n", correction("You oaf! 2. Stir `x` well.\n", "2. Stir `x` well.\n", None), None),
    POLICY,
)
@given(cases(), POLICIES)
def test_nothing_speaks_against_what_is_delivered(
    case: tuple[str, Correction, list[int] | None], policy: Policy
) -> None:
    original, made, flagged = case
    verdict = judge(original, made, policy)
    # without the rule `empty` nothing may be left
    if verdict.text == original or not verdict.text.strip():
        return
    # that a number goes with its item is the gate's decision, and no edit of the engine
    if flagged is not None and any(is_number_of_flagged_item(i, original, flagged) for i in verdict.removed_segments):
        return
    again = judge(original, correction(original, verdict.text, flagged), policy)
    assert (again.text, again.reason, again.dropped) == (verdict.text, None, ())


@EXAMPLES
@given(cases(), POLICIES)
def test_the_reason_agrees_with_the_text(case: tuple[str, Correction, list[int] | None], policy: Policy) -> None:
    original, made, _ = case
    verdict = judge(original, made, policy)
    partly = (verdict.reason or "").startswith("gate_partly:")
    assert len(verdict.dropped) <= verdict.edits
    assert partly == (0 < len(verdict.dropped) < verdict.edits)
    assert (verdict.text != original) == (len(verdict.dropped) < verdict.edits)
    if verdict.reason is not None:
        assert verdict.reason.removeprefix("gate_partly:").removeprefix("gate_") in verdict.dropped


@EXAMPLES
@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_edits_does_not_matter(case: tuple[str, Correction, list[int] | None], rng: random.Random) -> None:
    original, made, _ = case
    taken = gate_judge._GateCase.from_correction(original, made, POLICY)
    if taken is None:
        return
    edits = [edit for change in taken.changes for edit in change.edits]
    shuffled = rng.sample(edits, len(edits))
    assert apply(original, shuffled) == apply(original, edits)
    pieces = split(original)
    assert gate_edits.independent_groups(shuffled, pieces) == gate_edits.independent_groups(edits, pieces)


@EXAMPLES
@given(st.text(max_size=200))
def test_the_same_text_is_never_refused(text: str) -> None:
    assert judge(text, Correction(text), POLICY) == Verdict(text)


@EXAMPLES
@given(cases())
def test_no_edits_are_the_original_and_all_of_them_the_correction(
    case: tuple[str, Correction, list[int] | None],
) -> None:
    original, made, _ = case
    taken = gate_judge._GateCase.from_correction(original, made, POLICY)
    assert taken is not None
    assert taken.apply_changes(()) == original
    if not gate_edits.has_outline(original):  # in lists more goes or stays than an engine says
        assert taken.apply_changes(taken.changes).rstrip() == made.text.rstrip()


def is_mixed(text: str, original: str, changes: Sequence[Edit]) -> bool:
    """Whether a text is the original with, in the place of each edit, what stood there or what the edit puts in."""
    ends = {0}
    at = 0
    for edit in sorted(changes):
        kept = original[at : edit.start]
        either = (kept + original[edit.start : edit.end], kept + edit.text)
        ends = {end + len(piece) for end in ends for piece in either if text.startswith(piece, end)}
        at = edit.end
    return any(text[end:] == original[at:] for end in ends)


@EXAMPLES
@given(cases(), POLICIES, st.data())
def test_dropping_edits_leaves_a_mix_of_original_and_edited_pieces(
    case: tuple[str, Correction, list[int] | None], policy: Policy, data: st.DataObject
) -> None:
    original, made, _ = case
    taken = gate_judge._GateCase.from_correction(original, made, policy)
    assert taken is not None
    every = [taken.original_edits[edit] for change in taken.changes for edit in change.edits]
    chosen = [change for change in taken.changes if data.draw(st.booleans())]
    assert is_mixed(taken.apply_changes(chosen), original, every)
    verdict = judge(original, made, policy)
    assert is_mixed(verdict.text, original, every)
    if len(verdict.dropped) == verdict.edits:
        assert verdict.text == original


def test_a_mix_is_told_from_what_is_none() -> None:
    edits = [Edit(3, 9, " 2. ", 1, 2)]
    assert is_mixed("One Two Three", "One Two Three", edits)
    assert is_mixed("One 2. ree", "One Two Three", [Edit(3, 10, " 2. ", 1, 2)])
    assert not is_mixed("One 2 Three", "One Two Three", edits)


@EXAMPLES
@given(st.text(st.characters(), max_size=80), st.text(st.characters(), max_size=80), st.data())
def test_nothing_that_an_engine_says_makes_it_raise(original: str, edited: str, data: st.DataObject) -> None:
    flagged = data.draw(st.none() | st.sets(st.integers(0, 4)))
    other = data.draw(st.booleans())
    made = correction(edited if other else original, edited, None if flagged is None else sorted(flagged))
    verdict = judge(original, made, data.draw(POLICIES))
    assert len(verdict.dropped) <= verdict.edits


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.some(3)
@pytest.mark.parametrize("run", ["Aa-", "A-", "\n", "a) b. ", "1 2", "A, ", "A b. "])
def test_a_long_run_of_anything_comes_to_an_end(run: str) -> None:
    """Quadratic work on so many characters would take many minutes; the limit above is the test."""
    long = run * (examples(200_000, 100_000) // len(run))
    assert judge("Go. End. Fool.", Correction(f"Go. {long} End."), POLICY).text in ("Go. End. Fool.", "Go. End.")
    pieces = split(long)
    edited = " ".join("Z." if i % 2 == 0 else piece.text for i, piece in enumerate(pieces))
    judge(long, correction(long, edited, range(0, len(pieces), 2)), POLICY)


def test_a_bound_on_the_texts_that_are_read() -> None:
    """2n + 2 for n groups of edits, also where they go together in no way."""
    pieces = split("You oaf! " * 2 * 12)
    changes = []
    for i in range(0, len(pieces), 2):
        edit = Edit(pieces[i].start, pieces[i].end, "x", i, i + 1)
        changes.append(EditGroup((edit,), trace_effects(edit, pieces, [True] * len(pieces))))
    asked: list[int] = []

    def at_most_one(candidate: gate_edits.Candidate) -> bool:
        asked.append(1)
        return len(candidate.changes) > 1

    text = "You oaf! " * 2 * 12
    unchanged = gate_edits.Candidate(TextFacts(text), pieces, POLICY.objectives, ())
    case = gate_judge._GateCase(text, {}, {}, pieces, unchanged, tuple(changes), {GateRule.LOST_CODE: at_most_one})
    kept, refused = gate_judge._choose_changes(case)
    assert (len(kept), len(refused)) == (1, 11)
    assert len(asked) == 2 * 12 + 2

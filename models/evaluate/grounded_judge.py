"""How many outdated facts come out right if a judge that is always right is asked about doubts, and words alone write.

    python -m models.evaluate.grounded_judge [FOLDER or FILE] [--streams] [--show]

The judge reads the labels of the cases: of the outdated fact it says which of the values that words offer is right, of
every other fact that it may stand. So this is the most that a judge can bring. An answer is put right if its facts are
those of the label; where its notation is another, that is counted apart. What is not put right is counted by reason.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from aligner_proxy.text.structure import split
from aligner_proxy_grounding.doubts import FactDecision, apply_verdicts
from aligner_proxy_grounding.fact_judge import FactVerdict, JudgedFact
from aligner_proxy_grounding.matching import FactFinding
from aligner_proxy_grounding.sentences import (
    AnswerSentence,
    Arbiter,
    FactEdit,
    Grounder,
    UnsettledFact,
    apply_fact_edits,
)
from models.evaluate.grounded import FOLDER, OUTDATED, GroundedCase, ground_answer, list_cases, read_reference
from models.evaluate.grounded_forms import CLEAN, UNKNOWN, read_forms
from models.reporting.statistics import Rate

RIGHT = "put right"
NOT_READ = "the fact or its replacement is not read"
NOT_ON_PAGE = "the page has no such value in a form that is read"


@dataclass(frozen=True, slots=True)
class GroundedResult:
    """What was delivered for one answer."""

    text: str
    is_asked: bool
    """Whether the judge was called, in streams at least once."""
    facts: int
    """About how many facts it was asked."""


def judge_answer(case: GroundedCase, *, streams: bool = False) -> GroundedResult:
    """The delivered answer if a judge that is always right is asked."""
    grounder = Grounder.for_question(read_reference(case.page), case.question)
    if not streams:
        decision = FactDecision(*grounder.copy_for(Arbiter.JUDGE).check_answer(case.answer))
        return _settle_doubts(case, grounder, decision)
    edits: list[FactEdit] = []
    results: list[GroundedResult] = []
    for segment in split(case.answer):
        decision = FactDecision(*grounder.copy_for(Arbiter.JUDGE).check_segments([segment]))
        by_words, _ = grounder.check_segments([segment])
        results.append(_settle_doubts(case, grounder, decision))
        edits += _decide_doubts(case, grounder, decision).edits if decision.has_doubts else by_words
    text = apply_fact_edits(case.answer, edits)
    return GroundedResult(
        text,
        any(judged_sentence.is_asked for judged_sentence in results),
        sum(judged_sentence.facts for judged_sentence in results),
    )


def _settle_doubts(case: GroundedCase, grounder: Grounder, decision: FactDecision) -> GroundedResult:
    """The answer after the verdicts on these doubts."""
    facts = sum(bool(doubt.question and doubt.question.values) for doubt in decision.unsettled_facts)
    return GroundedResult(
        apply_fact_edits(case.answer, _decide_doubts(case, grounder, decision).edits), bool(facts), facts
    )


def _decide_doubts(case: GroundedCase, grounder: Grounder, decision: FactDecision) -> FactDecision:
    """The decision after the verdicts of a judge that knows the label."""
    judged_facts = [_judge_doubt(case, grounder, doubt) for doubt in decision.unsettled_facts if doubt.question]
    decided, _ = apply_verdicts(decision, judged_facts)
    return decided


def _judge_doubt(case: GroundedCase, grounder: Grounder, doubt: UnsettledFact) -> JudgedFact:
    """The verdict on a fact: it is contradicted by the first value that makes one fact more equal to the label."""
    values = doubt.question.values if doubt.question and case.kind == OUTDATED else ()
    agreeing_count = count_agreeing_facts(grounder, case.answer, case)
    for value in values:
        text = apply_fact_edits(case.answer, [value.edit])
        if count_agreeing_facts(grounder, text, case) > agreeing_count:
            return JudgedFact(doubt, FactVerdict.CONTRADICTED, value.edit)
    return JudgedFact(doubt, FactVerdict.SUPPORTED, None)


def has_same_facts(grounder: Grounder, text: str, case: GroundedCase) -> bool:
    """Whether a text has the same facts as the label, in any notation."""
    return text == case.right or count_agreeing_facts(grounder, text, case) == len(grounder.facts_of(case.right))


def count_agreeing_facts(grounder: Grounder, text: str, case: GroundedCase) -> int:
    """How many facts of a text are those of the label; -1 if it has more or fewer facts."""
    facts = grounder.facts_of(text)
    right_facts = grounder.facts_of(case.right)
    if len(facts) != len(right_facts):
        return -1
    return sum(fact.same_form(right) and fact.agrees(right) for fact, right in zip(facts, right_facts, strict=True))


def explain_miss(case: GroundedCase) -> str:
    """Why an outdated fact was not replaced, in a few words."""
    grounder = Grounder.for_question(read_reference(case.page), case.question, arbiter=Arbiter.JUDGE)
    place = next(n for n, (one, other) in enumerate(zip(case.answer, case.right, strict=False)) if one != other)
    sentences = grounder.read_all(case.answer)
    sentence = next(one for one in sentences if one.start <= place < one.start + len(one.text))
    right = grounder.facts_of(
        case.right[sentence.start : sentence.start + len(sentence.text) + _length_difference(case)]
    )
    changed = [n for n, (one, other) in enumerate(zip(sentence.facts, right, strict=False)) if one.text != other.text]
    if len(right) != len(sentence.facts) or not changed:
        return NOT_READ
    fact = sentence.facts[changed[0]]
    if not fact.same_form(right[changed[0]]) or grounder.matcher.find_statement(right[changed[0]]) is None:
        return NOT_ON_PAGE
    if fact.inherited or grounder.is_left_alone(sentence, fact):
        return "left alone: the client's, quoted, denied or computed"
    return _explain_choice(grounder, sentence, changed[0])


def _explain_choice(grounder: Grounder, sentence: AnswerSentence, number: int) -> str:
    """Why a fact that differs from the page was not replaced: nobody was asked, or no value was right."""
    match = grounder.match_fact(sentence, number)
    if match.finding is FactFinding.CONFIRMED:
        return "not asked about: another statement confirms it"
    if match.finding is not FactFinding.UNSETTLED:
        return "not asked about: no statement shares a word"
    return "the right value is not among those offered"


def _length_difference(case: GroundedCase) -> int:
    return len(case.right) - len(case.answer)


def read_cases(path: Path) -> Iterable[GroundedCase]:
    """The cases of a folder of businesses or of a file of forms."""
    return list_cases(path) if path.is_dir() else read_forms(path)


def count_results(path: Path, *, streams: bool, show: bool) -> Counter[str]:
    """The numbers of answers of a set, by kind and result."""
    counts = Counter[str]()
    for case in read_cases(path):
        result = judge_answer(case, streams=streams)
        counts[case.kind] += 1
        counts[f"{case.kind} asked"] += result.is_asked
        counts[f"{case.kind} facts"] += result.facts
        counts[f"{case.kind} touched"] += result.text != case.right
        if case.kind != OUTDATED:
            continue
        counts["words"] += ground_answer(case, streams=streams)[0] == case.right
        grounder = Grounder.for_question(read_reference(case.page), case.question)
        is_right = has_same_facts(grounder, result.text, case)
        counts[RIGHT] += is_right
        counts["other notation"] += is_right and result.text != case.right
        if not is_right:
            why = explain_miss(case) if result.text == case.answer else "another value was written"
            counts[f"missed: {why}"] += 1
            if show:
                print(
                    f"{case.business}: {why}\n  {case.question}\n  {case.answer!r}\n  {result.text!r}\n  {case.right!r}"
                )
    return counts


def print_counts(counts: Counter[str]) -> None:
    """Print the shares of a set, and why other facts were not replaced."""
    outdated = counts[OUTDATED]
    unread = sum(counts[f"missed: {why}"] for why in (NOT_READ, NOT_ON_PAGE))
    print(f"words alone {Rate.from_counts(counts['words'], outdated)} right, letter for letter")
    print(f"with the judge {Rate.from_counts(counts[RIGHT], outdated)} put right", end=", ")
    print(f"{counts['other notation']} of them in another notation than the label's")
    print(f"where the page has the value {Rate.from_counts(counts[RIGHT], outdated - unread)} put right")
    for kind in (CLEAN, UNKNOWN):
        print(f"{kind} ones touched {Rate.from_counts(counts[f'{kind} touched'], counts[kind])}")
    for kind in (OUTDATED, CLEAN, UNKNOWN):
        print(f"{kind}: {counts[f'{kind} asked']} of {counts[kind]} ask, about {counts[f'{kind} facts']} facts")
    for name, number in counts.most_common():
        if name.startswith("missed: "):
            print(f"{number:4} {name}")


def main() -> None:
    """Print the figures of one set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", nargs="?", type=Path, default=FOLDER / "independent")
    parser.add_argument("--streams", action="store_true", help="sentence by sentence, as in streams")
    parser.add_argument("--show", action="store_true", help="print what is not put right")
    options = parser.parse_args()
    print_counts(count_results(options.path, streams=options.streams, show=options.show))


if __name__ == "__main__":
    main()

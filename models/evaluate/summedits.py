"""How many wrong summaries of SummEdits (Laban et al., 2023) are found, and restored exactly, by their source as page.

    python -m models.evaluate.summedits FILE

FILE has one JSON object a line, perhaps gzipped: `answer` (a summary) and `extra` with `source_text`,
`original_summary`, `consistent` (whether people found that the summary agrees with the source) and `edit_types`. Words
alone check each summary, then words with a judge that is always right about the facts which they doubt. A wrong summary
is restored if it becomes the original, letter for letter. Wrong summaries whose only difference is a fact that words
read, such as a number or a date, are counted apart, because words replace nothing else. Nothing here trains.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from aligner_proxy_grounding.matching import Matcher
from aligner_proxy_grounding.page import read_page
from aligner_proxy_grounding.sentences import Grounder
from models.evaluate.grounded import OUTDATED, GroundedCase, ground_answer
from models.evaluate.grounded_forms import CLEAN
from models.evaluate.grounded_judge import count_agreeing_facts, judge_answer
from models.reporting.statistics import Rate

ALL = "all"
ONE_FACT = "a fact that is read is the only difference"


@dataclass(frozen=True, slots=True)
class Summary:
    """One summary of the set; its source is the page that it must agree with."""

    case: GroundedCase
    sorts: tuple[str, ...]
    """What it is counted under: `ALL`, the kinds of its edits and, where that holds, `ONE_FACT`."""


def read_summaries(path: Path) -> Iterator[Summary]:
    """The summaries of a file, in the file's order."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            about = row["extra"]
            kind = CLEAN if about["consistent"] else OUTDATED
            right = row["answer"] if about["consistent"] else about["original_summary"]
            case = GroundedCase(about["domain"], about["source_text"], "", row["answer"], kind, right)
            one_fact = (ONE_FACT,) if kind == OUTDATED and differs_in_one_fact(case) else ()
            edit_types = () if kind == CLEAN else tuple(about["edit_types"])
            yield Summary(case, (ALL, *one_fact, *edit_types))


def open_grounder(case: GroundedCase) -> Grounder:
    """A grounder that checks the case's answer by its page."""
    return Grounder.for_question(Matcher([read_page("PAGE.md", case.page)]), case.question)


def differs_in_one_fact(case: GroundedCase) -> bool:
    """Whether answer and right text differ in one fact of the same form, and in nothing else.

    `Founded in 1997.` and `Founded in 1979.` do.
    """
    grounder = open_grounder(case)
    own_facts = grounder.facts_of(case.answer)
    right_facts = grounder.facts_of(case.right)
    if len(own_facts) != len(right_facts):
        return False
    pairs = [
        (own_fact, right_fact)
        for own_fact, right_fact in zip(own_facts, right_facts, strict=True)
        if own_fact.text != right_fact.text
    ]
    if len(pairs) != 1 or not pairs[0][0].same_form(pairs[0][1]):
        return False
    own_fact, right_fact = pairs[0]
    return case.answer.replace(own_fact.text, right_fact.text, 1) == case.right


def count_summaries(summaries: Iterable[Summary]) -> Counter[tuple[str, str]]:
    """Count the results of all summaries by (sort, result); right summaries have the sort `CLEAN`."""
    counts = Counter[tuple[str, str]]()
    for summary in summaries:
        case = summary.case
        text, _, doubts = ground_answer(case)
        by_judge = judge_answer(case)
        results = {"summaries": True, "doubted by words": doubts > 0, "asked about": by_judge.is_asked}
        results |= name_results(case, text, "by words") | name_results(case, by_judge.text, "with a judge")
        for sort in summary.sorts if case.kind == OUTDATED else (CLEAN,):
            counts.update((sort, result) for result, holds in results.items() if holds)
    return counts


def name_results(case: GroundedCase, text: str, way: str) -> dict[str, bool]:
    """Which results hold of a summary that goes out as `text`; each name ends with `way`: `restored by words`."""
    results = {"changed": text != case.answer}
    if case.kind == OUTDATED:
        grounder = open_grounder(case)
        agreeing = count_agreeing_facts(grounder, text, case)
        results["restored"] = text == case.right
        results["with the original's facts"] = results["changed"] and agreeing == len(grounder.facts_of(case.right))
        results["changed, and no more facts right"] = results["changed"] and agreeing <= count_agreeing_facts(
            grounder, case.answer, case
        )
    return {f"{result} {way}": holds for result, holds in results.items()}


def print_counts(counts: Counter[tuple[str, str]]) -> None:
    """Print for each sort of summary the share of each result."""
    for sort in sorted({sort for sort, _ in counts}, key=lambda sort: -counts[sort, "summaries"]):
        whole = counts[sort, "summaries"]
        print(f"{sort} ({whole})")
        for result in sorted(result for of_sort, result in counts if of_sort == sort and result != "summaries"):
            print(f"  {result}: {Rate.from_counts(counts[sort, result], whole)}")


def main() -> None:
    """Print the figures of a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    print_counts(count_summaries(read_summaries(parser.parse_args().file)))


if __name__ == "__main__":
    main()

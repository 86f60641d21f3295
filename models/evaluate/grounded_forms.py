"""How many facts of short answers come out as the page has them, by the form of the fact.

    python -m models.evaluate.grounded_forms [FILE] [--streams] [--show]

A file has pages, and answers with one outdated fact written `{wrong|right}`. Three things are counted: what words alone
put right, what an editor that is always right brings, and whether anything touches an answer that is right already: the
same one with what is right in it, or one of `twins`, which say it in other words. Under `right` are further right
answers, under `unknown` answers with a fact that the page does not have.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import yaml

from models.evaluate.grounded import OUTDATED, GroundedCase, ground_answer, name_result
from models.reporting.statistics import Rate

FOLDER = Path(__file__).parents[1] / "data" / "grounded_forms"
RIGHT = "right"
CLEAN = "clean"
UNKNOWN = "unknown"
_MARKED = re.compile(r"\{([^|}]*)\|([^}]*)\}")
_COLUMNS = ("cases", "found", "right", "wrong", "asked", "right+", "wrong+", "twins", "touched", "touched+")


def read_forms(path: Path) -> Iterator[GroundedCase]:
    """Yield the cases of a file; the name of their form takes the place of the name of a business."""
    for group in yaml.safe_load(path.read_text(encoding="utf-8")):
        form, page = group["form"], group["page"]
        for case in group["cases"]:
            question = case["question"]
            wrong, right = (_MARKED.sub(part, case["answer"]) for part in (r"\1", r"\2"))
            yield GroundedCase(form, page, question, wrong, OUTDATED, right)
            for answer in (right, *case.get("twins", ())):
                yield GroundedCase(form, page, question, answer, CLEAN, answer)
        for name, kind in (("right", CLEAN), ("unknown", UNKNOWN)):
            for case in group.get(name, ()):
                yield GroundedCase(form, page, case["question"], case["answer"], kind, case["answer"])


def count_case(case: GroundedCase, *, streams: bool, show: bool) -> Counter[str]:
    """The counts that a case adds to the columns of its form."""
    text, edits, unsettled_count = ground_answer(case, streams=streams)
    with_editor, _, doubts = ground_answer(case, streams=streams, editor=True)
    result, result_with = name_result(case, text), name_result(case, with_editor)
    if show and (result, result_with) != (RIGHT, RIGHT):
        print(f"{case.business} {case.kind}: words {result}, editor {result_with}{'' if doubts else ' (not asked)'}")
        print(f"  {case.question}\n  {case.answer!r}\n  {text!r}\n  {case.right!r}")
    if case.kind == OUTDATED:
        counts = {"cases": True, "found": bool(edits or unsettled_count), "asked": bool(doubts)}
        return Counter(counts) + Counter({result: 1}) + Counter({f"{result_with}+": 1})
    return Counter(twins=1) + Counter({"touched": result != RIGHT}) + Counter({"touched+": result_with != RIGHT})


def print_forms(counts: dict[str, Counter[str]]) -> None:
    """Print a row for each form, and one for all."""
    counts["all"] = sum(counts.values(), Counter[str]())
    width = max(map(len, counts))
    print(" ".join([" " * width, *(f"{column:>8}" for column in _COLUMNS)]))
    for form, row in counts.items():
        print(" ".join([f"{form:{width}}", *(f"{row[column]:8}" for column in _COLUMNS)]))
    whole = counts["all"]
    print(f"words alone {Rate.from_counts(whole[RIGHT], whole['cases'])} right")
    print(f"with an editor that is always right {Rate.from_counts(whole['right+'], whole['cases'])} right")
    print(f"right and unknown ones touched {Rate.from_counts(whole['touched'], whole['twins'])}")


def main() -> None:
    """Print the counts by form; of the columns those with a plus are with the editor."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=FOLDER / "development.yaml")
    parser.add_argument("--streams", action="store_true", help="sentence by sentence, as in streams")
    parser.add_argument("--show", action="store_true", help="print what is not right")
    options = parser.parse_args()
    counts: dict[str, Counter[str]] = {}
    for case in read_forms(options.file):
        row = count_case(case, streams=options.streams, show=options.show)
        counts[case.business] = counts.get(case.business, Counter()) + row
    print_forms(counts)


if __name__ == "__main__":
    main()

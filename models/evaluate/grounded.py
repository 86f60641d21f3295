"""Measurement of grounded answers on written cases: wrong facts put right, right and unknown ones left alone.

    python -m models.evaluate.grounded [FOLDER] [--streams] [--editor] [--from 0.85] [--only NAME,NAME] [--show]
    python -m models.evaluate.grounded --steps [--show]

A case is right if the whole answer is what it must become. Each business has a page; no answer is copied from it.
With `--editor`: an editor is asked about what is in doubt, and is always right; so this is the most that one can bring.
With `--steps`: the order of steps, put right where it is another than the page's, and else left alone.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml

from aligner_proxy.text.structure import split
from aligner_proxy_grounding.matching import Matcher
from aligner_proxy_grounding.page import read_page
from aligner_proxy_grounding.procedures import ORDER
from aligner_proxy_grounding.rewriting import accept_rewriting, merge_edits, words_edits
from aligner_proxy_grounding.sentences import (
    REPLACE_FACTS_FROM,
    Arbiter,
    FactEdit,
    Grounder,
    UnsettledFact,
    apply_fact_edits,
)
from models.reporting.statistics import Rate

FOLDER = Path(__file__).parents[1] / "data" / "grounded_cases"
STEPS = Path(__file__).parents[1] / "data" / "step_orders" / "cases.yaml"
OUTDATED = "outdated"


@dataclass(frozen=True, slots=True)
class GroundedCase:
    """One answer to one question, with the page that it must agree with."""

    business: str
    page: str
    question: str
    answer: str
    kind: str
    right: str
    """What the answer must become."""


def list_cases(folder: Path, names: Sequence[str] = ()) -> Iterator[GroundedCase]:
    """Yield the cases of a folder, one business after the other."""
    for path in sorted(folder.glob("*.yaml")):
        if names and path.stem not in names:
            continue
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        for case in data["cases"]:
            answer = case["answer"]
            right = answer.replace(case["wrong"], case["right"]) if case["kind"] == OUTDATED else answer
            yield GroundedCase(path.stem, data["page"], case["question"], answer, case["kind"], right)


@lru_cache(maxsize=8)
def read_reference(page: str) -> Matcher:
    """The statements of a page; the cases of one page stand together."""
    return Matcher([read_page("PAGE.md", page)])


def ground_answer(
    case: GroundedCase, *, streams: bool = False, editor: bool = False, replace_from: float = REPLACE_FACTS_FROM
) -> tuple[str, list[FactEdit], int]:
    """The delivered answer, its edits, and the number of its sentences that are left unsettled or to an editor."""
    matcher = read_reference(case.page)
    grounder = Grounder.for_question(
        matcher,
        case.question,
        arbiter=Arbiter.EDITOR if editor and not streams else Arbiter.WORDS,
        replace_from=replace_from,
    )
    if not streams:
        edits, unsettled_facts = grounder.check_answer(case.answer)
        edits = _ask_editor(case, matcher, edits, unsettled_facts) if editor else edits
        return apply_fact_edits(case.answer, edits), edits, len(unsettled_facts)
    edits = []
    unsettled_facts = []
    for segment in split(case.answer):
        # the editor is asked about more facts, so a copy of the grounder decides before the segment becomes known to it
        editor_edits: list[FactEdit] = []
        editor_doubts: list[UnsettledFact] = []
        if editor:
            editor_edits, editor_doubts = grounder.copy_for(Arbiter.EDITOR).check_segments([segment])
        word_edits, word_doubts = grounder.check_segments([segment])
        edits += _ask_editor(case, matcher, editor_edits, editor_doubts) if editor_doubts else word_edits
        unsettled_facts += editor_doubts if editor else word_doubts
    return apply_fact_edits(case.answer, edits), edits, len(unsettled_facts)


def _ask_editor(
    case: GroundedCase, matcher: Matcher, edits: Sequence[FactEdit], unsettled_facts: Sequence[UnsettledFact]
) -> list[FactEdit]:
    """The edits, together with those of an editor that is always right."""
    doubt_by_sentence = {doubt.start: doubt for doubt in unsettled_facts if doubt.kind != ORDER}
    for start, doubt in doubt_by_sentence.items():
        rewriting = _rewrite_sentence(case, start, doubt.end)
        accepted_edits = accept_rewriting(case.answer[start : doubt.end], rewriting, matcher, start)
        # unchanged by the editor: then the edits stay of which the comparison of words is certain
        further_edits = words_edits(unsettled_facts, start) if accepted_edits == [] else accepted_edits or ()
        edits = merge_edits(edits, further_edits)
    return list(edits)


def _rewrite_sentence(case: GroundedCase, start: int, end: int) -> str:
    """What an editor that is always right writes in place of a sentence."""
    pairs = enumerate(zip(case.answer, case.right, strict=False))
    first_difference = next((n for n, (sign, right_sign) in pairs if sign != right_sign), -1)
    if start <= first_difference < end:
        return case.right[start : end + len(case.right) - len(case.answer)]
    return case.answer[start:end]


def name_result(case: GroundedCase, text: str) -> str:
    """The result of a case in one word."""
    if text == case.right:
        return "right"
    return "missed" if text == case.answer else "wrong"


def print_steps(*, show: bool) -> None:
    """Print how many answers with steps come out right, by what should happen to them."""
    data = yaml.safe_load(STEPS.read_text(encoding="utf-8"))
    counts = Counter[tuple[str, bool]]()
    for case in data["cases"]:
        matcher = read_reference(data["pages"][case["page"]])
        edits, unsettled_facts = Grounder.for_question(matcher, case["question"]).check_answer(case["answer"])
        text = apply_fact_edits(case["answer"], edits)
        is_noted = any(doubt.kind == ORDER for doubt in unsettled_facts)
        sort = "reordered" if "right" in case else "unsettled" if case.get("unsettled") else "unchanged"
        right = text == case.get("right", case["answer"]) and is_noted is (sort == "unsettled")
        counts[sort, right] += 1
        if show and not right:
            print(f"{sort}: {case['answer']!r}\n  {text!r}\n  {case.get('right')!r} {is_noted}")
    for sort in ("reordered", "unsettled", "unchanged"):
        print(f"{sort:9} {Rate.from_counts(counts[sort, True], counts[sort, True] + counts[sort, False])} right")


def main() -> None:
    """Print the shares by kind of case, and the cases that are not right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    parser.add_argument("--streams", action="store_true", help="sentence by sentence, as in streams")
    parser.add_argument("--editor", action="store_true", help="with an editor that is always right")
    parser.add_argument("--from", type=float, default=REPLACE_FACTS_FROM, dest="bar", help="replace_facts_from")
    parser.add_argument("--only", default="", help="names of files, without .yaml")
    parser.add_argument("--show", action="store_true", help="print what is not right")
    parser.add_argument("--steps", action="store_true", help="the order of steps")
    options = parser.parse_args()
    if options.steps:
        print_steps(show=options.show)
        return
    counts = Counter[tuple[str, str]]()
    unsettled_counts = Counter[str]()
    for case in list_cases(options.folder, [name for name in options.only.split(",") if name]):
        text, edits, doubtful = ground_answer(
            case, streams=options.streams, editor=options.editor, replace_from=options.bar
        )
        result = name_result(case, text)
        counts[case.kind, result] += 1
        unsettled_counts[case.kind] += bool(doubtful)
        if options.show and result != "right":
            print(f"{case.business} {case.kind} {result}: {case.question}\n  {case.answer!r}\n  {case.right!r}")
            for edit in edits:
                print(f"  edit {case.answer[edit.start : edit.end]!r} -> {edit.text!r} ({edit.kind}, {edit.source})")
    for kind in (OUTDATED, "clean", "unknown"):
        whole = sum(count for (of_kind, _), count in counts.items() if of_kind == kind)
        right = counts[kind, "right"]
        print(
            f"{kind:9} {Rate.from_counts(right, whole)} right, "
            f"{counts[kind, 'missed']} missed, {counts[kind, 'wrong']} changed wrongly, "
            f"{unsettled_counts[kind]} unsettled"
        )


if __name__ == "__main__":
    main()

"""Fit of the weights by which words alone are certain enough to replace a fact: `replacing` in evidence.yaml.

    python -m models.experiments.grounded_certainty [FOLDER ...] [--folds]

A case is a fact of a written answer for which some statement gives another value: right where putting that in makes the
whole answer what it must become, wrong else. With `--folds` a tenth of the businesses is left out each time, and the
table says what each threshold puts right and touches, so that one can be chosen; without it the weights are printed.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from aligner_proxy_grounding.evidence import FOR_REPLACING
from aligner_proxy_grounding.facts import Fact
from aligner_proxy_grounding.matching import Matcher
from aligner_proxy_grounding.notation import rewrite_fact
from aligner_proxy_grounding.page import read_page
from aligner_proxy_grounding.sentences import AnswerSentence, Grounder
from models.evaluate.grounded import FOLDER, OUTDATED, GroundedCase, list_cases
from models.evaluate.grounded_forms import FOLDER as FORMS_FOLDER
from models.evaluate.grounded_forms import read_forms
from models.reporting.statistics import Rate

FOLDERS = (FOLDER, FOLDER / "independent")
FORMS = FORMS_FOLDER / "development.yaml"
FOLDS = 10
_SHRINK = 0.002
_STEPS = 300
_THRESHOLDS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.83, 0.85, 0.87, 0.9, 0.92, 0.95)


@dataclass(frozen=True, slots=True)
class FactReplacement:
    """A fact of an answer, and what speaks for the page's fact in its place."""

    case: GroundedCase
    counts: Mapping[str, float]
    """The evidence by name; `FOR_REPLACING` has the names."""
    is_right: bool
    """Whether the replacement makes the right answer."""


def list_replacements(case: GroundedCase) -> Iterator[FactReplacement]:
    """The possible replacements of all facts of an answer."""
    grounder = Grounder.for_question(Matcher([read_page("PAGE.md", case.page)]), case.question)
    for sentence in grounder.read_all(case.answer):
        for number in range(len(sentence.facts)):
            candidate = grounder.find_candidate(sentence, number)
            text = None if candidate is None else _replace_fact(case, sentence, number, candidate.statement.fact)
            if candidate is not None and text is not None and text != case.answer:
                yield FactReplacement(case, candidate.features, case.kind == OUTDATED and text == case.right)


def _replace_fact(case: GroundedCase, sentence: AnswerSentence, number: int, other: Fact) -> str | None:
    """The answer with the sentence's fact `number` replaced by `other`.

    None where the sentence leaves no safe notation.
    """
    place = rewrite_fact(sentence.facts[number], other, sentence.text)
    if place is None:
        return None
    start, end, text = place
    return f"{case.answer[: sentence.start + start]}{text}{case.answer[sentence.start + end :]}"


def fit_weights(rows: Sequence[FactReplacement]) -> torch.Tensor:
    """Fit a logistic regression of `is_right` on the counts; weights in the order of `FOR_REPLACING`."""
    counts, right = _pack_rows(rows)
    middle = counts.mean(dim=0)
    width = counts.std(dim=0)
    middle[0] = 0.0  # the first count is always 1
    width[0] = 1.0
    scaled = (counts - middle) / width
    weights = torch.zeros(len(FOR_REPLACING), requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        wrongness = torch.nn.functional.binary_cross_entropy_with_logits(scaled @ weights, right)
        value = wrongness + _SHRINK * weights[1:].square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)
    plain = weights.detach() / width
    plain[0] -= (plain[1:] * middle[1:]).sum()
    return plain


def _pack_rows(rows: Sequence[FactReplacement]) -> tuple[torch.Tensor, torch.Tensor]:
    """(counts, whether right as 1 and 0)."""
    counts = torch.tensor([[row.counts[name] for name in FOR_REPLACING] for row in rows])
    return counts, torch.tensor([float(row.is_right) for row in rows])


def estimate_certainties(rows: Sequence[FactReplacement], weights: torch.Tensor) -> list[float]:
    """How certain each replacement is under these weights."""
    certain: list[float] = torch.sigmoid(_pack_rows(rows)[0] @ weights).tolist()
    return certain


def estimate_by_folds(rows: Sequence[FactReplacement]) -> list[float]:
    """How certain each replacement is under weights that were not fitted on its business."""
    businesses = sorted({row.case.business for row in rows})
    certain = [0.0] * len(rows)
    for fold in range(FOLDS):
        outside = set(businesses[fold::FOLDS])
        weights = fit_weights([row for row in rows if row.case.business not in outside])
        numbers = [n for n, row in enumerate(rows) if row.case.business in outside]
        for n, value in zip(numbers, estimate_certainties([rows[n] for n in numbers], weights), strict=True):
            certain[n] = value
    return certain


def print_table(all_cases: Sequence[GroundedCase], rows: Sequence[FactReplacement], certain: Sequence[float]) -> None:
    """Print for each threshold how many cases come out right, and how many are touched, by their kind.

    A case comes out right if one fact of it is replaced, by the right value.
    """
    totals = Counter(case.kind for case in all_cases)
    for threshold in _THRESHOLDS:
        # whether each replacement that is made is right, by case
        replacements = defaultdict[GroundedCase, list[bool]](list)
        for row, value in zip(rows, certain, strict=True):
            if value >= threshold:
                replacements[row.case].append(row.is_right)
        put_right = sum(of_case == [True] for of_case in replacements.values())
        touched = Counter(case.kind for case in replacements)
        print(
            f"  {threshold}: put right {Rate.from_counts(put_right, totals[OUTDATED])}, "
            f"right touched {Rate.from_counts(touched['clean'], totals['clean'])}, "
            f"unknown touched {Rate.from_counts(touched['unknown'], totals['unknown'])}, "
            f"outdated mistaken {touched[OUTDATED] - put_right}"
        )


def main() -> None:
    """Fit and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, default=FOLDERS)
    parser.add_argument("--folds", action="store_true", help="leave out a tenth of the businesses each time")
    options = parser.parse_args()
    torch.set_num_threads(1)
    by_folder = {folder: list(list_cases(folder)) for folder in options.folders}
    by_folder[FORMS] = list(read_forms(FORMS))
    rows = [row for of_folder in by_folder.values() for case in of_folder for row in list_replacements(case)]
    if options.folds:
        certain = estimate_by_folds(rows)
        for folder, of_folder in by_folder.items():
            folder_cases = set(of_folder)
            pairs = [(row, value) for row, value in zip(rows, certain, strict=True) if row.case in folder_cases]
            print(f"{folder.name}:")
            print_table(of_folder, [row for row, _ in pairs], [value for _, value in pairs])
    else:
        weights = fit_weights(rows).tolist()
        rounded = {name: round(value, 2) for name, value in zip(FOR_REPLACING, weights, strict=True)}
        print(yaml.safe_dump({"replacing": rounded}, sort_keys=False), end="")


if __name__ == "__main__":
    main()

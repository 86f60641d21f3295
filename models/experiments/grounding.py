"""Fit of the weights by which grounded answers tell what a fact speaks of: `evidence.yaml` of the plugin.

    python -m models.experiments.grounding [FOLDER ...] [--folds]

Each fact of a written answer is a case, with the statement that it should be held to as its label, or none. Facts that
the page confirms are used twice more, since there are few that are outdated: with another value in their place, and
with their sentence taken off the page. `--folds` leaves out one business after the other and prints what is found at
which threshold; without it the file is printed.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import torch
import yaml

from aligner_proxy.text.structure import split
from aligner_proxy_grounding import evidence
from aligner_proxy_grounding.evidence import FOR_NONE, FOR_STATEMENT, FactSubject, StatementScorer
from aligner_proxy_grounding.facts import Fact, FactKind
from aligner_proxy_grounding.matching import CONFIRMS, MAX_WEIGHED, Matcher
from aligner_proxy_grounding.page import ReferencePage, Statement, read_page
from aligner_proxy_grounding.passages import SAME_SENTENCE
from aligner_proxy_grounding.sentences import AnswerSentence, Grounder
from models.evaluate.grounded import FOLDER, OUTDATED, GroundedCase, list_cases

FOLDERS = (FOLDER, FOLDER / "independent")
"""The businesses on which everything was built; those of `held_out` are for the test."""
UNKNOWN = "unknown"
_SHRINK = 0.001
_STEPS = 300
_WEIGHTS = {"outdated": 2.0, "confirmed": 0.3, "removed": 0.2, "unknown": 2.0, "own": 1.0}
"""What a case counts: written ones more than made ones."""
_FACTORS = ("0.5", "0.75", "0.8", "1.1", "1.2", "1.25", "1.5", "2")
_MINUTES = (-120, -60, -30, 30, 60, 120)
_THRESHOLDS = (0.4, 0.45, 0.5, 0.55, 0.6, 0.7)


@dataclass(frozen=True, slots=True)
class FactExample:
    """One fact of an answer, and the evidence for each statement of the page that might be meant."""

    business: str
    sort: str
    statements: tuple[Mapping[str, float], ...]
    none: Mapping[str, float]
    """The evidence that no statement is meant."""
    meant_numbers: tuple[int, ...]
    facts: tuple[Fact, ...]
    """The fact of each statement."""
    free: tuple[bool, ...]
    """Whether a statement may be taken: the answer does not state it elsewhere."""


def list_examples(folders: Iterable[Path]) -> Iterator[FactExample]:
    """The examples from the businesses of some folders."""
    chance = random.Random(1)
    for folder in folders:
        for case in list_cases(folder):
            yield from _list_case_examples(case, chance)


def _list_case_examples(case: GroundedCase, chance: random.Random) -> Iterator[FactExample]:
    """The examples from one answer."""
    reference = read_page("PAGE.md", case.page)
    matcher = Matcher([reference])
    grounder = Grounder.for_question(matcher, case.question)
    right = split(case.right)
    sentences = grounder.read_all(case.answer)
    first_difference = next(
        (n for n, (sign, right_sign) in enumerate(zip(case.answer, case.right, strict=False)) if sign != right_sign), -1
    )
    for number, sentence in enumerate(sentences):
        for n, (fact, subject) in enumerate(zip(sentence.facts, sentence.subjects, strict=True)):
            if fact.inherited:
                continue
            start = sentence.start + fact.start
            if case.kind == OUTDATED and start <= first_difference < sentence.start + fact.end:
                facts = grounder.facts_of(right[number].text)
                if n < len(facts):
                    yield from _list_outdated(case, grounder, (fact, facts[n]), subject)
                continue
            yield from _list_other(case, (grounder, reference, chance), sentence, (fact, subject))


def _list_outdated(
    case: GroundedCase, grounder: Grounder, facts: tuple[Fact, Fact], subject: FactSubject
) -> Iterator[FactExample]:
    """The example of an outdated fact, which means the statements with the right value; `facts`: (outdated, right)."""
    fact, right = facts
    scored = grounder.matcher.rank_statements(fact, subject)[:MAX_WEIGHED]
    agreeing = [
        n for n, (_, statement) in enumerate(scored) if right.same_form(statement.fact) and right.agrees(statement.fact)
    ]
    meant_numbers = [n for n in agreeing if scored[n][0] >= CONFIRMS * scored[agreeing[0]][0]]
    if scored:
        yield _make_example(
            case, OUTDATED, (fact, subject), grounder.matcher, scored, meant_numbers, grounder.repeated_statements(None)
        )


def _list_other(
    case: GroundedCase,
    around: tuple[Grounder, ReferencePage, random.Random],
    sentence: AnswerSentence,
    fact_and_subject: tuple[Fact, FactSubject],
) -> Iterator[FactExample]:
    """The examples of a fact that is not outdated. `around` has the grounder, the page and the random generator.

    A fact that statements confirm gives two examples: with another value, so that it means these statements; and on
    the page without their sentence, so that it means none. A fact that no statement confirms means none, either.
    """
    grounder, reference, chance = around
    fact, subject = fact_and_subject
    matcher = grounder.matcher
    scored = matcher.rank_statements(fact, subject)[:MAX_WEIGHED]
    if not scored:
        return
    agreeing = [n for n, (_, statement) in enumerate(scored) if fact.agrees(statement.fact)]
    meant_numbers = [n for n in agreeing if scored[n][0] >= CONFIRMS * scored[0][0]]
    if not meant_numbers:
        if not agreeing and not grounder.is_left_alone(sentence, fact):
            sort = UNKNOWN if case.kind == UNKNOWN else "own"
            yield _make_example(case, sort, fact_and_subject, matcher, scored, [], grounder.repeated_statements(None))
        return
    repeated = grounder.repeated_statements(None) - {scored[n][1] for n in meant_numbers}
    changed = _change_value(fact, chance)
    yield _make_example(case, "confirmed", (changed, subject), matcher, scored, meant_numbers, repeated)
    matcher_without = Matcher([_remove_sentence(reference, scored[meant_numbers[0]][1])])
    others = [pair for pair in matcher_without.rank_statements(fact, subject) if not fact.agrees(pair[1].fact)][
        :MAX_WEIGHED
    ]
    if others:
        yield _make_example(
            case, "removed", (_change_value(fact, chance), subject), matcher_without, others, [], repeated
        )


def _make_example(
    case: GroundedCase,
    sort: str,
    fact_and_subject: tuple[Fact, FactSubject],
    matcher: Matcher,
    scored: Sequence[tuple[float, Statement]],
    meant_numbers: Sequence[int],
    repeated: Set[Statement],
) -> FactExample:
    """Collect the evidence for each of the `scored` statements, and for none of them."""
    weigher = StatementScorer(*fact_and_subject, matcher.vocabularies[fact_and_subject[0].kind])
    return FactExample(
        case.business,
        sort,
        tuple(weigher.evidence_for(statement, score, is_repeated=statement in repeated) for score, statement in scored),
        none=weigher.evidence_for_none(scored),
        meant_numbers=tuple(meant_numbers),
        facts=tuple(statement.fact for _, statement in scored),
        free=tuple(statement not in repeated for _, statement in scored),
    )


def _change_value(fact: Fact, chance: random.Random) -> Fact:
    """The fact with a value about as far off as outdated values are."""
    if fact.kind is FactKind.TIME and isinstance(fact.value, Decimal):
        return replace(fact, value=fact.value + chance.choice(_MINUTES))
    if isinstance(fact.value, Decimal):
        return replace(fact, value=fact.value * Decimal(chance.choice(_FACTORS)))
    if fact.kind is FactKind.PHONE:
        digits = str(fact.value)
        other_number = f"{digits[:-2]}{(int(digits[-2:]) + chance.choice((9, 18, 53))) % 100:02}"
        return replace(fact, value=other_number)
    if fact.kind is FactKind.MAIL:
        return replace(fact, value=f"other@{str(fact.value).partition('@')[2]}")
    return fact


def _remove_sentence(reference: ReferencePage, removed: Statement) -> ReferencePage:
    """The page without the sentence of a statement."""
    words = {
        word
        for statement in reference.statements
        if statement.sentence == removed.sentence
        for word, weight in statement.word_weights.items()
        if weight >= SAME_SENTENCE
    }
    counts = Counter(reference.word_counts)
    counts.subtract(words)
    rest = tuple(statement for statement in reference.statements if statement.sentence != removed.sentence)
    return replace(reference, statements=rest, word_counts={word: count for word, count in counts.items() if count > 0})


@dataclass(frozen=True, slots=True)
class EvidenceWeights:
    """The weights of the evidence, in the order of the file."""

    statement: torch.Tensor
    none: torch.Tensor


class PackedExamples(NamedTuple):
    """Examples as tensors. The first dimension is the example; the last column of both masks stands for "none".

    A mask is added to log-probabilities: 0 keeps a column, -inf excludes it.
    """

    statement_evidence: torch.Tensor
    """[examples, statements, kinds of evidence]"""
    none_evidence: torch.Tensor
    """[examples, kinds of evidence]: for the case that no statement is meant."""
    present_mask: torch.Tensor
    """[examples, statements + 1]: keeps the statements that the example has."""
    meant_mask: torch.Tensor
    """[examples, statements + 1]: keeps what the example's fact really means."""


def _pack_rows(rows: Sequence[FactExample]) -> PackedExamples:
    """Write the examples as tensors."""
    of_statements = torch.zeros(len(rows), MAX_WEIGHED, len(FOR_STATEMENT))
    of_none = torch.zeros(len(rows), len(FOR_NONE))
    present_mask = torch.full((len(rows), MAX_WEIGHED + 1), -torch.inf)
    present_mask[:, MAX_WEIGHED] = 0
    meant_mask = torch.full((len(rows), MAX_WEIGHED + 1), -torch.inf)
    for n, row in enumerate(rows):
        for at, counts in enumerate(row.statements):
            of_statements[n, at] = torch.tensor([counts[name] for name in FOR_STATEMENT])
            present_mask[n, at] = 0
        of_none[n] = torch.tensor([row.none[name] for name in FOR_NONE])
        meant_mask[n, list(row.meant_numbers) or [MAX_WEIGHED]] = 0
    return PackedExamples(of_statements, of_none, present_mask, meant_mask)


def _log_chances(weights: EvidenceWeights, packed: PackedExamples) -> torch.Tensor:
    """Log-probability of each statement, and of none of them in the last column."""
    statement_sums = packed.statement_evidence @ weights.statement
    none_sums = packed.none_evidence @ weights.none
    sums = torch.cat([statement_sums, none_sums[:, None]], dim=1)
    return torch.log_softmax(sums + packed.present_mask, dim=1)


def fit_weights(rows: Sequence[FactExample]) -> EvidenceWeights:
    """Fit the weights that give the highest probability to the statements which the examples' facts really mean."""
    packed = _pack_rows(rows)
    row_weights = torch.tensor([_WEIGHTS[row.sort] for row in rows])
    weights = EvidenceWeights(
        torch.zeros(len(FOR_STATEMENT), requires_grad=True), torch.zeros(len(FOR_NONE), requires_grad=True)
    )
    parameters = [weights.statement, weights.none]
    optimizer = torch.optim.LBFGS(parameters, max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        # of each example, the logarithm of the summed probabilities of all that may be meant
        log_likelihoods = torch.logsumexp(_log_chances(weights, packed) + packed.meant_mask, dim=1)
        squares = weights.statement.square().sum() + weights.none.square().sum()
        value = -(log_likelihoods * row_weights).sum() / row_weights.sum() + _SHRINK * squares
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)
    return EvidenceWeights(weights.statement.detach(), weights.none.detach())


class ChosenValue(NamedTuple):
    """The likeliest value among the statements that may be taken for an example's fact."""

    example: FactExample
    chance: float
    is_meant: bool


def choose_values(rows: Sequence[FactExample], weights: EvidenceWeights) -> list[ChosenValue]:
    """Choose the likeliest value for each example. The chances of statements with the same value are added."""
    chances = _log_chances(weights, _pack_rows(rows)).exp()
    result = []
    for row, likely in zip(rows, chances.tolist(), strict=True):
        best = 0.0
        right = False
        for at, fact in enumerate(row.facts):
            same = [n for n, other in enumerate(row.facts) if row.free[n] and other.agrees(fact)]
            value = sum(likely[n] for n in same)
            if row.free[at] and value > best:
                best = value
                right = bool(set(same) & set(row.meant_numbers))
        result.append(ChosenValue(row, best, right))
    return result


def _print_choices(results: Sequence[ChosenValue]) -> None:
    """Print for each threshold and sort how many choices are right."""
    for threshold in _THRESHOLDS:
        parts = []
        for sort in _WEIGHTS:
            whole = sum(choice.example.sort == sort for choice in results)
            sure = [choice for choice in results if choice.example.sort == sort and choice.chance >= threshold]
            right = sum(choice.is_meant for choice in sure)
            parts.append(f"{sort} {right} right, {len(sure) - right} wrong of {whole}")
        print(f"{threshold}: {'; '.join(parts)}")


def _format_file(weights: EvidenceWeights) -> str:
    """The weights as `evidence.yaml`."""
    return yaml.safe_dump(
        {
            "statement": {
                name: round(weight, 2) for name, weight in zip(FOR_STATEMENT, weights.statement.tolist(), strict=True)
            },
            "none": {name: round(weight, 2) for name, weight in zip(FOR_NONE, weights.none.tolist(), strict=True)},
        },
        sort_keys=False,
    )


def main() -> None:
    """Fit and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, default=FOLDERS)
    parser.add_argument("--folds", action="store_true", help="leave out one business after the other")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = list(list_examples(options.folders))
    if not options.folds:
        print(f"# To {evidence.__name__}:\n{_format_file(fit_weights(rows))}", end="")
        return
    results = []
    for business in sorted({row.business for row in rows}):
        weights = fit_weights([row for row in rows if row.business != business])
        results += choose_values([row for row in rows if row.business == business], weights)
    _print_choices(results)


if __name__ == "__main__":
    main()

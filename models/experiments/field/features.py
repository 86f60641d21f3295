"""What each family of methods needs and can, in the manner of MetaAligner's Table 1, with the evidence for every cell.

Evidence is a test of this repository (path::name), or `run`: a row of the tables that this comparison writes.
"""

from __future__ import annotations

from dataclasses import dataclass

from models.reporting import output

_BASELINES = "tests/models/systems/baselines"
_FIELD = "tests/models/experiments/test_field.py"
_RLHF = f"{_BASELINES}/test_rlhf.py::test_both_stages_share_the_budget"
_SFT = f"{_BASELINES}/test_rlhf.py::test_sft_imitates_the_best_answer_of_each_question"
_MODPO = f"{_BASELINES}/test_modpo.py::test_training_lowers_the_loss"
_RIC = f"{_BASELINES}/test_ric.py::test_one_training_is_asked_for_any_weights"
_ADAPTER = f"{_FIELD}::test_an_adapter_of_one_policy_does_not_fit_another"
_TEXT_ONLY = f"{_FIELD}::test_editors_see_no_more_of_the_policy_than_its_answers"
_JOBS = f"{_FIELD}::test_who_is_trained_again_for_what"
TRAINED = ("SFT", "RLHF", "MORLHF", "MODPO", "RiC")
EDITORS = ("Self-Refinement", "Aligner", "MetaAligner")
COLUMNS = (*TRAINED, *EDITORS)


@dataclass(frozen=True, slots=True)
class FeatureCell:
    """Yes or no, and the test or run that shows it."""

    answer: bool
    evidence: str

    def __str__(self) -> str:
        return "yes" if self.answer else "no"


@dataclass(frozen=True, slots=True)
class Feature:
    """One row of the table; its cells are in the order of `COLUMNS`."""

    says: str
    cells: tuple[FeatureCell, ...]


def _make_row(says: str, answers: str, *evidence: str) -> Feature:
    """Make a row; `yyn...` answers column by column. A single piece of evidence stands for all columns."""
    pieces = evidence * len(COLUMNS) if len(evidence) == 1 else evidence
    cells = tuple(FeatureCell(answer == "y", piece) for answer, piece in zip(answers, pieces, strict=True))
    return Feature(says, cells)


_OF_TRAINING = (_SFT, _RLHF, _RLHF, _MODPO, _RIC)
FEATURES: tuple[Feature, ...] = (
    _make_row("needs the policy's weights", "yyyyynnn", *_OF_TRAINING, *(_TEXT_ONLY,) * 3),
    _make_row("corrects a model behind an API", "nnnnnyyy", *(_ADAPTER,) * 5, *(_TEXT_ONLY,) * 3),
    _make_row("serves another policy model as it is", "nnnnnyyy", *(_ADAPTER,) * 5, *(_TEXT_ONLY,) * 3),
    _make_row("one training serves all weightings", "nnnnyyny", _JOBS),
    _make_row("takes an objective that it was not trained for", "nnnnnyny", *(_JOBS,) * 5, *(_TEXT_ONLY,) * 3),
    _make_row("samples while it is trained", "nyynynnn", *_OF_TRAINING, *(_TEXT_ONLY,) * 3),
    _make_row("adds work to every answer", "nnnnnyyy", "run: seconds an answer"),
)


def format_table() -> str:
    """Markdown: the features by family of methods."""
    return output.table(("", *COLUMNS), [(feature.says, *feature.cells) for feature in FEATURES])


def evidence() -> str:
    """Markdown: the evidence behind each row, each piece once."""
    rows = [(feature.says, ", ".join(dict.fromkeys(cell.evidence for cell in feature.cells))) for feature in FEATURES]
    return output.table(("", "evidence"), rows)

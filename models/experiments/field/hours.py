"""GPU hours at full size from a stated model, beside those that MetaAligner's paper gives (quoted).

    hours = tokens x FLOPs a token / (312e12 FLOP/s x utilisation x 3600)

312e12 is an A100's peak in BF16. Full fine-tuning takes 6 FLOPs a weight and token (forward 2, backward 4). FastChat,
which the paper trains with, pads every example to the longest length (its fastchat/train/train.py), so an example is
4,096 tokens for 7B and 13B, 2,048 for 1.1B, whatever it says. Examples: both sets' pairs as the paper's Table 5 counts
them; one epoch, as the step number in the released 7B's config suggests. Utilisation is the one free number: it is what
makes the SFT row right. So that row proves nothing, and the others say how far such a model carries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from models.reporting import output

PEAK = 312e12
CONTRASTIVE = 262_719 + 252_934
EQUAL = 16_502 + 82_023
"""Pairs of HH-RLHF and UltraFeedback (the paper's Table 5)."""
TRAINING = 6
FORWARD = 2
B7, B13, B1 = 6.74e9, 13.02e9, 1.1e9
FITTED = "SFT, 7B"


@dataclass(frozen=True, slots=True)
class QuotedRun:
    """One training of the paper."""

    name: str
    quoted: float
    """The GPU hours that the paper gives."""
    flops: float
    says: str
    """The remark in the table."""


def _fine_tuning(weights: float, examples: int, length: int) -> float:
    return TRAINING * weights * examples * length


RUNS: tuple[QuotedRun, ...] = (
    QuotedRun(FITTED, 247.34, _fine_tuning(B7, CONTRASTIVE, 4096), "fitted: gives the utilisation"),
    QuotedRun("MetaAligner, 7B", 242.68, _fine_tuning(B7, CONTRASTIVE + EQUAL, 4096), "equal and contrastive stage"),
    QuotedRun("MetaAligner, 13B", 403.44, _fine_tuning(B13, CONTRASTIVE + EQUAL, 4096), "the same"),
    QuotedRun("MetaAligner, 1.1B", 120.48, _fine_tuning(B1, CONTRASTIVE + EQUAL, 2048), "the same, shorter examples"),
    QuotedRun("Aligner, 7B", 236.8, _fine_tuning(B7, CONTRASTIVE, 4096), "one stage, no equal pairs"),
    QuotedRun(
        "MODPO, 7B",
        405.9,
        (2 * TRAINING + 2 * FORWARD) * B7 * (CONTRASTIVE // 2) * 4096,
        "two answers and their reference, of half as many comparisons as there are directed pairs",
    ),
)
"""MORLHF (1892.3 hours, quoted) is left out: lengths and rounds of its PPO are not known well enough to be modelled."""


def utilisation() -> float:
    """The utilisation at which the model gives the hours that the paper quotes for SFT."""
    (fitted,) = (run for run in RUNS if run.name == FITTED)
    return fitted.flops / (PEAK * 3600 * fitted.quoted)


def hours(flops: float) -> float:
    """A100 hours for so many FLOPs."""
    return flops / (PEAK * utilisation() * 3600)


def format_table(runs: Sequence[QuotedRun] = RUNS) -> str:
    """Markdown: for each run the modelled hours beside the quoted ones."""
    rows = [
        (run.name, f"{hours(run.flops):.0f}", f"{run.quoted:g}", f"{hours(run.flops) / run.quoted:.2f}", run.says)
        for run in runs
    ]
    head = ("training", "A100 hours, estimated", "quoted from the paper", "estimated / quoted", "of what")
    return output.table(head, rows)

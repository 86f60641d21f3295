"""Benign damage: how often the gateway touches answers of real upstreams, and whether that does harm.

    python -m models.evaluate.strong_upstreams aligner_proxy/embedded \\
        --data DATA --cases runs/data/test --out runs/benign

Runs the pipeline of the gateway, gate included, on completions as they are. `identical`: delivered character for
character. `unharmed`: no number, address, code block or name lost and not shortened by more than a tenth. The texts are
evaluated, never trained on; prompts that training or the choice of the operating point saw are left out.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aligner_proxy.types import Outcome, Status
from models.data.upstream_completions import STRONG, UpstreamCompletion, draw_completions
from models.reporting import output
from models.reporting.statistics import Rate

from . import measures
from .gateway import command_line, deliver, find_objectives, open_gateway
from .measures import Accuracy, is_unharmed

OBJECTIVES = ("harmless", "helpful")
_UNSEEN = (Status.SKIPPED, Status.FAILED)


@dataclass(frozen=True, slots=True)
class UpstreamOutcome:
    """What the gateway would deliver of one completion, and what it said about it."""

    model: str
    identical: bool
    unharmed: bool
    flagged: int
    reason: str | None
    status: Status


def judge_completion(completion: UpstreamCompletion, outcome: Outcome) -> UpstreamOutcome:
    """Compare what is delivered with the completion."""
    delivered = outcome.text or ""
    segments = outcome.correction.segments if outcome.correction else ()
    flagged = sum(segment.flagged for segment in segments)
    same = delivered == completion.answer
    whole = is_unharmed(completion.answer, delivered)
    return UpstreamOutcome(completion.model, same, whole, flagged, outcome.reason, outcome.status)


def format_table(results: list[UpstreamOutcome]) -> str:
    """Markdown: a row for each upstream, and one for all of them."""
    rows = []
    for model in [*sorted({outcome.model for outcome in results}), "all"]:
        of_model = [outcome for outcome in results if model in (outcome.model, "all")]
        counts = Counter(outcome.status for outcome in of_model)
        judged_outcomes = [outcome for outcome in of_model if outcome.status not in _UNSEEN]
        identical = Rate.from_outcomes(outcome.identical for outcome in judged_outcomes)
        unharmed = Rate.from_outcomes(outcome.unharmed for outcome in judged_outcomes)
        rows.append((model, identical, unharmed, counts[Status.SKIPPED], counts[Status.FAILED]))
    return output.table(("upstream", "returned identical", "unharmed", "skipped", "failed"), rows)


def plot(results: list[UpstreamOutcome], path: Path) -> None:
    """Draw for each upstream the share of answers that came back unchanged, and the share that came to no harm."""
    models = sorted({outcome.model for outcome in results})
    judged_by_model = {
        model: [outcome for outcome in results if outcome.model == model and outcome.status not in _UNSEEN]
        for model in models
    }
    with output.plot(path, 1, 2, size=(10, 1 + 0.3 * len(models)), sharey=True) as ((left_axis, right_axis),):
        for axis, name in ((right_axis, "unharmed"), (left_axis, "identical")):
            rates = [
                Rate.from_outcomes(getattr(outcome, name) for outcome in judged_by_model[model]) for model in models
            ]
            output.whiskers(axis, rates, models)
        left_axis.set_xlabel("returned identical, %")
        right_axis.set_xlabel("unharmed, %")
        for axis in (left_axis, right_axis):
            axis.set_xlim(79, 101)


def describe_rule(accuracy: Accuracy) -> str:
    """A sentence that says how often `is_unharmed` is right on known cases."""
    loss, right = (accuracy.harm[trial] for trial in ("a sound sentence lost", "the right edit"))
    return f"The rule for harm sees it in {loss} of edits that lose a sound sentence, and in {right} of right ones."


async def judge_completions(
    aligner: Path, texts: Sequence[UpstreamCompletion], names: Sequence[str] = OBJECTIVES, caution: float = 0.0
) -> list[UpstreamOutcome]:
    """Send every completion through the pipeline under the built-in objectives `names`."""
    async with open_gateway(aligner) as pipeline:
        delivered = await deliver(pipeline, texts, find_objectives(names), caution=caution, title="benign")
    return [judge_completion(delivery.completion, delivery.outcome) for delivery in delivered]


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("--cases", type=Path, nargs="+", help="pairs on which the rule for harm is measured")
    parser.add_argument("--models", help="upstreams, comma-separated; the strong ones if not given")
    parser.add_argument("--objectives", default=",".join(OBJECTIVES), help="built-in names, comma-separated")
    parser.add_argument("--each", type=int, default=60, help="completions an upstream")
    parser.add_argument("--caution", type=float, default=0.0)
    arguments = parser.parse_args()
    models = tuple(arguments.models.split(",")) if arguments.models else STRONG
    texts = list(draw_completions(arguments.data, models, arguments.each, arguments.seed))
    names = arguments.objectives.split(",")
    results = asyncio.run(judge_completions(arguments.aligner, texts, names, arguments.caution))
    text = format_table(results)
    if arguments.cases:
        text += f"\n\n{describe_rule(measures.accuracy(measures.read_cases(arguments.cases)))}"
    output.write(arguments.out, "benign", text, results)
    plot(results, arguments.out / "benign.svg")
    reasons = Counter(result.reason for result in results if result.reason)
    print(text, f"\nreasons: {dict(reasons)}")


if __name__ == "__main__":
    main()

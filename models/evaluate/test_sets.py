"""How often an aligner helps, and how often it harms: test sets of pairs through the real engine.

    python -m models.evaluate.test_sets aligner_proxy/embedded runs/data/test --out runs/evaluation

Every rate comes with n and a 95 % Wilson interval. `exact` is the target character for character; `gone` means that
no segment that had to change is left; `kept` that every other segment is there unchanged; `facts` that no number, name,
address or code of theirs is lost; `same` the answer itself. Beside them the mean edit distance in words, as a share:
what had to be edited, what was, and what would be left to do.
The last line of stdout is one JSON document; a table and a plot of the scores are written beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

from rich.progress import track

from aligner_proxy.cli.options import silence_libraries
from aligner_proxy.engine.api import AlignRequest, Engine
from aligner_proxy.engine.loader import EngineSettings, open_aligner
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.gate.judge import judge
from aligner_proxy.policy import config
from aligner_proxy.text.structure import split
from aligner_proxy.types import Correction, Turn, Verify
from models.data.pairs import CHANGES, STAYS, UNKNOWN, Pair, PairError, read_pairs
from models.reporting import output
from models.reporting.edit_distance import EditDistances
from models.reporting.statistics import Area, Rate

from .gate import make_gate_policy
from .measures import FACTS

_RATES = ("exact", "gone", "kept", "facts", "same")


@dataclass(frozen=True, slots=True)
class SetCase:
    """One pair of a test set, and what the engine made of its answer."""

    pair: Pair
    text: str
    """The corrected answer."""
    scores: tuple[float, ...]
    """Log-odds (nats) of each segment; an aligner that judges what is missing adds one for the end."""

    @property
    def scored_labels(self) -> list[tuple[float, int]]:
        """(score, label) of each segment, and of the end where the aligner judges it."""
        return list(zip(self.scores, self.pair.all_labels, strict=False))

    @property
    def exact(self) -> bool:
        """Whether the text is the target, but for outer white space."""
        return self.text.strip() == self.pair.target.strip()

    @property
    def same(self) -> bool:
        """Whether the text is the original answer, character for character."""
        return self.text == self.pair.answer

    @property
    def gone(self) -> bool:
        """Whether every segment that had to change is gone, and an ending that was missing is there."""
        still = any(text in self.text for text in self._texts_with_label(CHANGES))
        return not still and (CHANGES not in self.pair.lacks or split(self.pair.target)[-1].text in self.text)

    @property
    def kept(self) -> bool:
        """Whether every segment that had to stay is there."""
        return all(text in self.text for text in self._texts_with_label(STAYS))

    @property
    def facts(self) -> bool:
        """Whether every fact (number, name, address, code) of the segments that had to stay is in the text."""
        stay = self._texts_with_label(STAYS)
        return all({fact for piece in stay for fact in read(piece)} <= read(self.text) for read in FACTS)

    def _texts_with_label(self, label: int) -> list[str]:
        pieces = zip(split(self.pair.answer), self.pair.labels, strict=True)
        return [segment.text for segment, segment_label in pieces if segment_label == label]


async def run_set(
    engine: Engine, pairs: list[Pair], caution: float, verify: Verify, name: str, *, gated: bool = False
) -> list[SetCase]:
    """Correct every pair of a set in turn; with `gated` the text is what the gateway's gate lets through."""
    cases = []
    for i, pair in enumerate(track(pairs, description=f"{name:22}")):
        request = AlignRequest(
            request_id=f"{name}-{i}",
            turns=(Turn("user", pair.query),),
            answer=pair.answer,
            objectives=pair.objectives,
            caution=caution,
            verify=verify,
            deadline_s=600,
        )
        cases.append(_make_case(pair, await engine.align(request), verify, gated=gated))
    return cases


def _make_case(pair: Pair, correction: Correction, verify: Verify, *, gated: bool) -> SetCase:
    """The case of one correction; with `gated`, its text is what the gate lets through."""
    policy = replace(make_gate_policy(pair), verify=verify)
    text = judge(pair.answer, correction, policy).text if gated else correction.text
    return SetCase(pair, text, tuple(segment.score for segment in correction.segments if segment.score is not None))


def compute_rates(cases: list[SetCase]) -> dict[str, Rate]:
    """The rates of `_RATES` for one set."""
    return {name: Rate.from_outcomes(getattr(case, name) for case in cases) for name in _RATES}


def _edits(cases: list[SetCase]) -> EditDistances:
    return EditDistances.from_texts((case.pair.answer, case.pair.target, case.text) for case in cases)


def rate_flags(cases: list[SetCase], caution: float) -> dict[str, Rate]:
    """What the head flags at another caution: whole answers exactly right, and single segments."""
    scored = [case for case in cases if len(case.scores) >= len(case.pair.labels)]
    flags = [_flags(case, caution) for case in scored]
    segments = [flagged for case in flags for flagged in case]
    return {
        "answers": Rate.from_outcomes(
            all(flag == (label == CHANGES) for flag, label in case) for case in flags if case
        ),
        "found": Rate.from_outcomes(flag for flag, label in segments if label == CHANGES),
        "false": Rate.from_outcomes(flag for flag, label in segments if label == STAYS),
    }


def _flags(case: SetCase, caution: float) -> list[tuple[bool, int]]:
    """(flagged, label) of each segment whose label is known."""
    return [(score > caution, label) for score, label in case.scored_labels if label != UNKNOWN]


def compute_area(cases: list[SetCase]) -> Area | None:
    """The area under the curve of all segments; None where all of them must change, or all must stay."""
    pairs = [pair for case in cases for pair in case.scored_labels]
    changing = [score for score, label in pairs if label == CHANGES]
    staying = [score for score, label in pairs if label == STAYS]
    return Area.from_scores(changing, staying) if changing and staying else None


def rate_order(cases: list[SetCase]) -> Rate | None:
    """How often the worse one of two replies has the higher maximum score.

    The cases are pairs of neighbours, the preferred reply first; None for other sets.
    """
    if not cases or any(case.pair.source.partition(":")[0] != "bag" for case in cases):
        return None
    worst = [max(case.scores[: len(case.pair.labels)]) for case in cases if case.scores]
    return Rate.from_outcomes(
        rejected > preferred for preferred, rejected in zip(worst[::2], worst[1::2], strict=False)
    )


def format_table(results: dict[str, list[SetCase]]) -> str:
    """Markdown: a row for each set."""
    rows: list[tuple[object, ...]] = []
    for name, cases in results.items():
        if order_rate := rate_order(cases):
            rows.append((f"{name}: the worse one scores higher", order_rate, *["-"] * (len(_RATES) + 1)))
            continue
        rows.append((name, *compute_rates(cases).values(), _edits(cases), compute_area(cases) or "-"))
    return output.table(("set", *_RATES, "words to edit, edited, left", "AUC of segments"), rows)


def format_sweep(results: dict[str, list[SetCase]], cautions: Iterable[float]) -> str:
    """Markdown: how many whole answers the head flags exactly right, for each set and caution."""
    values = list(cautions)
    rows = []
    for name, cases in results.items():
        rows.append((name, *(rate_flags(cases, caution)["answers"] for caution in values)))
    return output.table(("set", *(f"caution {caution:g}" for caution in values)), rows)


def plot(results: dict[str, list[SetCase]], path: Path) -> None:
    """A strip for each set: scores of segments that must change in red, of those that must stay in blue."""
    with output.plot(path, len(results), size=(7, 1.1 * len(results)), sharex=True) as axes:
        for axis, (name, cases) in zip(axes[:, 0], results.items(), strict=True):
            for label, colour in ((STAYS, "tab:blue"), (CHANGES, "tab:red")):
                scores = [
                    score for case in cases for score, segment_label in case.scored_labels if segment_label == label
                ]
                axis.hist(
                    scores,
                    bins=[half_nats / 2 for half_nats in range(-30, 31)],
                    color=colour,
                    alpha=0.6,
                    density=bool(scores),
                )
            axis.set_ylabel(name, rotation=0, ha="right", fontsize=8)
            axis.set_yticks([])
        axes[-1, 0].set_xlabel("log-odds that an objective asks for a change (nats)")


def list_failures(results: dict[str, list[SetCase]], limit: int) -> list[dict[str, object]]:
    """Up to `limit` cases of every set that are not exact. They have texts, so they are never committed."""
    return [
        {"set": name, **asdict(case.pair), "text": case.text, "scores": [round(score, 2) for score in case.scores]}
        for name, cases in results.items()
        for case in [candidate for candidate in cases if not candidate.exact][:limit]
    ]


async def evaluate(
    settings: EngineSettings,
    sets: dict[str, list[Pair]],
    caution: float,
    ways: Sequence[Verify] = (Verify.FLAGGED,),
    *,
    gated: bool = False,
) -> dict[str, list[SetCase]]:
    """Load the aligner once and run every set.

    With several `ways` each set is run once for each, under names such as `insult, flagged`.
    """
    silence_libraries()
    engine = LocalEngine(lambda: open_aligner(settings, config.home_folder()))
    results = dict[str, list[SetCase]]()
    try:
        await engine.start()
        for name, pairs in sets.items():
            for way in ways:
                title = name if len(ways) == 1 else f"{name}, {way.value}"
                results[title] = await run_set(engine, pairs, caution, way, title, gated=gated)
        return results
    finally:
        await engine.aclose()


_FLAG_NOTHING = 1e9
"""A caution (nats) that no score exceeds."""


async def score_sets(aligner: Path, sets: dict[str, list[Pair]]) -> dict[str, list[SetCase]]:
    """Score every pair. Nothing is flagged, so nothing is generated."""
    return await evaluate(EngineSettings(aligner), sets, caution=_FLAG_NOTHING)


def read_sets(folder: Path, limit: int) -> dict[str, list[Pair]]:
    """The first pairs of every *.jsonl in a folder, by the file's name; raises PairError if there are none."""
    sets = {path.stem: list(islice(read_pairs(path), limit)) for path in sorted(folder.glob("*.jsonl"))}
    if not any(sets.values()):
        raise PairError(
            f"{folder} holds no sets of pairs (*.jsonl), or only empty ones; models.data.test_sets writes them"
        )
    return sets


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("aligner", type=Path, help="aligner folder")
    parser.add_argument("sets", type=Path, help="folder of test sets (*.jsonl of pairs)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--caution", type=float, default=0.0)
    parser.add_argument(
        "--verify",
        type=Verify,
        nargs="+",
        default=[Verify.FLAGGED],
        choices=list(Verify),
        help="edit what is flagged, or have the whole answer verified as the paper does; both: side by side",
    )
    parser.add_argument("--gate", action="store_true", help="judge what the gateway's gate makes of the corrections")
    parser.add_argument("--quantization", default="nf4", choices=["nf4", "none"])
    parser.add_argument("--dtype", default="auto", choices=["auto", "bf16", "fp32"])
    parser.add_argument("--limit", type=int, default=1000)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    settings = EngineSettings(arguments.aligner, quantization=arguments.quantization, dtype=arguments.dtype)
    try:
        sets = read_sets(arguments.sets, arguments.limit)
    except PairError as problem:
        sys.exit(str(problem))
    results = asyncio.run(evaluate(settings, sets, arguments.caution, arguments.verify, gated=arguments.gate))
    text = format_table(results) + "\n\n" + format_sweep(results, (-3, -2, -1.5, -1, -0.5, 0, 0.5, 1, 2))
    figures = {
        name: compute_rates(cases) | {"words": _edits(cases)} | _rate_order_if_paired(cases)
        for name, cases in results.items()
    }
    output.write(arguments.out, "table", text, figures)
    (arguments.out / "failures.json").write_text(json.dumps(list_failures(results, 20), indent=1, ensure_ascii=False))
    plot(results, arguments.out / "scores.svg")
    print(text)
    print(
        json.dumps(
            {
                name: {name_of_rate: asdict(rate) for name_of_rate, rate in set_rates.items()}
                for name, set_rates in figures.items()
            }
        )
    )


def _rate_order_if_paired(cases: list[SetCase]) -> dict[str, Rate]:
    apart = rate_order(cases)
    return {"told_apart": apart} if apart else {}


if __name__ == "__main__":
    main()

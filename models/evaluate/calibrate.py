"""Operating point of an aligner: temperature and shift of the detector's scores, from development sets.

    python -m models.evaluate.calibrate RUN_FOLDER runs/data/dev --out runs/calibration

Doing no harm is the hard bar: the shift is the largest under which, of all answers that must beyond doubt not change,
no more are touched than `HARM` allows. Where the head also judges what is missing behind the last segment, that place
gets a point of its own by all sets, in most of which nothing is missing there. The temperature makes scores log-odds
(least negative log-likelihood), which the shift then moves: an exported score is log-odds less those of the operating
point. None of them changes the order of segments. Writes calibration.json (for models.train.export), a table and a
plot.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import ceil, exp, log1p
from pathlib import Path

from models.data.labels import AND, OFF_TOPIC_THEMES
from models.data.pairs import CHANGES, STAYS, UNKNOWN, PairError
from models.reporting import output

from .test_sets import SetCase, rate_flags, read_sets, score_sets

# Sets of good answers, and the share of them, all together, that may be touched all the same. They stand there under
# one to four objectives drawn at random, against which real ones now and then do offend. Where one of these is a matter
# of opinion (is every sentence to the point?) they do not decide. Together, because of a set of 36 a single answer
# would. Defects that nobody asked about are not among them: taking one out harms nobody, so they are only measured.
GOOD = ("clean", "clean_long", "clean_after_insults", "innocent")
HARM = 0.01
# Share of answers that lack nothing and may get an ending all the same.
END_HARM = 0.005
LabelledScore = tuple[float, int]
_TEMPERATURES = tuple(0.1 * 1.1**i for i in range(49))


def list_labelled_scores(cases: Iterable[SetCase]) -> list[LabelledScore]:
    """The (score, label) of every segment whose label is known."""
    return [(score, label) for case in cases for score, label in segment_scores(case) if label in (CHANGES, STAYS)]


def segment_scores(case: SetCase) -> list[LabelledScore]:
    """The (score, label) of the segments, without the end of the answer."""
    return case.scored_labels[: len(case.pair.labels)]


def compute_end_shift(cases: Iterable[SetCase], point: float) -> float:
    """Nats to add to the scores of the ends of answers, so that their own threshold lies at `point`."""
    end_scores = [case.scored_labels[len(case.pair.labels) :] for case in cases]
    lacking_nothing = sorted(
        (score for case_scores in end_scores for score, label in case_scores if label == STAYS), reverse=True
    )
    return point - _upper_quantile(lacking_nothing, END_HARM) if lacking_nothing else 0.0


def _upper_quantile(falling: Sequence[float], share: float) -> float:
    """The lowest of these scores, given from high to low, that at most the given share of them exceeds."""
    return falling[int(share * len(falling))]


def move_end_score(case: SetCase, shift: float) -> SetCase:
    """The case with `shift` nats added to the score of the end of the answer."""
    count = len(case.pair.labels)
    return replace(case, scores=(*case.scores[:count], *(score + shift for score in case.scores[count:])))


def fit_temperature(scored: Sequence[LabelledScore]) -> float:
    """The divisor of all scores with which they are the best log-odds (least cross-entropy)."""
    return min(_TEMPERATURES, key=lambda t: sum(_loss(score / t, label) for score, label in scored))


def _loss(score: float, label: int) -> float:
    signed = score if label == CHANGES else -score
    return log1p(exp(-abs(signed))) + max(0.0, -signed)


def find_threshold(cases: Sequence[SetCase], harm: float) -> float:
    """The lowest threshold at which at most the given share of answers has a segment flagged wrongly."""
    worst = sorted((max(_scores_to_spare(case), default=float("-inf")) for case in cases), reverse=True)
    return _upper_quantile(worst, harm) if worst else 0.0


def is_beyond_doubt(case: SetCase) -> bool:
    """Whether a good answer surely meets its objectives, because readers agree about all of them."""
    return not any(wish in OFF_TOPIC_THEMES for theme in case.pair.themes for wish in theme.split(AND))


def _scores_to_spare(case: SetCase) -> list[float]:
    return [score for score, label in segment_scores(case) if label == STAYS]


def compute_reliability(scored: Sequence[LabelledScore]) -> list[tuple[float, float, int]]:
    """For each of ten bins of predicted probability: (mean predicted share, observed share, number of segments).

    Scores are log-odds in nats; empty bins are left out.
    """
    bins: list[list[tuple[float, int]]] = [[] for _ in range(10)]
    for score, label in scored:
        probability = 1 / (1 + exp(-max(-60.0, min(60.0, score))))
        bins[min(9, int(probability * 10))].append((probability, label))
    result = []
    for entries in filter(None, bins):
        predicted_share = sum(probability for probability, _ in entries) / len(entries)
        observed_share = sum(label for _, label in entries) / len(entries)
        result.append((predicted_share, observed_share, len(entries)))
    return result


def plot(results: dict[str, list[SetCase]], point: float, divisor: float, path: Path) -> None:
    """Plot the share of answers that the head handles exactly right by set and caution, and the reliability.

    `point` is the threshold, `divisor` the temperature that turns scores into log-odds.
    """
    cautions = [i / 4 for i in range(-24, 25)]
    with output.plot(path, columns=2, size=(10, 4)) as ((left_axis, right_axis),):
        for name, cases in _select_labelled_sets(results).items():
            shares = [100 * share_flagged_exactly(cases, point + caution * divisor) for caution in cautions]
            left_axis.plot(cautions, shares, label=name)
        left_axis.set_xlabel("caution (nats above the operating point)")
        left_axis.set_ylabel("answers flagged exactly right, %")
        left_axis.legend(fontsize=6)
        scored = list_labelled_scores(case for cases in results.values() for case in cases)
        calibrated = [(score / divisor, label) for score, label in scored]
        predicted, observed, _ = zip(*compute_reliability(calibrated), strict=True)
        right_axis.plot([0, 1], [0, 1], color="grey", linewidth=0.5)
        right_axis.plot(predicted, observed, marker="o")
        right_axis.set_xlabel("predicted share of segments to change")
        right_axis.set_ylabel("observed share")


def share_flagged_exactly(cases: Sequence[SetCase], point: float) -> float:
    """Share of answers in which the head flags exactly the segments that must change."""
    return rate_flags(list(cases), point)["answers"].percent / 100


def _select_labelled_sets(results: dict[str, list[SetCase]]) -> dict[str, list[SetCase]]:
    """The answers of which every segment has a known label, by set; sets without any are left out."""
    labelled_sets = {
        name: [case for case in cases if UNKNOWN not in case.pair.labels] for name, cases in results.items()
    }
    return {name: cases for name, cases in labelled_sets.items() if cases}


def calibrate(aligner: Path, folder: Path, out: Path, limit: int, others: int) -> None:
    """Choose the threshold and the temperature of an aligner; write calibration.json and its plot.

    `folder` has the sets of the development side. Up to `limit` answers of each set of good answers are scored, and up
    to `others` of every other set. Raises PairError if a set of good answers is missing, or all of them are in doubt.
    """
    sets = read_sets(folder, max(limit, others))
    if missing := [name for name in GOOD if not sets.get(name)]:
        raise PairError(
            f"{folder} lacks {', '.join(missing)}, which say what must stay; run models.data.test_sets again"
        )
    limited = {name: pairs[: limit if name in GOOD else others] for name, pairs in sets.items()}
    results = asyncio.run(score_sets(aligner, limited))
    scored = list_labelled_scores(case for cases in results.values() for case in cases)
    good = {name: list(filter(is_beyond_doubt, results[name])) for name in GOOD}
    if not any(good.values()):
        raise PairError(f"{folder}: every good answer is under a wish of opinion; run models.data.test_sets again")
    points = {name: find_threshold(cases, HARM) for name, cases in good.items()}
    point = find_threshold([case for cases in good.values() for case in cases], HARM)
    divisor = fit_temperature(scored)
    end_move = compute_end_shift((case for cases in results.values() for case in cases), point)
    results = {name: [move_end_score(case, end_move) for case in cases] for name, cases in results.items()}
    # The point is the score of an answer that may not be flagged: rounded away from it, never towards it.
    threshold = (ceil(point * 1e3) + 1) / 1e3
    document: dict[str, object] = {"shift": -threshold, "temperature": round(divisor, 4)}
    if end_move:
        document["end_shift"] = round(end_move - 1e-3, 3)
    document["points"] = {name: round(value, 4) for name, value in points.items()}
    document["n"] = {name: len(cases) for name, cases in good.items()}
    out.mkdir(parents=True, exist_ok=True)
    plot(results, point, divisor, out / "calibration.svg")
    (out / "calibration.json").write_text(json.dumps(document) + "\n")
    print(json.dumps(document))
    for name, cases in _select_labelled_sets(results).items():
        shares = []
        for caution in (-2, -1, 0, 1, 2):
            share = share_flagged_exactly(cases, point + caution * divisor)
            shares.append(f"{caution:+g}: {100 * share:.0f} %")
        print(f"{name:22} {' '.join(shares)}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("aligner", type=Path, help="aligner folder, exported without a calibration")
    parser.add_argument("sets", type=Path, help="folder of development sets (*.jsonl of pairs)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=1000, help="answers of each set that decides")
    parser.add_argument("--others", type=int, default=1000, help="answers of each other set")
    arguments = parser.parse_args()
    try:
        calibrate(arguments.aligner, arguments.sets, arguments.out, arguments.limit, arguments.others)
    except PairError as problem:
        parser.error(str(problem))


if __name__ == "__main__":
    main()

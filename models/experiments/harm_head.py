"""A head for `harmless` learnt from the pairs of a stage, over the states of one aligner as they are.

    python -m models.experiments.harm_head aligner_proxy/embedded --pairs runs/data/harm.jsonl.xz \\
        --watch runs/data/watch.jsonl.xz --out runs/harm_head [--base-folder FOLDER]

For a GPU: every pair that is asked about `harmless` is read once, the head learnt by models.experiments.objective_head,
and the watched answers are scored by it (models.experiments.watched judges them). `taught.bin` is the head with its bar
at 0.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aligner_proxy.engine.model.detector import DetectorHead
from aligner_proxy.engine.taught_head import pack
from aligner_proxy.engine.weights.manifest import HEAD, TAUGHT
from models.data.labelled_replies import HARMLESS
from models.data.pairs import Pair, read_pairs
from models.train import train
from models.train.batches import encode_pairs
from models.train.config import StageConfig
from models.train.detector_loss import read_rows
from models.train.features import EncodedExample, relations
from models.train.head_rows import HeadRows
from models.train.labelled_cases import LabelledCase
from models.train.network import Network
from models.train.snapshots import SCORES, TAUGHT_SCORES, flatten_scores, group_examples

from .objective_head import ObjectiveHead, ObjectiveHeadRecipe, learn_head

OURS = "own voice:"
"""What the sources of labelled replies begin with; of all else in a stage the general head learns."""
_BATCH_TOKENS = 65536
RECIPE = ObjectiveHeadRecipe(weights={OURS: 1.0}, hidden=48, prior=0.3, floor=-4.0, epochs=12, batch=512)


def select_harm_pairs(pairs: Sequence[Pair]) -> list[Pair]:
    """The labelled replies that are asked about `harmless`."""
    return [pair for pair in pairs if pair.source.startswith(OURS) and HARMLESS in pair.objectives]


def make_case(pair: Pair, number: int) -> LabelledCase:
    """The pair as a case under `harmless` alone."""
    at = pair.objectives.index(HARMLESS)
    labels = tuple((line[at],) for line in relations(pair))
    whole = (bool(pair.whole) and pair.whole[at],)
    return LabelledCase(
        f"pair-{number}", OURS, pair.query, answer=pair.answer, objectives=(HARMLESS,), labels=labels, whole=whole
    )


@torch.no_grad()
def read_example_rows(network: Network, examples: Sequence[EncodedExample]) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(number, rows of its segments, rows of its objectives) of each example, in fp16."""
    for numbers in group_examples(examples, _BATCH_TOKENS):
        group = [examples[number] for number in numbers]
        with torch.autocast(network.head.score.bias.device.type, torch.bfloat16):
            _, _, states = network.read(group)
        segments, objectives = (part.half().cpu() for part in read_rows(states, group))
        lines = [len(example.spans.segments) for example in group]
        columns = [len(example.spans.objectives) for example in group]
        yield from zip(numbers, segments.split(lines), objectives.split(columns), strict=True)


def read_harm_rows(network: Network, pairs: Sequence[Pair], examples: Sequence[EncodedExample]) -> HeadRows:
    """The rows of these pairs under `harmless`."""
    parts: dict[int, tuple[Tensor, Tensor]] = {}
    for number, segments, objectives in read_example_rows(network, examples):
        at = pairs[number].objectives.index(HARMLESS)
        parts[number] = segments, objectives[at : at + 1]
    numbers = range(len(pairs))
    return HeadRows(
        tuple(make_case(pairs[number], number) for number in numbers),
        torch.cat([parts[number][0] for number in numbers]),
        torch.cat([parts[number][1] for number in numbers]),
        # only whole answers are judged by their question
        torch.zeros(len(pairs), parts[0][0].shape[1], dtype=torch.float16),
        (0, *np.cumsum([len(parts[number][0]) for number in numbers]).tolist()),
        tuple(range(len(pairs) + 1)),
    )


@torch.no_grad()
def score_watched(
    network: Network,
    pairs: Sequence[Pair],
    examples: Sequence[EncodedExample],
    general: DetectorHead,
    head: ObjectiveHead,
) -> dict[str, Any]:
    """Scores by the general head, and scores with the other head for `harmless`.

    They have the names and form in which a training writes the scores of a snapshot.
    """
    plain: dict[int, Tensor] = {}
    with_head: dict[int, Tensor] = {}
    for number, segments, objectives in read_example_rows(network, examples):
        plain[number] = general(segments.float(), objectives.float())
        with_head[number] = plain[number].clone()
        for place, text in enumerate(pairs[number].objectives):
            if text == HARMLESS:
                with_head[number][:, place] = head(segments.float(), objectives[place : place + 1].float())[:, 0]
    return {"head": flatten_scores(plain), f"head/{TAUGHT_SCORES}": flatten_scores(with_head)}


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m models.experiments.harm_head",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("aligner", type=Path, help="aligner folder, or what a stage left")
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--watch", type=Path, required=True)
    parser.add_argument("--stage", type=Path, default=Path("configs/train/harm.yaml"))
    parser.add_argument("--base-folder", type=Path)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)
    changes = {"init": arguments.aligner, "out": arguments.out / "run", "workers": arguments.workers, "ends": False}
    stage = StageConfig.read(arguments.stage, changes | {"base_folder": arguments.base_folder})
    network, tokenizer = train.build_network(stage)
    network.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    pairs = select_harm_pairs(list(read_pairs(arguments.pairs)))
    watched = list(read_pairs(arguments.watch))
    examples = encode_pairs([(pair, False) for pair in pairs + watched], tokenizer, stage)
    if not pairs:
        sys.exit(f"{arguments.pairs} has nothing that is asked about harmlessness")
    harm_rows = read_harm_rows(network, pairs, examples[: len(pairs)])
    print(f"{len(harm_rows)} answers read, {len(harm_rows.segments)} segments", flush=True)
    general = DetectorHead.load(arguments.aligner / HEAD)
    head = learn_head({OURS: harm_rows}, general, RECIPE)
    (arguments.out / TAUGHT).write_bytes(pack([head.pack_head(HARMLESS, 0.0)]))
    scores = score_watched(network, watched, examples[len(pairs) :], general, head)
    np.savez_compressed(arguments.out / SCORES, **scores)


if __name__ == "__main__":
    main()

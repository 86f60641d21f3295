"""From a tenant's reviewed answers to a stage of training: its data and its config.

    python -m models.train.tenant rows.jsonl runs/acme --init aligner_proxy/embedded

`rows.jsonl` is what `aligner-proxy export` wrote. A dozen verdicts say little of ordinary answers, so the shipped
neutral answers stand beside them, under the same objectives and unchanged: most of what a tenant's upstream writes is
fine. The stage goes on from an aligner folder, gently and for few steps. `runs/tenant.sh` runs all of it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import yaml

from aligner_proxy.engine.weights.manifest import ADAPTER, MANIFEST
from aligner_proxy.prompts import TEMPLATES, query_field
from aligner_proxy.teaching.neutral import neutral_answers
from aligner_proxy.text.structure import split
from models.data.pairs import STAYS, Pair, PairError, read_pairs, write_pairs

LEAST = 4
"""Rows; from fewer nothing is trained: examples of an objective teach more."""
NEUTRAL_EACH = 4
"""Neutral answers beside each row."""
_TIMES = 6
"""How often each example is seen, about."""
_TOKENS = 250
"""About so many has an example."""
_BATCH_TOKENS = 1920
_MIN_STEPS = 8
_MAX_STEPS = 400


class TooFewRowsError(ValueError):
    """There are too few rows to train on. The message says how many there are."""


def mix_examples(rows: Sequence[Pair], seed: int = 1) -> list[Pair]:
    """The rows, shuffled among neutral answers that must stay unchanged under the same objectives.

    Raises `TooFewRowsError`.
    """
    if len(rows) < LEAST:
        raise TooFewRowsError(
            f"{len(rows)} rows; at least {LEAST} are needed: review more answers, or teach by examples"
        )
    rng = Random(seed)
    neutral = neutral_answers()
    sample = rng.sample(neutral, min(len(neutral), NEUTRAL_EACH * len(rows)))
    family = TEMPLATES["hh-rlhf"]
    neutral_pairs = [
        Pair(
            query=query_field(family, neutral_answer.turns),
            objectives=rows[number % len(rows)].objectives,
            answer=neutral_answer.answer,
            target=neutral_answer.answer,
            labels=(STAYS,) * len(split(neutral_answer.answer)),
            source="neutral",
        )
        for number, neutral_answer in enumerate(sample)
    ]
    examples = [*rows, *neutral_pairs]
    rng.shuffle(examples)
    return examples


def make_stage(init: Path, data: Path, out: Path, count: int, **changes: Any) -> dict[str, Any]:
    """The config of a stage that goes on from the aligner in `init`; `changes` replace single settings.

    Raises ValueError where `init` is no aligner folder with an adapter.
    """
    try:
        manifest = json.loads((init / MANIFEST).read_text())
        adapter = json.loads((init / ADAPTER).read_text())
        base = manifest["base"]
        template = manifest["template"]
        lora = {"rank": adapter["r"], "alpha": adapter["lora_alpha"]}
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{init} is no aligner folder with an adapter ({type(error).__name__})") from None
    gguf = base.get("gguf")
    steps = math.ceil(count * _TIMES * _TOKENS / _BATCH_TOKENS)
    return {
        "stage": "tenant",
        "base": f"gguf:{gguf['package']}/{gguf['file']}" if gguf else base["hub"],
        "data": str(data),
        "out": str(out),
        "init": str(init),
        "template": template,
        "seed": 1,
        "lora": lora,
        "lr": 1.0e-4,
        "lr_floor": 0.01,
        "lr_warmup_steps": 4,
        "steps": min(_MAX_STEPS, max(_MIN_STEPS, steps)),
        "batch_tokens": _BATCH_TOKENS,
        "max_tokens": 768,
        "target_share": 0.02,
        "detector_weight": 1.0,
        "bad_rows": "skip",
        "checkpoint_every": 20,
        "compile": False,
    } | changes


def write_stage(rows: Path, out: Path, init: Path, **changes: Any) -> Path:
    """Write data and config of the stage into `out`, and return the config's path; raises ValueError."""
    bad_rows: list[PairError] = []
    pairs = list(read_pairs(rows, bad_rows.append))
    if bad_rows:
        print(f"{len(bad_rows)} rows are left out, the first: {bad_rows[0]}", file=sys.stderr)
    examples = mix_examples(pairs)
    out.mkdir(parents=True, exist_ok=True)
    data = out / "train.jsonl"
    out.chmod(0o700)  # texts of the traffic
    write_pairs(data, examples)
    data.chmod(0o600)
    config = out / "tenant.yaml"
    document = make_stage(init, data, out / "trained", len(examples), **changes)
    config.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    print(f"{len(pairs)} rows and {len(examples) - len(pairs)} neutral answers, {document['steps']} steps: {config}")
    return config


def _parse_changes(settings: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """`lr=1e-5` as ("lr", 1e-5)."""
    for setting in settings:
        name, _, value = setting.partition("=")
        yield name, yaml.safe_load(value)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, help="what aligner-proxy export wrote")
    parser.add_argument("out", type=Path)
    parser.add_argument("--init", type=Path, default=Path("aligner_proxy/embedded"), help="aligner to go on from")
    parser.add_argument("--set", nargs="+", default=(), metavar="KEY=VALUE", help="other values in the config")
    arguments = parser.parse_args()
    try:
        write_stage(arguments.rows, arguments.out, arguments.init, **dict(_parse_changes(arguments.set)))
    except (ValueError, OSError) as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main()

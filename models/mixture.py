"""Which examples does each stage of training see, in which shares?

Streams of pairs, seeded: the same data, seed and stage give the same examples. Run as a module to write them to files.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path
from random import Random
from typing import Literal, get_args

from rich.console import Console
from rich.progress import track

from .answers import load_pool, preference_bags
from .history import with_history
from .mixer import INSERTABLE, Mixer, Shares
from .pairs import Pair, PairError, write_pairs
from .preferences import PreferenceError

Stage = Literal["warmup", "equal_preference", "contrastive_preference", "conversation", "dense", "wishes", "settle"]
STAGES: tuple[Stage, ...] = get_args(Stage)
# Kinds of example and their shares in each stage.
RECIPES: dict[Stage, dict[str, float]] = {
    "warmup": {"clean": 1.0},
    "equal_preference": {"clean": 0.4, "not_asked": 0.25, "innocent": 0.2, "turns_kept": 0.08, "inside_kept": 0.07},
    "contrastive_preference": {
        "clean": 0.13,
        "innocent": 0.06,
        "defects": 0.42,
        "alike": 0.06,
        "natural": 0.08,
        "inside": 0.1,
        "turns": 0.05,
        "real_turns": 0.04,
        "real_turns_kept": 0.01,
        "stray": 0.02,
        "marked": 0.03,
    },
}
RECIPES["conversation"] = RECIPES["contrastive_preference"]
RECIPES["dense"] = {"dense": 0.84, "natural": 0.05, "turns": 0.04, "real_turns": 0.04, "marked": 0.03}
# A third of them has one objective that asks for something to be there, at the end or anywhere, which is or is not.
RECIPES["wishes"] = {"dense": 0.45, "dense+lacking": 0.12, "dense+ended": 0.12, "dense+wanted": 0.12}
RECIPES["wishes"] |= {"alike": 0.05, "natural": 0.05, "turns": 0.03, "real_turns": 0.03, "marked": 0.03}
RECIPES["settle"] = {
    "clean": 0.17,
    "dialogue": 0.03,
    "innocent": 0.07,
    "defects": 0.17,
    "not_asked": 0.04,
    "alike": 0.1,
    "natural": 0.04,
    "inside": 0.05,
    "turns": 0.06,
    "real_turns": 0.05,
    "real_turns_kept": 0.01,
    "stray": 0.01,
    "marked": 0.02,
    "dense": 0.04,
    "any+lacking": 0.04,
    "any+ended": 0.06,
    "defects+wanted": 0.04,
}
SHARES: dict[Stage, Shares] = {"settle": Shares(written=0.45, others=0.45, alike=0.5)}
# How many of the single questions of a stage get earlier turns before them.
HISTORY: dict[Stage, float] = {"conversation": 0.45, "dense": 0.2, "wishes": 0.2, "settle": 0.5}


def build(
    data_dir: Path, seed: int, n: int, stage: Stage = "contrastive_preference", without: Collection[str] = ()
) -> Iterator[Pair]:
    """`n` training examples of one stage; `without` names kinds of example that are left out for more of the others."""
    if not RECIPES[stage].keys() - set(without):
        raise PairError(f"without every kind of example there is none for {stage}; leave one of them in")
    made = (pair for kind, pair in _stream(data_dir, seed, stage) if kind not in without)
    return islice(made, n)


def _stream(data_dir: Path, seed: int, stage: Stage) -> Iterator[tuple[str, Pair]]:
    """Examples without end, each with its kind."""
    rng = Random(f"{stage}:{seed}")
    mixer = Mixer(load_pool(data_dir, "train"), rng, shares=SHARES.get(stage, Shares()))
    names, shares = zip(*RECIPES[stage].items(), strict=True)
    before, share = mixer.earlier, HISTORY.get(stage, 0.0)
    while True:
        kind = rng.choices(names, shares)[0]
        made = mixer.make(kind)
        if share and rng.random() < share:
            made = with_history(rng, made, before, INSERTABLE, held_out=False)
        yield kind, made


def main(argv: list[str] | None = None) -> None:
    """Write the examples of a stage, or the replies that people compared, to a file."""
    parser = argparse.ArgumentParser(prog="python -m models.mixture", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the research data")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stage", choices=STAGES, default="contrastive_preference")
    parser.add_argument("--n", type=int, default=20000)
    parser.add_argument("--bags", action="store_true", help="write the replies that people compared instead")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    console = Console()
    pairs = preference_bags(args.data) if args.bags else build(args.data, args.seed, args.n, args.stage)
    wanted = "bags" if args.bags else args.stage
    try:
        count = write_pairs(
            args.out, track(pairs, total=None if args.bags else args.n, description=wanted, console=console)
        )
    except (PreferenceError, PairError) as problem:
        sys.exit(str(problem))
    console.print(f"{args.out}: {count} {'replies' if args.bags else 'pairs'}")


if __name__ == "__main__":
    main()

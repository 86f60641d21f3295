"""One command that trains an aligner on a base of your own: data, stages, operating point, figures, model card.

    python -m models.recipe --base NAME_OR_FOLDER --data DATA --out runs/mine --size small

DATA is what `python -m models.data.fetch --out DATA` brings. Every finished step is remembered by what it was made
from: the same command goes on where it stopped, and changed settings make again what depends on them. With
`--head-only` the base is an aligner (a whole model or an adapter), which stays as it is and gets a detector head. The
result is OUT/aligner.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from aligner_proxy.cli.options import silence_libraries
from models.data.pairs import PairError
from models.data.preference_sets import PreferenceError
from models.train.config import StageError

from .aligner_training import Training
from .settings import DEFAULT, RecipeError, read_settings
from .steps import run_steps


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m models.recipe", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", required=True, help="a folder, a name on the hub, or gguf:PACKAGE/FILE")
    parser.add_argument("--data", type=Path, required=True, help="folder with the research data")
    parser.add_argument("--out", type=Path, default=Path("runs/recipe"))
    parser.add_argument("--size", default="small", help="how much is made: small (a trial) or full")
    parser.add_argument("--head-only", action="store_true", help="train only the detector head of a finished aligner")
    parser.add_argument("--config", type=Path, default=DEFAULT, help="stages and sizes (default: %(default)s)")
    options = parser.parse_args(argv)
    silence_libraries()
    try:
        settings = read_settings(options.config)
        training = Training(
            options.base, options.data, options.out, options.size, settings, head_only=options.head_only
        )
        run_steps(training.list_steps(), options.out / "steps", partial(print, flush=True))
    except (RecipeError, StageError, PairError, PreferenceError) as problem:
        sys.exit(str(problem))
    print(f"the aligner is {training.aligner}; serve it with aligner.model: {training.aligner.resolve()}")

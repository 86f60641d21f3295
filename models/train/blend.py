"""Weights between two runs: the mean of the adapters and detector heads of runs that began from the same weights.

    python -m models.train.blend runs/between aligner_proxy/embedded=0.5 runs/own_voice=0.5

What a further stage learned and what it forgot lie on one line in the space of weights, and a point between often has
most of the one and little of the other (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models"). Nothing is
trained or read; the folder that comes out is exported and calibrated like any stage. The last run named gives its
stage.json.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from aligner_proxy.engine.weights.manifest import ADAPTER, ADAPTER_WEIGHTS, HEAD

STAGE = "stage.json"


class BlendError(ValueError):
    """Runs that cannot be blended; the text says which and why."""


def blend(runs: Mapping[Path, float], out: Path) -> None:
    """Write the weighted mean of the runs' weights into `out`; raises `BlendError`."""
    if not runs or not math.isclose(sum(runs.values()), 1.0, abs_tol=1e-6):
        raise BlendError(f"the shares have to add up to 1 and are {', '.join(map(str, runs.values())) or 'none'}")
    out.mkdir(parents=True, exist_ok=True)
    for name in (ADAPTER_WEIGHTS, HEAD):
        mean = _compute_mean({folder: _read_weights(folder / name) for folder in runs}, runs)
        save_file(mean, str(out / name), metadata={"format": "pt"})
    last = [*runs][-1]
    shutil.copy(last / ADAPTER, out / ADAPTER)
    document = json.loads((last / STAGE).read_text()) if (last / STAGE).exists() else {}
    document["blended"] = {str(folder): share for folder, share in runs.items()}
    (out / STAGE).write_text(json.dumps(document, indent=1))


@torch.no_grad()
def take_mean(net: nn.Module, others: Sequence[nn.Module], share: float = 1.0) -> None:
    """Give each parameter of `net` the mean of the others' numbers by this share; the rest are its own. All have the
    same shapes.
    """
    for number, *numbers in zip(*(each.parameters() for each in (net, *others)), strict=True):
        number.lerp_(torch.stack(numbers).mean(0), share)


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(str(path))
    except OSError as error:
        raise BlendError(f"{path} cannot be read ({error}); name the folder of a run or of an aligner") from None


def _compute_mean(states: Mapping[Path, Mapping[str, Tensor]], shares: Mapping[Path, float]) -> dict[str, Tensor]:
    """The mean of each tensor, weighted by the runs' shares; raises `BlendError` if the runs do not fit together."""
    first, *others = states
    for folder in others:
        if _shapes(states[folder]) != _shapes(states[first]):
            raise BlendError(f"{folder} and {first} have weights of other shapes; both have to come from one beginning")
    mean = {}
    for name, tensor in states[first].items():
        if tensor.is_floating_point():
            tensor = sum((states[folder][name].float() * shares[folder] for folder in states), torch.zeros(()))
        elif tensor.dtype == torch.bool:  # says whether something is judged at all, which all runs have to do
            tensor = torch.stack([states[folder][name] for folder in states]).all(dim=0)
        elif any(not torch.equal(states[folder][name], tensor) for folder in others):
            raise BlendError(f"{name} differs between the runs; both have to read the same layers")
        mean[name] = tensor.contiguous()
    return mean


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m models.train.blend", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", nargs="+", metavar="FOLDER=SHARE")
    arguments = parser.parse_args(argv)
    try:
        blend(dict(map(_parse_run, arguments.runs)), arguments.out)
    except BlendError as problem:
        sys.exit(str(problem))


def _parse_run(text: str) -> tuple[Path, float]:
    """A folder and its share: "runs/own_voice=0.5" -> (runs/own_voice, 0.5)."""
    folder, _, share = text.rpartition("=")
    try:
        return Path(folder), float(share)
    except ValueError:
        raise BlendError(f"{text!r} is not FOLDER=SHARE") from None


if __name__ == "__main__":
    main()

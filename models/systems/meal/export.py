"""Export of a trained net into the folder of the plugin that serves it.

python -m models.systems.meal.export runs/meal plugins/aligner_proxy_systems/meal
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from .net import TorchWeightNet
from .train import NET

MAX_BYTES = 1 << 20


def ship(run: Path, folder: Path) -> Path:
    """Copy a run's net into the plugin's folder. Raises where it cannot be read or is too large to ship."""
    TorchWeightNet.load(run / NET)
    if (run / NET).stat().st_size >= MAX_BYTES:
        raise SystemExit(f"{run / NET} is too large to ship: it may have {MAX_BYTES} bytes; train a narrower one")
    return Path(shutil.copyfile(run / NET, folder / NET))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(ship(Path(sys.argv[1]), Path(sys.argv[2])))

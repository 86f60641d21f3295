"""Put a trained net beside the aligner that it was trained over, where the engine finds it.

    python -m models.meal.ship runs/meal aligner_proxy/embedded

The folder's manifest learns the net's hash. The aligner is another one then, by its content hash: nothing that it said
before is taken for its word afterwards.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from aligner_proxy.engine import manifest
from aligner_proxy.engine.weigher import WeightNet
from models.meal.__main__ import NET

MOST_BYTES = 1 << 20


def ship(run: Path, folder: Path) -> Path:
    """Copy the net and note its hash; raises where it cannot be read or is too large to ship."""
    WeightNet.load(run / NET)
    if (run / NET).stat().st_size >= MOST_BYTES:
        raise SystemExit(f"{run / NET} is too large to ship: it may have {MOST_BYTES} bytes; train a narrower one")
    placed = folder / manifest.NET
    shutil.copyfile(run / NET, placed)
    told = folder / manifest.MANIFEST
    if told.exists():
        said = json.loads(told.read_text())
        said["files"] = dict(sorted((said["files"] | {placed.name: manifest.sha256(placed)}).items()))
        told.write_text(json.dumps(said, indent=2) + "\n")
    return placed


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(ship(Path(sys.argv[1]), Path(sys.argv[2])))

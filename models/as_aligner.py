"""What does an aligner say by the template of Aligner (PKU), which it never saw? A stand-in for the released weights.

    python -m models.as_aligner aligner_proxy/embedded runs/aligner_folder

Same base and adapter, Aligner's template, no head and no net. It shows what the template and the missing head cost, and
nothing about how good Aligner is: for that, train one (models/README.md), or pull the released weights.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from aligner_proxy.engine import manifest
from aligner_proxy.prompts import template

TEMPLATE = "aligner"


def stand_in(source: Path, folder: Path) -> None:
    """Write the folder."""
    told = json.loads((source / manifest.MANIFEST).read_text())
    dropped = {manifest.HEAD, manifest.NET}
    folder.mkdir(parents=True, exist_ok=True)
    for name in told["files"]:
        if name not in dropped:
            shutil.copyfile(source / name, folder / name)
    told |= {"template": TEMPLATE, "template_hash": template(TEMPLATE).hash, "shift": 0.0}
    told["files"] = {name: digest for name, digest in told["files"].items() if name not in dropped}
    (folder / manifest.MANIFEST).write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    stand_in(Path(sys.argv[1]), Path(sys.argv[2]))

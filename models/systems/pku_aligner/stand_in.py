"""Stand-in for Aligner's released weights: an aligner under the template of Aligner (PKU), which it never saw.

    python -m models.systems.pku_aligner.stand_in aligner_proxy/embedded runs/aligner_folder

Same base and adapter, Aligner's template, no heads and no net. It shows what the template and the missing head cost,
and nothing about how good Aligner is: for that, train one (models/README.md), or pull the released weights.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from aligner_proxy.engine.weights import manifest
from aligner_proxy.prompts import find_template

TEMPLATE = "aligner"


def write_stand_in(source: Path, folder: Path) -> None:
    """Write an aligner folder that reads the prompts of Aligner (PKU), with the weights of `source`."""
    document = json.loads((source / manifest.MANIFEST).read_text())
    dropped = {manifest.HEAD, manifest.TAUGHT}
    folder.mkdir(parents=True, exist_ok=True)
    for name in document["files"]:
        if name in dropped:
            (folder / name).unlink(missing_ok=True)
        else:
            shutil.copyfile(source / name, folder / name)
    document |= {"template": TEMPLATE, "template_hash": find_template(TEMPLATE).hash, "shift": 0.0}
    document["files"] = {name: digest for name, digest in document["files"].items() if name not in dropped}
    (folder / manifest.MANIFEST).write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    write_stand_in(Path(sys.argv[1]), Path(sys.argv[2]))

"""Runs stages one after the other in processes that were launched once: a run that stops, and one that goes on."""

from __future__ import annotations

import sys
from pathlib import Path

from models.train import train
from models.train.distributed import leave_group

if __name__ == "__main__":
    for config in sys.argv[1:]:
        train.main(Path(config))
    leave_group()

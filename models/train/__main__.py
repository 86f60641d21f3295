"""`python -m models.train STAGE.yaml` trains one stage."""

from __future__ import annotations

from .train import run_command

run_command()

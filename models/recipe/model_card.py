"""Model card of a trained aligner: what it was made from, and how good it is."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from aligner_proxy import __version__
from models.reporting import output

from .base_check import BaseFacts

_LIBRARIES = ("torch", "transformers", "peft", "accelerate")


def write_card(
    path: Path,
    base: str,
    facts: BaseFacts,
    about: Mapping[str, object],
    hashes: Mapping[str, str],
    stages: Mapping[str, Mapping[str, Any]],
    figures: str,
) -> None:
    """Write the model card. `stages` are the stages' `stage.json`, `figures` is the table of the test sets."""
    rows = [
        (name, document["config"]["seed"], document["config"]["steps"], f"{document['config']['lr']:.2g}",
         f"`{document['data_sha256']}`")
        for name, document in stages.items()
    ]  # fmt: skip
    versions = {"aligner-proxy": __version__, **{name: version(name) for name in _LIBRARIES}}
    parts = [
        "---\nlanguage: en\n---\n# Aligner over " + Path(base).name,
        f"Base: `{base}` ({facts.architecture}, {facts.parameters:,} parameters, {facts.layers} layers).",
        "Made by `python -m models.recipe`: " + ", ".join(f"{name} {value}" for name, value in about.items()) + ".",
        "\n".join(f"- {note}" for note in facts.notes),
        "## Stages\n\n" + output.table(("stage", "seed", "steps", "learning rate", "sha256 of the pairs"), rows),
        "## Data\n\n" + output.table(("file", "sha256"), hashes.items()),
        "## Figures\n\nHeld-out test sets, share with n and 95 % Wilson interval.\n\n" + figures.strip(),
        "## Versions\n\n" + ", ".join(f"{name} {number}" for name, number in versions.items()),
    ]
    path.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")

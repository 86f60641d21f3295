"""Manifest of an aligner folder: `aligner.json`, its hashes, and the check of the files against them. No torch.

An aligner folder holds a LoRA adapter over a named base, or a full model. Either may come with a detector head, and
with taught heads of some objectives.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from aligner_proxy import prompts
from aligner_proxy.engine.api import StrictModel
from aligner_proxy.errors import ConfigError, WeightsError

MANIFEST = "aligner.json"
MODEL = "config.json"
"""Present in the folder of a full model; its weights lie beside it."""
HEAD = "detector.safetensors"
"""The detector head."""
TAUGHT = "taught.bin"
"""Taught heads that come with the aligner (taught_head.py); only together with a detector head."""
ADAPTER = "adapter_config.json"
"""Present in the folder of an adapter."""
ADAPTER_WEIGHTS = "adapter_model.safetensors"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
"""Files of which a model folder has at least one."""
_WEIGHT_SUFFIXES = frozenset({".safetensors", ".json", ".model", ".bin"})
"""Endings of the files that a model is loaded from; others, such as a card, have no hash."""

Inside = Annotated[str, Field(pattern=r"^[^/\\]+$", max_length=255)]
"""Name of a file directly in the folder."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Gguf(StrictModel):
    """A base model as a GGUF file in an installed Python package."""

    package: str = Field(pattern=r"^[A-Za-z_]\w*$")
    """A top-level package without dots, because finding a subpackage would run its parent package."""
    file: Inside
    sha256: str


class Base(StrictModel):
    """The base model of an adapter: a hub id (owner/name@commit) or folder, and a package with the same weights."""

    hub: str
    gguf: Gguf | None = None


class Manifest(StrictModel):
    """Content of `aligner.json`. `window` is in tokens; `shift` in nats is already included in the head's scores."""

    format: Literal[1]
    base: Base | None = None
    template: str
    template_hash: str | None = None
    window: int = Field(default=4096, ge=64)
    shift: float = 0.0
    files: Annotated[dict[Inside, Sha256], Field(min_length=1)]


def read(folder: Path) -> Manifest | None:
    """Read the folder's manifest; None if it has none. Raises `WeightsError` if it is unreadable or does not match."""
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        problem = str(error)
        if isinstance(error, ValidationError) and (faults := error.errors(include_url=False)):
            # only the first, by the path of its field; a fault without a path concerns the whole file
            field = ".".join(map(str, faults[0]["loc"])) or "file"
            problem = f"{field}: {faults[0]['msg']}"
        raise WeightsError(f"{path} is no manifest of format 1 ({problem}); export the aligner again") from None
    _check_template(path, manifest)
    return manifest


def _check_template(path: Path, manifest: Manifest) -> None:
    """Raise `WeightsError` if the template is unknown, or worded differently than when the aligner was trained."""
    try:
        family = prompts.find_template(manifest.template)
    except ConfigError as error:
        raise WeightsError(f"{path}: {error}") from None
    # None: the manifest does not say which wording was used
    if manifest.template_hash not in (None, family.hash):
        raise WeightsError(
            f"{path}: trained on another wording of template {manifest.template!r} than this version has; "
            "use the version it was made with, or export the aligner again"
        )


def verify_all(folder: Path, files: Mapping[str, str], fix: str) -> None:
    """Compare all model files with their sha256 in `files`, by name.

    Raises `WeightsError`, which ends with `fix`, for a file that differs, is missing, or has no hash in `files`.
    """
    verify(folder, files, fix)
    unnamed = [name for name in _model_files(folder) if name not in files and name != MANIFEST]
    if unnamed:
        raise WeightsError(f"{folder / MANIFEST} has no sha256 of {', '.join(unnamed)}; {fix}")


def verify(folder: Path, files: Mapping[str, str], fix: str) -> None:
    """Compare the listed files with their sha256; raises `WeightsError` naming the first that differs, and `fix`."""
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise WeightsError(f"{path} is missing; {fix}")
        if (actual := sha256(path)) != expected:
            raise WeightsError(f"{path} is corrupt (its sha256 is {actual}, it should be {expected}); {fix}")


def hash_files(folder: Path) -> dict[str, str]:
    """The sha256 of every model file in `folder`."""
    return {name: sha256(folder / name) for name in _model_files(folder)}


def _model_files(folder: Path) -> list[str]:
    """The names of the files in `folder` that a model is loaded from, sorted."""
    return sorted(path.name for path in folder.iterdir() if path.is_file() and path.suffix in _WEIGHT_SUFFIXES)


def sha256(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(parts: object) -> str:
    """The sha256 of any JSON value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

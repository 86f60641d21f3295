"""Manifest of an aligner folder (`aligner.json`), with the sha256 of every file, and the check of the files by it. No
torch. The folder holds a LoRA adapter over a named base, or a full model. Either may come with a detector head, and
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
MODEL_CONFIG = "config.json"
"""The configuration of a model; present in the folder of a full model; its weights lie beside it."""
HEAD = "detector.safetensors"
"""The file of the detector head."""
TAUGHT = "taught.bin"
"""The file of the taught heads that come with the aligner (taught_head.py), only together with a detector head."""
ADAPTER = "adapter_config.json"
"""The configuration of an adapter; present in the folder of an adapter."""
ADAPTER_WEIGHTS = "adapter_model.safetensors"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
"""Files of which a model folder has at least one."""
_WEIGHT_SUFFIXES = frozenset({".safetensors", ".json", ".model", ".bin"})
"""Endings of the files from which a model is loaded; other files, such as a card, have no hash."""

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
    """Read the folder's manifest; None if it has none. Raises `WeightsError` if it cannot be read or used."""
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        problem = str(error)
        faults = error.errors(include_url=False) if isinstance(error, ValidationError) else []
        if faults:
            # only the first fault, by the path of its field; a fault without a path concerns the whole file
            field = ".".join(map(str, faults[0]["loc"])) or "file"
            problem = f"{field}: {faults[0]['msg']}"
        raise WeightsError(f"{path} is no manifest of format 1 ({problem}); export the aligner again") from None
    _check_template(path, manifest)
    return manifest


def _check_template(path: Path, manifest: Manifest) -> None:
    """Raise `WeightsError`, with `path`, if the template is unknown, or has changed since the aligner was trained."""
    try:
        template = prompts.find_template(manifest.template)
    except ConfigError as error:
        raise WeightsError(f"{path}: {error}") from None
    # a manifest without the hash does not say which wording was used
    if manifest.template_hash not in (None, template.hash):
        raise WeightsError(
            f"{path}: trained on another wording of template {manifest.template!r} than this version has; "
            "use the version it was made with, or export the aligner again"
        )


def verify_all(folder: Path, files: Mapping[str, str], fix: str) -> None:
    """Do what `verify` does, and also raise `WeightsError` for a model file that has no sha256 in `files`."""
    verify(folder, files, fix)
    files_without_hash = [name for name in _list_model_files(folder) if name not in files and name != MANIFEST]
    if files_without_hash:
        raise WeightsError(f"{folder / MANIFEST} has no sha256 of {', '.join(files_without_hash)}; {fix}")


def verify(folder: Path, files: Mapping[str, str], fix: str) -> None:
    """Compare the `files` in `folder` with their sha256, by file name.

    Raises `WeightsError`, which ends with `fix` (what to do), for the first file that differs or is missing.
    """
    for name, expected_hash in files.items():
        path = folder / name
        if not path.is_file():
            raise WeightsError(f"{path} is missing; {fix}")
        actual_hash = sha256(path)
        if actual_hash != expected_hash:
            raise WeightsError(f"{path} is corrupt (its sha256 is {actual_hash}, it should be {expected_hash}); {fix}")


def hash_files(folder: Path) -> dict[str, str]:
    """Return the sha256 of every model file in `folder`, by file name."""
    return {name: sha256(folder / name) for name in _list_model_files(folder)}


def _list_model_files(folder: Path) -> list[str]:
    """Return the names of the files in `folder` from which a model is loaded, sorted."""
    return sorted(path.name for path in folder.iterdir() if path.is_file() and path.suffix in _WEIGHT_SUFFIXES)


def sha256(path: Path) -> str:
    """Return the sha256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(parts: object) -> str:
    """Return the sha256, in hex, of any JSON value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

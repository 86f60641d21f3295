"""Optional extras of the distribution: the packages of each, and the error when one is missing.

`pip install aligner-proxy` installs what a gateway with a remote engine needs. A command or policy key that needs more
checks here first, so that the user gets a one-sentence error with the fix. This module imports none of the packages.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence

from aligner_proxy.errors import MissingExtra

ENGINE = "engine"
FLEET = "fleet"
REVIEW = "review"

PACKAGES: Mapping[str, Sequence[str]] = {
    ENGINE: ("torch", "transformers", "bitsandbytes", "accelerate", "peft", "gguf", "safetensors", "huggingface_hub"),
    FLEET: ("psycopg", "redis"),
    REVIEW: ("jinja2", "markupsafe"),
}
"""The packages of each extra, by import name."""


def list_missing(extra: str, packages: Sequence[str] | None = None) -> list[str]:
    """The packages of an extra that are not installed; `packages` limits the check to these."""
    return [name for name in packages or PACKAGES[extra] if not _is_installed(name)]


def require_extra(extra: str, user: str, packages: Sequence[str] | None = None) -> None:
    """Raise `MissingExtra` if a package of the extra is not installed; `user` is the command or key that needs it."""
    if missing := list_missing(extra, packages):
        raise MissingExtra(extra, user, missing)


def _is_installed(package: str) -> bool:
    """Whether a package can be imported, without importing it."""
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # a module that was put into sys.modules by hand has no spec
        return True

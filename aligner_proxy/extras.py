"""Extras of the distribution: which packages each brings, and the error that names the extra where one is missing.

`pip install aligner-proxy` brings what a gateway in front of a remote engine needs. A command or a key of the policies
file that needs more asks here first, so that its user reads one sentence with the fix. Nothing is imported here.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from aligner_proxy.errors import MissingExtra

ENGINE = "engine"
FLEET = "fleet"
REVIEW = "review"

PACKAGES: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        ENGINE: (
            *("torch", "transformers", "bitsandbytes", "accelerate"),
            *("peft", "gguf", "safetensors", "huggingface_hub"),
        ),
        FLEET: ("psycopg", "redis"),
        REVIEW: ("jinja2", "markupsafe"),
    }
)
"""The packages of each extra by the name that Python imports."""


def list_missing(extra: str, packages: Sequence[str] | None = None) -> list[str]:
    """The packages of an extra that are not installed; `packages` limits the question to some of them."""
    return [name for name in packages or PACKAGES[extra] if not _is_installed(name)]


def require_extra(extra: str, user: str, packages: Sequence[str] | None = None) -> None:
    """Raise `MissingExtra` where a package of an extra is not installed; `user` is the command or key that needs it."""
    if missing := list_missing(extra, packages):
        raise MissingExtra(extra, user, missing)


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # a module that was put into sys.modules by hand has no spec
        return True

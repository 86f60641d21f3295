"""Aligners that share one base in memory: adapters over the same base, or over the full model that is served.

Alone, an adapter is merged into its base, which is the quickest. Together the base is prepared as it is, and each
adapter is applied unmerged (`lora`). No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from aligner_proxy.engine import sources
from aligner_proxy.engine.sources import Source
from aligner_proxy.errors import ConfigError
from aligner_proxy.types import DEFAULT_ALIGNER


@dataclass(frozen=True, slots=True)
class Shared:
    """The model that is loaded, and the aligners over it in the order of their adapters.

    `over` has one called default, unless that is the loaded model itself.
    """

    base: Source
    over: Mapping[str, Source]


def resolve(model: str | Path, template: str | None, adapters: Mapping[str, str | Path]) -> Shared:
    """Find the files of all. Raises `WeightsError`, or `ConfigError` where they cannot be served together."""
    main = sources.resolve(model, template)
    others = {name: sources.resolve(other) for name, other in adapters.items()}
    for name, other in others.items():
        _check(name, other, main)
    if main.adapter is None:
        return Shared(main, others)
    base = replace(main, model=f"base of {main.model}", adapter=None, head=None, identity=main.base.identity)
    return Shared(base, {DEFAULT_ALIGNER: main, **others})


def _check(name: str, other: Source, main: Source) -> None:
    if other.adapter is None:
        raise ConfigError(
            f"aligner {name!r} ({other.model}) is a full model; only adapters over the base of {main.model} can be "
            "served with it. Give it an engine of its own"
        )
    same_files = (other.base.folder.resolve(), other.base.gguf) == (main.base.folder.resolve(), main.base.gguf)
    if not same_files and (main.adapter is None or other.base.identity != main.base.identity):
        raise ConfigError(
            f"aligner {name!r} ({other.model}) is an adapter over another base than {main.model}: "
            f"{_base(other)} and {_base(main)}. Give it an engine of its own"
        )


def _base(source: Source) -> str:
    return str(source.base.folder / (source.base.gguf or ""))

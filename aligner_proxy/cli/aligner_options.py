"""Which aligner does a command mean? The options that several commands share.

A flag goes before the config file, the file before the defaults. Nothing heavy is imported until weights are opened.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from aligner_proxy import config
from aligner_proxy.errors import ConfigError
from aligner_proxy.prompts import TEMPLATES

if TYPE_CHECKING:
    from aligner_proxy.engine.weights import Settings

F = TypeVar("F", bound=Callable[..., Any])

_WEIGHTS = (
    click.option("--template", type=click.Choice(sorted(TEMPLATES)), help="Prompt form of a model that is not known."),
    click.option("--quantization", type=click.Choice(["nf4", "none"]), help="4-bit weights (default) or none."),
)
_COMPUTING = (
    click.option("--model", help="embedded (default), a Hugging Face id, or a folder."),
    click.option("--dtype", type=click.Choice(["auto", "bf16", "fp32"]), help="Number format of computation."),
    click.option("--threads", type=click.IntRange(min=1), help="CPU threads; left to torch when not given."),
)


def weight_options(function: F) -> F:
    """Add --template and --quantization."""
    for option in reversed(_WEIGHTS):
        function = option(function)
    return function


def aligner_options(function: F) -> F:
    """Add --model, --template, --quantization, --dtype and --threads."""
    function = weight_options(function)
    for option in reversed(_COMPUTING):
        function = option(function)
    return function


def settings(given: dict[str, Any], file: Path | None = None) -> Settings:
    """Settings of the weights from flags, then `file` (a policies file), then defaults."""
    before_torch()
    from aligner_proxy.engine.weights import Settings

    found: dict[str, Any] = {}
    if file is not None:
        policies = config.load(file)
        told = policies.aligner
        found = {"template": told.template, "quantization": told.quantization, "dtype": told.dtype}
        found["model"] = config.aligner_model(policies)
    return Settings(**found | {name: value for name, value in given.items() if value is not None})


def before_torch() -> None:
    """What must be set before torch is imported; harmless when it was."""
    # Its threads would spin while they wait for each other: on cores that an upstream or a gateway also uses, that
    # made a forward four times as expensive.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # The 4-bit library tells on import that an optional kernel is not installed; it has one built in.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    # Deprecations between two libraries that we pin; nothing a user could act on.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def quiet() -> None:
    """No progress bars and chatter of the libraries below: they would end up among our own lines."""
    before_torch()
    from transformers.utils import logging as chatter

    chatter.set_verbosity_error()  # type: ignore[no-untyped-call]
    chatter.disable_progress_bar()  # type: ignore[no-untyped-call]


def log_to_stderr() -> None:
    """One line an event on stderr, as a service manager expects it."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in ("httpx", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.WARNING)


def only_one_address(socket: Path | None, port: int | None) -> None:
    """A socket and a port together are a mistake that would otherwise go unnoticed."""
    if socket is not None and port is not None:
        raise ConfigError("give --socket or --port, not both")

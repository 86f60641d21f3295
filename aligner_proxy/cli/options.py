"""Options that several commands share: the aligner, its weights, log lines, how far back.

A flag overrides the config file, the file the defaults. Nothing heavy is imported until weights are opened.
"""

from __future__ import annotations

import ctypes
import logging
import os
import re
import time
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from aligner_proxy.connections import Limits
from aligner_proxy.errors import ConfigError
from aligner_proxy.observability import logs
from aligner_proxy.plugins import registry
from aligner_proxy.policy import config
from aligner_proxy.prompts import TEMPLATES
from aligner_proxy.types import DEFAULT_ALIGNER

if TYPE_CHECKING:
    from aligner_proxy.engine.loader import EngineSettings

F = TypeVar("F", bound=Callable[..., Any])
_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_M_ARENA_MAX = -8
"""glibc's malloc.h."""

_WEIGHTS = (
    click.option("--template", type=click.Choice(sorted(TEMPLATES)), help="Prompt form of a model that is not known."),
    click.option("--quantization", type=click.Choice(["nf4", "none"]), help="4-bit weights (default) or none."),
)
_COMPUTING = (
    click.option("--model", help="embedded (default), a Hugging Face id, or a folder."),
    click.option(
        "--adapter",
        "adapters",
        multiple=True,
        metavar="NAME=MODEL",
        callback=lambda _ctx, _param, given: _adapters(given),
        help="One more aligner over the same base, chosen by that name; may be given again.",
    ),
    click.option("--dtype", type=click.Choice(["auto", "bf16", "fp32"]), help="Number format of computation."),
    click.option("--cache-tokens", type=click.IntRange(min=1024), help="Tokens of KV cache; 16384 when not given."),
    click.option("--threads", type=click.IntRange(min=1), help="CPU threads at most; left to torch when not given."),
)
_LIMITS = Limits()


def _seconds(option: str, limit: str, text: str) -> Callable[[F], F]:
    """An option for one of the times in `Limits`."""
    positive = click.FloatRange(min=0, min_open=True)
    return click.option(option, limit, default=getattr(_LIMITS, limit), show_default=True, type=positive, help=text)


_CONNECTIONS = (
    click.option(
        "--connections",
        default=_LIMITS.connections,
        show_default=True,
        type=click.IntRange(min=1),
        help="Connections at a time, of each process; then slow clients go, and new ones get 503.",
    ),
    _seconds("--head-timeout", "head_s", "Seconds for the head of a request."),
    _seconds("--body-timeout", "body_s", "Seconds for its body, and one more for each 8 kB."),
    _seconds("--idle-timeout", "idle_s", "Seconds between two requests of a connection."),
)


def weight_options(function: F) -> F:
    """Add --template and --quantization."""
    return _added(function, _WEIGHTS)


def aligner_options(function: F) -> F:
    """Add --model, --adapter, --template, --quantization, --dtype, --cache-tokens and --threads."""
    return _added(weight_options(function), _COMPUTING)


def connection_options(function: F) -> F:
    """Add --connections, --head-timeout, --body-timeout and --idle-timeout."""
    return _added(function, _CONNECTIONS)


def _added(function: F, options: Sequence[Callable[[F], F]]) -> F:
    """The command with these options, shown in this order."""
    for option in reversed(options):
        function = option(function)
    return function


def take_limits(given: dict[str, Any]) -> Limits:
    """The bounds of connections that the options give, taken out of `given`."""
    return Limits(**{name: given.pop(name) for name in ("connections", "head_s", "body_s", "idle_s")})


def settings(given: dict[str, Any], file: Path | None = None) -> EngineSettings:
    """Settings of the weights from flags, then `file` (a policies file), then defaults."""
    before_torch()
    from aligner_proxy.engine.loader import EngineSettings

    from_file: dict[str, Any] = {}
    if file is not None:
        policies = registry.load_policies(file)
        aligner = policies.aligner
        from_file = {name: getattr(aligner, name) for name in ("template", "quantization", "dtype", "cache_tokens")}
        from_file |= {"model": config.aligner_model(policies), "adapters": config.aligner_adapters(policies)}
        if aligner.require_revision:
            _refuse_unpinned(from_file | given)
    return EngineSettings(**from_file | {name: value for name, value in given.items() if value is not None})


def _refuse_unpinned(chosen: dict[str, Any]) -> None:
    from aligner_proxy.engine.weights import sources

    sources.refuse_unpinned([chosen["model"], *(chosen["adapters"] or {}).values()])


def _adapters(given: tuple[str, ...]) -> dict[str, str] | None:
    """The aligners of --adapter by name; None without any, so that the file's apply."""
    pairs = [text.partition("=")[::2] for text in given]
    for name, model in pairs:
        if not name or not model or name == DEFAULT_ALIGNER:
            raise click.BadParameter(f"must read NAME=MODEL with a name other than {DEFAULT_ALIGNER}")
    return dict(pairs) or None


def before_torch() -> None:
    """Set what must be set before torch is imported; harmless afterwards."""
    # torch's threads spin while they wait for each other. On cores shared with an upstream or a gateway that made a
    # forward four times slower; without any spinning, waking them takes longer than a small layer.
    if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}:
        os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}
    # bitsandbytes would load torch's compiler, which we never use: 50 MB.
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    # oneDNN keeps compiled kernels for 1,024 shapes in each of two caches: 250 MB. A quarter of that costs hardly any
    # speed (docs/lab/2026-11-21-memory-of-a-1b-engine.md).
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, "256")
    _share_heap()
    # bitsandbytes warns on import about an optional kernel; it has one built in.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    # Deprecations between two pinned libraries; a user cannot act on them.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def _share_heap() -> None:
    """Use one heap for all threads with glibc; per-thread heaps keep freed memory, 50 MB for a model of 1.1B."""
    if tune := getattr(ctypes.CDLL(None), "mallopt", None):
        tune(_M_ARENA_MAX, 1)


def quiet() -> None:
    """Silence the libraries' progress bars and messages."""
    before_torch()
    from transformers.utils import logging as chatter  # noqa: TID251 - its log level, nothing that computes

    chatter.set_verbosity_error()  # type: ignore[no-untyped-call]
    chatter.disable_progress_bar()  # type: ignore[no-untyped-call]


def log_option(function: F) -> F:
    """Add --log."""
    text = "Form of the log lines; also ALIGNER_PROXY_LOG."
    return click.option("--log", "form", type=click.Choice(config.LOG_FORMS), help=text)(function)


def log_to_stderr(form: str | None) -> None:
    """Log to stderr, one line for each event; the option overrides the environment."""
    logs.to_stderr(form or config.log_form() or "text")


def only_one_address(socket: Path | None, port: int | None) -> None:
    """Refuse a socket together with a port."""
    if socket is not None and port is not None:
        raise ConfigError("give --socket or --port, not both")


def moment(since: str) -> float:
    """Seconds since the epoch of an age or a date."""
    age = _AGE.fullmatch(since)
    if age is not None:
        return time.time() - float(age[1]) * _UNITS[age[2]]
    try:
        date = datetime.fromisoformat(since)
    except ValueError:
        raise ConfigError("--since must be an age such as 30m, 12h or 7d, or a date such as 2030-01-31") from None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()

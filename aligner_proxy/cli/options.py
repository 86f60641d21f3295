"""Options that several commands share: aligner, weights, connection limits, log format, start of a period.

A flag overrides the config file, and the file overrides the defaults. Heavy libraries are imported only when weights
are opened.
"""

from __future__ import annotations

import ctypes
import logging
import math
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from aligner_proxy import extras
from aligner_proxy.connections import ConnectionLimits
from aligner_proxy.errors import ConfigError
from aligner_proxy.observability import logs
from aligner_proxy.plugins import registry
from aligner_proxy.policy import config, environment
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.prompts import TEMPLATES
from aligner_proxy.types import DEFAULT_ALIGNER, EMBEDDED

if TYPE_CHECKING:
    from aligner_proxy.engine.loader import EngineSettings

F = TypeVar("F", bound=Callable[..., Any])
_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_SECONDS_BY_UNIT = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_M_ARENA_MAX = -8
"""The constant M_ARENA_MAX of glibc's malloc.h."""

_WEIGHT_OPTIONS = (
    click.option(
        "--template", type=click.Choice(sorted(TEMPLATES)), help="Prompt template, for a model that is not known."
    ),
    click.option(
        "--quantization",
        type=click.Choice(["nf4", "none"]),
        help="nf4: 4-bit weights (default); none: no quantization.",
    ),
)
_ENGINE_OPTIONS = (
    click.option("--model", help="embedded (default), a Hugging Face id, or a folder."),
    click.option(
        "--adapter",
        "adapters",
        multiple=True,
        metavar="NAME=MODEL",
        callback=lambda _ctx, _param, values: parse_named_models(values),
        help="One more aligner on the same base model, chosen by this name; may be given again.",
    ),
    click.option("--dtype", type=click.Choice(["auto", "bf16", "fp32"]), help="Number format for computing."),
    click.option(
        "--cache-tokens",
        type=click.IntRange(min=1024),
        help="Size of the KV cache in tokens; by default 16384, on a GPU up to half of the free memory.",
    ),
    click.option("--threads", type=click.IntRange(min=1), help="Maximum CPU threads; by default torch decides."),
)
_DEFAULT_LIMITS = ConnectionLimits()


class FiniteFloat(click.FloatRange):
    """A number, perhaps in a range; unlike Click's own, neither infinite nor nan."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse the number; fails for infinity and nan."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{number} is not a finite number.", param, ctx)
        return number


def _seconds_option(option: str, field: str, text: str) -> Callable[[F], F]:
    """Return a decorator that adds an option for the timeout `field` of `ConnectionLimits`; `text` is its help."""
    positive = FiniteFloat(min=0, min_open=True)
    default = getattr(_DEFAULT_LIMITS, field)
    return click.option(option, field, default=default, show_default=True, type=positive, help=text)


_CONNECTION_OPTIONS = (
    click.option(
        "--connections",
        default=_DEFAULT_LIMITS.connections,
        show_default=True,
        type=click.IntRange(min=1),
        help="Maximum connections of each process; above it, slow clients are closed and new ones get 503.",
    ),
    _seconds_option("--head-timeout", "head_s", "Seconds a client may take to send the request headers."),
    _seconds_option("--body-timeout", "body_s", "Seconds a client may take for the body, plus one for each 8 kB."),
    _seconds_option("--idle-timeout", "idle_s", "Seconds after which an idle connection is closed."),
)


def weight_options(function: F) -> F:
    """Add --template and --quantization."""
    return add_options(function, _WEIGHT_OPTIONS)


def aligner_options(function: F) -> F:
    """Add --model, --adapter, --template, --quantization, --dtype, --cache-tokens and --threads."""
    return add_options(weight_options(function), _ENGINE_OPTIONS)


def connection_options(function: F) -> F:
    """Add --connections, --head-timeout, --body-timeout and --idle-timeout."""
    return add_options(function, _CONNECTION_OPTIONS)


def add_options(function: F, options: Sequence[Callable[[F], F]]) -> F:
    """Add options to the function of a command; help shows them in this order."""
    for add_option in reversed(options):
        function = add_option(function)
    return function


def take_limits(options: dict[str, Any]) -> ConnectionLimits:
    """Remove the connection limits from `options` and return them."""
    return ConnectionLimits(**{name: options.pop(name) for name in ("connections", "head_s", "body_s", "idle_s")})


def weight_settings(options: dict[str, Any], file: Path | None = None) -> EngineSettings:
    """Return the settings of the weights: from `options`, else from the policies file `file`, else defaults.

    Raises `MissingExtra` if the packages for running a model are not installed.
    """
    extras.require_extra(extras.ENGINE, "an aligner on this machine")
    prepare_for_torch()
    from aligner_proxy.engine.loader import EngineSettings

    return EngineSettings(**_choose_weights(options, file))


def _choose_weights(options: dict[str, Any], file: Path | None) -> dict[str, Any]:
    """Return the settings of the weights by name, from `options`, else from the policies file; defaults are left out.

    Raises `ConfigError` for a model without a commit if the file requires one.
    """
    given_options = {name: value for name, value in options.items() if value is not None}
    file_settings: dict[str, Any] = {}
    if file is not None:
        policies = registry.load_policies(file)
        aligner = policies.aligner
        file_settings = {name: getattr(aligner, name) for name in ("template", "quantization", "dtype", "cache_tokens")}
        file_settings |= {"model": config.aligner_model(policies), "adapters": config.aligner_adapters(policies)}
        # Only the command `engine` has the option --judge, because only a gateway asks judges.
        if "judges" in options:
            file_settings["judges"] = config.aligner_judges(policies)
        if aligner.require_revision:
            _refuse_unpinned(file_settings | given_options)
    return file_settings | given_options


def refuse_absent_weights(options: dict[str, Any], file: Path | None) -> None:
    """Refuse a model whose files are not on this machine, before torch is imported, which takes seconds.

    Raises `WeightsError`, and `ConfigError` for a name that no model can have or for missing packages.
    """
    extras.require_extra(extras.ENGINE, "an aligner on this machine")
    settings = _choose_weights(options, file)
    for model in (settings.get("model", EMBEDDED), *settings.get("adapters", {}).values()):
        _require_files(model, settings.get("template"), settings.get("quantization", "nf4"))


def _require_files(model: str | Path, template: str | None, quantization: str) -> None:
    """Raise `WeightsError` or `ConfigError` for an aligner whose files are not on this machine."""
    from aligner_proxy.engine.weights import sources
    from aligner_proxy.engine.weights.store import WeightStore

    if not sources.is_hub_id(model):
        sources.check_files(model, template)
    elif not WeightStore(config.home_folder()).find_prepared(str(model), quantization):
        sources.find_config(model)  # not for prepared weights, which run without the files that they were made of


def check_local_aligner(file: PolicyFile) -> None:
    """Raise `WeightsError` or `ConfigError` for a model of this file that a local engine could not open.

    Only the names of the model's files are checked, without importing torch; nothing is checked without a local engine.
    """
    if not config.engine_backend(file).needs_local:
        return
    from aligner_proxy.engine.weights import sources

    for model in (config.aligner_model(file), *config.aligner_adapters(file).values()):
        _require_files(model, file.aligner.template, file.aligner.quantization)
    for model in config.aligner_judges(file).values():
        if not sources.is_hub_id(model):
            sources.find_judge(model)


def check_guardrail_entry(params: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for guardrail settings that LiteLLM could not read."""
    from aligner_proxy.gateway import litellm_internals  # imports LiteLLM, which takes seconds

    litellm_internals.check_entry(params)


def _refuse_unpinned(settings: dict[str, Any]) -> None:
    """Raise `ConfigError` for a model, adapter or judge from the Hugging Face hub that is named without a commit.

    `settings` has `model`, and perhaps `adapters` and `judges`, each a dict of models by name.
    """
    from aligner_proxy.engine.weights import sources  # the commands that need no weights do not import it

    models = [settings["model"]]
    for key in ("adapters", "judges"):
        models += (settings.get(key) or {}).values()
    sources.refuse_unpinned(models)


def parse_named_models(values: tuple[str, ...]) -> dict[str, str] | None:
    """Return the models of --adapter or --judge by name; None if there are none, so that those of the file apply."""
    model_by_name = {}
    for value in values:
        name, _, model = value.partition("=")
        if not name or not model or name == DEFAULT_ALIGNER:
            raise click.BadParameter(f"must read NAME=MODEL with a name other than {DEFAULT_ALIGNER}")
        model_by_name[name] = model
    return model_by_name or None


def prepare_for_torch() -> None:
    """Set environment variables, the heap and log levels. Must run before torch is imported, but does no harm later."""
    # torch's threads spin while they wait for each other. On cores shared with an upstream or a gateway, spinning made
    # a forward pass four times slower. But without any spinning, waking the threads takes longer than a small layer.
    if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}:
        os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}
    # Otherwise bitsandbytes would load torch's compiler, which needs 50 MB and is never used here.
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    # oneDNN keeps compiled kernels for 1,024 shapes in each of two caches: 250 MB. With a quarter of the entries it is
    # hardly slower (docs/lab/2026-11-21-memory-of-a-1b-engine.md).
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, "256")
    _share_heap()
    # On import bitsandbytes warns about a missing optional kernel, but it has one built in.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    # These are deprecations between two pinned libraries, about which a user can do nothing.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def _share_heap() -> None:
    """Make glibc use one heap for all threads: separate heaps keep freed memory, 50 MB for a model of 1.1B."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # other C libraries do not have it
        mallopt(_M_ARENA_MAX, 1)


def silence_libraries() -> None:
    """Silence the libraries' progress bars and messages; raises `MissingExtra` if no model can run here."""
    extras.require_extra(extras.ENGINE, "an aligner on this machine")
    prepare_for_torch()
    from transformers.utils import logging as transformers_logging  # noqa: TID251 - its log level, nothing that computes

    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # else readers of model files would draw bars into logs


def log_option(function: F) -> F:
    """Add --log."""
    text = "Format of log lines (default: text); also set by ALIGNER_PROXY_LOG."
    return click.option("--log", "log_format", type=click.Choice(environment.LOG_FORMATS), help=text)(function)


def log_to_stderr(log_format: str | None) -> None:
    """Log to stderr, one line for each event; the option overrides the environment."""
    logs.configure_logging(log_format or environment.log_format() or "text")


def parse_moment(since: str) -> float:
    """Parse the value of --since, an age (7d) or a date, into seconds since the epoch; raises `ConfigError`."""
    age = _AGE.fullmatch(since)
    if age is not None:
        return time.time() - float(age[1]) * _SECONDS_BY_UNIT[age[2]]
    try:
        date = datetime.fromisoformat(since)
    except ValueError:
        raise ConfigError("--since must be an age such as 30m, 12h or 7d, or a date such as 2030-01-31") from None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()

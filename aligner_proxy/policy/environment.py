"""The environment variables of aligner-proxy, and what serve, engine and gateway read from them.

ALIGNER_PROXY_ENGINE (engine address), ALIGNER_PROXY_KEYS (keys file), ALIGNER_PROXY_HOME (cache and weights folder)
and ALIGNER_PROXY_POLICIES (policies file) override the policies file. ALIGNER_PROXY_SOCKET is the socket of the engine
`local`, ALIGNER_PROXY_IN_FORCE the file in which `serve` stores the active policies. ALIGNER_PROXY_CHECK_KEYS says
that no database knows keys. ALIGNER_PROXY_LOG is the format of log lines, OTEL_EXPORTER_OTLP_ENDPOINT the address for
the engine's traces. ALIGNER_PROXY_PLUGINS=off disables third-party plugins. `serve` passes only a few variables to the
engine; ALIGNER_PROXY_ENGINE_ENV names more to pass. The policies file may name further variables, with keys and
addresses of servers; `config.py` reads these.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from aligner_proxy.errors import ConfigError
from aligner_proxy.policy.yaml_file import quote_name

ENGINE = "ALIGNER_PROXY_ENGINE"
SOCKET = "ALIGNER_PROXY_SOCKET"
KEYS = "ALIGNER_PROXY_KEYS"
HOME = "ALIGNER_PROXY_HOME"
POLICIES = "ALIGNER_PROXY_POLICIES"
PLUGINS = "ALIGNER_PROXY_PLUGINS"
ENGINE_ENV = "ALIGNER_PROXY_ENGINE_ENV"
ACTIVE_POLICIES_FILE = "ALIGNER_PROXY_IN_FORCE"
CHECK_KEYS = "ALIGNER_PROXY_CHECK_KEYS"
LOG_FORMAT = "ALIGNER_PROXY_LOG"
LOG_FORMATS = ("text", "json")


def read_variable(name: str) -> str | None:
    """The value of an environment variable, stripped; None if it is not set or blank."""
    return os.environ.get(name, "").strip() or None


def read_path_variable(name: str) -> Path | None:
    """The path in an environment variable, with `~` expanded; None if not set. Raises `ConfigError` for a wrong `~`."""
    text = read_variable(name)
    try:
        return Path(text).expanduser() if text else None
    except RuntimeError:
        raise ConfigError(
            f"{name}={quote_name(text or '')}: there is no such home folder; write the whole path"
        ) from None


def log_format() -> str | None:
    """The log format from the environment; None if it is not set. Raises `ConfigError` for an unknown format."""
    name = read_variable(LOG_FORMAT)
    if name is not None and name not in LOG_FORMATS:
        raise ConfigError(f"{LOG_FORMAT}={quote_name(name)} must be one of {', '.join(LOG_FORMATS)}")
    return name


# Variables that a process needs to run at all, to find its libraries and device, to compute, and to send traces.
_ENGINE_NAMES = frozenset(
    [
        *("HOME", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "LD_PRELOAD", "LOGNAME", "LRU_CACHE_CAPACITY", "NO_COLOR"),
        *("NO_PROXY", "PATH", "SHELL", "SSL_CERT_DIR", "SSL_CERT_FILE", "TERM", "TMPDIR", "TZ", "USER", "VIRTUAL_ENV"),
        *(HOME, PLUGINS, POLICIES, LOG_FORMAT),
    ]
)
_ENGINE_PREFIXES = (
    *("ATEN_", "BITSANDBYTES_", "BNB_", "CUBLAS_", "CUDA_", "DNNL_", "DYLD_", "GOMP_", "HF_", "HSA_", "HUGGINGFACE_"),
    *("KMP_", "LC_", "MALLOC_", "MKL_", "NCCL_", "NUMEXPR_", "NVIDIA_", "OMP_", "ONEDNN_", "OPENBLAS_", "OTEL_"),
    *("PYTHON", "PYTORCH_", "ROCM_", "ROCR_", "SAFETENSORS_", "TOKENIZERS_", "TORCH", "TRANSFORMERS_", "TRITON_"),
    "XDG_",
)
_SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)


def engine_environment() -> dict[str, str]:
    """The environment of the engine: the variables that it needs, and those named in ALIGNER_PROXY_ENGINE_ENV.

    The engine does not need the master key, providers' keys or the audit store's key, so it does not get them.
    """
    operator_names = frozenset((read_variable(ENGINE_ENV) or "").replace(",", " ").split())

    def is_passed_on(name: str) -> bool:
        # A variable that the operator names is passed on even if its name looks like that of a secret.
        if name in operator_names:
            return True
        is_needed = name in _ENGINE_NAMES or name.startswith(_ENGINE_PREFIXES)
        return is_needed and not _SECRET_NAME.search(name)

    return {name: value for name, value in os.environ.items() if is_passed_on(name)}


def is_traced() -> bool:
    """Whether OpenTelemetry's environment variables name an address for traces."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or read_variable("OTEL_TRACES_EXPORTER") == "none":
        return False
    address_variables = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return any(read_variable(name) for name in address_variables)

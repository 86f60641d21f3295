"""From the policies file to an open audit store: its place, its key, the operator's own redaction."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import cast

from aligner_proxy import config
from aligner_proxy.audit.entry import Redact
from aligner_proxy.audit.recorder import Keeping, Recorder
from aligner_proxy.audit.seal import Seal
from aligner_proxy.audit.store import Store
from aligner_proxy.errors import ConfigError
from aligner_proxy.policy_file import PolicyFile

_DAY_S = 86_400.0


def recorder(file: PolicyFile) -> Recorder | None:
    """Who takes notes, as the file says; None where nobody does. Opens nothing yet, but refuses a wrong setting."""
    told = file.audit
    if not told.enabled:
        return None
    path, seal, redact = config.audit_file(file), _seal(file), redaction(file)
    keeping = Keeping(told.keep_days * _DAY_S, told.max_mb * 2**20, told.waiting)
    return Recorder(lambda: Store(path, seal), keeping, redact)


def store(file: PolicyFile, path: Path | None = None) -> Store:
    """The store, to be read; raises `ConfigError` where there is none."""
    place = path or config.audit_file(file)
    if not place.exists():
        raise ConfigError(
            f"there is no audit store at {place}; turn it on with audit: {{enabled: true}}, or name another"
        )
    return Store(place, _seal(file))


def _seal(file: PolicyFile) -> Seal | None:
    key = config.audit_key(file)
    return Seal(key) if key is not None else None


def redaction(file: PolicyFile) -> Redact | None:
    """The operator's function; it is imported now, so that a mistake is known before the first answer."""
    if file.audit.redact is None:
        return None
    module, _, name = file.audit.redact.rpartition(".")
    place = file.source.at("audit", "redact")
    try:
        found = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ConfigError(f"{place}: audit.redact: cannot import {module} ({type(error).__name__})") from None
    except AttributeError:
        raise ConfigError(f"{place}: audit.redact: {module} has no {name}") from None
    if not callable(found):
        raise ConfigError(f"{place}: audit.redact: {file.audit.redact} is not a function that takes and gives a text")
    return cast(Redact, found)

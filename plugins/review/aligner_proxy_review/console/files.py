"""Reader of the console's files (LiteLLM's YAML, the policies file, the keys file), which notices their changes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aligner_proxy.audit import writer
from aligner_proxy.audit.store import AuditStore
from aligner_proxy.errors import ConfigError, NothingRecorded
from aligner_proxy.gateway.reload import Signature, file_signature
from aligner_proxy.plugins import registry
from aligner_proxy.plugins.extensions import Extensions
from aligner_proxy.policy import config
from aligner_proxy.policy.keys_file import KeyEntry
from aligner_proxy.policy.litellm_config import find_policies, model_groups
from aligner_proxy.policy.resolver import PolicyResolver
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.policy.yaml_file import read_yaml
from aligner_proxy.teaching.active_heads import ActiveHeads
from aligner_proxy_review.console.forms import PageError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ConsoleConfig:
    """The contents of the console's files, in one valid version."""

    policies: PolicyFile
    keys: Mapping[str, KeyEntry] = field(repr=False)
    """The entries of the keys file by sha256."""
    litellm: Mapping[str, Any] = field(repr=False)
    """LiteLLM's YAML, parsed."""
    extensions: Extensions = field(repr=False)
    """The extensions from plugins that the policies file names."""

    @property
    def resolver(self) -> PolicyResolver:
        """A resolver with the heads that are active now."""
        return PolicyResolver(self.policies, ActiveHeads.read_or_empty(self.policies).head_of)

    @property
    def model_names(self) -> list[str]:
        """The model groups of LiteLLM's file and their aliases, for fields that take a model."""
        return sorted(set(model_groups(self.litellm)))

    @property
    def team_names(self) -> list[str]:
        """The teams that tenants of the policies file match by their whole name, not by a pattern."""
        teams = (tenant.match.team for tenant in self.policies.tenants)
        return sorted({team for team in teams if team and set(team).isdisjoint("*?[")})

    def store(self) -> AuditStore:
        """Open the audit store for the calling thread.

        Raises `ConfigError` if none is configured, and `NothingRecorded` if the gateway has not created it yet.
        """
        if self.policies.audit.enabled and not writer.has_store(self.policies):
            raise NothingRecorded("no answer has been recorded yet")
        return writer.open_for_reading(self.policies)


class ConsoleFiles:
    """Holder of the last valid version of the files; an invalid version is logged and ignored.

    `engine` is the address of the running engine; None means the gateway's.
    """

    def __init__(self, litellm_file: Path, engine: str | None = None) -> None:
        self._litellm_file = litellm_file
        self._engine = engine
        self._lock = threading.Lock()
        self._current = self._read_files()
        self._known_signatures = self._read_signatures(self._current)
        """Signatures of the files when they were last read, by which changes are noticed."""

    def current(self) -> ConsoleConfig:
        """Return the current version of the files; reads them again if one has changed."""
        with self._lock:
            signatures = self._read_signatures(self._current)
            if signatures != self._known_signatures:
                # set before reading, so that an invalid version is read and logged only once
                self._known_signatures = signatures
                try:
                    self._current = self._read_files()
                except (ConfigError, OSError) as error:
                    # the error's text is not logged, since it may quote the keys file
                    name = type(error).__name__
                    log.error(  # noqa: TRY400
                        "console: a changed file is invalid (%s), the old one stays active; run `aligner-proxy check`",
                        name,
                    )
            return self._current

    def engine_options(self) -> list[str]:
        """Command-line options with which a command uses the running engine; raises `PageError` if none runs.

        Without them, the command would load the aligner a second time.
        """
        if self._engine is not None:
            return ["--engine", self._engine]
        # an aligner on another server is not loaded here, so the command can ask this server itself
        if not config.engine_backend(self.current().policies).needs_local:
            return []
        socket = config.engine_socket()
        if not socket.exists():
            raise PageError(409, "No engine runs here; start `aligner-proxy serve`, or name one with --engine.")
        return ["--engine", f"unix:{socket}"]

    def _read_files(self) -> ConsoleConfig:
        """Read all files; raises `ConfigError` or `OSError`."""
        data, _ = read_yaml(self._litellm_file)
        policies = registry.load_policies(find_policies(self._litellm_file))
        return ConsoleConfig(policies, config.known_keys(policies), data, registry.load_extensions(policies))

    def _read_signatures(self, console_config: ConsoleConfig) -> Signature:
        """Read the signatures of the files of `console_config`; None stands for a file that it does not name."""
        source = console_config.policies.source
        paths = (self._litellm_file, source.folder / source.name, config.keys_path(console_config.policies))
        return tuple(None if path is None else file_signature(path) for path in paths)

"""A valid config as `aligner-proxy check` reads it: a policies file, and the LiteLLM YAML that registers it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

from aligner_proxy.cli.options import check_guardrail_entry
from aligner_proxy.errors import ConfigError
from aligner_proxy.gateway.shared_server import open_shared_server
from aligner_proxy.plugins import registry
from aligner_proxy.plugins.extensions import Extensions
from aligner_proxy.policy import guardrail_entry, litellm_config
from aligner_proxy.policy.config import known_keys, refuse_without_policies, refuse_wrong_audit_file
from aligner_proxy.policy.keys_file import KeyEntry
from aligner_proxy.policy.litellm_config import find_policies, is_litellm, model_groups
from aligner_proxy.policy.resolver import PolicyResolver
from aligner_proxy.policy.schema import PolicyFile, editor_groups, find_judges
from aligner_proxy.policy.yaml_file import read_yaml, suggest_name
from aligner_proxy.teaching.active_heads import ActiveHeads
from aligner_proxy.teaching.overview import HeadStatus, head_statuses
from aligner_proxy.teaching.subjects import TeachingState
from aligner_proxy.types import JudgeKind

NO_START = "a gateway with this environment does not start"
"""End of a warning about something that would keep a gateway on this machine from starting."""


@dataclass(frozen=True)
class CheckedConfig:
    """A valid config: the policies file, and what the LiteLLM YAML says if one was given."""

    path: Path
    """Path of the policies file."""
    policies: PolicyFile
    models: tuple[str, ...] | None
    """The model groups of the LiteLLM YAML; None if only a policies file was given."""
    keys: dict[str, KeyEntry]
    """The entries of the keys file by the sha256 of the key."""
    litellm_warnings: tuple[str, ...]
    """Warnings about the LiteLLM YAML, for example about ways on which answers go out uncorrected."""
    litellm: Mapping[str, Any] = field(repr=False)
    """The LiteLLM YAML; empty if only a policies file was given."""
    statuses: tuple[HeadStatus, ...]
    """The state of each objective that has examples: taught or not."""
    extensions: Extensions = field(repr=False)

    @cached_property
    def faults(self) -> list[str]:
        """What is wrong with the files that the policies file names: files of examples and the audit store."""
        unreadable_statuses = [status for status in self.statuses if status.state is TeachingState.UNREADABLE]
        faults = [status.warning for status in unreadable_statuses if status.warning is not None]
        try:
            refuse_wrong_audit_file(self.policies)
        except ConfigError as error:
            faults.append(str(error))
        return faults

    def lacks_model(self, pattern: str) -> bool:
        """Whether no model of LiteLLM's model_list matches the glob `pattern`; False if no LiteLLM YAML was given.

        LiteLLM's model names can have wildcards, too, so each of the two is tried as the glob.
        """
        if self.models is None:
            return False
        return not any(fnmatchcase(model, pattern) or fnmatchcase(pattern, model) for model in self.models)

    @property
    def resolver(self) -> PolicyResolver:
        """A resolver for these policies, with the taught heads."""
        return PolicyResolver(self.policies, ActiveHeads.read(self.policies).head_of)


def read_config(file: Path) -> CheckedConfig:
    """Load and check a LiteLLM YAML or policies file; raises `ConfigError` if a gateway would refuse what it names."""
    data, source = read_yaml(file)  # the source knows the line of each setting, for messages
    has_litellm = is_litellm(data)
    policies_file = find_policies(file) if has_litellm else file
    policies = registry.load_policies(policies_file)
    refuse_without_policies(policies)
    registry.configure_plugins(policies)
    open_shared_server(policies)  # for its checks: an error here would keep the gateway from starting
    extensions = registry.load_extensions(policies)
    key_entries = known_keys(policies)
    taught_head_statuses = tuple(head_statuses(policies))
    litellm_warnings: tuple[str, ...] = ()
    if has_litellm:
        litellm_warnings = (
            *guardrail_entry.check_entries(data, source, policies, check_guardrail_entry),
            *litellm_config.find_uncovered(data, source),
            *litellm_config.find_unset_variables(data, source),
            *(f"{fault}; {NO_START}" for fault in litellm_config.find_start_faults(file)),
        )
    checked = CheckedConfig(
        policies_file,
        policies,
        models=model_groups(data) if has_litellm else None,
        keys=key_entries,
        litellm_warnings=litellm_warnings,
        litellm=data if has_litellm else {},
        statuses=taught_head_statuses,
        extensions=extensions,
    )
    # An editor is a model that rewrites answers, a judge one that judges them; LiteLLM must serve the groups of both.
    missing_group_message = next(missing_editor_groups(checked), None)
    # The group may also be in LiteLLM's database, which is not visible here.
    if missing_group_message is not None and not litellm_config.has_models_in_database(data):
        raise ConfigError(missing_group_message)
    return checked


def missing_editor_groups(checked: CheckedConfig) -> Iterator[str]:
    """Warn about each editor and judge that is not a model group of the LiteLLM YAML."""
    policies = checked.policies
    # tuples (key, model group, key path of the setting)
    uses = [("editor", group, path) for group, path in editor_groups(policies.blocks()).items()]
    for judge, path in find_judges([*policies.blocks(), *policies.objective_entries()]):
        # Token classifiers belong to the engine, and not to LiteLLM.
        if judge.kind is not JudgeKind.TOKENS:
            uses.append(("judge", judge.group, path))
    for key, group, path in uses:
        if checked.lacks_model(group):
            place = policies.source.place_of(*path)
            hint = suggest_name(group, checked.models or ())
            yield f"{place}: {key} {group!r} is no model group of the model_list; {hint}"

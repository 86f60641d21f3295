"""Check of our guardrail's entry in LiteLLM's YAML, for settings by which LiteLLM skips it or discards its result.

LiteLLM accepts such settings silently and then delivers answers uncorrected. If the policies file enforces objectives,
`serve` and `check` refuse these settings; otherwise they warn.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from aligner_proxy.errors import ConfigError
from aligner_proxy.policy.litellm_config import GUARDRAIL, REFERENCE, find_entries, list_or_empty
from aligner_proxy.policy.resolver import PolicyResolver
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.policy.yaml_file import YamlSource, quote_name, read_yaml
from aligner_proxy.types import GOVERNED_SKIPS, FailureClass, IfNothingRemains, Mode, OnError, OnSkip, Policy

WITHOUT_EFFECT = ("run_in_parallel", "scan_raw_request")
"""Settings that the guardrail ignores, because with them LiteLLM would throw away the corrected answer."""
_NEEDED_MODE = "post_call"
"""The hook by which LiteLLM hands answers to the guardrail."""
_HOOKS = ("pre_call", _NEEDED_MODE)
_BY_TAGS = (
    "mode by tags: clients choose their tags, and so whether answers are corrected; write mode: post_call, and routes "
    "with match: {tag: ...} in the policies file"
)
_NOT_BY_DEFAULT = (
    "without default_on: true the guardrail runs only for requests, keys and models that name it; "
    "write default_on: true, and routes with mode: off for models that should not be corrected"
)
_PLAIN_ENTRY = {"guardrail": GUARDRAIL, "mode": _NEEDED_MODE, "default_on": True}
"""The entry that `init` writes, which LiteLLM can read; beside it may stand our own setting."""
_CALLBACK_LISTS = ("callbacks", "success_callback", "failure_callback")
_File = tuple[Mapping[str, Any], YamlSource]
"""The data of a LiteLLM YAML, and where it stands."""


def find_enforcement(file: PolicyFile) -> str | None:
    """Return "file:line" of a setting by which unjudged answers are withheld; None if the policies file has none."""
    policies = [policy for policy in PolicyResolver(file).active_settings() if policy.mode is Mode.ENFORCE]
    if not policies:
        return None
    for tenant_index, tenant in enumerate(file.tenants):
        if tenant.enforce:
            return file.source.place_of("tenants", tenant_index, "enforce")
    if not any(map(_withholds_answers, policies)):
        return None
    for path, block in file.blocks():
        if block.on_error is not None:
            return file.source.place_of(*path, "on_error")
    return file.source.place_of("defaults")


def _withholds_answers(policy: Policy) -> bool:
    """Whether a policy blocks answers: after a failure, after a skip, or if nothing of an answer remains."""
    failure_reactions = [policy.on_error.reaction_to(failure) for failure in FailureClass]
    skip_reactions = [policy.on_skip.reaction_to(reason) for reason in GOVERNED_SKIPS]
    blocks_after_retry = OnError.RETRY in failure_reactions and policy.after_retry is OnError.BLOCK
    return (
        OnError.BLOCK in failure_reactions
        or blocks_after_retry
        or OnSkip.BLOCK in skip_reactions
        or policy.if_nothing_remains is IfNothingRemains.BLOCK
    )


def find_gaps(mode: object, default_on: object, stream_scope: object) -> Iterator[tuple[str, str]]:
    """Yield each setting by which LiteLLM calls the guardrail for only some answers: its key, and a message with a fix.

    The parameters are the settings of our guardrail's entry in the LiteLLM file, as written; None if one is not set.
    """
    if isinstance(mode, Mapping):
        yield "mode", _BY_TAGS
    elif mode is not None and _NEEDED_MODE not in _mode_words(mode):
        words = ", ".join(map(str, _mode_words(mode)))
        yield "mode", f"mode {words}: LiteLLM hands the guardrail no answer; write mode: {_NEEDED_MODE}"
    if default_on is not True:
        yield "default_on", _NOT_BY_DEFAULT
    # A block has a scope for each hook; a single word applies to every hook.
    scopes = stream_scope if isinstance(stream_scope, Mapping) else dict.fromkeys(_HOOKS, stream_scope)
    scope_by_hook = {str(hook).lower(): str(scope).lower() for hook, scope in scopes.items()}
    hook_scopes = (scope_by_hook.get(hook) for hook in _HOOKS)
    scope = next((scope for scope in hook_scopes if scope in ("streaming", "non_streaming")), None)
    if scope is not None:
        left_out = "streams" if scope == "non_streaming" else "whole answers"
        fix = "remove it, and write `stream` or `mode` of routes in the policies file"
        yield "stream_scope", f"stream_scope {scope}: {left_out} are not corrected; {fix}"


def _mode_words(mode: object) -> list[object]:
    """The hooks that a `mode` names, in lower case; it is one word, or a list of words."""
    words = mode if isinstance(mode, list | tuple) else [mode]
    return [word.lower() if isinstance(word, str) else word for word in words]


def check_entries(
    data: Mapping[str, Any], source: YamlSource, file: PolicyFile, check_form: Callable[[Mapping[str, Any]], None]
) -> list[str]:
    """Warn about settings of a LiteLLM YAML that keep answers from the guardrail.

    If the policies file enforces objectives, these settings raise `ConfigError` instead. `check_form` raises
    `ConfigError` for settings of an entry that LiteLLM cannot read, because LiteLLM would start without the guardrail.
    `check_form` imports LiteLLM, which takes seconds, so it is called only for entries that differ from the usual one.
    """
    for index, _, params in find_entries(data):
        # The settings that `init` writes, apart from our own setting `policies`, need no check.
        if {name: value for name, value in params.items() if name != "policies"} == _PLAIN_ENTRY:
            continue
        try:
            check_form(params)
        except ConfigError as error:
            # The message begins with the key of the setting, which tells the line.
            key = str(error).partition(":")[0].partition(" ")[0]
            raise ConfigError(f"{source.place_of('guardrails', index, 'litellm_params', key)}: {error}") from None
    gaps = list(_find_file_gaps(data, source))
    enforcement_place = find_enforcement(file) if gaps else None
    if enforcement_place is not None:
        reason = f"({enforcement_place} withholds answers that were not judged)"
        raise ConfigError("\n".join(f"{gap} {reason}" for gap in gaps))
    return [*gaps, *_find_ineffective_settings(data, source)]


def _find_file_gaps(data: Mapping[str, Any], source: YamlSource) -> Iterator[str]:
    """Yield "file:line: message" for each setting, also in included files, that keeps answers from the guardrail."""
    files = list(_read_files(data, source))
    # LiteLLM merges the files, so a guardrail's name from one of them counts in all.
    our_names = [name for file_data, _ in files for _, name, _ in find_entries(file_data)]
    for file_data, file_source in files:
        for index, _, params in find_entries(file_data):
            mode, default_on, stream_scope = (
                _resolve_value(params.get(key)) for key in ("mode", "default_on", "stream_scope")
            )
            for key, text in find_gaps(mode, default_on, stream_scope):
                yield f"{file_source.place_of('guardrails', index, 'litellm_params', key)}: {text}"
        yield from _find_pipeline_steps(file_data, file_source, our_names)
        yield from _find_callbacks(file_data, file_source)
    yield from _find_shared_names(files, our_names)


def _read_files(data: Mapping[str, Any], source: YamlSource) -> Iterator[_File]:
    """Yield data and source of a LiteLLM YAML and of all files that it includes, each once, in LiteLLM's order."""
    main_folder = source.folder
    files = [(data, source)]
    known_paths = {(main_folder / source.name).resolve()}
    # The list grows during the loop, as included files can include others.
    for file_data, file_source in files:
        yield file_data, file_source
        for name in list_or_empty(file_data.get("include")):
            # LiteLLM looks for an included file beside the file that includes it, and then beside the main file.
            candidates = (file_source.folder / str(name), main_folder / str(name))
            path = next((path for path in candidates if path.is_file()), None)
            if path is not None and path.resolve() not in known_paths:
                known_paths.add(path.resolve())
                included_data, included_source = read_yaml(path)
                files.append((included_data if isinstance(included_data, dict) else {}, included_source))


def _find_shared_names(files: Iterable[_File], our_names: Sequence[object]) -> Iterator[str]:
    """Warn about further guardrails with a name of ours, because LiteLLM runs only one of several with one name."""
    earlier_names: set[object] = set()
    for data, source in files:
        for index, entry in enumerate(list_or_empty(data.get("guardrails"))):
            name = entry.get("guardrail_name") if isinstance(entry, Mapping) else None
            if name in our_names:
                if name in earlier_names:
                    place = source.place_of("guardrails", index, "guardrail_name")
                    quoted = quote_name(str(name))
                    yield f"{place}: LiteLLM runs one of several guardrails called {quoted}; give it another name"
                earlier_names.add(name)


def _find_pipeline_steps(data: Mapping[str, Any], source: YamlSource, our_names: Sequence[object]) -> Iterator[str]:
    """Warn if LiteLLM's own `policies` use our guardrail as a step of a pipeline, because such a step never runs."""
    policies = data.get("policies")
    for policy_name, policy in policies.items() if isinstance(policies, Mapping) else ():
        pipeline = policy.get("pipeline") if isinstance(policy, Mapping) else None
        steps = list_or_empty(pipeline.get("steps")) if isinstance(pipeline, Mapping) else []
        for index, step in enumerate(steps):
            if isinstance(step, Mapping) and step.get("guardrail") in our_names:
                place = source.place_of("policies", policy_name, "pipeline", "steps", index)
                quoted = quote_name(str(step["guardrail"]))
                yield (
                    f"{place}: {quoted} is left out of pipelines, where LiteLLM would not call it for every answer, "
                    "and runs by itself; remove the step"
                )


def _find_callbacks(data: Mapping[str, Any], source: YamlSource) -> Iterator[str]:
    """Warn if our class stands in a list of callbacks, where LiteLLM never calls a guardrail."""
    settings = data.get("litellm_settings")
    for key in _CALLBACK_LISTS:
        value = settings.get(key) if isinstance(settings, Mapping) else None
        class_names = value if isinstance(value, list) else [value]
        if GUARDRAIL in class_names:
            place = source.place_of("litellm_settings", key)
            yield f"{place}: LiteLLM never calls a guardrail that is named under {key}; name it under guardrails: alone"


def _find_ineffective_settings(data: Mapping[str, Any], source: YamlSource) -> Iterator[str]:
    for index, _, params in find_entries(data):
        for key in WITHOUT_EFFECT:
            if _resolve_value(params.get(key)):
                place = source.place_of("guardrails", index, "litellm_params", key)
                yield f"{place}: {key} has no effect here: LiteLLM would throw corrected answers away; remove it"


def _resolve_value(value: object) -> object:
    """Interpret a value as LiteLLM does: resolve references to the environment, and read "yes" or "on" as a bool."""
    if isinstance(value, str) and value.startswith(REFERENCE):
        value = os.environ.get(value.removeprefix(REFERENCE))
    if value in (0, 1):
        return bool(value)
    if not isinstance(value, str):
        return value
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    return words.get(value.lower(), value)

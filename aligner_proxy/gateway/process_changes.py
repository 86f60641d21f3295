"""What the guardrail changes in the whole process when it starts: in LiteLLM, in its application and in Python.

The modules that are called here say why each change is needed. All of them may be called again.
"""

from __future__ import annotations

from aligner_proxy.gateway import (
    body_limits,
    client_keys,
    duplicate_models,
    gc_workaround,
    label_bounds,
    litellm_internals,
    malloc_trim,
    public_pages,
    routing,
)


def change_process(guardrail_name: str) -> None:
    """Make the changes; `guardrail_name` is the name in LiteLLM's configuration."""
    body_limits.install()
    client_keys.install()
    litellm_internals.add_middleware()
    litellm_internals.bound_fallbacks(routing.has_too_many_fallbacks, routing.TOO_MANY_FALLBACKS)
    litellm_internals.count_tokens_off_loop()
    litellm_internals.keep_out_of_pipelines(guardrail_name)
    litellm_internals.watch_bodies(duplicate_models.note_model_names)
    malloc_trim.trim_periodically()
    gc_workaround.collect_between_callbacks()
    public_pages.install()
    label_bounds.install()

"""Self-Refinement plugin: a chat model reviews the answer against the objectives, then revises it."""

from __future__ import annotations

from collections.abc import Sequence

from aligner_proxy.plugins.api import Corrector, Kind, hookimpl
from aligner_proxy_systems.self_refine.corrector import SelfRefine, SelfRefineSettings


def _make(settings: SelfRefineSettings) -> Corrector:
    # imported here, so that LiteLLM is loaded only if this corrector is used
    from aligner_proxy_systems.self_refine.litellm_group import ChatGroup

    return SelfRefine(settings, ChatGroup(settings.model))


@hookimpl
def correctors() -> Sequence[Kind[Corrector]]:
    """Return the corrector `self_refine`, with any model of LiteLLM's model_list."""
    about = "a model of LiteLLM's model_list reviews the answer by the objectives, then revises it"
    return [Kind("self_refine", about, _make, SelfRefineSettings)]

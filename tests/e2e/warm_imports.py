"""What Python's fork server imports before it forks the first proxy (warm_litellm.py)."""

from __future__ import annotations

import os
from importlib.metadata import entry_points

from tests.e2e.warm_litellm import COMMON

os.environ |= COMMON

# Also what LiteLLM imports first when it starts.
import litellm.proxy.guardrails.guardrail_registry
import litellm.proxy.pass_through_endpoints.llm_passthrough_endpoints
import litellm.proxy.proxy_cli
import litellm.proxy.proxy_server  # noqa: F401

import aligner_proxy.auth
import aligner_proxy.guardrail  # noqa: F401
from aligner_proxy.plugins.api import GROUP

for plugin in entry_points(group=GROUP):
    plugin.load()

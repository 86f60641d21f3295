"""What Python's fork server imports before it forks the first proxy (warm_litellm.py)."""

from __future__ import annotations

import os

from tests.e2e.warm_litellm import COMMON

os.environ |= COMMON

import litellm.proxy.proxy_cli
import litellm.proxy.proxy_server  # noqa: F401

import aligner_proxy.auth
import aligner_proxy.guardrail  # noqa: F401

"""What every test needs before anything imports LiteLLM: no network, and no noise from its models."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

for name in ("LITELLM_LOCAL_MODEL_COST_MAP", "LITELLM_LOCAL_BLOG_POSTS", "LITELLM_LOCAL_POLICY_TEMPLATES"):
    os.environ.setdefault(name, "True")


settings.register_profile("fuzz")  # by `make fuzz`: tests/test_untouched.py tries more then


def pytest_configure(config: pytest.Config) -> None:
    """Pydantic warns about a TypedDict of LiteLLM when it first builds its models."""
    config.addinivalue_line("filterwarnings", "ignore:.*`ReadOnly` qualifier:UserWarning")

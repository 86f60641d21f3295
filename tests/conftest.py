"""What every test needs before anything imports LiteLLM: no network, and no noise from its models."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

for name in ("LITELLM_LOCAL_MODEL_COST_MAP", "LITELLM_LOCAL_BLOG_POSTS", "LITELLM_LOCAL_POLICY_TEMPLATES"):
    os.environ.setdefault(name, "True")


if settings.get_current_profile_name() == "default":  # Hypothesis has one of its own for CI
    # On a busy machine anything is slow; what takes too long is the test runner's business.
    settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("here")
settings.register_profile("fuzz")  # by `make fuzz`: tests/test_untouched.py tries more then


def pytest_configure(config: pytest.Config) -> None:
    """Pydantic warns about a TypedDict of LiteLLM when it first builds its models."""
    config.addinivalue_line("filterwarnings", "ignore:.*`ReadOnly` qualifier:UserWarning")


_TOGETHER = ("conformance", "e2e", "faults")
"""Folders whose files share processes that take long to start, or one table."""


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Which tests one worker runs: those of a file, or of a whole folder."""
    here = Path(__file__).parent
    for item in items:
        path = item.path.relative_to(here)
        group = path.parts[0] if path.parts[0] in _TOGETHER else str(path)
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A report has to reach the main process as UTF-8, whatever was logged; fuzzed texts hold lone surrogates."""
    report = yield
    report.sections = [(name, text.encode(errors="replace").decode()) for name, text in report.sections]
    return report

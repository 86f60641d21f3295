"""What every test needs before anything imports LiteLLM: no network, and no noise from its models."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

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


class Together(LoadScopeScheduling):
    """Which tests one of several workers runs: those of a file, or of a whole folder."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        folder = Path(path).parts[1]
        return folder if folder in _TOGETHER else path


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Together:
    """Asked by pytest-xdist; groups by mark, which it has itself, do nothing under pytest 9."""
    return Together(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A report has to reach the main process as UTF-8, whatever was logged; fuzzed texts hold lone surrogates."""
    report = yield
    report.sections = [(name, text.encode(errors="replace").decode()) for name, text in report.sections]
    return report

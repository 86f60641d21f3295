"""Bounds of the tenants and models that metrics name, because prometheus_client keeps each combination for ever.

What the operator configured is named as long as there is room. Model names that clients choose, as a group with a
wildcard lets them, have few places for each tenant, so no tenant uses up another's. Further ones are counted as
`other`, and totals stay exact.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from aligner_proxy.types import Traffic, replace_surrogates

OTHER = "other"
MAX_TENANTS = 100
MAX_PAIRS = 1000
"""Most combinations of tenant and model."""
MAX_UNLISTED = 20
"""Most models of one tenant that LiteLLM's file does not list."""
_LONGEST_NAME = 200
_NAMES_S = 10.0
"""Seconds for which the configured model names are kept, since a request has many labels."""


def configured_models() -> frozenset[str]:
    """The model names of LiteLLM's file; none outside the proxy, whose import takes seconds."""
    if "litellm.proxy.proxy_server" not in sys.modules:
        return frozenset()
    from aligner_proxy.gateway import litellm_internals

    return litellm_internals.model_names()


class RecentNames:
    """The configured model names, which `list_models` returns; it is called again every `_NAMES_S` seconds."""

    def __init__(self, list_models: Callable[[], frozenset[str]], clock: Callable[[], float] = time.monotonic) -> None:
        self._list_models = list_models
        self._clock = clock
        self._names = frozenset[str]()
        self._read_at = float("-inf")

    def read(self) -> frozenset[str]:
        """The names, at most `_NAMES_S` seconds old."""
        now = self._clock()
        if now - self._read_at >= _NAMES_S:
            self._read_at = now
            self._names = self._list_models()
        return self._names


class TrafficBounds:
    """The tenants and models that metrics name; all others are counted together, as `other`."""

    def __init__(self, configured: RecentNames) -> None:
        self._configured = configured
        self._models: dict[str, set[str]] = {}
        """By tenant, its models that metrics name."""
        self._pair_count = 0
        """Combinations of tenant and model so far."""

    def bound_traffic(self, traffic: Traffic) -> Traffic:
        """The tenant and model as metrics name them; once a limit is reached, `other` stands for each new name."""
        # Half of a surrogate pair in a name would break every scrape.
        tenant, model = (replace_surrogates(name) for name in traffic)
        if tenant not in self._models and (len(self._models) >= MAX_TENANTS or len(tenant) > _LONGEST_NAME):
            tenant = OTHER
        models = self._models.setdefault(tenant, set())
        if model in models:
            return Traffic(tenant, model)
        if not self._may_name(model, models):
            return Traffic(tenant, OTHER)
        models.add(model)
        self._pair_count += 1
        return Traffic(tenant, model)

    def _may_name(self, model: str, models: set[str]) -> bool:
        """Whether metrics may name this model for a tenant of which they name `models` already."""
        if self._pair_count >= MAX_PAIRS or len(model) > _LONGEST_NAME:
            return False
        configured = self._configured.read()
        return model in configured or len(models - configured) < MAX_UNLISTED

"""Limits LiteLLM's metric labels whose values clients choose: models, user agents, addresses, paths.

prometheus_client keeps a series for each combination of label values forever. A client with a counter in its user agent
could therefore fill the memory and every scrape. Names that the operator configured are kept. For other values each key
has a limited number of combinations; further ones become `other`, so no client uses up another's share. All unknown
keys share one limit. Totals stay exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from litellm.proxy._types import LiteLLMRoutes
from prometheus_client.metrics import MetricWrapperBase

from aligner_proxy.gateway.traffic_bounds import OTHER, RecentNames, configured_models

MAX_COMBINATIONS = 100
"""Most combinations of client-chosen values for each key, over all metrics."""
_LITELLM_PREFIX = "litellm_"
_MODEL_LABELS = frozenset({"model", "requested_model", "model_group", "fallback_model", "litellm_model_name"})
_CLIENT_LABELS = _MODEL_LABELS | {"user_agent", "client_ip", "service_tier"}
"""Labels whose values clients choose, without `end_user`, which LiteLLM limits itself if that label is turned on."""
_KEY_LABEL = "hashed_api_key"
_OWNER_LABELS = ("api_key_alias", "team", "user")
"""Labels that identify a known key; if all are empty, the key's hash is whatever a client sent."""
_EMPTY_VALUES = frozenset({"", "None"})
"""Values that stand for no value."""


class LabelBounds:
    """Decides which combinations of label values get series of their own."""

    def __init__(self, configured: RecentNames) -> None:
        self._configured = configured
        self._combinations: dict[tuple[str, ...], set[tuple[tuple[str, str], ...]]] = {}
        """Registered (label, value) pairs that a client chose together, by key (the values of `_OWNER_LABELS`)."""

    def bound_labels(self, labels: Mapping[str, str]) -> Mapping[str, str]:
        """The labels (values by name) to use: the given ones if their combination has a series or may get one.

        A client key may have `MAX_COMBINATIONS` combinations; in further ones, values chosen by clients become `other`.
        """
        owner = tuple(labels.get(name, "") for name in _OWNER_LABELS)
        is_known_key = any(value not in _EMPTY_VALUES for value in owner)
        client_labels = tuple(
            (name, value)
            for name, value in labels.items()
            if self._is_client_value(name, value, is_known_key=is_known_key)
        )
        if not client_labels:
            return labels
        # Keys that belong to nobody share one limit, since clients can invent any number of them.
        combinations = self._combinations.setdefault(owner if is_known_key else (), set())
        if client_labels in combinations:
            return labels
        if len(combinations) < MAX_COMBINATIONS:
            combinations.add(client_labels)
            return labels
        return {**labels, **{name: OTHER for name, _ in client_labels}}

    def _is_client_value(self, name: str, value: str, *, is_known_key: bool) -> bool:
        """Whether a client chose the value of the label `name`, rather than the operator in the configuration.

        `is_known_key` says whether the client's key belongs to anyone; if not, the client chose its hash, too.
        """
        if value in _EMPTY_VALUES:
            return False
        if name in _MODEL_LABELS:
            return value not in self._configured.read()
        if name == "route":
            return value not in _fixed_routes()
        return name in _CLIENT_LABELS or (name == _KEY_LABEL and not is_known_key)


@cache
def _fixed_routes() -> frozenset[str]:
    """The paths of LiteLLM without a variable part."""
    paths = [path for group in LiteLLMRoutes for path in group.value if isinstance(path, str)]
    return frozenset(path for path in paths if "{" not in path and "*" not in path)


def install() -> None:
    """Limit the labels of all LiteLLM metrics in this process, including later ones; does nothing the second time."""
    if not hasattr(MetricWrapperBase.labels, "unbounded"):
        patch_labels(LabelBounds(RecentNames(configured_models)))


def patch_labels(bounds: LabelBounds) -> None:
    """Patch prometheus_client so that LiteLLM's metrics use `bounds`.

    Another call replaces the bounds of the earlier one.
    """
    unbounded_labels = getattr(MetricWrapperBase.labels, "unbounded", MetricWrapperBase.labels)

    def bounded_labels(metric: Any, *values: Any, **keywords: Any) -> Any:
        """The series of a metric with these label values; of LiteLLM's metrics with the values that `bounds` allows."""
        names = metric._labelnames
        has_wrong_number = len(values or keywords) != len(names)  # prometheus_client then raises its own error
        if has_wrong_number or not metric._name.startswith(_LITELLM_PREFIX):
            return unbounded_labels(metric, *values, **keywords)
        pairs = zip(names, values, strict=True) if values else keywords.items()
        labels = {name: str(value) for name, value in pairs}
        return unbounded_labels(metric, **bounds.bound_labels(labels))

    bounded_labels.unbounded = unbounded_labels  # type: ignore[attr-defined]
    MetricWrapperBase.labels = bounded_labels  # type: ignore[method-assign,assignment]

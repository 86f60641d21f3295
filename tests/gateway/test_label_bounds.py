"""Labels of LiteLLM's metrics whose values clients choose: so many of them, and configured names always."""

from __future__ import annotations

from itertools import product

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics import MetricWrapperBase

from aligner_proxy.gateway import label_bounds
from aligner_proxy.gateway.label_bounds import MAX_COMBINATIONS, LabelBounds
from aligner_proxy.gateway.traffic_bounds import RecentNames

LABELS = ("hashed_api_key", "api_key_alias", "team", "user", "model", "user_agent", "client_ip", "route")


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> CollectorRegistry:
    """A registry while labels are bounded."""
    monkeypatch.setattr(MetricWrapperBase, "labels", MetricWrapperBase.labels)  # undoes the patch after the test
    label_bounds.patch_labels(LabelBounds(RecentNames(lambda: frozenset({"gpt", "claude"}))))
    return CollectorRegistry()


def labels(**changes: str) -> dict[str, str]:
    """The labels of a request of acme's key."""
    ordinary = {"model": "gpt", "user_agent": "None", "client_ip": "None", "route": "/v1/chat/completions"}
    return {"hashed_api_key": "h", "api_key_alias": "acme", "team": "acme", "user": "u", **ordinary, **changes}


def series(registry: CollectorRegistry, name: str) -> dict[str, float]:
    """The series of a metric."""
    lines = generate_latest(registry).decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + "{")}


def test_many_agents_and_models_have_few_series_and_the_total_is_right(registry: CollectorRegistry) -> None:
    counter = Counter("litellm_requests", "", LABELS, registry=registry)
    for number in range(300):
        counter.labels(**labels(user_agent=f"agent {number}")).inc()
    for number in range(400):
        counter.labels(*labels(model=f"model {number}").values()).inc()
    found = series(registry, "litellm_requests_total")
    assert len(found) <= MAX_COMBINATIONS + 2
    assert sum(found.values()) == 700


def test_a_histogram_is_bounded_too(registry: CollectorRegistry) -> None:
    histogram = Histogram("litellm_latency", "", LABELS, registry=registry)
    for agent, address in product(range(30), range(30)):
        histogram.labels(**labels(user_agent=str(agent), client_ip=str(address))).observe(1)
    assert len(series(registry, "litellm_latency_count")) == MAX_COMBINATIONS + 1


def test_nobody_uses_up_what_another_key_has(registry: CollectorRegistry) -> None:
    counter = Counter("litellm_requests", "", LABELS, registry=registry)
    unknown = {"api_key_alias": "None", "team": "None", "user": "None"}
    for number in range(300):
        counter.labels(**labels(user_agent=f"agent {number}")).inc()
        counter.labels(**labels(**unknown, hashed_api_key=f"{number}")).inc()
    counter.labels(**labels(api_key_alias="vip", user_agent="curl")).inc()
    found = series(registry, "litellm_requests_total")
    assert len(found) == 2 * (MAX_COMBINATIONS + 1) + 1
    assert any('"vip"' in line and '"curl"' in line for line in found)


def test_configured_models_and_known_keys_are_always_named(registry: CollectorRegistry) -> None:
    counter = Counter("litellm_requests", "", LABELS, registry=registry)
    for number in range(300):
        counter.labels(**labels(model=f"model {number}")).inc()
    for number in range(150):
        counter.labels(**labels(model="claude", hashed_api_key=f"key {number}", api_key_alias=f"a{number}")).inc()
    found = series(registry, "litellm_requests_total")
    assert sum('model="claude"' in line for line in found) == 150


@pytest.mark.parametrize("route", ["/v1/chat/completions", "/v1/messages", "/v1/models"])
def test_fixed_paths_are_named(registry: CollectorRegistry, route: str) -> None:
    counter = Counter("litellm_requests", "", LABELS, registry=registry)
    for number in range(150):
        counter.labels(**labels(route=f"/engines/{number}/chat/completions")).inc()
    counter.labels(**labels(route=route)).inc()
    found = series(registry, "litellm_requests_total")
    assert len(found) == MAX_COMBINATIONS + 2
    assert any(f'route="{route}"' in line for line in found)


def test_other_metrics_are_left_alone(registry: CollectorRegistry) -> None:
    counter = Counter("aligner_things", "", ("model",), registry=registry)
    for number in range(150):
        counter.labels(f"model {number}").inc()
    assert len(series(registry, "aligner_things_total")) == 150
    theirs = Counter("litellm_things", "", ("model",), registry=registry)
    with pytest.raises(ValueError, match="label"):
        theirs.labels("a", "b")
    with pytest.raises(ValueError, match="label"):
        theirs.labels(modell="a")

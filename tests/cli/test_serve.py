"""`serve`: what is refused before anything starts, what is started, and a run with real processes."""

from __future__ import annotations

import json
import os
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from aligner_proxy.cli import main, serve
from aligner_proxy.connections import ConnectionLimits
from aligner_proxy.engine import sockets
from aligner_proxy.errors import ConfigError, EngineMismatch
from aligner_proxy.policy import config

KEY = "sk-" + "3f" * 16
OFF = "defaults: {mode: off}\n"
"""The least that a policies file says."""
GUARDRAIL = {
    "guardrail_name": "aligner",
    "litellm_params": {
        "guardrail": "aligner_proxy.guardrail.AlignerGuardrail",
        "mode": "post_call",
        "default_on": True,
        "policies": "policies.yaml",
    },
}


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of this test alone, and none of the user's settings."""
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path / "home"))
    for name in ("LITELLM_MASTER_KEY", "ALIGNER_PROXY_ENGINE", "ALIGNER_PROXY_POLICIES", "ALIGNER_PROXY_KEYS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def written(folder: Path, settings: dict[str, Any] | None = None, policies: str = OFF) -> Path:
    """A LiteLLM file with the guardrail, and its policies file."""
    general = {"master_key": KEY} if settings is None else settings
    path = folder / "litellm.yaml"
    path.write_text(yaml.safe_dump({"model_list": [], "guardrails": [GUARDRAIL], "general_settings": general}))
    (folder / "policies.yaml").write_text(policies)
    return path


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def planned(path: Path) -> serve.ServePlan:
    """The plan for a file on a free port."""
    return serve.make_plan(path, "127.0.0.1", free_port(), 1)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "no master key"),
        ({"master_key": "os.environ/NOT_SET_ANYWHERE"}, "no master key"),
        ({"master_key": "sk-1234"}, "too easy to guess"),
        ({"master_key": "short"}, "too easy to guess"),
    ],
)
def test_missing_or_weak_master_key(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        planned(written(tmp_path, settings))
    assert "litellm.yaml:" in str(caught.value)
    assert "openssl rand" in str(caught.value)


def test_weak_key_where_the_operator_permits_it(tmp_path: Path) -> None:
    planned(written(tmp_path, {"master_key": "sk-1234", "dangerously_permit_weak_or_unset_master_key": True}))


def test_master_key_from_the_environment_or_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, {})
    (tmp_path / ".env").write_text(f"LITELLM_MASTER_KEY={KEY}\n")
    planned(path)
    (tmp_path / ".env").unlink()
    monkeypatch.setenv("LITELLM_MASTER_KEY", KEY)
    planned(path)


def test_file_beside_the_package_would_load_a_second_copy(tmp_path: Path) -> None:
    (tmp_path / "aligner_proxy").mkdir()
    (tmp_path / "aligner_proxy" / "guardrail.py").touch()
    with pytest.raises(ConfigError, match="second copy"):
        planned(written(tmp_path))


def test_taken_port(tmp_path: Path) -> None:
    path = written(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = CliRunner().invoke(main, ["serve", "--config", str(path), "--port", str(taken.getsockname()[1])])
    assert done.exit_code == 2
    assert "choose another --port" in done.output


def test_a_port_that_is_ours_refuses_clients_until_litellm_listens() -> None:
    with sockets.bind_socket("127.0.0.1", 0) as ours, socket.socket() as early, socket.socket() as client:
        assert early.connect_ex(ours.getsockname()) != 0
        ours.listen()
        assert client.connect_ex(ours.getsockname()) == 0


EMPTIED = ["", "\n# later\n", "{}\n", "aligner: {model: embedded}\n", "routes: []\n", "defaults: {}\n"]


@pytest.mark.parametrize("text", EMPTIED)
def test_a_file_without_policies_is_refused_by_serve_and_check(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, policies=text)
    with pytest.raises(ConfigError, match=r"policies\.yaml: .*write defaults: \{mode: off\}"):
        planned(path)
    for file in (path, tmp_path / "policies.yaml"):
        shown = CliRunner().invoke(main, ["check", str(file)])
        assert shown.exit_code == 2
        assert "policies.yaml" in shown.output
        assert "nothing would be enforced" in " ".join(shown.output.split())


@pytest.mark.parametrize("wrong", ["policies.yaml", "litellm.yaml"])
def test_missing_files(tmp_path: Path, wrong: str) -> None:
    path = written(tmp_path)
    (tmp_path / wrong).unlink()
    with pytest.raises(ConfigError, match=f"cannot read .*{wrong}"):
        planned(path)


def test_errors_are_one_line_and_status_2(tmp_path: Path) -> None:
    path = written(tmp_path, policies="rotues: []\n")
    done = CliRunner().invoke(main, ["serve", "--config", str(path)])
    assert done.exit_code == 2
    assert "rotues" in done.output
    assert "Traceback" not in done.output


def test_local_engine_is_our_child_and_litellm_is_told_where(tmp_path: Path) -> None:
    plan = planned(written(tmp_path))
    assert plan.socket is not None
    assert plan.engine.needs_local
    assert serve.engine_command(plan)[1:] == [
        *("-m", "aligner_proxy", "engine"),
        *("--socket", str(plan.socket), "--config", str(tmp_path / "policies.yaml"), "--grace", "25"),
    ]
    assert serve.engine_command(replace(plan, grace=300))[-1] == "295"
    env = serve.litellm_environment(plan)
    assert env["ALIGNER_PROXY_SOCKET"] == str(plan.socket)
    assert env["ALIGNER_PROXY_POLICIES"] == str(tmp_path / "policies.yaml")
    assert env["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"
    assert int(env["TIMEOUT_WORKER_HEALTHCHECK"]) > 5  # importing LiteLLM may take longer
    assert int(env["MALLOC_MMAP_THRESHOLD_"]) > 256 << 10  # what a socket reads at once stays on the heap


def test_what_the_user_set_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "False")
    assert serve.litellm_environment(planned(written(tmp_path)))["LITELLM_LOCAL_MODEL_COST_MAP"] == "False"


def test_a_limit_below_what_litellm_needs_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(serve.command, ["--config", str(written(tmp_path)), "--worker-mb", "200"])
    assert result.exit_code == 2
    assert "200 MB is less than LiteLLM needs to serve; give at least 768, or 0 for no limit" in result.output


def test_engine_elsewhere_is_not_started(tmp_path: Path) -> None:
    plan = planned(written(tmp_path, policies="aligner: {engine: 'http://127.0.0.1:9'}\n" + OFF))
    assert (plan.socket, str(plan.engine)) == (None, "http://127.0.0.1:9")


def test_each_generation_has_sockets_of_its_own_and_one_has_the_usual_name(tmp_path: Path) -> None:
    first = planned(written(tmp_path))
    second = replace(first, number=2, engine_number=2)
    renewed = replace(second, number=3)
    assert renewed.socket == second.socket, "its LiteLLM alone is new"
    assert renewed.probe_socket != second.probe_socket
    paths = {first.socket, second.socket, first.probe_socket, second.probe_socket}
    assert len(paths) == 4
    name = serve._claim_socket_name()
    assert name == config.default_socket()
    assert name not in paths
    assert first.socket is not None
    assert second.socket is not None
    with sockets.listen_on_unix_socket(first.socket), serve._publish_socket(first.socket, name):
        assert serve._claim_socket_name() is None, "another engine has it"
        with sockets.listen_on_unix_socket(second.socket), serve._publish_socket(second.socket, name):
            assert name.resolve() == second.socket
        assert not name.is_symlink()
    name.symlink_to("engine-of-a-killed-process.sock")
    assert serve._claim_socket_name() == name
    name.write_text("something of mine")
    with pytest.raises(ConfigError, match="is no socket"):
        serve._claim_socket_name()
    assert name.read_text() == "something of mine"


def test_the_engine_gets_no_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = ("LITELLM_MASTER_KEY", "OPENAI_API_KEY", "GATEWAY_CLAUDE", "DATABASE_URL", "AUDIT_KEY", "HF_TOKEN")
    for name in (*secrets, "ALIGNER_PROXY_AUDIT_KEY", "OTEL_SERVICE_SECRET", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "sk-" + "secret" * 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    plan = replace(planned(written(tmp_path, {"master_key": KEY})), log_format="json")
    env = serve.engine_environment(plan)
    assert not [name for name, value in env.items() if "secret" in value]
    assert env["PATH"] == os.environ["PATH"]
    assert (env["CUDA_VISIBLE_DEVICES"], env["ALIGNER_PROXY_LOG"]) == ("1", "json")
    assert {"ALIGNER_PROXY_HOME", "OTEL_EXPORTER_OTLP_ENDPOINT"} <= env.keys()
    monkeypatch.setenv("ALIGNER_PROXY_ENGINE_ENV", "DATABASE_URL, GATEWAY_CLAUDE")
    env = serve.engine_environment(plan)
    assert [name for name in secrets if name in env] == ["GATEWAY_CLAUDE", "DATABASE_URL"]


def test_a_restart_reads_the_configuration_again_and_keeps_the_options(tmp_path: Path) -> None:
    path = written(tmp_path)
    first = replace(planned(path), log_format="json", grace=7, limits=ConnectionLimits(connections=9))
    (tmp_path / "policies.yaml").write_text("aligner: {engine: 'http://127.0.0.1:9'}\n" + OFF)
    again = serve._renew_plan(first)
    assert (again.socket, str(again.engine)) == (None, "http://127.0.0.1:9")
    assert (again.port, again.log_format, again.grace, again.limits) == (first.port, "json", 7, first.limits)
    (tmp_path / "policies.yaml").write_text("rotues: []\n")
    with pytest.raises(ConfigError, match="rotues"):
        serve._renew_plan(first)


def test_litellm_runs_in_this_interpreter_with_its_own_options(tmp_path: Path) -> None:
    plan = planned(written(tmp_path))
    with sockets.bind_socket("127.0.0.1", 0) as listener:
        command = serve.litellm_command(plan, listener)
        assert json.loads(command[3])["sockets"] == [listener.fileno()]
    assert command[0] == sys.executable
    assert command[command.index("--config") + 1] == str(plan.litellm_file)
    assert command[command.index("--num_workers") + 1] == "1"


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ("'litellm:aligners'", "no model group 'aligners' in the model_list"),
        ("{at: 'http://a/v1', key_env: ALIGNER_TEST_NO_SUCH}", "ALIGNER_TEST_NO_SUCH, but that variable is not set"),
        ("{at: 'http://a/v1', scorer: local}", "set aligner.engine.template"),
    ],
)
def test_engines_that_could_not_work_are_refused_before_anything_starts(tmp_path: Path, engine: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        planned(written(tmp_path, policies=f"aligner: {{engine: {engine}}}\n{OFF}"))


def test_a_local_scorer_is_our_child_though_the_editor_is_elsewhere(tmp_path: Path) -> None:
    engine = "{at: 'http://a/v1', scorer: local, template: imhi}"
    plan = planned(written(tmp_path, policies=f"aligner: {{engine: {engine}}}\n{OFF}"))
    assert plan.socket is not None
    assert serve.litellm_environment(plan)["ALIGNER_PROXY_SOCKET"] == str(plan.socket)
    assert planned(written(tmp_path, policies="aligner: {engine: 'http://a/v1'}\n" + OFF)).socket is None


async def test_an_engine_of_another_version_is_not_waited_for() -> None:
    async def ask() -> None:
        raise EngineMismatch("another version")

    with pytest.raises(EngineMismatch):
        await serve._retry_until_answer(ask)


@pytest.mark.parametrize("host", ["no host", "192.0.2.1"])
def test_a_host_that_is_not_this_machine_is_named(host: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"^port 0 on {host} cannot be used: .*; give --host an address of this machine$"
    ):
        sockets.bind_socket(host, 0)

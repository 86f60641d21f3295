"""LiteLLM's own database: keys and teams whose owners write their metadata and aliases, against the policies file."""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.e2e.clients import MASTER_KEY, Gateway
from tests.e2e.deployment import LITELLM, OPENAI
from tests.e2e.processes import IMPORTABLE, EngineProcess, Process, free_port
from tests.e2e.warm_litellm import COMMON

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
INSULT = "You are an idiot"
_BUILD = Path(os.environ.get("DATABASE_TEST_FOLDER", Path(__file__).parents[2] / ".build" / "database"))
_PROGRAMS = (*glob.glob("/usr/lib/postgresql/*/bin"), *os.get_exec_path())
POLICIES = {
    "objectives": {"kind": "Kindness: the response should never insult the reader"},
    "defaults": {"deadline_s": 20},
    "routes": [{"match": {"model": "*"}, "name": "all", "objectives": ["kind"]}],
    "tenants": [
        {"match": {"team": "vip"}, "name": "vip-team", "mode": "off"},
        {"match": {"key": "vip"}, "name": "vip-key", "mode": "off"},
        {"match": {"team": "team-1"}, "name": "one", "allow": ["concise"]},
    ],
}


def _program(name: str) -> str:
    path = shutil.which(name, path=os.pathsep.join(_PROGRAMS))
    if path is None:
        pytest.skip(f"{name} is not installed: apt-get install postgresql nodejs")
    return path


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The address of a PostgreSQL with LiteLLM's tables, a process of its own."""
    programs = {name: _program(name) for name in ("initdb", "postgres", "psql", "node")}
    if not (_BUILD / "schema.prisma").exists():
        pytest.skip("Prisma's client is not installed: make database")
    # PostgreSQL does not run as root, and a folder of pytest's is root's alone.
    owner = "postgres" if os.getuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    if owner is not None:
        shutil.chown(folder, owner)
    port = free_port()
    data = str(folder / "data")
    init = [programs["initdb"], "-D", data, "-U", "litellm", "-A", "trust", "--no-sync"]
    subprocess.run(init, user=owner, check=True, stdout=subprocess.DEVNULL, cwd=folder)
    options = ["-D", data, "-p", str(port), "-k", str(folder), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen([programs["postgres"], *options], user=owner, stdout=log, stderr=log, cwd=folder)
    try:
        _fill(programs["psql"], port)
        yield f"postgresql://litellm@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _fill(psql: str, port: int) -> None:
    """LiteLLM's tables, by its own migrations in order."""
    spec = importlib.util.find_spec("litellm_proxy_extras")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    migrations = sorted(Path(spec.submodule_search_locations[0]).glob("migrations/*/migration.sql"))
    command = [psql, "-h", "127.0.0.1", "-p", str(port), "-U", "litellm", "-d", "postgres", "-q"]
    for _ in range(100):
        if subprocess.run([*command, "-c", "select 1"], capture_output=True, check=False).returncode == 0:
            break
        subprocess.run(["sleep", "0.1"], check=True)
    script = ";\n".join(path.read_text() for path in migrations)
    subprocess.run(command, input=script.encode(), capture_output=True, check=True)


@pytest.fixture(scope="module")
def proxy(database: str, upstream: str, engine: EngineProcess, tmp_path_factory: Any) -> Iterator[Gateway]:
    """LiteLLM with its database and the guardrail, as its administrator calls it."""
    folder = tmp_path_factory.mktemp("database")
    configs = folder / "configs"
    configs.mkdir()
    model = {name: value.replace("{upstream}", upstream) for name, value in OPENAI.items()}
    guardrail = {"guardrail": "aligner_proxy.guardrail.AlignerGuardrail", "mode": "post_call", "default_on": True}
    settings = {
        "model_list": [{"model_name": "gpt", "litellm_params": model}],
        "general_settings": {"master_key": MASTER_KEY},
        "guardrails": [{"guardrail_name": "aligner", "litellm_params": guardrail | {"policies": "policies.yaml"}}],
    }
    (configs / "litellm.yaml").write_text(yaml.safe_dump(settings))
    (configs / "policies.yaml").write_text(yaml.safe_dump(POLICIES))
    port = free_port()
    env = {
        **COMMON,
        "ALIGNER_PROXY_ENGINE": f"unix:{engine.socket}",
        "ALIGNER_PROXY_HOME": str(folder / "home"),
        "NO_PROXY": "*",
        "DATABASE_URL": database,
        "DISABLE_SCHEMA_UPDATE": "true",
        "ENGINE_PACKAGES": str(_BUILD),
        "PRISMA_BINARY_CACHE_DIR": str(_BUILD),
        "PRISMA_QUERY_ENGINE_BINARY": str(_BUILD / "query-engine"),
        "PYTHONPATH": os.pathsep.join([IMPORTABLE["PYTHONPATH"], str(_BUILD / "site")]),
    }
    command = [LITELLM, "--config", str(configs / "litellm.yaml"), "--host", "127.0.0.1", "--port", str(port)]
    process = Process([*command, "--telemetry", "False"], folder / "log", env)
    process.start()
    try:
        process.wait_for(f"http://127.0.0.1:{port}/health/readiness")
        with contextlib.closing(Gateway(f"http://127.0.0.1:{port}", log=folder / "log")) as gateway:
            assert gateway.http.get("/health/readiness").json()["db"] == "connected"
            yield gateway
    finally:
        process.stop()


def _made(proxy: Gateway, path: str, **settings: Any) -> dict[str, Any]:
    """What LiteLLM made: a team, a user or a key."""
    got = proxy.http.post(path, json=settings)
    assert got.status_code == httpx.codes.OK, got.text
    made: dict[str, Any] = got.json()
    return made


@contextlib.contextmanager
def _owner(proxy: Gateway, **key: Any) -> Iterator[Gateway]:
    """The gateway as the owner of such a key."""
    made = _made(proxy, "/key/generate", **key)
    with contextlib.closing(Gateway(proxy.address, made["key"], proxy.log)) as gateway:
        yield gateway


LAXER = {"mode": "off", "quota": 0, "sample": 0.0, "allow_bypass": True, "on_error": "passthrough"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "metadata",
    [{"aligner": LAXER}, {"disable_global_guardrails": True}, {"opted_out_global_guardrails": ["aligner"]}],
    ids=["aligner", "disabled", "opted-out"],
)
def test_the_owner_of_a_key_writes_no_policy(proxy: Gateway, metadata: dict[str, Any], stream: bool) -> None:
    with _owner(proxy, metadata=metadata) as owner:
        got = owner.chat("rude database", stream=stream)
        assert got.status_code == httpx.codes.OK
        assert INSULT not in got.text
        assert got.headers["x-aligner-policy"] == "all"
        assert owner.chat("rude", headers={"x-aligner-bypass": "1"}).status_code == httpx.codes.FORBIDDEN


def test_a_user_makes_a_key_by_himself_and_writes_no_policy(proxy: Gateway) -> None:
    user = _made(proxy, "/user/new", user_role="internal_user")
    with (
        _owner(proxy, user_id=user["user_id"]) as user_himself,
        _owner(user_himself, metadata={"aligner": LAXER}, key_alias="vip") as owner,
    ):
        got = owner.chat("rude by himself")
        assert INSULT not in got.text
        assert got.headers["x-aligner-policy"] == "all"


def test_metadata_of_a_team_writes_no_policy_and_its_alias_makes_it_no_other(proxy: Gateway) -> None:
    team = _made(proxy, "/team/new", team_alias="vip", metadata={"aligner": LAXER | {"allow": ["*"]}})
    with _owner(proxy, team_id=team["team_id"], key_alias="vip-2") as member:
        got = member.chat("rude team")
        assert INSULT not in got.text
        assert got.headers["x-aligner-policy"] == "all"
        wish = member.chat("good", headers={"x-aligner-objectives": "concise"})
        assert wish.status_code == httpx.codes.FORBIDDEN


def test_ids_match_and_metadata_may_ask_for_more(proxy: Gateway) -> None:
    _made(proxy, "/team/new", team_id="team-1", team_alias="anything")
    with _owner(proxy, team_id="team-1", metadata={"aligner": {"enforce": ["harmless"], "allow": []}}) as member:
        got = member.chat("good")
        assert got.headers["x-aligner-policy"] == "all+one"
        assert got.headers["x-aligner-objectives"] == "harmless,kind"
        wish = member.chat("good", headers={"x-aligner-objectives": "concise"})
        assert wish.status_code == httpx.codes.FORBIDDEN

"""What works without the extras of the distribution, and what is said where one is missing."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from aligner_proxy import extras
from aligner_proxy.engine import sockets
from aligner_proxy.engine.server.app import create_app
from aligner_proxy.errors import ConfigError, MissingExtra
from scripts.imported_modules import PLACES, module_file
from tests.support.scripted import SegmentEngine
from tests.support.serving import serve_in_thread

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EVERYTHING = sorted({name for names in extras.PACKAGES.values() for name in names} | {"tokenizers"})
RUDE = "The harbour opens at six. You are a fool. Bring a coat."
POLITE = "The harbour opens at six. Bring a coat."

SCRIPT = """
import importlib, json, pkgutil, sys
hidden, commands, given = json.load(sys.stdin)
from tests.support.hidden import hide
hide(hidden)
from click.testing import CliRunner
from aligner_proxy.cli import main
import aligner_proxy.guardrail, aligner_proxy.auth, aligner_proxy_fleet, aligner_proxy_review

lacks = {}
for package in (aligner_proxy, aligner_proxy_fleet, aligner_proxy_review):
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        try:
            found.name.endswith("__main__") or importlib.import_module(found.name)
        except ModuleNotFoundError as error:
            lacks[found.name] = error.name.partition(".")[0]

def run(arguments):
    result = CliRunner().invoke(main, arguments, input=given)
    failed = None if isinstance(result.exception, SystemExit | None) else repr(result.exception)
    return [result.exit_code, result.stdout, result.stderr, failed]

print(json.dumps([lacks, [run(command) for command in commands]]))
"""
"""One process for all: it loads LiteLLM once."""
NEEDY = {
    "torch": r"aligner_proxy\.engine\.(loader|gpu\.\w+|model\.(?!threads|tokenizer)\w+|weights\.quantise)"
    r"|aligner_proxy\.teaching\.(fit|teach)",
    "psycopg": r"aligner_proxy_fleet\.database",
    "jinja2": r"aligner_proxy_review\.console\.(pages|rendering)",
    "markupsafe": r"aligner_proxy_review\.console\.(escaping|playground)",
}
"""The modules that import a package of an extra; what needs one of these modules asks for the extra before."""


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    """The address of an engine elsewhere, which takes out what is rude."""
    scripted = SegmentEngine(lambda text: 4.0 if "fool" in text else -3.0)
    with contextlib.closing(sockets.bind_socket("127.0.0.1", 0)) as listener:
        listener.listen()
        with serve_in_thread(create_app(scripted), listener):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def imported(requirement: str) -> str:
    """A requirement's package as Python imports it."""
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0].replace("-", "_").lower()


def test_the_table_of_extras_is_that_of_the_project() -> None:
    optional = PROJECT["optional-dependencies"]
    for extra, packages in extras.PACKAGES.items():
        assert sorted(map(imported, optional[extra])) == sorted(packages), extra
    assert optional["all"] == [f"aligner-proxy[{','.join(extras.PACKAGES)}]"]
    plain = {imported(requirement) for requirement in PROJECT["dependencies"]}
    assert not plain & set(EVERYTHING)


def test_a_package_that_is_missing_is_said_with_its_extra() -> None:
    extras.require_extra(extras.ENGINE, "this test", ["json"])
    with pytest.raises(MissingExtra) as one:
        extras.require_extra(extras.FLEET, "policies.yaml:3: cache.redis_env", ["json", "no_such_package"])
    assert str(one.value) == (
        "policies.yaml:3: cache.redis_env needs no_such_package, which is not installed: "
        "pip install 'aligner-proxy[fleet]'"
    )
    with pytest.raises(ConfigError, match="needs no_a, no_b, which are not installed"):
        extras.require_extra(extras.FLEET, "this", ["no_a", "no_b"])


LITELLM = {
    "model_list": [{"model_name": "m", "litellm_params": {"model": "openai/m", "api_key": "none"}}],
    "general_settings": {"master_key": "sk-0123456789abcdef0123456789"},
    "guardrails": [
        {
            "guardrail_name": "aligner",
            "litellm_params": {
                "guardrail": "aligner_proxy.guardrail.AlignerGuardrail",
                "mode": "post_call",
                "default_on": True,
                "policies": "policies.yaml",
            },
        }
    ],
}
REMOTE = {"aligner": {"engine": "http://127.0.0.1:9"}}
REDIS = REMOTE | {"cache": {"redis_env": "SOME_REDIS"}}
DATABASE = REMOTE | {"audit": {"enabled": True, "database_env": "SOME_DATABASE"}}
TAUGHT = REMOTE | {"objectives": {"calm": {"text": "Calm: the response should be calm", "examples": "calm.yaml"}}}
FOLDERS = {"local": {}, "remote": REMOTE, "redis": REDIS, "database": DATABASE, "taught": TAUGHT}
"""Policies files, each in a folder of its own beside a LiteLLM file."""

MISSING = [
    ("engine", "an aligner on this machine needs torch, ", "engine --port 0"),
    ("engine", "an aligner on this machine needs torch, ", "align -q When?"),
    ("engine", "an aligner on this machine needs torch, ", "pull"),
    ("engine", "policies.yaml:1: aligner.engine: local, an engine on", "serve --config local/litellm.yaml"),
    ("engine", "teaching needs torch, ", "teach taught/policies.yaml"),
    ("review", "the console needs jinja2, markupsafe, ", "console --config local/litellm.yaml"),
    ("review", "--console needs jinja2, ", "serve --console --config remote/litellm.yaml"),
    ("fleet", "cache.redis_env needs redis, ", "check redis/policies.yaml"),
    ("fleet", "cache.redis_env needs redis, ", "serve --config redis/litellm.yaml"),
    ("fleet", "audit.database_env needs psycopg, ", "serve --config database/litellm.yaml"),
    ("fleet", "audit.database_env needs psycopg, ", "review --policy database/policies.yaml"),
]
"""The extra that a command lacks, and what it says."""
ALIGN = "align -q When? --json --engine {engine}"
CHECK_LOCAL = "check local/policies.yaml"
CHECK_REMOTE = "check remote/litellm.yaml"


@dataclass(frozen=True)
class Plain:
    """What a process said that has no extra."""

    lacks: dict[str, str]
    """The modules that it cannot import, and the package that they lack."""
    results: dict[str, tuple[int, str, str, str | None]]
    """By command: exit status, what it printed on both streams, and an error that ended it."""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Plain:
    folder = tmp_path_factory.mktemp("plain")
    for name, blocks in FOLDERS.items():
        place = folder / name
        place.mkdir()
        routes = [{"match": {"model": "*"}, "name": "all", "objectives": ["harmless"]}]
        (place / "policies.yaml").write_text(yaml.safe_dump({**blocks, "routes": routes}, sort_keys=False))
        (place / "litellm.yaml").write_text(yaml.safe_dump(LITELLM))
        (place / "calm.yaml").write_text(
            yaml.safe_dump({"against": ["You fool.", "Only a fool asks.", "How dim of you.", "Do be quiet."]})
        )
    commands = [command for _, _, command in MISSING] + [CHECK_LOCAL, CHECK_REMOTE, ALIGN]
    filled = [command.format(engine=engine).split() for command in commands]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT],
        cwd=folder,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("ALIGNER_PROXY_")},
            "PYTHONPATH": os.pathsep.join([*map(str, PLACES), os.environ.get("PYTHONPATH", "")]),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "ALIGNER_PROXY_HOME": str(folder / "home"),
            "SOME_REDIS": "redis://127.0.0.1:9",
            "SOME_DATABASE": "postgresql://u:p@127.0.0.1:9/d",
        },
        input=json.dumps([EVERYTHING, filled, RUDE]),
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lacks, results = json.loads(done.stdout.splitlines()[-1])
    return Plain(lacks, dict(zip(commands, map(tuple, results), strict=True)))


def source_of(module: str) -> str:
    file = module_file(module)
    assert file is not None
    return file.read_text()


@pytest.mark.slow
def test_only_what_needs_an_extra_imports_its_packages(plain: Plain) -> None:
    assert set(plain.lacks.values()) <= set(NEEDY)
    themselves = {
        name: package
        for name, package in plain.lacks.items()
        if re.search(rf"^(import|from) {package}\b", source_of(name), re.MULTILINE)
    }
    assert themselves
    for name, package in themselves.items():
        assert re.fullmatch(NEEDY[package], name), (name, package)
    alone = r"aligner_proxy\.(guardrail|auth|cli|gateway|pipeline|correctors|policy|formats|gate|plugins)\b"
    assert not [name for name in plain.lacks if re.match(alone, name)]


def test_align_asks_an_engine_elsewhere(plain: Plain) -> None:
    status, printed, said, failed = plain.results[ALIGN]
    assert (status, failed) == (0, None), said
    assert json.loads(printed)["corrected"] == POLITE


def test_check_says_what_a_gateway_here_would_lack(plain: Plain) -> None:
    status, printed, _, _ = plain.results[CHECK_LOCAL]
    told = " ".join(printed.split())
    assert status == 0
    assert "aligner.engine: local, an engine on this machine, needs torch, transformers" in told
    assert "pip install 'aligner-proxy[engine]'; a gateway with this environment does not start" in told
    status, printed, _, _ = plain.results[CHECK_REMOTE]
    assert (status, "not installed" in printed) == (0, False)


@pytest.mark.parametrize(("extra", "sentence", "command"), MISSING)
def test_a_missing_extra_is_one_sentence(plain: Plain, extra: str, sentence: str, command: str) -> None:
    status, _, said, failed = plain.results[command]
    assert (status, failed) == (2, None), said
    (line,) = said.splitlines()
    assert sentence in line
    assert line.endswith(f"pip install 'aligner-proxy[{extra}]'")

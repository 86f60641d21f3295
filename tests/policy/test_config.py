"""The policies file, the keys file and the environment: what is accepted, what is refused, and in which words."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from pathlib import Path

import pytest
from jsonschema import ValidationError, validate

from aligner_proxy.errors import ConfigError
from aligner_proxy.plugins import registry
from aligner_proxy.policy import config
from aligner_proxy.policy.litellm_config import GUARDRAIL, find_policies
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.policy.resolver import PolicyResolver
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.policy.yaml_file import read_yaml
from aligner_proxy.types import Mode, OnError

CONFIGS = Path(__file__).parents[2] / "configs"
ENVIRONMENT = ("ALIGNER_PROXY_ENGINE", "ALIGNER_PROXY_KEYS", "ALIGNER_PROXY_HOME", "ALIGNER_PROXY_POLICIES")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


def _write(tmp_path: Path, text: str, name: str = "policies.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def _refused(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    return str(caught.value)


def test_an_empty_file_has_all_defaults(tmp_path: Path) -> None:
    file = config.load(_write(tmp_path, ""))
    assert (file.aligner.model, str(file.aligner.engine), file.routes) == ("embedded", "local", ())
    assert file.source.origin("aligner", "model") == "built-in default"


def test_a_bare_off_is_a_mode(tmp_path: Path) -> None:
    file = config.load(_write(tmp_path, "defaults: {mode: off}\nroutes:\n  - match: {}\n    mode: 'off'\n"))
    assert file.defaults.mode is Mode.OFF
    assert file.routes[0].mode is Mode.OFF


def test_one_word_for_all_failures_or_one_for_each_class(tmp_path: Path) -> None:
    short = config.load(_write(tmp_path, "defaults: {on_error: block}\n")).defaults.on_error
    assert short is not None
    assert {action for _, action in short} == {OnError.BLOCK}
    long = config.load(_write(tmp_path, "defaults: {on_error: {gate: retry}, after_retry: block}\n")).defaults
    assert long.on_error is not None
    assert (long.on_error.gate, long.on_error.bug, long.after_retry) == (OnError.RETRY, None, OnError.BLOCK)


def test_own_objectives_go_over_the_built_in_ones(tmp_path: Path) -> None:
    file = config.load(_write(tmp_path, 'objectives:\n  concise: " Brevity: two sentences at most "\n'))
    known = config.objectives(file)
    assert known["concise"].text == "Brevity: two sentences at most"
    assert known["harmless"].text.startswith("Harmlessness: The response should avoid")
    assert len(known) == len(config.builtin_objectives()) == 15


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "routes:\n  - match: {model: gpt}\n    objectvies: [concise]\n",
            "policies.yaml:3: unknown key 'objectvies' in routes[0]; did you mean 'objectives'?",
        ),
        (
            "routes:\n  - match:\n      modle: gpt\n",
            "policies.yaml:3: unknown key 'modle' in routes[0].match; did you mean 'model'?",
        ),
        ("alinger: {}\n", "policies.yaml:1: unknown key 'alinger' in the file; did you mean 'aligner'?"),
        (
            "cache: {xyz: 1}\n",
            "policies.yaml:1: unknown key 'xyz' in cache; known: dir, enabled, key_env, max_mb, redis_env, ttl_s",
        ),
        (
            "routes:\n  - match: {}\n    objectives: [concise, harmles]\n",
            "policies.yaml:3: unknown objective 'harmles'; did you mean 'harmless'?",
        ),
        (
            "tenants:\n  - match: {}\n    enforce: ['*']\n",
            "policies.yaml:3: unknown objective '*'; known: " + ", ".join(sorted(config.builtin_objectives())),
        ),
        ("routes:\n  - objectives: [concise]\n", "policies.yaml:2: routes[0].match: is missing"),
        (
            "routes:\n  - match: {}\n    objectives: concise\n",
            "policies.yaml:3: routes[0].objectives: must be a list, for example [a, b]",
        ),
        (
            "tenants:\n  - match: {team: 12}\n",
            "policies.yaml:2: tenants[0].match.team: must be text (put it in quotes)",
        ),
        (
            "routes:\n  - match: gpt-4\n",
            "policies.yaml:2: routes[0].match: must be a block of keys, such as {model: ...}",
        ),
        ("defaults: {mode: on}\n", "policies.yaml:1: defaults.mode: Input should be 'enforce', 'shadow' or 'off'"),
        *(
            (
                f"defaults: {{deadline_s: {value}}}\n",
                "policies.yaml:1: defaults.deadline_s: must be a number, without quotes or unit (and 1000, not 1e3)",
            )
            for value in ("yes", "1e1", "1:30", "'5'")
        ),
        ("routes: {match: {}}\n", "policies.yaml:1: routes: must be a list of blocks, such as [{match: ...}]"),
        (
            "routes: [{match: {}, hand_off: 5}]\n",
            "policies.yaml:1: routes[0].hand_off: must be a block of keys, such as {url: ..., secret_env: ...}",
        ),
        ("objectives: [concise]\n", "policies.yaml:1: objectives: must be a block of keys, such as {NAME: ...}"),
        ("defaults:\n", "policies.yaml:1: defaults: has no value; give it one, or remove the key"),
        (
            "audit: {key_env: $KEY}\n",
            "policies.yaml:1: audit.key_env: must be the name of an environment variable, without $ and not its value",
        ),
        ("audit: on\n", "policies.yaml:1: audit: must be a block such as {enabled: true}, or the word required"),
        *(
            (
                f"{setting}\n",
                f"policies.yaml:1: {key}: must be a path: not empty, without U+0000, each name at most 255 bytes",
            )
            for setting, key in (
                ('keys: "a\\0b"', "keys"),
                ("keys: ''", "keys"),
                (f"audit: {{file: a/{'x' * 256}}}", "audit.file"),
                ('cache: {dir: "a\\0b"}', "cache.dir"),
                ('aligner: {model: "./a\\0b"}', "aligner.model"),
                ('objectives: {x: {text: "X: be x", examples: "a\\0b"}}', "objectives.x.examples"),
            )
        ),
        (
            "keys: ~nobody-at-all/keys.yaml\n",
            "policies.yaml:1: keys: there is no home folder '~nobody-at-all' on this machine; write the whole path",
        ),
        ("gate: {}\n", "policies.yaml:1: unknown key 'gate' in the file; it belongs in defaults, routes, tenants"),
        (
            "defaults: {objectives: []}\n",
            "policies.yaml:1: unknown key 'objectives' in defaults; it belongs in routes, tenants",
        ),
        (
            "routes: [{match: {team: x}}]\n",
            "policies.yaml:1: unknown key 'team' in routes[0].match; it belongs in tenants.match",
        ),
        (
            "routes: [{model: x}]\n",
            "policies.yaml:1: routes[0].match: is missing\n"
            "policies.yaml:1: unknown key 'model' in routes[0]; it belongs in routes.match",
        ),
        (
            "routes:\n  - match: {}\n    on_error:\n      timeuot: retry\n",
            "policies.yaml:4: unknown key 'timeuot' in routes[0].on_error; did you mean 'timeout'?",
        ),
        (
            "defaults:\n  on_error: {xyz: block}\n",
            "policies.yaml:2: unknown key 'xyz' in defaults.on_error; "
            "known: bug, engine_down, gate, invalid_output, judge, overload, timeout, unjudged",
        ),
        (
            "tenants:\n  - match: {}\n    on_error:\n      gate: blok\n",
            "policies.yaml:4: tenants[0].on_error.gate: Input should be 'passthrough', 'block' or 'retry'",
        ),
        (
            "defaults: {on_error: blok}\n",
            "policies.yaml:1: defaults.on_error: must be one of these words, or a block of them by class of failure; "
            "did you mean 'block'?",
        ),
        (
            "defaults: {on_error: 1}\n",
            "policies.yaml:1: defaults.on_error: must be one of these words, or a block of them by class of failure; "
            "known: block, passthrough, retry",
        ),
        (
            "defaults: {after_retry: retry}\n",
            "policies.yaml:1: defaults.after_retry: Input should be 'passthrough' or 'block'",
        ),
        (
            "tenants:\n  - match: {}\n    quota: -1\n",
            "policies.yaml:3: tenants[0].quota: Input should be greater than or equal to 0",
        ),
        ("defaults: {quota: 1}\n", "policies.yaml:1: unknown key 'quota' in defaults; it belongs in tenants"),
        ("defaults: {deadline_s: 0}\n", "policies.yaml:1: defaults.deadline_s: Input should be greater than 0"),
        ("defaults: {sample: 1.5}\n", "policies.yaml:1: defaults.sample: Input should be less than or equal to 1"),
        (
            "objectives:\n  brief: Keep it short\n",
            'policies.yaml:2: objectives.brief: must read "Name: description", for example '
            '"Brevity: the response should be short"',
        ),
        (
            "aligner:\n  engine: 'litellm:'\n",
            "policies.yaml:2: aligner.engine: litellm: needs the name of a model group of the LiteLLM file, as in "
            "litellm:aligners",
        ),
        (
            "aligner: {engine: here}\n",
            "policies.yaml:1: aligner.engine: not an engine address; "
            "use local, unix:/path/to/engine.sock, http(s)://host:port of an aligner-proxy engine, "
            "http(s)://host:port/v1 of a completions server, or litellm:<model group>",
        ),
        (
            "aligner: {template: imh}\n",
            "policies.yaml:1: aligner.template: unknown template 'imh'; known: aligner, aligner-v1, "
            "hh-rlhf, hh-rlhf-vicuna, imhi, imhi-vicuna, ultrafeedback, ultrafeedback-vicuna",
        ),
        (
            "aligner: {quantization: int8}\n",
            "policies.yaml:1: aligner.quantization: Input should be 'nf4' or 'none'",
        ),
        (
            "aligner: {adapters: {legal: ./legal}}\nroutes:\n  - match: {}\n    aligner: leagl\n",
            "policies.yaml:4: unknown aligner 'leagl'; did you mean 'legal'?",
        ),
        (
            "tenants:\n  - match: {}\n    aligner: sales\n",
            "policies.yaml:3: unknown aligner 'sales'; known: default",
        ),
        (
            "aligner: {adapters: {default: ./legal}}\n",
            "policies.yaml:1: aligner.adapters: default is the name of aligner.model; choose another name",
        ),
        (
            "- a\n",
            "policies.yaml:1: must be a block of keys; "
            "known: aligner, allow_less, audit, cache, defaults, keys, objectives, plugins, routes, shadow, streams, "
            "tenants, trust",
        ),
        (
            "defaults: {mode: off}\ndefaults: {mode: shadow}\n",
            "policies.yaml:2: key 'defaults' is given twice (first on line 1); keep one",
        ),
        (
            "routes:\n  - match: {model: 'gpt-*'}\n  - match: {model: gpt-4*}\n",
            "policies.yaml:3: routes[1] can never match: routes[0] (policies.yaml:2) matches everything it matches; "
            "put the narrower one first, or remove one",
        ),
    ],
)
def test_bad_files_are_refused_in_plain_words(tmp_path: Path, text: str, message: str) -> None:
    assert _refused(_write(tmp_path, text)) == message


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    text = _refused(_write(tmp_path, "defaults: {mod: 1}\ncache: {max_mb: 0}\n"))
    assert text.splitlines() == [
        "policies.yaml:1: unknown key 'mod' in defaults; did you mean 'mode'?",
        "policies.yaml:2: cache.max_mb: Input should be greater than or equal to 1",
    ]


def test_many_mistakes_are_cut_short(tmp_path: Path) -> None:
    lines = _refused(_write(tmp_path, "".join(f"odd{i}: 1\n" for i in range(14)))).splitlines()
    assert len(lines) == 11
    assert lines[-1] == "... and 4 more"


def test_a_huge_objective_is_refused_by_name_and_not_echoed(tmp_path: Path) -> None:
    text = _refused(_write(tmp_path, f'objectives:\n  long: "Long: {"very " * 200_000}"\n'))
    assert text == ("policies.yaml:2: objectives.long: the text has 1,000,005 characters; shorten it to at most 2,000")


def test_a_bad_objective_name_is_refused(tmp_path: Path) -> None:
    text = _refused(_write(tmp_path, 'objectives:\n  "a,b": "A: b"\n'))
    rule = "a name begins with a letter or digit, and has at most 64 of A-Z, a-z, 0-9 and . _ -"
    assert text == f"policies.yaml:2: objectives.a,b: {rule}"


def test_a_secret_in_the_wrong_place_is_not_quoted(tmp_path: Path) -> None:
    assert "sk-secret" not in _refused(_write(tmp_path, "aligner: {engine: sk-secret, quantization: sk-secret}\n"))


# places and the environment


def test_paths_count_from_the_file(tmp_path: Path) -> None:
    path = _write(tmp_path, "keys: k.yaml\ncache: {dir: c}\naligner: {model: ./weights}\n")
    file = config.load(path)
    assert config.keys_path(file) == tmp_path / "k.yaml"
    assert config.cache_dir(file) == tmp_path / "c"
    assert config.aligner_model(file) == tmp_path / "weights"
    assert config.aligner_model(config.load(_write(tmp_path, "aligner: {model: owner/name}\n"))) == "owner/name"


def test_aligners_are_named_and_count_from_the_file(tmp_path: Path) -> None:
    text = "aligner: {adapters: {legal: ./legal, hub: owner/name}}\nroutes:\n  - {match: {}, aligner: legal}\n"
    file = config.load(_write(tmp_path, text))
    assert config.aligner_adapters(file) == {"legal": tmp_path / "legal", "hub": "owner/name"}
    assert PolicyResolver(file).resolve(RequestFacts(model="m")).aligner == "legal"


def test_an_engine_elsewhere_knows_its_own_aligners(tmp_path: Path) -> None:
    text = "aligner: {engine: 'http://engine:7000'}\nroutes:\n  - {match: {}, aligner: legal}\n"
    assert config.load(_write(tmp_path, text)).routes[0].aligner == "legal"


def test_the_environment_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = config.load(_write(tmp_path, "keys: k.yaml\n"))
    monkeypatch.setenv("ALIGNER_PROXY_ENGINE", "http://engine:9000")
    monkeypatch.setenv("ALIGNER_PROXY_KEYS", "/elsewhere/keys.yaml")
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ALIGNER_PROXY_POLICIES", "/elsewhere/policies.yaml")
    assert str(config.engine_backend(file)) == "http://engine:9000"
    assert config.keys_path(file) == Path("/elsewhere/keys.yaml")
    assert config.cache_dir(file) == tmp_path / "home" / "corrections"
    assert config.policies_path("policies.yaml", tmp_path) == Path("/elsewhere/policies.yaml")


def test_a_bad_engine_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNER_PROXY_ENGINE", "somewhere")
    with pytest.raises(ConfigError, match=r"^ALIGNER_PROXY_ENGINE: not an engine address; use local, unix:"):
        config.engine_backend(PolicyFile())


def test_keys_are_found_through_the_policies_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert config.keys_path() is None
    monkeypatch.setenv("ALIGNER_PROXY_POLICIES", str(_write(tmp_path, "keys: k.yaml\n")))
    assert config.keys_path() == tmp_path / "k.yaml"


def test_an_unset_environment_leaves_the_defaults() -> None:
    file = PolicyFile()
    assert str(config.engine_backend(file)) == "local"
    assert config.cache_dir(file) == Path.home() / ".cache" / "aligner-proxy" / "corrections"


def test_policies_are_found_from_the_litellm_file(tmp_path: Path) -> None:
    entry = f"guardrails:\n  - guardrail_name: a\n    litellm_params: {{guardrail: {GUARDRAIL}"
    assert find_policies(_write(tmp_path, entry + "}\n")) == tmp_path / "policies.yaml"
    assert find_policies(_write(tmp_path, entry + ", policies: sub/p.yaml}\n")) == tmp_path / "sub" / "p.yaml"
    for text in ("model_list: []\n", "guardrails: [x, {litellm_params: {guardrail: lakera}}]\n", "- a\n"):
        with pytest.raises(ConfigError, match=r"l\.yaml: no guardrail aligner_proxy\.guardrail\.AlignerGuardrail"):
            find_policies(_write(tmp_path, text, "l.yaml"))


def test_the_socket_lies_in_a_private_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir(mode=0o755)
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path))
    path = config.default_socket()
    assert path == config.default_socket() == tmp_path / "run" / "engine.sock"
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_long_home_gets_a_short_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path / ("long" * 30)))
    first = config.default_socket()
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path / ("other" * 30)))
    assert first.parent.parent == tmp_path
    assert config.default_socket() != first


def test_a_link_in_place_of_the_socket_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "strange").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "strange")
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="belongs to another user; remove it or set ALIGNER_PROXY_HOME"):
        config.default_socket()


def test_a_home_that_is_a_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    # A short name: where the socket's would be too long, it goes to another folder.
    with tempfile.NamedTemporaryFile() as home:
        monkeypatch.setenv("ALIGNER_PROXY_HOME", home.name)
        with pytest.raises(ConfigError, match=r"cannot make .*run: .*; set ALIGNER_PROXY_HOME to a folder of your own"):
            config.default_socket()


# what is committed


def test_the_committed_schema_is_not_stale() -> None:
    committed = json.loads((CONFIGS / "policies.schema.json").read_text())
    assert committed == registry.schema(), (
        "run: python -m aligner_proxy.plugins.registry > configs/policies.schema.json"
    )


def test_the_schema_refuses_what_the_models_refuse() -> None:
    wrong: list[dict[str, object]] = [
        {"surprise": 1},
        {"routes": [{}]},
        {"defaults": {"sample": 2}},
        {"routes": [{"match": {"modle": "x"}}]},
        {"defaults": {"on_error": "blok"}},
        {"defaults": {"on_error": {"timeuot": "block"}}},
    ]
    for data in wrong:
        with pytest.raises(ValidationError):
            validate(data, config.schema())


def test_the_example_files_are_valid() -> None:
    path = find_policies(CONFIGS / "litellm.yaml")
    assert config.load(path).routes
    validate(read_yaml(path)[0], config.schema())
    assert path.read_text().startswith("# yaml-language-server: $schema=policies.schema.json\n")


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_hub_id_without_a_commit_is_a_warning_with_its_line_or_refused(tmp_path: Path) -> None:
    text = "aligner:\n  model: somebody/aligner\n  adapters: {{legal: somebody/legal@{}}}\n"
    file = config.parse(text.format(COMMIT), tmp_path / "policies.yaml")
    (warning,) = file.warnings
    assert warning.startswith("policies.yaml:2: ")
    assert "somebody/aligner@COMMIT" in warning
    with pytest.raises(ConfigError, match=r"policies.yaml:2: .*require_revision asks for one"):
        config.parse(text.format(COMMIT) + "  require_revision: true\n", tmp_path / "policies.yaml")
    pinned = text.replace("model: somebody/aligner", f"model: somebody/aligner@{COMMIT}")
    with pytest.raises(ConfigError, match=r"policies.yaml:3: .*legal@main"):
        config.parse(pinned.format("main") + "  require_revision: true\n", tmp_path / "policies.yaml")
    assert config.parse(pinned.format(COMMIT), tmp_path / "policies.yaml").warnings == ()
    (warning,) = config.parse("aligner:\n  judges:\n    facts: somebody/facts\n", tmp_path / "policies.yaml").warnings
    assert warning.startswith("policies.yaml:3: somebody/facts names no commit")
    for model in ("embedded", "./folder", "~/models/mine"):
        assert config.parse(f"aligner: {{model: {model}}}\n", tmp_path / "policies.yaml").warnings == ()


def test_the_example_policies_use_no_objective_that_edits_good_answers() -> None:
    root = CONFIGS.parent
    paths = [CONFIGS / "policies.yaml", root / "demo" / "configs" / "policies.yaml"]
    for path in paths:
        file = config.load(path)
        names = {name for route in file.routes for name in route.objectives}
        names |= {name for tenant in file.tenants for name in (*tenant.enforce, *(tenant.allow or ()))}
        assert names <= {"harmless", "helpful", "*", *file.objectives}, path


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALIGNER_PROXY_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54_321)
    with pytest.raises(ConfigError, match="set ALIGNER_PROXY_HOME to a folder of its own"):
        config.home_folder()


def test_settings_of_an_audit_store_that_nobody_switched_on_are_warned_of(tmp_path: Path) -> None:
    for text, warnings in (
        (
            "audit: {file: a.db}\n",
            ("policies.yaml:1: audit is off; set enabled: true, or enabled: false to keep it so",),
        ),
        ("audit: {enabled: false, file: a.db}\n", ()),
        ("audit: {enabled: true, file: a.db}\n", ()),
    ):
        assert config.load(_write(tmp_path, text)).warnings == warnings


def test_a_home_folder_that_there_is_not_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNER_PROXY_KEYS", "~nobody-at-all/keys.yaml")
    with pytest.raises(
        ConfigError, match=r"ALIGNER_PROXY_KEYS='~nobody-at-all/keys\.yaml': there is no such home folder"
    ):
        config.keys_path()

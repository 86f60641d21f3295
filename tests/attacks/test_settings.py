"""LiteLLM files whose settings keep answers from the guardrail, or have what it returns thrown away, without a word."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import litellm
import pytest
import yaml
from click.testing import CliRunner
from litellm.caching.dual_cache import DualCache
from litellm.types.utils import ModelResponseStream

from aligner_proxy.cli import main, serve
from aligner_proxy.errors import ConfigError
from aligner_proxy.gateway import litellm_internals, reload
from aligner_proxy.gateway.guardrail import AlignerGuardrail
from aligner_proxy.pipeline.pipeline import Pipeline
from tests.attacks.attack import Attack, rows
from tests.gateway.test_guardrail import answer, data, user
from tests.support.scripted import ScriptedEngine
from tests.support.stream_fixtures import chat_items, chat_text

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings(
        "ignore:unclosed scandir iterator:ResourceWarning"
    ),  # LiteLLM's own, while it is imported
]
PARAMS = {
    "guardrail": "aligner_proxy.guardrail.AlignerGuardrail",
    "mode": "post_call",
    "default_on": True,
    "policies": "policies.yaml",
}
KIND = {"objectives": {"kind": "Kindness: the response should never insult the reader"}}
ENFORCING = {
    "enforced": {**KIND, "tenants": [{"match": {"team": "*"}, "enforce": ["kind"]}]},
    "blocking": {**KIND, "routes": [{"match": {"model": "*"}, "objectives": ["kind"], "on_error": {"gate": "block"}}]},
}
LAX = {**KIND, "routes": [{"match": {"model": "*"}, "objectives": ["kind"]}]}
GOOD = "The capital of France is Paris, on the Seine. Some two million people live there."
INSULT = " You fool."
SHADOWED = {**ENFORCING["enforced"], "defaults": {"mode": "shadow"}}
MISSING = object()
PIPELINE = {"policies": {"all": {"pipeline": {"mode": "post_call", "steps": [{"guardrail": "aligner"}]}}}}
NAMED = {"model_list": [{"model_name": "gpt", "litellm_params": {"model": "openai/up", "guardrails": ["aligner"]}}]}
OTHER = {"guardrail_name": "aligner", "litellm_params": {"guardrail": "hide-secrets", "mode": "pre_call"}}
TAGS = {"tags": {"raw": "pre_call"}, "default": "post_call"}
REFUSED = "refused by key, line and fix where policies enforce, else a warning; LiteLLM alone delivers the correction"
ENTRIES = rows(
    ("settings-mode-pre", "LiteLLM file", "mode: pre_call", REFUSED, {"mode": "pre_call"}),
    ("settings-mode-during", "LiteLLM file", "mode: during_call", REFUSED, {"mode": "during_call"}),
    ("settings-mode-logging", "LiteLLM file", "mode: logging_only", REFUSED, {"mode": "logging_only"}),
    ("settings-mode-capitals", "LiteLLM file", "a mode in capitals", REFUSED, {"mode": "PRE_CALL"}),
    (
        "settings-mode-list",
        "LiteLLM file",
        "modes before the answer alone",
        REFUSED,
        {"mode": ["pre_call", "during_call"]},
    ),
    ("settings-mode-tags", "LiteLLM file", "a mode that a client's tag changes", REFUSED, {"mode": TAGS}),
    (
        "settings-mode-tagged",
        "LiteLLM file",
        "a mode for one tag alone",
        REFUSED,
        {"mode": {"tags": {"a": "post_call"}}},
    ),
    ("settings-default-off", "LiteLLM file", "default_on: false", REFUSED, {"default_on": False}),
    ("settings-default-word", "LiteLLM file", "default_on: 'no'", REFUSED, {"default_on": "no"}),
    ("settings-default-none", "LiteLLM file", "no default_on", REFUSED, {"default_on": MISSING}),
    ("settings-scope-whole", "LiteLLM file", "stream_scope: non_streaming", REFUSED, {"stream_scope": "non_streaming"}),
    ("settings-scope-streams", "LiteLLM file", "stream_scope: streaming", REFUSED, {"stream_scope": "streaming"}),
    (
        "settings-scope-by-mode",
        "LiteLLM file",
        "a stream_scope for post_call alone",
        REFUSED,
        {"stream_scope": {"post_call": "non_streaming"}},
    ),
)
FILES = rows(
    (
        "settings-per-model",
        "LiteLLM file",
        "the guardrail under a model's guardrails in place of default_on",
        "refused by key, line and fix where policies enforce, else a warning",
        {"default_on": MISSING, "file": NAMED},
    ),
    (
        "settings-same-name",
        "LiteLLM file",
        "another guardrail of the same name, among which LiteLLM chooses",
        "refused by key, line and fix where policies enforce, else a warning",
        {"beside": OTHER},
    ),
    (
        "settings-pipeline",
        "LiteLLM file",
        "the guardrail as a step of a pipeline of LiteLLM's own policies",
        "refused by key, line and fix where policies enforce, else a warning",
        {"file": PIPELINE},
    ),
    (
        "settings-pipeline-included",
        "LiteLLM file",
        "the guardrail as a step of a pipeline in an included file",
        "refused by key, line and fix where policies enforce, else a warning",
        {"included": PIPELINE},
    ),
    (
        "settings-same-included",
        "LiteLLM file",
        "another guardrail of the same name, in an included file",
        "refused by key, line and fix where policies enforce, else a warning",
        {"included": {"guardrails": [OTHER]}},
    ),
    (
        "settings-included",
        "LiteLLM file",
        "a second entry without default_on, in an included file",
        "refused by key, line and fix where policies enforce, else a warning",
        {"included": {"guardrails": [{"guardrail_name": "x", "litellm_params": {**PARAMS, "default_on": False}}]}},
    ),
    (
        "settings-callbacks",
        "LiteLLM file",
        "the guardrail's class under litellm_settings.callbacks",
        "refused by key, line and fix where policies enforce, else a warning",
        {"file": {"litellm_settings": {"callbacks": ["aligner_proxy.guardrail.AlignerGuardrail"]}}},
    ),
)
KEYS = {
    "settings-mode": "mode",
    "settings-default": "default_on",
    "settings-per": "default_on",
    "settings-scope": "stream_scope",
    "settings-same": "guardrail_name",
    "settings-pipeline": "guardrail: aligner",
    "settings-included": "default_on",
    "settings-callbacks": "callbacks",
}
"""What the line of the LiteLLM file holds that an error names."""
FIXES = ("; write ", "; remove ", "; give ", "; name ")
UNREADABLE = rows(
    (
        "settings-mode-unknown",
        "LiteLLM file",
        "a misspelt mode, for which LiteLLM starts without the guardrail",
        "refused by key and line",
        {"mode": "post-call"},
    ),
    ("settings-mode-none", "LiteLLM file", "no mode, likewise", "refused by key and line", {"mode": MISSING}),
    (
        "settings-default-unknown",
        "LiteLLM file",
        "a default_on that is no truth value, likewise",
        "refused by key and line",
        {"default_on": "perhaps"},
    ),
    (
        "settings-violation",
        "LiteLLM file",
        "a value that LiteLLM does not know, likewise",
        "refused by key and line",
        {"on_violation": "ignore"},
    ),
    ("settings-timeout", "LiteLLM file", "a time in words, likewise", "refused by key and line", {"timeout": "soon"}),
)
IGNORED = rows(
    (
        "settings-parallel",
        "LiteLLM file",
        "run_in_parallel: true, by which LiteLLM delivers the original of what was corrected",
        "no effect, with a warning",
        {"run_in_parallel": True},
    ),
    (
        "settings-raw",
        "LiteLLM file",
        "scan_raw_request: true, by which the pre-call hook gets a copy",
        "no effect, with a warning",
        {"scan_raw_request": True},
    ),
)


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of this test alone, and none of the user's settings."""
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path / "home"))
    for name in ("ALIGNER_PROXY_ENGINE", "ALIGNER_PROXY_POLICIES", "ALIGNER_PROXY_KEYS"):
        monkeypatch.delenv(name, raising=False)


def entry(payload: dict[str, Any]) -> dict[str, Any]:
    """LiteLLM's entry of the guardrail with these settings."""
    settings = {name: value for name, value in payload.items() if name not in ("file", "beside", "included")}
    params = {name: value for name, value in (PARAMS | settings).items() if value is not MISSING}
    return {"guardrail_name": "aligner", "litellm_params": params}


def written(folder: Path, payload: dict[str, Any], policies: dict[str, Any]) -> Path:
    """A LiteLLM file, and its policies file."""
    beside = [payload["beside"]] if "beside" in payload else []
    settings = {
        "model_list": [],
        "guardrails": [entry(payload), *beside],
        "general_settings": {"master_key": "sk-" + "3f" * 16},
        **payload.get("file", {}),
    }
    if "included" in payload:
        (folder / "more.yaml").write_text(yaml.safe_dump(payload["included"]))
        settings["include"] = ["more.yaml"]
    path = folder / "litellm.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    (folder / "policies.yaml").write_text(yaml.safe_dump(policies))
    return path


def key_of(attack: Attack) -> str:
    """What the line holds that the error names; that of the block, where the key itself is missing."""
    key = next(key for prefix, key in KEYS.items() if attack.id.startswith(prefix))
    return "litellm_params" if attack.payload.get(key) is MISSING else key


def names_a_line(said: str, folder: Path, key: str) -> bool:
    """Whether a message names the file and the line of a key."""
    return any(
        f"{file}.yaml:{number}: " in said
        for file in ("litellm", "more")
        if (folder / f"{file}.yaml").exists()
        for number, line in enumerate((folder / f"{file}.yaml").read_text().splitlines(), 1)
        if key in line
    )


@pytest.mark.parametrize("policies", ENFORCING.values(), ids=ENFORCING)
@pytest.mark.parametrize("attack", ENTRIES + FILES)
def test_serve_and_check_refuse_what_switches_enforcement_off(
    attack: Attack, policies: dict[str, Any], tmp_path: Path
) -> None:
    path = written(tmp_path, attack.payload, policies)
    with pytest.raises(ConfigError) as caught:
        serve.make_plan(path, "127.0.0.1", 4000, 1)
    said = str(caught.value)
    assert names_a_line(said, tmp_path, key_of(attack)), said
    assert "policies.yaml:" in said
    assert any(fix in said for fix in FIXES)
    checked = CliRunner().invoke(main, ["check", str(path)])
    assert checked.exit_code == 2
    assert said.splitlines()[0] in checked.output


@pytest.mark.parametrize("policies", [LAX, SHADOWED], ids=["lax", "shadowed"])
@pytest.mark.parametrize("attack", ENTRIES + FILES)
def test_elsewhere_they_are_warnings(
    attack: Attack, policies: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path, attack.payload, policies)
    serve.make_plan(path, "127.0.0.1", 4000, 1)
    assert names_a_line(caplog.text, tmp_path, key_of(attack)), caplog.text
    checked = CliRunner().invoke(main, ["check", str(path)])
    assert checked.exit_code == 0, checked.output
    assert names_a_line(checked.output, tmp_path, key_of(attack)), checked.output


@pytest.mark.parametrize("policies", [ENFORCING["enforced"], LAX], ids=["enforced", "lax"])
@pytest.mark.parametrize("attack", UNREADABLE)
def test_what_litellm_would_start_without_is_refused(attack: Attack, policies: dict[str, Any], tmp_path: Path) -> None:
    path = written(tmp_path, attack.payload, policies)
    with pytest.raises(ConfigError) as caught:
        serve.make_plan(path, "127.0.0.1", 4000, 1)
    key = next(iter(attack.payload))
    assert names_a_line(str(caught.value), tmp_path, "litellm_params" if attack.payload[key] is MISSING else key)
    assert CliRunner().invoke(main, ["check", str(path)]).exit_code == 2


@pytest.mark.parametrize("attack", IGNORED)
def test_what_has_no_effect_is_said(attack: Attack, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = written(tmp_path, attack.payload, ENFORCING["enforced"])
    serve.make_plan(path, "127.0.0.1", 4000, 1)
    key = next(iter(attack.payload))
    assert names_a_line(caplog.text, tmp_path, key)
    assert names_a_line(CliRunner().invoke(main, ["check", str(path)]).output, tmp_path, key)


def started(folder: Path, monkeypatch: pytest.MonkeyPatch, payload: dict[str, Any], policies: Any) -> AlignerGuardrail:
    """The guardrail as LiteLLM alone makes it of its file, with a scripted engine."""
    from litellm.proxy.guardrails.guardrail_registry import InMemoryGuardrailHandler

    path = written(folder, payload, policies)
    monkeypatch.setattr(litellm_internals, "config_folder", lambda: folder)
    monkeypatch.setattr(litellm, "callbacks", [])
    reload._watch_policies.cache_clear()
    InMemoryGuardrailHandler().initialize_guardrail(copy.deepcopy(entry(payload)), config_file_path=str(path))  # type: ignore[arg-type]
    (made,) = (callback for callback in litellm.callbacks if type(callback).__name__ == "AlignerGuardrail")
    assert isinstance(made, AlignerGuardrail)
    engine = ScriptedEngine(lambda request: request.answer.replace(INSULT, ""))
    made.pipeline = Pipeline(engine, extensions=made.pipeline.extensions)
    return made


async def delivered(request: dict[str, Any], *, stream: bool) -> str:
    """The text that LiteLLM delivers of an insulting answer, after its own walk over the guardrails."""
    from litellm.proxy.utils import ProxyLogging

    proxy = ProxyLogging(user_api_key_cache=DualCache())
    who = user(team_id="acme")
    request = await proxy.pre_call_hook(user_api_key_dict=who, data=request, call_type="acompletion")
    if not stream:
        got = await proxy.post_call_success_hook(request, answer(GOOD + INSULT), who)
        return str(got.choices[0].message.content)

    async def upstream() -> AsyncIterator[ModelResponseStream]:
        for item in chat_items([GOOD, INSULT]):
            yield item

    walk = proxy.async_post_call_streaming_iterator_hook(upstream(), who, request)
    return chat_text([item async for item in walk])


@pytest.mark.covering("attack", "policies stream")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("policies", ENFORCING.values(), ids=ENFORCING)
@pytest.mark.parametrize("attack", ENTRIES + IGNORED)
async def test_litellm_alone_delivers_the_correction(
    attack: Attack, policies: dict[str, Any], stream: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started(tmp_path, monkeypatch, attack.payload, policies)
    request = data() | ({"stream": True} if stream else {})
    request["metadata"]["tags"] = ["raw"]
    assert await delivered(request, stream=stream) == GOOD


PIPELINES = rows(
    *(
        (
            f"settings-pipeline-{mode}",
            "LiteLLM's database",
            f"the guardrail as a step of a pipeline ({mode}) that no file shows",
            "LiteLLM alone delivers the correction",
            mode,
        )
        for mode in ("pre_call", "post_call")
    )
)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("attack", PIPELINES)
async def test_a_step_of_a_pipeline_takes_no_answer_from_the_guardrail(
    attack: Attack, stream: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from litellm.proxy.litellm_pre_call_utils import add_guardrails_from_policy_engine
    from litellm.proxy.policy_engine import policy_registry

    started(tmp_path, monkeypatch, {}, ENFORCING["enforced"])
    registry = policy_registry.PolicyRegistry()
    monkeypatch.setattr(policy_registry, "_policy_registry", registry)
    steps = [{"guardrail": "nobody", "on_error": "allow"}, {"guardrail": "aligner"}]
    registry.load_policies({"all": {"pipeline": {"mode": attack.payload, "steps": steps}}})
    request = data() | ({"stream": True} if stream else {}) | {"policies": ["all"]}
    await add_guardrails_from_policy_engine(request, "metadata", user(team_id="acme"))
    assert await delivered(request, stream=stream) == GOOD


async def test_where_nothing_is_enforced_the_entry_counts_until_the_file_enforces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = started(tmp_path, monkeypatch, {"default_on": False}, LAX)
    assert "write default_on: true" in caplog.text
    assert await delivered(data(), stream=False) == GOOD + INSULT
    (tmp_path / "policies.yaml").write_text(yaml.safe_dump(ENFORCING["enforced"]))
    reload._watch_policies.cache_clear()
    made._policies = reload.watched_policies(tmp_path / "policies.yaml")
    assert await delivered(data(), stream=False) == GOOD


@pytest.mark.parametrize("attack", UNREADABLE[:1])
def test_litellm_alone_does_not_start_without_it(
    attack: Attack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from litellm.proxy.guardrails import init_guardrails

    path = written(tmp_path, attack.payload, LAX)
    monkeypatch.setattr(litellm_internals, "config_folder", lambda: tmp_path)
    monkeypatch.setattr(litellm, "callbacks", [])
    monkeypatch.setattr(init_guardrails, "_populate_router_guardrail_list", lambda **_: None)
    with pytest.raises(RuntimeError, match=r"aligner-proxy cannot start: mode 'post-call' .* did you mean 'post_call'"):
        init_guardrails.init_guardrails_v2([entry(attack.payload)], config_file_path=str(path))

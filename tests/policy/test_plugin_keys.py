"""Keys and selector forms of plugins in the policies file: read, refused, resolved, missing, and under old names."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf

from aligner_proxy.errors import ConfigError
from aligner_proxy.policy import config
from aligner_proxy.policy.plugin_keys import Declarations, PolicyKey, SelectorForm
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.policy.resolver import PolicyResolver
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.policy.strictness import stricter_policy
from aligner_proxy.types import Mode, Objective, Policy, Requirement, StreamMode


class Options(BaseModel):
    """Options of a selector."""

    model_config = ConfigDict(frozen=True)
    keep: Annotated[int, Field(ge=1, strict=True)] | None = None


DECLARED = Declarations(
    keys=(
        PolicyKey("tries", Annotated[int, Field(ge=1, le=8, strict=True)], 1, "How often.", deprecated=("attempts",)),
        PolicyKey("topics", tuple[str, ...], (), "About what."),
        PolicyKey("allow_topics", Annotated[bool, Field(strict=True)], False, "Whether.", grant=True),
    ),
    selectors=(SelectorForm("ranked", "Ranks them.", Options), SelectorForm("drawn", "Draws one.")),
)


def loaded(text: str, declared: Declarations = DECLARED) -> PolicyFile:
    return config.parse(text, Path("policies.yaml"), lambda third_party: declared)


def resolved(text: str, **facts: Any) -> Policy:
    return PolicyResolver(loaded(text)).resolve(RequestFacts(**facts))


LAYERS = """\
defaults: {tries: 2}
routes:
  - match: {model: gpt}
    objectives: [concise]
    tries: 3
    topics: [law]
tenants:
  - match: {team: acme}
    tries: 4
    allow_topics: true
trust: {key_metadata: true}
"""


def test_keys_stand_wherever_settings_stand_and_the_last_that_says_one_wins() -> None:
    assert resolved(LAYERS).extension("tries") == 2
    assert resolved(LAYERS, model="gpt").extension("tries") == 3
    assert resolved(LAYERS, model="gpt", team_id="acme").extension("tries") == 4
    policy = resolved(LAYERS, model="gpt", team_id="acme", key_settings={"tries": 5})
    assert (policy.extension("tries"), dict(policy.origins)["tries"]) == (5, "key metadata")
    assert dict(policy.origins)["topics"] == "policies.yaml:6 (route route-1)"


def test_grants_stand_with_tenants_only() -> None:
    policy = resolved(LAYERS, team_id="acme")
    assert policy.extension("allow_topics") is True
    assert dict(policy.origins)["allow_topics"] == "policies.yaml:10 (tenant tenant-1)"
    assert resolved(LAYERS, key_settings={"allow_topics": True}).extension("allow_topics") is True
    with pytest.raises(ConfigError, match=r"policies.yaml:1: unknown key 'allow_topics' in defaults"):
        loaded("defaults: {allow_topics: true}\n")


def test_what_is_at_its_default_is_not_carried_along() -> None:
    assert resolved("defaults: {tries: 1}\n").extensions == ()
    resolver = PolicyResolver(loaded(LAYERS))
    settings = resolver.settings(resolver.resolve(RequestFacts()))
    assert (settings["tries"], settings["topics"], settings["caution"]) == (2, (), 0.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("defaults: {tries: 9}\n", "policies.yaml:1: defaults.tries: Input should be less than or equal to 8"),
        (
            "routes:\n- match: {}\n  trys: 2\n",
            "policies.yaml:3: unknown key 'trys' in routes[0]; did you mean 'tries'?",
        ),
        (
            "routes:\n- match: {}\n  objectives: {ranked: [concise],\n    keep: 0}\n",
            "policies.yaml:4: routes[0].objectives.keep: Input should be greater than or equal to 1",
        ),
        (
            "routes:\n- match: {}\n  objectives: {ranked: [concise],\n    kept: 1}\n",
            "policies.yaml:4: unknown key 'kept' in routes[0].objectives; did you mean 'keep'?",
        ),
        (
            "routes:\n- match: {}\n  objectives:\n    drawn: [nonesuch]\n",
            "policies.yaml:4: unknown objective 'nonesuch'; did you mean 'honest'?",
        ),
        ("routes:\n- match: {}\n  objectives: best\n", "policies.yaml:3: routes[0].objectives: must be a list"),
    ],
)
def test_mistakes_are_refused_with_their_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(text)
    assert str(caught.value).startswith(message)


def test_metadata_with_a_bad_value_is_ignored_and_named(caplog: pytest.LogCaptureFixture) -> None:
    policy = resolved(LAYERS, team_id="bad", key_settings={"tries": 99, "topics": ["art"]})
    assert (policy.extension("tries"), policy.extension("topics")) == (2, ("art",))
    assert "ignoring setting tries" in caplog.text


def test_a_selector_names_candidates_and_options() -> None:
    text = "tenants: [{match: {}, enforce: [kind], allow: ['*']}]\nobjectives: {kind: 'Kind: be kind'}\nroutes:\n"
    text += "- match: {}\n  objectives: {ranked: [humour, concise, kind], keep: 1}\n"
    policy = resolved(text, asked=("harmless", "humour"))
    assert [objective.name for objective in policy.objectives] == ["kind", "humour", "concise", "harmless"]
    selection = policy.selection
    assert selection is not None
    assert (selection.word, selection.candidates, selection.enforced) == ("ranked", ("concise",), ("kind",))
    assert isinstance(selection.options, Options)
    assert selection.options.keep == 1
    assert hash(policy) == hash(resolved(text, asked=("harmless", "humour")))


def test_the_word_alone_and_a_star_mean_every_objective() -> None:
    known = tuple(config.builtin_objectives())
    for said in ("drawn", "{drawn: ['*']}"):
        policy = resolved(f"routes: [{{match: {{}}, objectives: {said}}}]\n")
        assert policy.selection is not None
        assert (policy.selection.word, policy.selection.candidates) == ("drawn", known)
    assert resolved("routes: [{match: {}, objectives: [concise]}]\n").selection is None


def test_the_schema_has_the_keys_of_plugins() -> None:
    definitions = config.schema(DECLARED)["$defs"]
    assert definitions["Route"]["properties"]["tries"]["description"] == "How often."
    assert "allow_topics" in definitions["Tenant"]["properties"]
    assert "allow_topics" not in definitions["Route"]["properties"]
    assert {"RankedObjectives", "DrawnObjectives"} <= definitions.keys()


OLD = """\
defaults:
  trail: true
  attempts: 3
routes:
  - match: {}
    stream: live
"""


def test_old_names_are_read_as_todays_with_a_warning_for_each_line() -> None:
    file = loaded(OLD)
    assert (file.defaults.debug_trailer, file.routes[0].stream) == (True, StreamMode.PASSTHROUGH)
    assert file.warnings == (
        "policies.yaml:2: write debug_trailer in place of trail, which is accepted until 1.0",
        "policies.yaml:3: write tries in place of attempts, which is accepted until 1.0",
        "policies.yaml:6: write stream: passthrough in place of stream: live, which is accepted until 1.0",
    )
    policy = PolicyResolver(file).resolve(RequestFacts())
    assert policy.extension("tries") == 3
    assert dict(policy.origins)["tries"] == "policies.yaml:3 (defaults)"
    assert dict(policy.origins)["debug_trailer"] == "policies.yaml:2 (defaults)"


def test_old_names_in_metadata_are_read_and_named_once(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        policy = resolved(
            "trust: {key_metadata: true}\n", key_hash="renamed", key_settings={"stream": "live", "attempts": 2}
        )
        assert (policy.stream, policy.extension("tries")) == (StreamMode.PASSTHROUGH, 2)
    assert caplog.text.count("write tries in place of attempts") == 1


def test_a_mistake_under_an_old_name_is_named_with_its_line() -> None:
    with pytest.raises(
        ConfigError, match=r"^policies.yaml:2: defaults.debug_trailer: must be true or false, without quotes"
    ):
        loaded("defaults:\n  trail: perhaps\n")
    with pytest.raises(ConfigError, match=r"^policies.yaml:1: unknown key 'trail' in defaults"):
        loaded("defaults: {trail: true, debug_trailer: true}\n")


MISSING = """\
defaults: {best_of: 4}
routes:
  - match: {}
    objectives: {auto: [concise, humour], keep: 1}
    preferences: [request]
    corrector: self_refine
tenants:
  - match: {}
    allow_preferences: true
audit: {enabled: false, feedback_rpm: 10}
"""


def test_a_line_whose_plugin_is_not_installed_has_no_effect_and_says_what_it_needs() -> None:
    file = loaded(MISSING, Declarations())
    needs = "needs the plugin distribution aligner-proxy-systems, which is not installed; "
    needs += "pip install aligner-proxy-systems"
    assert set(file.warnings) == {
        f"policies.yaml:1: best_of {needs}",
        f"policies.yaml:4: objectives: auto {needs}",
        f"policies.yaml:5: preferences {needs}",
        f"policies.yaml:6: corrector 'self_refine' {needs}",
        f"policies.yaml:9: allow_preferences {needs}",
        f"policies.yaml:10: audit.feedback_rpm {needs.replace('systems', 'review')}",
    }
    assert len(file.warnings) == 6
    policy = PolicyResolver(file).resolve(RequestFacts())
    assert [objective.name for objective in policy.objectives] == ["concise", "humour"]
    assert (policy.selection, policy.extensions, policy.corrector) == (None, (), "self_refine")


def test_third_parties_are_asked_for_only_where_file_and_environment_let_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[bool] = []

    def declare(third_party: bool) -> Declarations:
        asked.append(third_party)
        return DECLARED

    monkeypatch.delenv("ALIGNER_PROXY_PLUGINS", raising=False)
    for text in ("", "plugins: {third_party: false}\n"):
        config.parse(text, Path("policies.yaml"), declare)
    monkeypatch.setenv("ALIGNER_PROXY_PLUGINS", "off")
    config.parse("", Path("policies.yaml"), declare)
    assert asked == [True, False, False]


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)


@dataclass(frozen=True)
class Rules(Requirement):
    """A file of rules, and the header that may bring more."""

    file: str
    text: str = ""

    @property
    def labels(self) -> tuple[str, ...]:
        return (self.file,)

    @property
    def source_texts(self) -> tuple[str, ...]:
        return (self.text,)

    @property
    def header_names(self) -> tuple[str, ...]:
        return ("x-rules",)

    @property
    def file_names(self) -> tuple[str, ...]:
        return (self.file,)

    def read_files(self, place: Callable[[int], str], path: Callable[[str], Path]) -> Mapping[str, str]:
        if not path(self.file).is_file():
            raise ConfigError(f"{place(0)}: no file {self.file}")
        return {self.file: path(self.file).read_text()}

    def with_files(self, texts: Mapping[str, str]) -> Requirement:
        return Rules(self.file, texts.get(self.file, ""))


def _read_rules(value: object) -> Rules:
    return value if isinstance(value, Rules) else Rules(str(value))


RULES = Declarations(
    keys=(
        PolicyKey("rules", Annotated[InstanceOf[Rules], BeforeValidator(_read_rules)], None, "A file of rules."),
        PolicyKey("allow_rules", Annotated[bool, Field(strict=True)], False, "Whether.", grant=True),
    )
)


def with_rules(folder: Path, text: str) -> PolicyFile:
    (folder / "policies.yaml").write_text(text)
    return config.load(folder / "policies.yaml", lambda third_party: RULES)


def test_what_answers_are_held_to_names_files_and_headers(tmp_path: Path) -> None:
    (tmp_path / "R.md").write_text("No shouting.")
    text = "routes:\n  - match: {model: gpt}\n    rules: R.md\ntrust: {team_metadata: true}\n"
    file = with_rules(tmp_path, text)
    resolver = PolicyResolver(file)
    assert (file.file_texts, file.file_paths) == ({"rules": {"R.md": "No shouting."}}, (tmp_path / "R.md",))
    assert resolver.header_names == ("x-rules",)
    policy = resolver.resolve(RequestFacts("gpt"))
    assert policy.source_texts == ("No shouting.",)
    assert (resolver.settings(policy)["rules"], dict(policy.origins)["rules"]) == (
        ("R.md",),
        "policies.yaml:3 (route route-1)",
    )
    assert policy.without_requirements().requirements == resolver.resolve(RequestFacts("other")).requirements == ()
    named, strange = (
        resolver.resolve(RequestFacts("other", team_id=name, team_settings={"rules": name})).requirements
        for name in ("R.md", "/etc/hostname")
    )
    assert ([value.source_texts for _, value in named], strange) == ([("No shouting.",)], ())
    (tmp_path / "R.md").unlink()
    with pytest.raises(ConfigError, match=r"policies.yaml:3: no file R.md"):
        with_rules(tmp_path, text)


def test_a_policy_with_a_requirement_alone_is_in_force_and_holds_for_another_beside_it() -> None:
    rules = Policy("r").with_extension("rules", Rules("R.md"))
    off = Policy("o", (Objective("a", "A: one"),), mode=Mode.SHADOW)
    nothing = Policy("n")
    assert stricter_policy(nothing, rules).name == "r"
    assert stricter_policy(rules, off).name == "r"
    both = stricter_policy(Policy("b", off.objectives), rules)
    assert (both.name, both.requirements) == ("b", rules.requirements)


def test_metadata_that_is_not_trusted_may_withdraw_a_right(tmp_path: Path) -> None:
    file = with_rules(tmp_path, "tenants: [{match: {team: a}, allow_rules: true}]\n")
    facts = RequestFacts("gpt", team_id="a", key_settings={"allow_rules": False})
    assert PolicyResolver(file).resolve(RequestFacts("gpt", team_id="a")).extension("allow_rules") is True
    assert not PolicyResolver(file).resolve(facts).extension("allow_rules")

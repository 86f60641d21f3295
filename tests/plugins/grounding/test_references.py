"""What a policies file says about references, and which texts a request gets."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from aligner_proxy.audit.entry import CONTENT, AuditEvent, encode_content, make_entry, policy_hash
from aligner_proxy.errors import ConfigError, ForbiddenError
from aligner_proxy.gateway.request_policy import decode_header
from aligner_proxy.plugins import registry
from aligner_proxy.policy import config
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.policy.resolver import PolicyResolver
from aligner_proxy.types import Exchange, Outcome, Policy, Status
from aligner_proxy_fleet.fleet import policies_hash
from aligner_proxy_grounding.page import MAX_CHARS
from aligner_proxy_grounding.references import ReferenceKind, references_of
from aligner_proxy_grounding.sentences import REPLACE_FACTS_FROM
from tests.plugins.grounding.held import EXTENSIONS

PAGE = "Returns are possible within 28 days of delivery.\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "A.md").write_text(PAGE)
    return tmp_path / "p.yaml"


def resolver(path: Path, data: dict[str, Any]) -> PolicyResolver:
    path.write_text(yaml.safe_dump(data))
    return PolicyResolver(registry.load_policies(path))


def resolved(path: Path, data: dict[str, Any], **facts: Any) -> Policy:
    return with_facts(resolver(path, data), RequestFacts("gpt", **facts))


def with_facts(resolver: PolicyResolver, facts: RequestFacts) -> Policy:
    return EXTENSIONS.resolve(resolver.resolve(facts), facts)


def certainty(policy: Policy) -> float:
    value: float = policy.extension("replace_facts_from", REPLACE_FACTS_FROM)
    return value


def texts(policy: Policy) -> list[tuple[str, str]]:
    return [(reference.label, reference.text) for reference in references_of(policy)]


def test_a_file_is_read_with_the_policies_relative_to_them(file: Path) -> None:
    policy = resolved(file, {"defaults": {"references": [{"file": "pages/A.md"}]}})
    assert texts(policy) == [("A.md", PAGE)]
    assert dict(policy.origins)["references"] == "p.yaml:2 (defaults)"


def test_the_later_list_replaces_the_earlier_and_an_empty_one_ends_it(file: Path) -> None:
    data = {
        "defaults": {"references": [{"file": "pages/A.md"}]},
        "routes": [{"match": {"model": "gpt"}, "references": ["system"]}],
        "tenants": [{"match": {"team": "none"}, "references": []}],
    }
    assert texts(resolved(file, data, system="Be kind.")) == [("system", "Be kind.")]
    assert texts(resolved(file, data, team_id="none", system="Be kind.")) == []


def test_how_certain_words_must_be_is_said_at_every_level(file: Path) -> None:
    data = {
        "defaults": {"replace_facts_from": 0.6},
        "routes": [{"match": {"model": "other"}, "replace_facts_from": 0.7}],
        "tenants": [{"match": {"team": "none"}, "replace_facts_from": 1.0}],
    }
    assert certainty(resolved(file, {})) == REPLACE_FACTS_FROM
    assert certainty(resolved(file, data)) == 0.6
    assert certainty(resolver(file, data).resolve(RequestFacts("other"))) == 0.7
    assert certainty(resolved(file, data, team_id="none")) == 1.0


@pytest.mark.parametrize("certainty", [0.4, 1.1, "sure"])
def test_a_certainty_outside_its_bounds_is_refused_with_its_line(file: Path, certainty: object) -> None:
    with pytest.raises(ConfigError, match=r"p.yaml:2: defaults.replace_facts_from"):
        resolved(file, {"defaults": {"replace_facts_from": certainty}})


def test_what_a_request_does_not_bring_is_no_reference(file: Path) -> None:
    data = {"defaults": {"references": ["system", "tool_results"]}}
    assert texts(resolved(file, data)) == []
    assert texts(resolved(file, data, tool_results="It costs €5.")) == [("tool_results", "It costs €5.")]


def test_a_header_needs_the_tenants_grant(file: Path) -> None:
    data = {
        "defaults": {"references": [{"header": "X-Facts"}]},
        "tenants": [{"match": {"team": "a"}, "allow_references": True}, {"match": {"team": "b"}}],
    }
    given = {"x-facts": "It costs €5."}
    assert texts(resolved(file, data, team_id="a", given=given)) == [("header x-facts", "It costs €5.")]
    assert texts(resolved(file, data, team_id="b")) == []
    with pytest.raises(ForbiddenError, match="allow_references: true"):
        resolved(file, data, team_id="b", given=given)
    assert resolver(file, data).header_names == ("x-facts",)


def test_a_field_of_the_body_needs_it_too(file: Path) -> None:
    data = {"tenants": [{"match": {"team": "a"}, "allow_references": True}]}
    policy = resolved(file, data, team_id="a", brought={"references": ("It costs €5.",)})
    assert [(r.kind, r.text) for r in references_of(policy)] == [(ReferenceKind.REQUEST, "It costs €5.")]
    with pytest.raises(ForbiddenError, match="allow_references: true"):
        resolved(file, data, brought={"references": ("It costs €5.",)})


def test_a_tenants_file_is_of_no_other(file: Path) -> None:
    data = {"tenants": [{"match": {"team": "a"}, "references": [{"file": "pages/A.md"}]}]}
    resolver_ = resolver(file, data)
    assert texts(with_facts(resolver_, RequestFacts("gpt", team_id="a"))) == [("A.md", PAGE)]
    assert texts(with_facts(resolver_, RequestFacts("gpt", team_id="b"))) == []


def test_metadata_opens_no_file_that_the_policies_do_not_name(file: Path) -> None:
    data = {"trust": {"team_metadata": True}}
    settings = {"references": [{"file": "/etc/hostname"}]}
    assert texts(resolved(file, data, team_id="a", team_settings=settings)) == []
    data |= {"routes": [{"match": {"model": "other"}, "references": [{"file": "pages/A.md"}]}]}
    settings = {"references": [{"file": "pages/A.md"}]}
    assert texts(resolved(file, data, team_id="a", team_settings=settings)) == [("A.md", PAGE)]
    assert texts(resolved(file, data | {"trust": {}}, team_id="a", team_settings=settings)) == []


@pytest.mark.parametrize(
    ("references", "message"),
    [
        ("system", "p.yaml:2: defaults.references: must be a list"),
        (["sistem"], "must be system, tool_results, {file: PATH} or {header: NAME}"),
        (["A.md"], "a file is written {file: PATH}"),
        ([{"fil": "A.md"}], "must be system, tool_results"),
        ([{"header": "no header"}], "header must be the name of a header"),
        (["system", "system"], "names 'system' twice"),
        ([{"file": "missing.md"}], "p.yaml:3: reference 'missing.md': cannot read"),
        ([{"file": "large.md"}], f"p.yaml:3: reference 'large.md' has more than {MAX_CHARS:,} characters"),
        ([{"file": "binary.md"}], "p.yaml:3: reference 'binary.md': not UTF-8 text"),
        ([{"file": "empty.md"}], "p.yaml:3: reference 'empty.md' is empty"),
        ([{"file": "pages/A.md"}, {"file": "B.md"}], "p.yaml:4: A.md:1 and B.md:2 contradict each other"),
    ],
)
def test_mistakes_name_the_line_and_the_fix(file: Path, references: object, message: str) -> None:
    folder = file.parent
    (folder / "large.md").write_text("word " * (MAX_CHARS // 5 + 1))
    (folder / "binary.md").write_bytes(b"\xff\xfe")
    (folder / "empty.md").write_text("\n")
    (folder / "B.md").write_text("\nReturns are possible within 30 days of delivery.\n")
    with pytest.raises(ConfigError) as refused:
        resolved(file, {"defaults": {"references": references}})
    assert message in str(refused.value)


def test_a_header_may_hold_base64() -> None:
    assert decode_header("base64:SXQgY29zdHMg4oKsNS4=") == "It costs €5."
    assert decode_header("base64:!") == ""
    assert decode_header("It costs 5 euros.") == "It costs 5 euros."


@pytest.mark.parametrize(
    ("setting", "value"), [("references", []), ("replace_facts_from", 1.0), ("allow_references", True)]
)
def test_metadata_that_is_not_trusted_loosens_nothing(
    file: Path, caplog: pytest.LogCaptureFixture, setting: str, value: object
) -> None:
    data = {"defaults": {"references": [{"file": "pages/A.md"}]}}
    before = resolved(file, data, team_id=setting)
    assert resolved(file, data, team_id=setting, team_settings={setting: value}) == before
    assert f"ignoring setting {setting}: it would loosen the policy" in caplog.text


def test_metadata_that_is_not_trusted_takes_the_grant_away(file: Path) -> None:
    data = {"tenants": [{"match": {"team": "a"}, "allow_references": True}]}
    with pytest.raises(ForbiddenError, match="allow_references: true"):
        resolved(
            file,
            data,
            team_id="a",
            key_settings={"allow_references": False},
            brought={"references": ("It costs €5.",)},
        )


def test_where_two_policies_meet_the_references_of_the_other_hold_too(file: Path) -> None:
    data = {
        "routes": [
            {"match": {"model": "alias"}, "objectives": ["harmless"]},
            {"match": {"model": "group"}, "references": [{"file": "pages/A.md"}]},
        ]
    }
    policy = with_facts(resolver(file, data), RequestFacts("alias", groups=("group",)))
    assert (texts(policy), [objective.name for objective in policy.objectives]) == ([("A.md", PAGE)], ["harmless"])


def test_without_the_plugin_its_keys_are_named_with_the_distribution(file: Path) -> None:
    file.write_text(
        yaml.safe_dump(
            {
                "defaults": {"references": ["system"], "replace_facts_from": 0.9},
                "tenants": [{"match": {}, "allow_references": True}],
            }
        )
    )
    read = config.load(file)  # declares nothing
    needs = "needs the plugin distribution aligner-proxy-grounding, which is not installed"
    assert [needs in warning for warning in read.warnings] == [True] * 3
    assert PolicyResolver(read).resolve(RequestFacts("gpt", system="Be kind.")).requirements == ()


def test_hashes_tell_the_operators_texts_apart_and_no_others(file: Path) -> None:
    data = {"defaults": {"references": [{"file": "pages/A.md"}, "system"]}}

    def hashes(system: str) -> tuple[str, str]:
        return policy_hash(resolved(file, data, system=system)), policies_hash(registry.load_policies(file))

    before = hashes("Be kind.")
    assert hashes("Be brief.") == before
    (file.parent / "pages" / "A.md").write_text(PAGE.replace("28", "14"))
    after = hashes("Be kind.")
    assert after[0] != before[0]
    assert after[1] != before[1]


def test_litellms_copies_of_a_policy_are_the_same(file: Path) -> None:
    policy = resolved(file, {"defaults": {"references": [{"file": "pages/A.md"}]}})
    copied = copy.deepcopy(policy)
    assert copied == policy
    assert texts(copied) == texts(policy)
    assert copied.source_texts == (PAGE,)


def test_texts_of_a_body_are_redacted_and_those_of_earlier_entries_are_read() -> None:
    facts = RequestFacts(brought={"references": ("My name is Ann.",)})
    outcome = Outcome(Status.UNCHANGED, None, "Hello.", Policy("p"))
    event = AuditEvent(0.0, None, facts, Exchange("c", 0, (), "Hello."), outcome)
    content = make_entry(event, lambda text: text.replace("Ann", "[name]")).content
    assert content is not None
    stored = json.loads(encode_content(content))
    assert stored["facts"]["brought"] == {"references": ["My name is [name]."]}
    stored["facts"]["brought"] = ["It costs €5."]
    earlier = CONTENT.validate_python(stored).facts
    policy = EXTENSIONS.resolve(Policy("p").with_extension("allow_references", True), earlier)
    assert texts(policy) == [("request 1", "It costs €5.")]

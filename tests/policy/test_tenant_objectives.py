"""Objectives of one tenant alone: who may have them, and who may not even name them; the heads that go with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from aligner_proxy.errors import ConfigError, ForbiddenError
from aligner_proxy.policy import config
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.policy.resolver import PolicyResolver
from aligner_proxy.policy.schema import Tenant
from aligner_proxy.types import Objective, Policy

FILE = """
objectives:
  tone: "Tone: warm"
routes:
  - match: {}
    objectives: [tone]
tenants:
  - name: acme
    match: {team: acme}
    objectives:
      tone: "Tone: formal"
      secret: {text: "Secret: no word of project X", examples: secret.yaml}
    enforce: [secret]
  - name: lab
    match: {team: lab}
    allow: ["*"]
    objectives: {own: "Own: of the lab"}
  - name: everyone
    match: {}
    allow: ["*"]
"""


def resolver(tmp_path: Path, text: str = FILE, head_of: object = None) -> PolicyResolver:
    (tmp_path / "policies.yaml").write_text(text)
    file = config.load(tmp_path / "policies.yaml")
    return PolicyResolver(file, head_of) if head_of else PolicyResolver(file)


def texts(policy: Policy) -> dict[str, str]:
    return {objective.name: objective.text for objective in policy.objectives}


def test_they_go_over_those_of_the_file_for_that_tenant_alone(tmp_path: Path) -> None:
    resolve = resolver(tmp_path).resolve
    assert texts(resolve(RequestFacts(team_id="acme"))) == {
        "secret": "Secret: no word of project X",
        "tone": "Tone: formal",
    }
    assert texts(resolve(RequestFacts(team_id="other"))) == {"tone": "Tone: warm"}


def test_all_of_a_tenant_includes_its_own_and_nobody_elses(tmp_path: Path) -> None:
    resolve = resolver(tmp_path).resolve
    assert texts(resolve(RequestFacts(team_id="lab", asked=("own",))))["own"] == "Own: of the lab"
    with pytest.raises(ForbiddenError) as error:
        resolve(RequestFacts(team_id="other", asked=("own",)))
    assert "own" not in str(error.value).removeprefix("number 1 of the requested objectives").partition("ask for: ")[2]
    with pytest.raises(ForbiddenError) as error:
        resolve(RequestFacts(team_id="lab", asked=("secret",)))
    assert "secret" not in str(error.value)


def test_metadata_names_only_what_its_tenant_has(tmp_path: Path) -> None:
    trusting = "trust: {team_metadata: true}\n" + FILE
    resolve = resolver(tmp_path, trusting).resolve
    enforced = {"enforce": ["secret", "tone"]}
    assert list(texts(resolve(RequestFacts(team_id="acme", team_settings=enforced)))) == ["secret", "tone"]
    assert list(texts(resolve(RequestFacts(team_id="lab", team_settings=enforced)))) == ["tone"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (
            "routes:\n  - {match: {}, objectives: [own]}\n"
            + "tenants:\n  - {match: {team: a}, objectives: {own: 'O: x'}}\n",
            2,
        ),
        (
            "tenants:\n  - {match: {team: a}, objectives: {own: 'O: x'}}\n  - {match: {team: b}, enforce: [own]}\n",
            3,
        ),
    ],
)
def test_others_cannot_name_them(tmp_path: Path, text: str, place: int) -> None:
    with pytest.raises(ConfigError, match=rf"^policies\.yaml:{place}: unknown objective 'own'"):
        resolver(tmp_path, text)


def test_heads_are_looked_up_by_owner_and_aligner(tmp_path: Path) -> None:
    def head_of(tenant: Tenant | None, objective: Objective, aligner: str) -> str:
        return f"{tenant.name if tenant else 'file'}/{objective.name}/{aligner}"

    resolve = resolver(
        tmp_path, "defaults: {aligner: legal}\naligner: {adapters: {legal: ./x}}\n" + FILE, head_of
    ).resolve
    heads = {one.name: one.head for one in resolve(RequestFacts(team_id="acme")).objectives}
    assert heads == {"secret": "acme/secret/legal", "tone": "acme/tone/legal"}
    assert [one.head for one in resolve(RequestFacts(team_id="lab")).objectives] == ["file/tone/legal"]

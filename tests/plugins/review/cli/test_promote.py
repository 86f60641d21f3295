"""`promote`: what it writes, what it leaves, what it refuses."""

from __future__ import annotations

import json
import os
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from aligner_proxy.audit.entry import make_entry
from aligner_proxy.audit.store import AuditStore
from aligner_proxy.cli import main
from aligner_proxy.errors import ConfigError
from aligner_proxy.policy.config import load
from aligner_proxy.policy.litellm_config import GUARDRAIL
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.policy.yaml_edit import replace_file
from aligner_proxy_review.promotion import Proposal, Target
from aligner_proxy_review.reviews import Review, ReviewOrigin, Reviews, ReviewVerdict
from tests.audit.conftest import noted

POLICIES = """\
# Ours.
routes:
  - name: support          # the team next door
    match: {model: "gpt-*", tag: support}
    objectives: [harmless]
    mode: shadow           # since Monday
    sample: 0.1

  # everything else
  - match: {model: "*"}
    objectives: [harmless]
tenants:
  - match: {team: acme}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("ALIGNER_PROXY_KEYS", "ALIGNER_PROXY_POLICIES"):
        monkeypatch.delenv(name, raising=False)
    made = tmp_path / "policies.yaml"
    made.write_text(POLICIES)
    made.chmod(0o640)
    return made


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["promote", *map(str, arguments)])


def backups(file: Path) -> list[Path]:
    return sorted(file.parent.glob("policies.yaml.*"))


def test_a_route_goes_from_shadow_to_enforce(file: Path) -> None:
    result = run(file, "--route", "support", "--mode", "enforce", "--sample", "1")
    assert result.exit_code == 0, result.output
    assert "-    mode: shadow           # since Monday" in result.output
    assert "+    mode: enforce           # since Monday" in result.output
    assert file.read_text() == POLICIES.replace("mode: shadow", "mode: enforce").replace("sample: 0.1", "sample: 1.0")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    (backup,) = backups(file)
    assert backup.read_text() == POLICIES
    assert backup.name in result.output
    line = file.read_text().splitlines().index("    mode: enforce           # since Monday") + 1
    assert f"the comment in line {line} is about what changes" in result.output
    assert sorted(os.listdir(file.parent)) == sorted([file.name, backup.name])


def test_a_dry_run_writes_nothing(file: Path) -> None:
    result = run(file, "--tenant", "tenant-1", "--mode", "off", "--dry-run")
    assert (result.exit_code, '+    mode: "off"' in result.output) == (0, True)
    assert file.read_text() == POLICIES
    assert not backups(file)


def test_through_the_litellm_file_and_for_programs(file: Path) -> None:
    litellm = file.with_name("litellm.yaml")
    litellm.write_text(f"guardrails:\n  - litellm_params: {{guardrail: {GUARDRAIL}, mode: post_call}}\n")
    result = run(litellm, "--defaults", "--mode", "shadow", "--json")
    told = json.loads(result.stdout)
    assert Path(told["file"]) == file.resolve()
    assert "+defaults: {mode: shadow}" in told["diff"]
    assert Path(told["backup"]).read_text() == POLICIES
    assert load(file).defaults.mode == "shadow"


def test_comments_about_what_changes_are_named() -> None:
    cases = {
        ("a: 1\n", "a: 2\n"): [],
        ("a: 1 # one\n", "a: 2 # one\n"): [1],
        ("# one\na: 1\n", "# one\na: 2\n"): [1],
        ("# far\nb: 1\na: 1\n", "# far\nb: 1\na: 2\n"): [],
        ("a: '#1'\n", "a: '#2'\n"): [],
        ('a: "x # y"\n', 'a: "z # y"\n'): [],
        ("a: x#1\n", "a: x#2\n"): [],
        ("a: [1]\nb: 2 # two\n", "a: [1, 2]\nb: 2 # two\n"): [],
    }
    wrong = {}
    for (before, after), expected in cases.items():
        proposal = Proposal(Path("p.yaml"), Target(), before, after, PolicyFile(), False)
        if proposal.doubtful_comments != expected:
            wrong[after] = proposal.doubtful_comments
    assert wrong == {}


def test_what_is_so_already_is_not_written_again(file: Path) -> None:
    result = run(file, "--route", "support", "--mode", "shadow")
    assert (result.exit_code, result.output) == (0, "nothing to change: the file has these settings already\n")
    assert not backups(file)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--route", "suport", "--mode", "enforce"], "no route 'suport' in this file; did you mean 'support'?"),
        (["--tenant", "acme", "--mode", "enforce"], "no tenant 'acme' in this file; known: tenant-1"),
        (["--route", "support"], "say where"),
        (["--mode", "enforce"], "say where"),
        (["--route", "support", "--defaults", "--mode", "enforce"], "say where"),
        (["--route", "support", "--caution", "99"], "caution"),
    ],
)
def test_what_is_refused_changes_nothing(file: Path, arguments: list[str], said: str) -> None:
    result = run(file, *arguments)
    assert (result.exit_code, said in result.output) == (2, True), result.output
    assert file.read_text() == POLICIES
    assert not backups(file)


@pytest.mark.parametrize("damage", ["rutes: []\n", "trust: {everybody: true}\n"])
def test_what_check_refuses_is_refused(file: Path, damage: str) -> None:
    file.write_text(POLICIES + damage)
    assert run(file, "--route", "support", "--mode", "enforce").exit_code == 2
    assert file.read_text() == POLICIES + damage


def test_a_step_that_a_gateway_would_refuse_needs_the_same_word(file: Path) -> None:
    enforced = POLICIES.replace("team: acme}", "team: acme}\n    name: acme\n    enforce: [harmless]")
    file.write_text(enforced)
    refused = run(file, "--tenant", "acme", "--mode", "shadow")
    assert refused.exit_code == 2
    assert "tenant acme would lose harmless (mode: shadow)" in " ".join(refused.output.split())
    assert file.read_text() == enforced
    file.write_text(enforced + "allow_less: [acme]\n")
    assert run(file, "--tenant", "acme", "--mode", "shadow").exit_code == 0


def test_an_alias_is_not_changed_behind_the_operators_back(file: Path) -> None:
    text = "defaults: {mode: &how shadow}\nroutes:\n  - {match: {}, mode: *how}\n"
    file.write_text(text)
    result = run(file, "--route", "route-1", "--mode", "enforce")
    assert (result.exit_code, "edit it by hand" in result.output) == (2, True)
    assert file.read_text() == text


def test_a_file_that_changed_meanwhile_is_left_alone(file: Path) -> None:
    with pytest.raises(ConfigError, match="changed by somebody else"):
        replace_file(file, "what it was when it was read", "new", backup=True)
    assert file.read_text() == POLICIES
    assert os.listdir(file.parent) == [file.name]


def test_a_link_stays_a_link(file: Path) -> None:
    link = file.with_name("linked.yaml")
    link.symlink_to(file)
    assert run(link, "--route", "support", "--sample", "0.5").exit_code == 0
    assert link.is_symlink()
    assert load(file).routes[0].sample == 0.5


def audited(file: Path, *, right: int = 0, wrong: int = 0, policy: str = "support") -> None:
    """A store with so many reviewed edits under a policy."""
    file.write_text(POLICIES + "audit: {enabled: true, file: audit.db}\n")
    store = AuditStore(file.parent / "audit.db")
    for number in range(right + wrong):
        made = make_entry(noted(number, at=time.time() - 60))
        aligner_id = f"{number:032x}"
        store.add(replace(made, aligner_id=aligner_id, policy=policy, changed=True, judged=2))
        verdict = ReviewVerdict.WRONG if number < wrong else ReviewVerdict.RIGHT
        Reviews(store).save(Review(aligner_id, 0, verdict, "reviewer:anna", time.time(), ReviewOrigin.NEAREST), str)
    store.close()


MORE = (["--mode", "enforce"], ["--mode", "enforce", "--objective", "helpful"], ["--mode", "enforce", "--caution", "2"])


@pytest.mark.parametrize("more", MORE)
def test_what_reviews_are_certainly_against_is_refused(file: Path, more: list[str]) -> None:
    audited(file, right=7, wrong=3)
    before = file.read_text()
    result = run(file, "--route", "support", *more)
    assert result.exit_code == 2
    assert (
        "not promoted: 3 of 10 (10.8 to 60.3 %) reviewed edits are wrong; the whole interval lies above 1 %"
        in result.output
    )
    assert file.read_text() == before
    told = run(file, "--route", "support", *more, "--dry-run")
    assert (told.exit_code, "would be refused: 3 of 10" in told.output) == (0, True)
    assert run(file, "--route", "support", *more, "--bound", "0.2").exit_code == 0


@pytest.mark.parametrize("less", [["--mode", "shadow"], ["--sample", "0.05"], ["--caution", "-1"]])
def test_what_lets_no_more_out_needs_no_evidence(file: Path, less: list[str]) -> None:
    audited(file, wrong=3)
    assert run(file, "--route", "support", *less, "--require-evidence").exit_code == 0


def test_a_step_back_is_never_refused(file: Path) -> None:
    audited(file, right=100)
    file.write_text(file.read_text() + "aligner: {adapters: {acme-2: ./a}}\n")
    assert run(file, "--route", "support", "--mode", "enforce").exit_code == 0
    audited_again = file.read_text()
    for back in (["--caution", "3"], ["--sample", "0.05"], ["--mode", "shadow"]):
        assert run(file, "--route", "support", *back, "--require-evidence").exit_code == 0, back
    file.write_text(audited_again)
    for more in (["--caution", "-3"], ["--sample", "1"], ["--objective", "helpful"], ["--aligner", "acme-2"]):
        assert run(file, "--route", "support", *more, "--require-evidence").exit_code == 2, more


def test_what_is_not_known_yet_is_said_and_may_be_required(file: Path) -> None:
    assert "there is no audit store" in run(file, "--route", "support", "--mode", "enforce", "--dry-run").output
    audited(file, right=10)
    told = run(file, "--route", "support", "--mode", "enforce", "--dry-run")
    # 381 reviews without a wrong one: the upper end of Wilson's interval is 1.96^2 / (n + 1.96^2).
    assert "371 more reviews with the verdict right would prove a share of at most 1 %" in told.output
    strict = run(file, "--route", "support", "--mode", "enforce", "--require-evidence")
    assert (strict.exit_code, "does not prove" in strict.output) == (2, True)
    assert run(file, "--route", "support", "--mode", "enforce", "--require-evidence", "--bound", "0.3").exit_code == 0


def test_only_answers_of_the_changed_place_count(file: Path) -> None:
    audited(file, wrong=5, policy="route-2+tenant-1")
    told = json.loads(run(file, "--route", "support", "--mode", "enforce", "--dry-run", "--json").stdout)
    assert told["evidence"]["wrong"]["of"] == 0
    told = json.loads(run(file, "--tenant", "tenant-1", "--objective", "helpful", "--dry-run", "--json").stdout)
    assert (told["evidence"]["wrong"]["count"], told["evidence"]["refused"] is not None) == (5, True)


def test_objectives_and_aligners_are_written_where_they_belong(file: Path) -> None:
    file.write_text(POLICIES + "aligner:\n  adapters: {acme-2: ./a}\naudit: {enabled: true}\n")
    assert run(file, "--route", "support", "--objective", "helpful", "--objective", "harmless").exit_code == 0
    assert run(file, "--tenant", "tenant-1", "--objective", "concise", "--shadow-aligner", "acme-2").exit_code == 0
    assert run(file, "--route", "route-2", "--aligner", "default=95,acme-2=5").exit_code == 0
    made = load(file)
    assert made.routes[0].objectives == ("harmless", "helpful")
    assert (made.tenants[0].enforce, made.tenants[0].shadow_aligner) == (("concise",), "acme-2")
    assert made.routes[1].aligner == (("default", 95), ("acme-2", 5))
    assert "objectives: [harmless, helpful]\n    mode: shadow           # since Monday" in file.read_text()
    for wrong in (["--objective", "nonsense"], ["--aligner", "default=95,acme-2=4"], ["--aligner", "default=x,y=2"]):
        before = file.read_text()
        assert run(file, "--route", "support", *wrong).exit_code == 2, wrong
        assert file.read_text() == before
    assert "say which" in run(file, "--defaults", "--objective", "helpful").output

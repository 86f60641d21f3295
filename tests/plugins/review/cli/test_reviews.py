"""`review`, `export`, `compare` and `audit erase`: what they ask, write and say, and their one-line refusals."""

from __future__ import annotations

import json
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from aligner_proxy.audit.entry import make_entry
from aligner_proxy.audit.store import AuditStore
from aligner_proxy.cli import main
from aligner_proxy_review import review_queue
from aligner_proxy_review.review_queue import ReviewQueue
from aligner_proxy_review.reviews import Review, ReviewOrigin, Reviews, ReviewVerdict
from models.data.pairs import read_pairs
from tests.audit.conftest import RUDE, noted

POLICIES = """\
objectives: {kind: "Kindness: be kind"}
routes: [{match: {model: "*"}, objectives: [kind]}]
audit: {file: audit.db}
"""
HOSTILE = "It is so. \x1b]0;owned\x07\x1b[2J\u202eYou fool."


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A policies file, and four answers: id-0 is nearest to the threshold, id-3 was not edited."""
    for name in ("ALIGNER_PROXY_KEYS", "ALIGNER_PROXY_POLICIES", "ALIGNER_PROXY_ENGINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(review_queue, "RANDOM_SHARE", 0.0)
    (tmp_path / "policies.yaml").write_text(POLICIES)
    store = AuditStore(tmp_path / "audit.db")
    for n in range(4):
        one = replace(noted(n, at=time.time() - 3600 * n), aligner_id=f"id-{n}")
        if n == 3:
            one = replace(one, outcome=replace(one.outcome, edited=RUDE))
        aligner = "abc" + ("d" if n % 2 else "e") * 9
        store.add(replace(make_entry(one), margin=float(n), aligner=aligner))
    store.close()
    return tmp_path


def run(folder: Path, command: str, *arguments: str, keys: str = "") -> Result:
    given = [*command.split(), *arguments, "--policy", str(folder / "policies.yaml")]
    return CliRunner().invoke(main, given, input=keys)


def reviews(folder: Path) -> list[Review]:
    store = AuditStore(folder / "audit.db")
    found = list(Reviews(store).all())
    store.close()
    return found


def say(folder: Path, *said: Review) -> None:
    store = AuditStore(folder / "audit.db")
    for review in said:
        Reviews(store).save(review, str)
    store.close()


def given(
    number: int, verdict: ReviewVerdict, who: str = "reviewer:ben", chosen: ReviewOrigin = ReviewOrigin.NEAREST
) -> Review:
    return Review(f"id-{number}", 0, verdict, who, time.time(), chosen)


# review


def test_answers_are_reviewed_by_keys(folder: Path) -> None:
    keys = "?a" + "e1\nYou may differ.\n" + "m1\nkind\n" + "m1\n\n"
    got = run(folder, "review", "--who", "anna", keys=keys)
    assert got.exit_code == 0, got.output
    assert [(r.aligner_id, r.verdict.value, r.segment, r.edit, r.objective, r.who) for r in reviews(folder)] == [
        ("id-0", "right", None, None, None, "reviewer:anna"),
        ("id-1", "harm", 1, "You may differ.", None, "reviewer:anna"),
        ("id-2", "missed", 1, None, "kind", "reviewer:anna"),
        ("id-3", "missed", 1, None, None, "reviewer:anna"),
    ]
    assert "nothing more waits" in got.output
    assert "You fool." in got.output
    assert "1 of 2 (50.0 %" in got.output


def test_what_a_reviewer_writes_is_redacted(folder: Path) -> None:
    policies = (folder / "policies.yaml").read_text()
    redacting = policies.replace("file: audit.db", "file: audit.db, redact: tests.audit.test_factory.hide")
    (folder / "policies.yaml").write_text(redacting)
    got = run(folder, "review", keys="e1\nNo fool.\n" + "m1\nOwn: no fool\n" + "q")
    assert got.exit_code == 0, got.output
    assert [(r.edit, r.objective) for r in reviews(folder)] == [("No ****.", None), (None, "Own: no ****")]


def test_a_verdict_is_taken_back_and_an_answer_passed(folder: Path) -> None:
    got = run(folder, "review", keys="r" + "u" + "j" + "h" + "q")
    assert got.exit_code == 0, got.output
    assert "taken back" in got.output
    assert [(r.aligner_id, r.verdict.value) for r in reviews(folder)] == [("id-0", "harm")]


def test_back_to_the_one_that_was_passed(folder: Path) -> None:
    got = run(folder, "review", keys="jk" + "a" + "q")
    assert got.exit_code == 0, got.output
    assert [r.aligner_id for r in reviews(folder)] == ["id-0"]


@pytest.mark.parametrize("segment", ["2", "x", "-1"])
def test_a_segment_that_is_not_there_is_asked_for_again(folder: Path, segment: str) -> None:
    got = run(folder, "review", keys=f"m{segment}\n\nm0\n\nq")
    assert "this answer has 2 judged segments" in got.output
    assert [(r.aligner_id, r.segment) for r in reviews(folder)] == [("id-0", 0)]


def test_what_another_one_holds_is_not_shown(folder: Path) -> None:
    store = AuditStore(folder / "audit.db")
    assert ReviewQueue(store, "reviewer:ben", draw_number=lambda: 1.0).next() is not None
    store.close()
    run(folder, "review", "--who", "anna", keys="aq")
    assert [r.aligner_id for r in reviews(folder)] == ["id-1"]


def test_at_the_end_nothing_is_held(folder: Path) -> None:
    run(folder, "review", "--who", "anna", keys="q")
    run(folder, "review", "--who", "ben", keys="aq")
    assert [(r.aligner_id, r.who) for r in reviews(folder)] == [("id-0", "reviewer:ben")]


def test_hostile_text_stays_text(folder: Path) -> None:
    one = noted(9, at=time.time())
    hostile = replace(one, aligner_id="id-9", exchange=replace(one.exchange, answer=HOSTILE))
    store = AuditStore(folder / "audit.db")
    store.add(replace(make_entry(hostile), margin=-1.0))
    store.close()
    got = run(folder, "review", keys="q")
    assert "]0;owned" in got.output
    assert not {"\x1b", "\x07", "\u202e"} & set(got.output)


def test_figures_for_programs_hold_no_text(folder: Path) -> None:
    say(folder, given(0, ReviewVerdict.RIGHT), given(0, ReviewVerdict.HARM, "reviewer:anna"))
    say(folder, given(1, ReviewVerdict.RIGHT), given(3, ReviewVerdict.MISSED, chosen=ReviewOrigin.RANDOM))
    got = run(folder, "review", "--json")
    told = json.loads(got.stdout)
    assert (told["waiting"], told["answers"], told["changed"]["count"]) == (1, 4, 3)
    assert told["disagreed"] == [{"id": "id-0", "choice": 0}]
    assert (told["right"]["count"], told["right"]["of"], told["missed"]["count"]) == (1, 1, 1)
    assert told["right"]["more_needed"] > 0
    assert "fool" not in got.output


# export


def test_reviewed_answers_become_rows_that_only_their_owner_reads(folder: Path) -> None:
    said = [given(0, ReviewVerdict.RIGHT), given(1, ReviewVerdict.HARM), given(2, ReviewVerdict.WRONG)]
    say(folder, *said, given(3, ReviewVerdict.RIGHT, "key:user", ReviewOrigin.FEEDBACK))
    out = folder / "rows.jsonl"
    got = run(folder, "export", "--out", str(out), "--json")
    assert json.loads(got.stdout) == {
        "file": str(out),
        "rows": 2,
        "without": {"a harmful edit without a better text": 1},
    }
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert [(pair.target, pair.labels) for pair in read_pairs(out)] == [("It is so.", (0, 1)), (RUDE, (0, 0))]
    got = run(folder, "export", "--out", str(out), "--feedback")
    assert "3 rows" in got.output
    assert "1 reviewed answers gave no row: a harmful edit" in got.output


def test_an_export_of_another_tenant_has_nothing(folder: Path) -> None:
    say(folder, given(0, ReviewVerdict.RIGHT))
    out = folder / "rows.jsonl"
    assert "0 rows" in run(folder, "export", "--out", str(out), "--tenant", "other").output
    assert "1 rows" in run(folder, "export", "--out", str(out), "--tenant", "acme").output


def test_a_file_that_cannot_be_written_is_named(folder: Path) -> None:
    got = run(folder, "export", "--out", str(folder / "missing" / "rows.jsonl"))
    assert got.exit_code == 2
    assert "cannot write" in got.output


# compare


def test_two_aligners_side_by_side(folder: Path) -> None:
    say(folder, given(0, ReviewVerdict.RIGHT), given(1, ReviewVerdict.WRONG))
    told = json.loads(run(folder, "compare", "abce", "abcd", "--json").stdout)
    assert told["sides"]["abce"]["right"]["count"] == 1
    assert told["sides"]["abcd"]["wrong"]["count"] == 1
    intervals = told["same_answers"].pop("intervals")
    assert intervals["alike"] == pytest.approx([1.0, 0.2065, 1.0], abs=1e-4)
    assert told["same_answers"] == {
        "answers": 1,
        "neither": 0,
        "first_alone": 0,
        "second_alone": 0,
        "alike": 1,
        "otherwise": 0,
    }
    got = run(folder, "compare", "abce", "abcd")
    assert "the intervals overlap" in got.output.replace("\n", " ")
    assert "1 of 1 (100.0 %" in got.output


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [("abc", "abcd", "too short"), ("beef", "abcd", "no hash begins"), ("abcd", "abcd", "are the same")],
)
def test_what_cannot_be_compared_says_why(folder: Path, first: str, second: str, why: str) -> None:
    got = run(folder, "compare", first, second)
    assert got.exit_code == 2
    assert why in got.output


# erase


@pytest.mark.parametrize("name", ["id-1", "call-1"])
def test_an_answer_is_erased_with_what_was_said_of_it(folder: Path, name: str) -> None:
    say(folder, given(0, ReviewVerdict.RIGHT), given(1, ReviewVerdict.WRONG))
    store = AuditStore(folder / "audit.db")
    for kind in ("reasoning", "tool_output"):
        noted_beside = replace(noted(1), aligner_id=f"id-1-{kind}")
        store.add(replace(make_entry(noted_beside), endpoint=f"/v1/chat/completions#{kind}"))
    store.close()
    got = run(folder, "audit erase", name, "--json")
    assert (got.exit_code, json.loads(got.stdout)) == (0, {"erased": 3})
    assert [r.aligner_id for r in reviews(folder)] == ["id-0"]
    again = run(folder, "audit erase", name)
    assert (again.exit_code, again.output) == (1, "0 entries erased, with their reviews\n")


def test_a_call_id_that_two_tenants_chose_needs_the_tenant(folder: Path) -> None:
    store = AuditStore(folder / "audit.db")
    store.add(replace(make_entry(noted(1)), tenant="team:other", aligner_id="id-other"))
    store.close()
    got = run(folder, "audit erase", "call-1")
    assert got.exit_code == 2
    assert "team:acme, team:other" in got.output
    assert run(folder, "audit erase", "call-1", "--tenant", "other").exit_code == 0
    store = AuditStore(folder / "audit.db")
    assert {one.aligner_id for one in store.entries()} == {"id-0", "id-1", "id-2", "id-3"}
    store.close()


@pytest.mark.parametrize("command", ["review", "export --out x", "compare aaaa bbbb", "audit erase x"])
def test_without_a_store_one_line_says_so(folder: Path, command: str) -> None:
    (folder / "audit.db").unlink()
    got = run(folder, command)
    assert got.exit_code == 2
    assert "there is no audit store" in got.output

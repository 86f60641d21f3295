"""`teach`: what it prints and keeps, what it refuses, and that `align --config` uses what was taught."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import uvicorn
import yaml
from click.testing import CliRunner, Result

from aligner_proxy.audit.entry import AuditEvent, make_entry
from aligner_proxy.audit.store import AuditStore
from aligner_proxy.cli import main, teach
from aligner_proxy.engine import sockets
from aligner_proxy.engine.api import Engine
from aligner_proxy.engine.model.teaching_space import TeachingSpace
from aligner_proxy.engine.server.app import create_app
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.teaching import fit
from aligner_proxy.teaching.examples import Example, Examples
from aligner_proxy.teaching.material import TeachingPrompt, build_material
from aligner_proxy.teaching.neutral import teaching_answers
from aligner_proxy.types import Correction, Exchange, Outcome, Policy, Status, Turn
from tests.support import teachable
from tests.support.scripted import ScriptedEngine
from tests.support.teachable import WIDTH, TeachableEngine
from tests.teaching.examples import AGAINST, FINE, HELD_OUT, listed, policies

ANSWER = f"The harbour opens at six. {HELD_OUT[0]} Bring a coat."
CLEAN = "The harbour opens at six. Bring a coat."


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path / "home"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "feelings.yaml").write_text(listed())
    (tmp_path / "policies.yaml").write_text(policies())
    return tmp_path / "policies.yaml"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[tuple[str, TeachableEngine]]:
    yield from _served(TeachableEngine(), tmp_path / "e.sock")


def _served(engine: Engine, path: Path) -> Iterator[tuple[str, Any]]:
    with sockets.listen_on_unix_socket(path) as listener:
        server = uvicorn.Server(uvicorn.Config(create_app(engine), log_config=None, lifespan="off"))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
        thread.start()
        yield f"unix:{path}", engine
        server.should_exit = True
        thread.join()


def run(*args: str, given: str | None = None) -> Result:
    return CliRunner().invoke(main, list(map(str, args)), input=given, catch_exceptions=False)


def aligned(file: Path, address: str, answer: str = ANSWER) -> dict[str, Any]:
    result = run(
        "align", "-q", "When?", "-o", "no-feelings", "--json", "--config", file, "--engine", address, given=answer
    )
    return json.loads(result.stdout)


def test_what_was_taught_is_flagged_by_align_and_was_not_before(
    file: Path, engine: tuple[str, TeachableEngine]
) -> None:
    address, _ = engine
    assert aligned(file, address)["corrected"] == ANSWER
    result = run("teach", file, "--engine", address, "--json")
    assert result.exit_code == 0, result.output
    [told] = json.loads(result.stdout)["objectives"]
    assert (told["objective"], told["taught"], told["against"]) == ("no-feelings", True, len(AGAINST))
    assert told["found"]["hits"] >= 3
    assert told["false"]["share"] <= fit.MAX_FALSE_UNSEEN
    after = aligned(file, address)
    assert after["corrected"] == CLEAN
    assert [segment["against"] for segment in after["segments"]] == [None, "no-feelings", None]
    assert aligned(file, address, CLEAN)["corrected"] == CLEAN


def make_space(width: int) -> bytes:
    """A learned space for rows of `width` numbers: these numbers themselves."""
    return TeachingSpace(torch.eye(width), row_factor=0.5, threshold=-1.0).to_bytes()


def test_a_head_is_taught_in_the_space_that_comes_with_the_aligner(file: Path, tmp_path: Path) -> None:
    engine_with_space = TeachableEngine(space=make_space(WIDTH))
    for address, _ in _served(engine_with_space, tmp_path / "space.sock"):
        [told] = taught(run("teach", file, "--engine", address, "--json"))
        assert told["found"]["hits"] >= 3
        assert aligned(file, address)["corrected"] == CLEAN
        assert aligned(file, address, CLEAN)["corrected"] == CLEAN
    [head_with_space] = engine_with_space.heads.values()
    engine_without = TeachableEngine()
    for address, _ in _served(engine_without, tmp_path / "rows.sock"):
        run("teach", file, "--engine", address, "--json")
        aligned(file, address)
    [head_without] = engine_without.heads.values()
    assert head_with_space.weight != head_without.weight


def test_a_space_for_other_rows_teaches_nothing(file: Path, tmp_path: Path) -> None:
    for address, _ in _served(TeachableEngine(space=make_space(WIDTH + 1)), tmp_path / "s.sock"):
        result = run("teach", file, "--engine", address)
        assert result.exit_code == 1
        assert f"numbers for rows of {WIDTH}" in result.output


def test_quick_teaching_reads_fewer_neutral_answers_and_teaches_the_objective(
    file: Path, engine: tuple[str, TeachableEngine]
) -> None:
    address, _ = engine
    [whole] = taught(run("teach", file, "--engine", address, "--dry-run", "--json"))
    [quick] = taught(run("teach", file, "--engine", address, "--quick", "--json"))
    assert 2 * quick["false"]["of"] < whole["false"]["of"]
    assert aligned(file, address)["corrected"] == CLEAN


NEAR = "The harbour opens at six. I feel so sad at night when nobody writes to me, she said. Bring a coat."


def test_good_answers_of_ones_own_are_learned_from_as_they_are(file: Path, engine: tuple[str, TeachableEngine]) -> None:
    address, _ = engine
    examples = file.with_name("feelings.yaml")
    run("teach", file, "--engine", address)
    assert aligned(file, address, NEAR)["corrected"] != NEAR
    rows = [{"question": "When?", "answer": f"{NEAR} Call {n}."} for n in range(6)]
    examples.write_text(listed() + yaml.safe_dump({"good_answers": rows}))
    [told] = taught(run("teach", file, "--engine", address, "--json"))
    assert (told["against"], told["fine"], told["fine_flagged"]) == (len(AGAINST), 6, [])
    assert aligned(file, address, NEAR)["corrected"] == NEAR
    assert aligned(file, address)["corrected"] == CLEAN


def taught(result: Result) -> list[dict[str, Any]]:
    return json.loads(result.stdout)["objectives"]


def in_force(file: Path) -> list[tuple[str, str]]:
    """(state, head) of every objective with examples."""
    listed = json.loads(run("check", file, "--json").stdout)["taught"]
    return [(one["state"], (one["in_force"] or {}).get("head", "")) for one in listed]


def test_a_dry_run_says_the_same_and_keeps_nothing(file: Path, engine: tuple[str, TeachableEngine]) -> None:
    result = run("teach", file, "--engine", engine[0], "--dry-run")
    assert result.exit_code == 0
    assert f"would be taught no-feelings from {len(AGAINST)} examples, head " in result.stdout
    assert "sentences that were held out" in result.stdout
    assert "of your sentences only mentioned" in result.stdout
    assert in_force(file) == [("not taught yet", "")]
    assert engine[1].heads == {}


def test_each_objective_is_reported_as_soon_as_it_is_taught(
    file: Path, engine: tuple[str, TeachableEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    more = "objectives:\n  second-of-them: {text: 'Second: the response should not feel', examples: second.yaml}\n"
    file.write_text(policies().replace("objectives:\n", more, 1))
    (file.parent / "second.yaml").write_text(listed(AGAINST[:4]))
    printed: list[str] = []
    monkeypatch.setattr(teach, "echo", lambda text, **_: printed.append(text))
    monkeypatch.setattr(
        teach, "_print_result", lambda _, result, dry_run: printed.append(f"{result.task.subject.title} {dry_run}")
    )
    run("teach", file, "--engine", engine[0], "--dry-run")
    names = ("second-of-them", "no-feelings")
    beginnings = [f"teaching {name} to default ({number} of 2)" for number, name in enumerate(names, 1)]
    assert printed == [beginnings[0], "second-of-them True", beginnings[1], "no-feelings True"]
    printed.clear()
    assert json.loads(run("teach", file, "--engine", engine[0], "--dry-run", "--json").stdout)["dry_run"]
    assert printed == []


def test_neutral_answers_are_read_once_for_all_objectives_of_the_file(
    file: Path, engine: tuple[str, TeachableEngine]
) -> None:
    names = [f"no-feelings-{n}" for n in range(4)]
    texts = [f"No {n}: the response should not claim that the assistant has {n} feelings" for n in range(4)]
    pairs = zip(names, texts, strict=True)
    objectives = {name: {"text": text, "examples": f"{name}.yaml"} for name, text in pairs}
    file.write_text(yaml.safe_dump({"objectives": objectives}))
    for name in names:
        (file.parent / f"{name}.yaml").write_text(listed(AGAINST[:4]))
    first = taught(run("teach", file, names[0], "--engine", engine[0], "--json"))
    asked = engine[1].asked
    all_of_them = taught(run("teach", file, "--engine", engine[0], "--json"))
    assert [one["taught"] for one in (*first, *all_of_them)] == [True] * 5
    assert asked > len(teaching_answers())
    assert engine[1].asked - asked == 4 * (asked - len(_neutral_prompts()))
    assert first[0]["head"] == all_of_them[0]["head"]


def _neutral_prompts() -> list[TeachingPrompt]:
    """Those of any objective that stands in one prompt with others."""
    examples = Examples(tuple(Example(text, "") for text in AGAINST[:4]))
    [(_, prompts)] = build_material("A", examples, teaching_answers(), ["B"], ["C", "D"], sharing=["A", "E"]).neutral
    return list(prompts)


def test_a_language_without_neutral_answers_is_not_taught(file: Path, engine: tuple[str, TeachableEngine]) -> None:
    finnish = ("Tunnen itseni yksinäiseksi, kun sinä et ole täällä.", "Minulla on ikävä, ja se on hyvin vaikea.")
    (file.parent / "feelings.yaml").write_text(listed(finnish))
    result = run("teach", file, "--engine", engine[0], "--dry-run")
    assert result.exit_code == 1
    assert "give good_answers of your own in it, with 60 sentences or more" in result.stdout


def test_neutral_rows_are_read_once(file: Path, engine: tuple[str, TeachableEngine]) -> None:
    run("teach", file, "--engine", engine[0], "--dry-run")
    cold = engine[1].asked
    [told] = taught(run("teach", file, "--engine", engine[0], "--json"))
    assert told["taught"]
    assert engine[1].asked - cold < 40 < len(teaching_answers()) < cold


def test_teaching_the_same_again_gives_the_same_head(file: Path, engine: tuple[str, TeachableEngine]) -> None:
    heads = [taught(run("teach", file, "--engine", engine[0], "--json"))[0]["head"] for _ in range(2)]
    assert heads[0] == heads[1]
    assert in_force(file) == [("taught", heads[0])]


def test_other_examples_another_head_and_back_again_and_away(file: Path, engine: tuple[str, TeachableEngine]) -> None:
    run("teach", file, "--engine", engine[0])
    [(_, first)] = in_force(file)
    (file.parent / "feelings.yaml").write_text(listed(AGAINST[:4], FINE))
    assert in_force(file) == [("taught from other examples", first)]
    run("teach", file, "--engine", engine[0])
    [(state, second)] = in_force(file)
    assert (state, second != first) == ("taught", True)
    back = run("teach", file, "--rollback", "no-feelings")
    assert (back.exit_code, f"in force is {first[:8]}" in back.stdout) == (0, True)
    assert in_force(file) == [("taught from other examples", first)]
    assert aligned(file, engine[0])["corrected"] == CLEAN
    assert run("teach", file, "--rollback", "no-feelings").exit_code == 1
    away = run("teach", file, "--forget", "no-feelings", "--json")
    assert (away.exit_code, taught(away)) == (0, [{"objective": "no-feelings", "forgotten": 2}])
    assert in_force(file) == [("forgotten", "")]
    assert aligned(file, engine[0])["corrected"] == ANSWER


def test_a_changed_text_takes_the_head_out_of_force(file: Path, engine: tuple[str, TeachableEngine]) -> None:
    run("teach", file, "--engine", engine[0])
    file.write_text(policies().replace("private life", "body"))
    assert [state for state, _ in in_force(file)] == ["taught for another text or aligner"]
    assert aligned(file, engine[0])["corrected"] == ANSWER
    assert "until then the general head judges" in run("check", file).output.replace("\n", " ")


def test_an_engine_without_rows_is_said_and_the_old_head_stays(
    file: Path, engine: tuple[str, TeachableEngine], tmp_path: Path
) -> None:
    run("teach", file, "--engine", engine[0])
    before = in_force(file)
    for address, _ in _served(ScriptedEngine(), tmp_path / "s.sock"):
        result = run("teach", file, "--engine", address)
    assert result.exit_code == 1
    assert "not taught no-feelings: the engine:" in result.stdout
    assert "what was in force for it stays" in result.stdout
    assert in_force(file) == before


def test_examples_that_teach_nothing_leave_the_old_head(
    file: Path, engine: tuple[str, TeachableEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    run("teach", file, "--engine", engine[0])
    before = in_force(file)
    shutil.rmtree(file.parent / "home" / "taught" / "rows")
    monkeypatch.setattr(teachable, "_rows", lambda segments: [[0.0] * teachable.WIDTH for _ in segments])
    result = run("teach", file, "--engine", engine[0], "--json")
    assert result.exit_code == 1
    assert "flags none of them, so it is not used" in taught(result)[0]["why"]
    assert in_force(file) == before


def test_own_answers_that_would_be_flagged_are_told_by_their_ids(
    file: Path, engine: tuple[str, TeachableEngine]
) -> None:
    file.write_text("audit: {enabled: true, file: audit.db}\n" + policies())
    _record(file, (ANSWER, CLEAN))
    [result] = taught(run("teach", file, "--engine", engine[0], "--dry-run", "--json"))
    assert (result["own_answers"], [one["call_id"] for one in result["own_flagged"]]) == (2, ["call-0"])
    shown = run("teach", file, "--engine", engine[0], "--dry-run").stdout
    assert "of your own last 2 answers that nobody objected to 1 would be flagged" in shown
    assert "call-0/0" in shown
    assert HELD_OUT[0] not in shown


def _record(file: Path, answers: Sequence[str]) -> None:
    store = AuditStore(file.parent / "audit.db")
    for number, answer in enumerate(answers):
        exchange = Exchange(f"call-{number}", 0, (Turn("user", "When?"),), answer)
        outcome = Outcome(Status.UNCHANGED, None, answer, Policy("p"), correction=Correction(answer), edited=answer)
        store.add(make_entry(AuditEvent(1000.0, None, RequestFacts("gpt"), exchange, outcome)))
    store.close()


def test_the_five_own_answers_nearest_to_the_line_are_listed_and_read_once_for_all(
    file: Path, engine: tuple[str, TeachableEngine]
) -> None:
    more = "objectives:\n  second-of-them: {text: 'Second: the response should not feel', examples: second.yaml}\n"
    file.write_text(policies().replace("objectives:\n", more, 1))
    (file.parent / "second.yaml").write_text(listed(AGAINST[:4]))
    asked = []
    for _ in range(2):
        run("teach", file, "--engine", engine[0], "--dry-run", "--json")
        asked.append(engine[1].asked)
    file.write_text("audit: {enabled: true, file: audit.db}\n" + file.read_text())
    answers = [f"{CLEAN} {sentence}" for sentence in (*AGAINST, *HELD_OUT, *FINE)]
    _record(file, answers)
    results = taught(run("teach", file, "--engine", engine[0], "--dry-run", "--json"))
    assert engine[1].asked - asked[1] == asked[1] - asked[0] + len(answers)
    for result in results:
        distances = [abs(one["score"]) for one in result["own_nearest"]]
        assert len(distances) == 5
        assert distances == sorted(distances)
        farther = [abs(one["score"]) for one in result["own_flagged"] if one not in result["own_nearest"]]
        assert min(farther) >= max(distances)
    shown = run("teach", file, "second-of-them", "--engine", engine[0], "--dry-run").stdout
    assert "nearest to the line; write those that are good under `good_answers`:" in shown
    assert CLEAN not in shown


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        (None, "policies.yaml:2: examples of no-feelings: there is no file"),
        ("against: [a b]\n", "feelings.yaml:1: `against` has 1 sentences"),
        (listed(AGAINST[:2], AGAINST[:1]), "feelings.yaml:5: stands under `against`, too"),
        ("objective: tone\n" + listed(), "feelings.yaml:1: these are examples of another objective"),
    ],
)
def test_bad_examples_exit_2_before_anything_is_spent(
    file: Path, engine: tuple[str, TeachableEngine], examples: str | None, message: str
) -> None:
    run("teach", file, "--engine", engine[0])
    before = in_force(file)[0][1]
    asked = engine[1].asked
    if examples is None:
        (file.parent / "feelings.yaml").unlink()
    else:
        (file.parent / "feelings.yaml").write_text(examples)
    result = run("teach", file, "--engine", engine[0])
    assert result.exit_code == 2
    assert message in result.output
    assert engine[1].asked == asked
    assert in_force(file) == [("examples cannot be read", before)]
    assert aligned(file, engine[0])["corrected"] == CLEAN


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["no-feeling"], "unknown objective 'no-feeling'; did you mean 'no-feelings'?"),
        (["tone"], "objective 'tone' has no examples; write {text: ..., examples: FILE}"),
        (["no-feelings", "--forget", "no-feelings"], "give --forget NAME or --rollback NAME alone"),
        (["--forget", "nothing"], "unknown objective 'nothing'"),
    ],
)
def test_wrong_names_exit_2(file: Path, args: list[str], message: str) -> None:
    file.write_text(policies().replace("routes:", '  tone: "Tone: warm"\nroutes:'))
    result = run("teach", file, *args)
    assert (result.exit_code, message in result.output) == (2, True), result.output


def test_a_file_without_examples_exits_2(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("objectives: {tone: 'Tone: warm'}\n")
    result = run("teach", tmp_path / "p.yaml")
    assert (result.exit_code, "no objective has examples" in result.output) == (2, True)


def test_two_objectives_cannot_share_their_examples(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "objectives:\n  a: {text: 'A: x', examples: e.yaml}\n  b: {text: 'B: x', examples: e.yaml}\n"
        "defaults: {mode: off}\n"
    )
    for command in ("teach", "check"):
        result = run(command, tmp_path / "p.yaml")
        assert result.exit_code == 2
        assert "p.yaml:3: b has the examples of a (p.yaml:2)" in result.output


def test_tenants_teach_objectives_of_one_name_by_themselves(
    tmp_path: Path, engine: tuple[str, TeachableEngine]
) -> None:
    (tmp_path / "feelings.yaml").write_text(listed())
    (tmp_path / "harbour.yaml").write_text(
        listed(("The harbour opens at six.", "Our harbour opens at noon.", "When the harbour opens, ferries leave."))
    )
    (tmp_path / "policies.yaml").write_text(
        "tenants:\n"
        "  - name: acme\n    match: {team: acme}\n"
        "    objectives: {own: {text: 'Own: no feelings', examples: feelings.yaml}}\n    enforce: [own]\n"
        "  - name: zeta\n    match: {team: zeta}\n"
        "    objectives: {own: {text: 'Own: no harbours', examples: harbour.yaml}}\n    enforce: [own]\n"
    )
    file = tmp_path / "policies.yaml"
    [one] = taught(run("teach", file, "acme/own", "--engine", engine[0], "--json"))
    assert (one["objective"], one["against"]) == ("acme/own", len(AGAINST))
    both = taught(run("teach", file, "own", "--engine", engine[0], "--json"))
    assert [(each["objective"], each["against"]) for each in both] == [("acme/own", len(AGAINST)), ("zeta/own", 3)]
    heads = {}
    for team in ("acme", "zeta"):
        told = json.loads(run("check", file, "--team", team, "--json").stdout)
        [objective] = told["objectives"]
        heads[team] = objective["head"]
    assert heads == {each["objective"].partition("/")[0]: each["head"] for each in both}
    run("teach", file, "--forget", "acme/own")
    states = {row["objective"]: row["state"] for row in json.loads(run("check", file, "--json").stdout)["taught"]}
    assert states == {"acme/own": "forgotten", "zeta/own": "taught"}

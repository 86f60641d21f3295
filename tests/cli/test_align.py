"""`align`: one answer, many rows, resume, bad rows, and what is shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from rich.console import Console

from aligner_proxy.cli import main
from aligner_proxy.cli.diff import TextTable, render_diff, show_outcome
from aligner_proxy.engine.api import AlignRequest, Engine
from aligner_proxy.errors import EngineFault
from aligner_proxy.types import Correction, Objective, Outcome, Policy, SegmentScore, Status
from tests.support import tiny
from tests.support.scripted import ScriptedEngine

RUDE = "The harbour opens at six. You are a fool. Bring a coat."
POLITE = "The harbour opens at six. Bring a coat."


def script(request: AlignRequest) -> Correction | Exception:
    """Takes out the insult; an answer about fog is too much for it."""
    if "fog" in request.answer:
        return EngineFault("broken")
    pieces = [f"{text}." for text in request.answer.rstrip(".").split(". ")]
    scored = tuple(SegmentScore(text, 4.0 if "fool" in text else -3.0, "fool" in text, 0) for text in pieces)
    return Correction(" ".join(s.text for s in scored if not s.flagged), scored)


@pytest.fixture
def engine(serve_engine: Callable[[Engine], str]) -> tuple[str, ScriptedEngine]:
    scripted = ScriptedEngine(script)
    return serve_engine(scripted), scripted


def align(*args: str, given: str | bytes) -> Result:
    return CliRunner().invoke(main, ["align", *args], input=given, catch_exceptions=False)


def rows(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_one_answer_as_json(engine: tuple[str, ScriptedEngine]) -> None:
    result = align("-q", "When?", "-o", "harmless", "--json", "--engine", engine[0], given=RUDE + "\n")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["status"], told["reason"], told["corrected"]) == (0, "corrected", None, POLITE)
    assert [s["flagged"] for s in told["segments"]] == [False, True, False]
    assert told["segments"][1] == {"text": "You are a fool.", "score": 4.0, "flagged": True, "against": "harmless"}
    assert told["ms"] > 0


def test_one_answer_to_look_at(engine: tuple[str, ScriptedEngine]) -> None:
    result = align("-q", "When?", "--engine", engine[0], given=RUDE)
    assert result.exit_code == 0
    assert "corrected" in result.stdout
    assert "+4.00" in result.stdout


def test_a_failure_is_named_and_exits_1(engine: tuple[str, ScriptedEngine]) -> None:
    result = align("-q", "When?", "--json", "--engine", engine[0], given="There is fog.")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["status"], told["reason"]) == (1, "failed", "engine_error")
    assert told["corrected"] == "There is fog."


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["-q", "x", "-o", "harmles"], "did you mean 'harmless'?"),
        (["-q", "x", "-o", "Broken:"], 'must read "Name: description"'),
        ([], "give the question with -q"),
        *(
            (["-q", "x", "--engine", address], "is no engine address")
            for address in ("nowhere", "http://[::1", "http://a:99999", "http://")
        ),
        *((["-q", "x", "--caution", value], "is not a finite number") for value in ("nan", "inf")),
        (["-q", "x", "--deadline", "nan"], "is not a finite number"),
        (["-q", "x", "--deadline", "3601"], "is not in the range"),
        (["--jsonl", "-q", "x"], "--question has no effect with --jsonl"),
        (["--jsonl", "--json"], "--json has no effect with --jsonl"),
        (["-q", "x", "--output", "x"], "--output has no effect without --jsonl or --batch"),
        (["-q", "x", "--skip", "1"], "--skip has no effect without --jsonl or --batch"),
    ],
)
def test_mistakes_are_one_sentence(args: list[str], said: str) -> None:
    result = align(*args, given=RUDE)
    assert result.exit_code == 2
    assert said in result.stderr


def test_an_output_that_cannot_be_written_is_named(engine: tuple[str, ScriptedEngine], tmp_path: Path) -> None:
    for output, reason in ((tmp_path, "Is a directory"), (tmp_path / "no" / "x", "No such file or directory")):
        result = align("--jsonl", "--output", str(output), "--engine", engine[0], given=LINES)
        assert (result.exit_code, result.stderr.splitlines()[-1]) == (
            2,
            f"aligner-proxy: cannot use {output}: {reason}",
        )


def test_a_file_of_litellm_is_not_taken_for_policies(tmp_path: Path) -> None:
    (tmp_path / "litellm.yaml").write_text("model_list: []\n")
    result = align("-q", "x", "--config", str(tmp_path / "litellm.yaml"), given=RUDE)
    words = "aligner-proxy: litellm.yaml: is a file of LiteLLM; give the policies file that its guardrail names\n"
    assert (result.exit_code, result.stderr) == (2, words)


def test_an_answer_that_is_not_utf8_says_so() -> None:
    result = align("-q", "x", given=b"caf\xe9")
    assert result.exit_code == 2
    assert "not UTF-8 (byte 3)" in result.stderr


def test_a_new_objective_reaches_the_engine_as_it_is_written(
    engine: tuple[str, ScriptedEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, ...]] = []
    engine[1].script = lambda request: seen.append(request.objectives) or request.answer
    align(
        "-q", "x", "-o", "Brevity: the response should be short", "-o", "harmless", "--engine", engine[0], given="Yes."
    )
    assert seen[0][0] == "Brevity: the response should be short"
    assert seen[0][1].startswith("Harmlessness: ")


INPUT = [
    {"question": "When?", "answer": RUDE, "objectives": ["harmless"], "id": 7},
    {"question": "When?", "answer": POLITE},
    {"question": "When?", "answer": "There is fog."},
    {"question": "When?", "answer": POLITE, "objectives": ["harmles"]},
    {"question": "When?", "id": 8},
]
LINES = "\n".join(map(json.dumps, INPUT)) + "\nnot json\n\n[1]\n"


def test_many_rows_each_with_its_own_result(engine: tuple[str, ScriptedEngine]) -> None:
    result = align("--jsonl", "--engine", engine[0], given=LINES)
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (1, "aligner-proxy: 5 rows failed; see their `reason`")
    found = rows(result)
    assert [row["status"] for row in found] == [
        "corrected",
        "unchanged",
        "failed",
        "failed",
        "failed",
        "failed",
        "failed",
    ]
    assert found[0] | INPUT[0] == found[0]
    assert found[0]["corrected"] == POLITE
    assert found[2]["reason"] == "engine_error"
    assert "did you mean 'harmless'?" in found[3]["reason"]
    assert found[4]["reason"] == "bad row: answer: Field required"
    assert (found[4]["id"], found[4]["row"]) == (8, 5)
    assert (found[5]["reason"], found[6]["reason"]) == ("bad row: not JSON", "bad row: not a JSON object")


def test_rows_already_there_are_not_done_again(engine: tuple[str, ScriptedEngine], tmp_path: Path) -> None:
    whole = align("--jsonl", "--engine", engine[0], given=LINES).stdout.encode()
    output = tmp_path / "out.jsonl"
    first, second = whole.splitlines(keepends=True)[:2]
    output.write_bytes(first + second[:10])
    engine[1].seen.clear()
    assert align("--jsonl", "--output", str(output), "--engine", engine[0], given=LINES).exit_code == 1
    assert output.read_bytes() == whole
    assert sorted(engine[1].seen) == ["row-2/0", "row-3/0"]
    assert rows(align("--jsonl", "--skip", "6", "--engine", engine[0], given=LINES)) == [
        json.loads(whole.splitlines()[6])
    ]


def test_order_is_kept_with_several_rows_in_flight(engine: tuple[str, ScriptedEngine]) -> None:
    engine[1].delay_s = 0.01
    lines = "\n".join(json.dumps({"question": "When?", "answer": f"At {i} o'clock.", "i": i}) for i in range(25))
    result = align("--jsonl", "--engine", engine[0], given=lines)
    assert [row["i"] for row in rows(result)] == list(range(25))
    assert (result.exit_code, "failed" in result.stderr) == (0, False)


def test_the_engine_in_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path / "home"))
    folder = tiny.save(tmp_path / "model")
    args = ["--model", str(folder), "--template", "imhi", "--caution", "1000", "--verify", "always", "--json"]
    told = json.loads(align("-q", "When?", *args, given=RUDE).stdout)
    assert (told["status"], told["corrected"]) == ("unchanged", RUDE)
    (tmp_path / "policies.yaml").write_text("aligner: {model: ./model, template: imhi, quantization: none}\n")
    args = ["--config", str(tmp_path / "policies.yaml"), "--caution", "1000", "--json"]
    assert json.loads(align("-q", "When?", *args, given=RUDE).stdout)["status"] == "unchanged"


def test_a_missing_model_is_one_sentence(tmp_path: Path) -> None:
    result = align("-q", "x", "--model", str(tmp_path / "nowhere"), "--json", given=RUDE)
    assert result.exit_code == 2
    assert "does not exist; give a folder" in result.stderr


def test_a_word_diff_shows_what_went_and_what_came() -> None:
    text = render_diff("Bring a coat now.", "Bring an umbrella now.")
    styles = {text.plain[span.start : span.end]: str(span.style) for span in text.spans}
    assert "Bring " in text.plain
    assert set(styles.values()) == {"red strike", "green"}


def test_a_word_diff_without_colours_marks_what_went_and_what_came() -> None:
    text = render_diff("Bring a coat now.", "Bring an umbrella now.", has_colours=False)
    assert text.plain == "Bring [-a-]{+an+} [-coat-]{+umbrella+} now."


@pytest.mark.parametrize("width", [40, 200])
def test_a_table_cuts_no_name_and_shows_every_cell(width: int) -> None:
    name = "no-rivals-in-any-of-our-answers-to-customers-of-the-north-shop"
    console = Console(width=width, file=StringIO())
    console.print(TextTable(("objective", "state", "found", "head"), [(name, "not taught", "3 of 4", "0a4d97b0")]))
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert name in printed.replace("\n", "")
    assert all(cell in printed for cell in ("state", "not taught", "found", "3 of 4", "head", "0a4d97b0"))


def test_the_name_of_a_violated_objective_is_not_cut() -> None:
    name = "no-rivals-in-any-of-our-answers-to-customers-of-the-north-shop"
    policy = Policy("p", (Objective(name, "No rivals: none"),))
    correction = Correction("Bye.", (SegmentScore("Try Nordshop.", 2.0, True, 0), SegmentScore("Bye.", -2.0, False)))
    console = Console(width=60, file=StringIO())
    show_outcome(console, "Try Nordshop. Bye.", Outcome(Status.CORRECTED, None, "Bye.", policy, correction))
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\u2026" not in printed
    assert "[-Try Nordshop.-]" in printed


def test_the_engine_of_the_policies_file_is_used(engine: tuple[str, ScriptedEngine], tmp_path: Path) -> None:
    address, scripted = engine
    path = tmp_path / "policies.yaml"
    path.write_text(f"aligner: {{engine: '{address}'}}\n")
    done = CliRunner().invoke(main, ["align", "-q", "When?", "--config", str(path), "--json"], input=RUDE)
    assert json.loads(done.stdout)["corrected"] == POLITE
    assert scripted.seen == ["align/0"]


POLICIES = {
    "objectives": {"kind": "Kindness: the response should never insult the reader"},
    "defaults": {"references": [{"file": "page.md"}, "system"]},
    "routes": [
        {"match": {"model": "gpt*"}, "name": "support", "objectives": ["kind"]},
        {"match": {"model": "off"}, "name": "quiet", "objectives": ["kind"], "mode": "off"},
        {"match": {"model": "strict"}, "name": "strict", "objectives": ["kind"], "on_error": "block"},
        {"match": {"model": "worst"}, "name": "worst", "objectives": ["harmless"]},
    ],
    "tenants": [{"match": {"team": "acme"}, "name": "acme", "enforce": ["fair"], "decline": "Not here."}],
}


@pytest.fixture
def by_policies(engine: tuple[str, ScriptedEngine], tmp_path: Path) -> Callable[..., Result]:
    """Runs `align` with the policies of a file."""
    (tmp_path / "page.md").write_text(
        "# Harbour\n\nThe harbour opens at 7:00 on workdays. A ticket costs 4.50 euros.\n"
    )
    (tmp_path / "policies.yaml").write_text(yaml.safe_dump(POLICIES))

    def run(*args: str, given: str = RUDE) -> Result:
        options = ("--config", str(tmp_path / "policies.yaml"), "--engine", engine[0])
        return align(*options, *(() if "--jsonl" in args else ("-q", "When?", "--json")), *args, given=given)

    return run


def test_the_whole_policy_of_a_request_applies(
    by_policies: Callable[..., Result], engine: tuple[str, ScriptedEngine]
) -> None:
    asked: list[tuple[str, ...]] = []
    engine[1].script = lambda request: asked.append(request.objectives) or script(request)
    expected = {
        ("--model", "gpt-4"): ("corrected", POLITE, 1),
        ("--for-model", "gpt-4"): ("corrected", POLITE, 1),
        ("--route", "support"): ("corrected", POLITE, 1),
        ("--route", "quiet"): ("skipped", RUDE, 0),
        ("--route", "support", "--team", "acme"): ("corrected", POLITE, 2),
        ("--team", "acme"): ("corrected", POLITE, 1),
    }
    for args, (status, text, objectives) in expected.items():
        asked.clear()
        fields = json.loads(by_policies(*args).stdout)
        result = (fields["status"], fields["corrected"], len(asked[0]) if asked else 0)
        assert result == (status, text, objectives), args
    blocked = by_policies("--route", "strict", given="There is fog.")
    assert (blocked.exit_code, json.loads(blocked.stdout)["corrected"]) == (1, None)
    declined = json.loads(by_policies("--route", "worst", "--team", "acme", given="You are a fool.").stdout)
    assert (declined["corrected"], declined["reason"]) == ("Not here.", "declined")


def test_the_references_of_the_policy_apply(by_policies: Callable[..., Result]) -> None:
    for args in (("--model", "gpt-4"), ("--model", "nobody"), ("--route", "support")):
        fields = json.loads(by_policies(*args, given="A ticket costs 6.50 euros.").stdout)
        assert (fields["status"], fields["corrected"]) == ("corrected", "A ticket costs 4.50 euros."), args
    prompt = ("--system", "The ferry to the island costs 9.20 euros.")
    fields = json.loads(
        by_policies("--route", "support", *prompt, given="The ferry to the island costs 8 euros.").stdout
    )
    assert fields["corrected"] == "The ferry to the island costs 9.20 euros."


def test_rows_are_corrected_by_the_policies_too(by_policies: Callable[..., Result]) -> None:
    lines = [{"question": "When?", "answer": text} for text in (RUDE, "A ticket costs 6.50 euros.")]
    lines += [{"question": "When?", "answer": RUDE, "objectives": ["harmless"]}]
    given = "\n".join(map(json.dumps, lines))
    corrected = [row["corrected"] for row in rows(by_policies("--jsonl", "--route", "support", given=given))]
    assert corrected == [POLITE, "A ticket costs 4.50 euros.", POLITE]
    assert {row["reason"] for row in rows(by_policies("--jsonl", "--route", "quiet", given=given))} == {"mode_off"}


def test_what_chooses_no_policy_says_so(by_policies: Callable[..., Result], tmp_path: Path) -> None:
    mistakes = {
        ("--route", "suport"): "did you mean 'support'?",
        ("--route", "support", "--caution", "3"): "--caution is the policy's in --config",
        ("-o", "harmless", "--route", "support"): "--route chooses among the policies of --config",
    }
    for args, message in mistakes.items():
        result = by_policies(*args)
        assert result.exit_code == 2, args
        assert message in result.stderr, args
    without = align("-q", "x", "--team", "acme", given=RUDE)
    assert "--team chooses among the policies of --config" in without.stderr
    data = {name: value for name, value in POLICIES.items() if name != "defaults"}
    (tmp_path / "policies.yaml").write_text(yaml.safe_dump(data))
    skipped = by_policies("--model", "nobody")
    assert json.loads(skipped.stdout)["reason"] == "no_objectives"
    assert "name one by --route, or its model by --model" in skipped.stderr

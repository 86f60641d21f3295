"""`align --batch`: every form of line, with and without its requests, what is withheld, resume, and faulty files."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from anthropic.types.messages import MessageBatchIndividualResponse
from click.testing import CliRunner, Result

from aligner_proxy.cli import main
from aligner_proxy.engine.api import AlignRequest, Engine
from aligner_proxy.errors import EngineFault
from aligner_proxy.types import Correction
from tests.support.scripted import SegmentEngine

RUDE = "The harbour opens at six. You are a fool. Bring a coat."
POLITE = "The harbour opens at six. Bring a coat."
FOG = "There is fog over the harbour."
THOUGHT = "Only a fool would ask for the harbour."
QUESTION = "When does the harbour open?"
FILE = {
    "objectives": {"kind": "Kindness: the response should never insult the reader"},
    "routes": [
        {"match": {"model": "gpt*"}, "name": "gpt", "objectives": ["kind"]},
        {"match": {"model": "strict"}, "name": "strict", "objectives": ["kind"], "on_error": "block"},
        {"match": {"model": "bare"}, "name": "bare", "objectives": ["kind"], "reasoning": "drop"},
        {"match": {"model": "shadow"}, "name": "shadow", "objectives": ["kind"], "mode": "shadow"},
        {"match": {"model": "off"}, "name": "off", "objectives": ["kind"], "mode": "off"},
        {"match": {"model": "rare"}, "name": "rare", "objectives": ["kind"], "sample": 0.0},
    ],
    "tenants": [{"match": {"team": "acme"}, "name": "acme", "enforce": ["kind"], "on_error": "block", "quota": 0.001}],
}
LOGPROBS = {"content": [{"token": "The", "logprob": -0.1, "bytes": [84], "top_logprobs": []}], "refusal": None}


class ReadingEngine(SegmentEngine):
    """Flags what calls somebody a fool, fails in fog, and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__(lambda text: 4.0 if "fool" in text else -4.0)
        self.requests: list[AlignRequest] = []

    async def align(self, request: AlignRequest) -> Correction:
        self.requests.append(request)
        if "fog" in request.answer:
            raise EngineFault("scripted")
        return await super().align(request)


class Bench:
    """A folder with a batch, and an engine."""

    def __init__(self, folder: Path, address: str, engine: ReadingEngine) -> None:
        self.folder = folder
        self.engine = engine
        self.address = address
        (folder / "policies.yaml").write_text(yaml.safe_dump(FILE))

    def write(self, name: str, lines: list[Any]) -> str:
        """A file of these lines; objects are written as JSON."""
        path = self.folder / name
        path.write_bytes(
            b"".join((one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n" for one in lines)
        )
        return str(path)

    def align(self, lines: list[Any], *args: str) -> Result:
        path = self.write("batch_output.jsonl", lines)
        command = ["align", "--batch", path, "--engine", self.address, *args]
        return CliRunner().invoke(main, command, catch_exceptions=False)

    def by_policy(self, lines: list[Any], *args: str) -> list[dict[str, Any]]:
        """The output lines under the policies of FILE."""
        result = self.align(lines, "--config", str(self.folder / "policies.yaml"), *args)
        marks = ('"status": "failed"', '"aligner_error"', '"api_error"')
        failed = sum(any(mark in line for mark in marks) for line in result.stdout.splitlines())
        assert (result.exit_code, f"{failed} rows failed" in result.stderr) == (int(failed > 0), failed > 0)
        return parse(result)


@pytest.fixture
def bench(tmp_path: Path, serve_engine: Callable[[Engine], str], monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path / "home"))
    engine = ReadingEngine()
    return Bench(tmp_path, serve_engine(engine), engine)


def parse(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def chat(text: str | None, more: dict[str, Any] | None = None, others: int = 0, **message: Any) -> dict[str, Any]:
    """A body, with fields that nobody knows and further choices of a polite text."""
    texts = [text, *[POLITE] * others]
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1.0,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [
            {
                "index": n,
                "message": {"role": "assistant", "content": one, "refusal": None, "annotations": [], **message},
                "logprobs": None,
                "finish_reason": "stop",
                "weight": {"of": [n]},
            }
            for n, one in enumerate(texts)
        ],
        "usage": {"prompt_tokens": 2, "completion_tokens": 9, "details": {"cached": None}},
        "system_fingerprint": None,
        "_fields_set": "odd",
        "billing": {"payer": "developer"},
        **(more or {}),
    }


def text_completion(text: str) -> dict[str, Any]:
    choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": "stop", "prompt_logprobs": None}
    return {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "gpt-i", "choices": [choice], "new": 1}


def response(text: str, *more: dict[str, Any]) -> dict[str, Any]:
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": text, "tint": "grey"}
    message = {"id": "msg_1", "type": "message", "status": "completed", "content": [part], "role": "assistant"}
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "background": False,
        "error": None,
        "output": [*more, message],
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "usage": {"input_tokens": 1, "output_tokens": 2},
        "safety_identifier": None,
    }


def message(text: str, *more: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-opus-4",
        "content": [*more, {"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 2},
        "container": None,
    }


def openai(custom_id: str, body: dict[str, Any], status: int = 200) -> dict[str, Any]:
    answered = {"status_code": status, "request_id": f"req-{custom_id}", "body": body}
    return {"id": f"batch_req_{custom_id}", "custom_id": custom_id, "response": answered, "error": None, "zone": 7}


def anthropic(custom_id: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"custom_id": custom_id, "result": {"type": "succeeded", "message": body, "zone": 7}}


def failed_line(custom_id: str, **error: Any) -> dict[str, Any]:
    return {"id": "b", "custom_id": custom_id, "response": None, "error": {"code": "batch_expired", **error}}


FORMS: dict[str, Callable[[str], dict[str, Any]]] = {
    "chat": lambda text: openai("chat", chat(text, others=1)),
    "text": lambda text: openai("text", text_completion(text)),
    "response": lambda text: openai("response", response(text, {"id": "rs_1", "type": "reasoning", "summary": []})),
    "message": lambda text: anthropic("message", message(text, {"type": "thinking", "thinking": "", "signature": "s"})),
}
REQUESTS: list[dict[str, Any]] = [
    {"custom_id": "chat", "body": {"model": "gpt-4o", "messages": [{"role": "user", "content": QUESTION}]}},
    {"custom_id": "text", "body": {"model": "gpt-i", "prompt": QUESTION}},
    {"custom_id": "response", "body": {"model": "gpt-4o", "input": QUESTION}},
    {"custom_id": "message", "params": {"model": "gpt", "messages": [{"role": "user", "content": QUESTION}]}},
]


def without_report(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name != "aligner"}


def test_each_form_keeps_all_but_the_text(bench: Bench) -> None:
    faults = []
    lines = [form(RUDE) for form in FORMS.values()]
    for args in ([], ["--bare"]):
        found = parse(bench.align(lines, "-o", "harmless", *args))
        for name, line in zip(FORMS, found, strict=True):
            report = line.pop("aligner", None)
            # As text, so that the order of the fields and the kinds of numbers count, too.
            if json.dumps(line) != json.dumps(FORMS[name](POLITE)):
                faults.append((name, args, line))
            edit = {
                "answer": 0,
                "start": 26,
                "end": 42,
                "text": "",
                "objective": "harmless",
                "score": 4.0,
                "source": None,
            }
            expected = {"status": "corrected", "reason": None, "policy": "align", "edits": [edit]}
            if report != (None if args else expected):
                faults.append((name, args, report))
    assert not faults
    assert {request.turns for request in bench.engine.requests} == {()}


def test_requests_bring_the_conversation_and_the_route(bench: Bench) -> None:
    requests = bench.write("batch_input.jsonl", [*REQUESTS, {"custom_id": "unused", "body": {}}])
    found = bench.by_policy([form(RUDE) for form in FORMS.values()], "--requests", requests)
    assert [line["aligner"]["policy"] for line in found] == ["gpt"] * 4
    assert [without_report(line) for line in found] == [form(POLITE) for form in FORMS.values()]
    assert {tuple(turn.content for turn in request.turns) for request in bench.engine.requests} == {(QUESTION,)}


def test_a_json_answer_stays_whole(bench: Bench) -> None:
    body = {"model": "gpt-4o", "messages": [], "response_format": {"type": "json_object"}}
    requests = bench.write("batch_input.jsonl", [{"custom_id": "chat", "body": body}])
    (line,) = bench.by_policy([openai("chat", chat(RUDE))], "--requests", requests)
    assert (line["aligner"]["status"], line["aligner"]["reason"]) == ("skipped", "structured_output")
    assert without_report(line) == openai("chat", chat(RUDE))


def test_what_points_into_the_old_text_goes_with_it(bench: Bench) -> None:
    given = chat(RUDE)
    given["choices"][0]["logprobs"] = LOGPROBS
    left = chat(POLITE)
    left["choices"][0]["logprobs"] = LOGPROBS
    found = parse(bench.align([openai("a", given), openai("b", left)], "-o", "harmless", "--bare"))
    # The answer is skipped as one with logprobs, unless a policy judges it.
    assert found == [openai("a", given), openai("b", left)]
    (bench.folder / "policies.yaml").write_text(yaml.safe_dump({**FILE, "defaults": {"on_skip": "judge"}}))
    found = bench.by_policy([openai("a", given), openai("b", left)], "--for-model", "gpt", "--bare")
    assert found == [openai("a", chat(POLITE)), openai("b", left)]


def test_lines_without_an_answer_pass_byte_for_byte(bench: Bench) -> None:
    lines = [
        json.dumps(failed_line("a", message="This request could not be executed before the batch expired.")).encode(),
        b'{"id": "b", "custom_id":"\\u0062",  "response": {"status_code":400,"body":{"error":{"message":"Bad"}}}}\r',
        b'{"custom_id": "c", "result": {"type": "errored", "error": {"type": "error", "error": {"type": "x"}}}}',
        b'{"custom_id": "d", "result": {"type": "canceled"}}',
        b'{"custom_id": "e", "result": {"type": "expired"}, "ratio": 1.50}',
        json.dumps(
            openai("f", {"object": "list", "data": [{"object": "embedding", "embedding": [0.5, 1e-07]}]})
        ).encode(),
    ]
    for args in (["-o", "harmless"], ["--config", str(bench.folder / "policies.yaml"), "--for-model", "gpt"]):
        assert bench.align(lines, *args).stdout_bytes == b"\n".join(lines) + b"\n"
    assert not bench.engine.requests


def test_an_answer_that_may_not_be_delivered_becomes_an_error(bench: Bench) -> None:
    faults = []
    lines = [form(FOG) for form in FORMS.values()]
    kept = bench.by_policy(lines, "--for-model", "gpt")
    assert [without_report(line) for line in kept] == lines
    assert {(line["aligner"]["status"], line["aligner"]["reason"]) for line in kept} == {("failed", "engine_error")}
    for args in (["--for-model", "strict"], ["--for-model", "strict", "--bare"]):
        for name, line in zip(FORMS, bench.by_policy(lines, *args), strict=True):
            said = "the answer could not be aligned (engine_error)"
            error = {"type": "errored", "error": {"type": "error", "error": {"type": "api_error", "message": said}}}
            expected = {"custom_id": name, "response": None, "error": {"code": "aligner_error", "message": said}}
            expected = {"custom_id": name, "result": error} if name == "message" else expected
            report = {} if args[2:] else {"aligner": {"status": "failed", "reason": "engine_error"}}
            line.pop("id", None)
            if line != expected | report:
                faults.append((name, args, line))
    assert not faults


def test_clients_of_anthropic_read_an_answer_that_was_withheld(bench: Bench) -> None:
    (line,) = bench.by_policy([FORMS["message"](FOG)], "--for-model", "strict")
    read = MessageBatchIndividualResponse.model_validate(line).result
    assert read.type == "errored"
    assert read.error.error.message == "the answer could not be aligned (engine_error)"


def test_one_of_several_answers_that_is_withheld_withholds_the_line(bench: Bench) -> None:
    (line,) = bench.by_policy([openai("a", chat(FOG, others=2))], "--for-model", "strict")
    assert line["response"] is None


def test_text_beside_an_answer_is_treated_as_the_policy_says(bench: Bench) -> None:
    thinking = {"type": "thinking", "thinking": THOUGHT, "signature": "s"}
    reasoning = {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": THOUGHT}]}
    spoken = {"type": "note", "about": THOUGHT}
    forms: dict[str, list[tuple[str, dict[str, Any], dict[str, Any]]]] = {
        "reasoning": [
            ("chat", openai("a", chat(RUDE, reasoning_content=THOUGHT)), openai("a", chat(POLITE))),
            ("response", openai("b", response(RUDE, reasoning)), openai("b", response(POLITE))),
            ("message", anthropic("c", message(RUDE, thinking)), anthropic("c", message(POLITE))),
        ],
        "other_text": [
            (
                "chat",
                openai("a", chat(RUDE, more={"remark": THOUGHT})),
                openai("a", chat(POLITE, more={"remark": THOUGHT})),
            ),
            (
                "unknown",
                openai("d", {"object": "odd", "words": [spoken]}),
                openai("d", {"object": "odd", "words": [spoken]}),
            ),
            (
                "status",
                openai("e", {"error": {"message": THOUGHT}}, 400),
                openai("e", {"error": {"message": THOUGHT}}, 400),
            ),
            ("error", failed_line("f", message=THOUGHT), failed_line("f", message=THOUGHT)),
        ],
    }
    faults = []
    for kind, cases in forms.items():
        lines = [line for _, line, _ in cases]
        by_route = bench.by_policy(lines, "--for-model", "bare", "--bare")
        by_tenant = bench.by_policy(lines, "--for-model", "gpt", "--team", "acme")
        for (name, _, expected), delivered, withheld in zip(cases, by_route, by_tenant, strict=True):
            if delivered != expected:  # reasoning is dropped, everything else passes
                faults.append((kind, name, delivered))
            if withheld["aligner"] != {"status": "failed", "reason": kind} or "fool" in json.dumps(withheld):
                faults.append((kind, name, withheld))
    assert not faults


def test_modes_and_shares_of_a_policy(bench: Bench) -> None:
    line = openai("a", chat(RUDE))
    for model, text, status, reason in (
        ("shadow", RUDE, "shadow", None),
        ("off", RUDE, "skipped", "mode_off"),
        ("nobody", RUDE, "skipped", "no_objectives"),
        ("rare", POLITE, "corrected", None),  # every answer of a file is judged, whatever `sample` says
    ):
        (found,) = bench.by_policy([line], "--for-model", model)
        assert (found["aligner"]["status"], found["aligner"]["reason"]) == (status, reason), model
        assert without_report(found) == openai("a", chat(text)), model


def test_a_tenants_quota_is_not_used_up_by_a_file(bench: Bench) -> None:
    bench.by_policy([openai("a", chat(RUDE))], "--for-model", "gpt", "--team", "acme")
    assert {request.quota for request in bench.engine.requests} == {None}


def test_a_bad_line_does_not_stop_the_others(bench: Bench) -> None:
    requests = bench.write("batch_input.jsonl", [REQUESTS[0]])
    one = json.dumps(openai("chat", chat(RUDE))).encode()
    bad = {
        b"not json": "not JSON; give the file as the provider sent it",
        b"[" * 100_000: "not JSON; give the file",
        b"[1]": "not a JSON object; give the file",
        b'{"custom_id": "chat", "custom_id": "chat", "result": {"type": "expired"}}': "twice",
        json.dumps(REQUESTS[0]).encode(): "no output line of a batch",
        json.dumps({"custom_id": "chat", "response": {"status_code": 200, "body": RUDE}}).encode(): "no output line",
        json.dumps({**openai("chat", chat(RUDE)), "result": {"type": "expired"}}).encode(): "no output line",
        json.dumps({"custom_id": "chat", "result": {"type": "succeeded", "message": RUDE}}).encode(): "no output line",
        json.dumps(openai("other", chat(RUDE))).encode(): "no request with its custom_id; give --requests",
    }
    found = bench.by_policy([one, b"", b"  ", *bad, one], "--requests", requests)
    assert [without_report(line) for line in (found[0], found[-1])] == [openai("chat", chat(POLITE))] * 2
    faults = []
    for number, (said, line) in enumerate(zip(bad.values(), found[1:-1], strict=True), 4):  # behind the empty lines
        message = (line.get("error") or line["result"]["error"]["error"])["message"]
        if not (message.startswith(f"batch_output.jsonl:{number}: ") and said in message and "fool" not in str(line)):
            faults.append((number, line))
        if line["aligner"]["status"] != "failed" or not line["aligner"]["reason"].startswith("bad line: "):
            faults.append((number, line))
    assert not faults
    assert found[1]["custom_id"] is None
    assert found[1]["result"]["type"] == "errored"  # nobody knows its form, so it is an error in both
    assert found[4]["custom_id"] is None
    assert found[5]["custom_id"] == "chat"


def test_lines_already_there_are_not_done_again(bench: Bench) -> None:
    lines: list[Any] = [
        FORMS["chat"](RUDE),
        b"",
        failed_line("x"),
        FORMS["message"](RUDE),
        b"not json",
        FORMS["text"](POLITE),
    ]
    whole = bench.align(lines, "-o", "harmless").stdout_bytes
    output = bench.folder / "corrected.jsonl"
    ends = [0, *(n + 1 for n, byte in enumerate(whole) if byte == ord("\n"))]
    assert len(ends) == 6
    for rest, end in enumerate(reversed(ends)):
        output.write_bytes(whole[: end + 10])  # the run was interrupted while it wrote a line
        bench.engine.requests.clear()
        done = bench.align(lines, "-o", "harmless", "--output", str(output))
        assert done.exit_code == int(rest >= 2)  # the line that is not JSON is the last but one
        assert output.read_bytes() == whole
        left = {request.request_id.partition("/")[0] for request in bench.engine.requests}
        assert left == {"line-1", "line-4", "line-6"} - {f"line-{n}" for n in (1, 4, 6) if _row(n) <= 5 - rest}
    assert bench.align(lines, "-o", "harmless", "--skip", "4").stdout_bytes == whole[ends[4] :]


def _row(number: int) -> int:
    """The number of a line among those that are not empty; the second one is."""
    return number - (number > 2)


def test_half_of_a_letter_survives_as_an_escape(bench: Bench) -> None:
    body = chat("Good. You are a fool. Fine.", more={"half": "\ud83d", "letter": "é"})
    (found,) = parse(bench.align([openai("a", body)], "-o", "harmless", "--bare"))
    assert found["response"]["body"]["half"] == "\ud83d"
    assert found["response"]["body"]["choices"][0]["message"]["content"] == "Good. Fine."


def test_mistakes_are_one_sentence(bench: Bench) -> None:
    policies = str(bench.folder / "policies.yaml")
    first = REQUESTS[0]
    files = {
        "twice": bench.write("twice.jsonl", [first, b"", first]),
        "answers": bench.write("answers.jsonl", [first, openai("a", chat(RUDE))]),
        "text": bench.write("text.jsonl", [first, b"not json"]),
    }
    batch = str(bench.folder / "batch_output.jsonl")
    mistakes = {
        ("-q", "x"): "--question has no effect with --batch",
        ("--jsonl",): "--jsonl has no effect with --batch",
        ("--json",): "--json has no effect with --batch",
        ("--output", batch): "--output must be another file",
        ("--for-model", "gpt"): "--for-model chooses among the policies of --config",
        ("--config", policies, "-o", "kind", "--team", "acme"): "--team chooses among the policies of --config",
        ("--config", policies): "give --requests or --for-model",
        ("--config", policies, "--for-model", "gpt", "--caution", "1"): "--caution is the policy's in --config",
        ("--requests", files["twice"]): "twice.jsonl:3: a second request with its custom_id",
        ("--requests", files["answers"]): "answers.jsonl:2: no request of a batch",
        ("--requests", files["text"]): "text.jsonl:2: not JSON; give --requests the input file",
        ("--requests", "nowhere.jsonl"): "does not exist",
    }
    faults = []
    for args, said in mistakes.items():
        result = bench.align([openai("a", chat(RUDE))], *args)
        if result.exit_code != 2 or said not in result.stderr or result.stdout:
            faults.append((args, result.stderr))
    alone = CliRunner().invoke(main, ["align", "--bare", "-q", "x"], input=RUDE)
    assert "--bare has no effect without --batch" in alone.stderr
    assert not faults
    assert not bench.engine.requests


def test_what_a_request_may_not_ask_for_is_refused(bench: Bench) -> None:
    body = copy.deepcopy(REQUESTS[0]["body"]) | {"metadata": {"aligner": {"objectives": ["concise"]}}}
    requests = bench.write("batch_input.jsonl", [{"custom_id": "chat", "body": body}])
    (line,) = bench.by_policy([openai("chat", chat(RUDE))], "--requests", requests)
    assert "is not allowed" in line["error"]["message"]

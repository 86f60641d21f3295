"""What most end-to-end tests need: each kind of upstream, and routes on which an answer can go each way."""

from __future__ import annotations

from tests.e2e.deployment import CHAT_ONLY, CLAUDE, INSTRUCT, OPENAI, VLLM, Deployment

PINGED = "pinged"
DOUBLED = "doubled"
UNREACHABLE = {**OPENAI, "api_base": "http://127.0.0.1:9/v1"}
ANSWERS = (
    Deployment()
    .model("gpt")
    .model("claude", CLAUDE)
    .model("chatonly", CHAT_ONLY)
    .model("vllm", VLLM)
    .model("instruct", INSTRUCT)
    .model(PINGED, keepalive_seconds=1)
    .model(DOUBLED, guardrails=["aligner"])
    .case("off", mode="off")
    .case("shadowed", mode="shadow")
    .case("unsampled", sample=0.0)
    .case("bare", objectives=[])
    .case("hasty", deadline_s=0.5)
    .case("strict", deadline_s=0.5, on_error="block")
    .case("patient", deadline_s=60, on_error={"engine_down": "retry"})
    .case(
        "sorted",
        deadline_s=2,
        on_error={"gate": "block", "bug": "passthrough", "timeout": "retry"},
        after_retry="block",
    )
    .case("brief", max_answer_chars=1000)
    .case("released", stream="sentence")
    .case("wishes", preferences=["system"])
    .case("known-languages", on_skip={"language": "block"})
    .case("known-languages-released", on_skip={"language": "block"}, stream="sentence")
    .case("thoughts-judged", reasoning="judge")
    .case("thoughts-dropped", reasoning="drop")
    .model("thoughts-judged-claude", CLAUDE)
    .route("thoughts-judged-claude", reasoning="judge")
    .model("thoughts-dropped-claude", CLAUDE)
    .route("thoughts-dropped-claude", reasoning="drop")
    .route("nick*", mode="off")
    .alias("nickname", "strict")
    .model("offline", UNREACHABLE)
    .route("offline", mode="off")
    .fallback("offline", "gpt")
    .model("outage", UNREACHABLE)
    .fallback("outage", "off")
)

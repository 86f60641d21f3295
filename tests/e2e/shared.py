"""The deployment that most end-to-end tests share: a pair of proxies takes half a minute to start."""

from __future__ import annotations

from typing import Any

from tests.e2e.answers import ANSWERS
from tests.e2e.deployment import CLAUDE, INSTRUCT, Deployment
from tests.e2e.editors import EDITORS
from tests.e2e.systems import CORRECTORS

RELEASED = (
    Deployment()
    .model("released-gpt")
    .model("released-claude", CLAUDE)
    .model("released-instruct", INSTRUCT)
    .route("released-*", stream="sentence")
)
STEADY_S = 1.0
"""Seconds between two heartbeats on the routes `steady` and `stepwise`."""
STREAMS = (
    Deployment()
    .case("sentence-strict", stream="sentence", deadline_s=0.5, on_error="block")
    .case("sentence-hasty", stream="sentence", deadline_s=0.5)
    .case("sentence", stream="sentence", debug_trailer=True)
    .route("sentence-*", stream="sentence", debug_trailer=True)
    .case("live", stream="passthrough")
    .route("live-*", stream="passthrough")
    .case("quick", keepalive_s=0.2)
    .route("quick-*", keepalive_s=0.2)
    .case("steady", keepalive_s=STEADY_S)
    .route("steady-*", keepalive_s=STEADY_S)
    .case("stepwise", keepalive_s=STEADY_S, stream="sentence")
    .route("stepwise-*", keepalive_s=STEADY_S, stream="sentence")
)
for mode in ("quick", "live", "sentence", "steady", "stepwise"):
    STREAMS.model(f"{mode}-claude", CLAUDE).model(f"{mode}-instruct", INSTRUCT)

_REFUSING: dict[str, Any] = {"max_answer_chars": 70, "on_skip": {"too_long": "block"}}
"""Refuses what is longer than what a paused upstream has sent by then."""
REFUSALS = (
    Deployment()
    .case("refusing", **_REFUSING)
    .route("refusing-*", **_REFUSING)
    .case("hesitant", keepalive_s=0.2, **_REFUSING)
    .route("hesitant-*", keepalive_s=0.2, **_REFUSING)
    .route("off-*", mode="off")
)
for mode in ("refusing", "hesitant", "off"):
    REFUSALS.model(f"{mode}-claude", CLAUDE).model(f"{mode}-instruct", INSTRUCT)

CUT = Deployment().model("cut").model("cut-claude", CLAUDE).model("cut-instruct", INSTRUCT).model("off-cut")
"""Models whose failures put no other test's model aside."""

DECLINING = Deployment()
for mode in ("hold", "sentence"):
    settings = {"stream": mode, "if_nothing_remains": "decline", "decline": "No.", "on_skip": "judge"}
    DECLINING.case(f"declining-{mode}", **settings)
    DECLINING.model(f"declining-{mode}-claude", CLAUDE).route(f"declining-{mode}-claude", **settings)

CALLS = Deployment()
for mode in ("hold", "sentence"):
    settings = {"stream": mode, "tool_arguments": "correct", "on_error": "block"}
    CALLS.case(f"calls-{mode}", **settings)
    CALLS.model(f"calls-{mode}-claude", CLAUDE).route(f"calls-{mode}-claude", **settings)
for treatment in ("block", "report"):
    settings = {"incoming_tool_results": treatment}
    CALLS.case(f"incoming-{treatment}", **settings)
    CALLS.model(f"incoming-{treatment}-claude", CLAUDE).route(f"incoming-{treatment}-claude", **settings)

AGENTS = Deployment()
"""Models that call tools of the programs that ask them (upstream_agents.py)."""
for mode in ("quick", "sentence"):
    AGENTS.model(f"{mode}-agent", api_base="{upstream}/agent/v1")
    AGENTS.model(f"{mode}-agent-claude", CLAUDE, api_base="{upstream}/agent")

SHARED = ANSWERS
for more in (RELEASED, CORRECTORS, STREAMS, EDITORS, DECLINING, REFUSALS, CUT, CALLS, AGENTS):
    SHARED = SHARED.joined(more)
"""Routes by the first that matches: those of one model before those of a pattern that fits it."""

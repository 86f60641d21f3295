"""Correctors of plugins, preferences and weights: a model and a line of policy for each system."""

from __future__ import annotations

from typing import Any

from tests.e2e.deployment import Deployment

SINGLE = "single"
# One line of policy each, and nothing else between them (test_systems.py).
SYSTEMS: dict[str, dict[str, Any]] = {
    "metaaligner": {},
    "meal": {"objectives": {"auto": ["humour", "kind"]}},
    "metaalign": {"preferences": ["request"]},
    "aligner": {"corrector": "aligner"},
    "self-refine": {"corrector": "self_refine"},
    "best-of": {"best_of": 3},
}
CORRECTORS = (
    Deployment()
    .model("gpt")
    # A model with our guardrail on itself, which must make no difference to whoever refines by it.
    .model("refiner", model="openai/refiner", guardrails=["aligner"])
    .case("refined", corrector="self_refine", deadline_s=2)
    .case("refined-or-nothing", corrector="self_refine", deadline_s=2, on_error="block")
    .case("foreign", corrector="unreliable", deadline_s=1)
    .case("calm", corrector="plain_words", plugin_rules=["calm"])
    .case("wishing", preferences=["request"], stream="sentence")
    .corrector("self_refine", model="refiner", rounds=2)
    .corrector("plain_words", words={"Paris": "Paris!", "lower": "sooner"})
    .corrector("aligner", engine=f"unix:{{folder}}/{SINGLE}.sock")
)
for mode in ("hold", "sentence", "passthrough"):
    CORRECTORS.case(f"{mode}-weighed", stream=mode, objectives={"auto": ["humour", "kind"], "keep": 1})
for name, line in SYSTEMS.items():
    CORRECTORS.case(f"field-{name}", **line)

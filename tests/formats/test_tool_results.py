"""Results of tools in the requests of each endpoint."""

from __future__ import annotations

from typing import Any

import pytest

from aligner_proxy.formats.incoming import tool_results


@pytest.mark.parametrize(
    "data",
    [
        {"messages": [{"role": "user", "content": "?"}, {"role": "tool", "content": "It costs 5 euros."}]},
        {"messages": [{"role": "tool", "content": [{"type": "text", "text": "It costs 5 euros."}]}]},
        {"input": [{"type": "function_call_output", "call_id": "1", "output": "It costs 5 euros."}]},
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "1", "content": "It costs 5 euros."},
                        {"type": "text", "text": "What does it cost?"},
                    ],
                }
            ]
        },
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "tool_result", "content": [{"type": "text", "text": "It costs 5 euros."}]}],
                }
            ]
        },
    ],
)
def test_each_endpoint_has_its_form(data: dict[str, Any]) -> None:
    assert tool_results(data) == "It costs 5 euros."


@pytest.mark.parametrize(
    "data", [{}, {"input": "text"}, {"messages": [None, {"role": "tool", "content": None}, {"content": [1]}]}]
)
def test_without_results_there_is_nothing(data: dict[str, Any]) -> None:
    assert tool_results(data) == ""

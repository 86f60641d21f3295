"""The Python clients of docs/guides/recipes.md, each set up by the page's own block; no module of ours is imported.

`python recipe_program.py PAGE ADDRESS KEY` runs in the environment of scripts/recipe_clients.sh. It answers each
line of its input, a list of cases, with one line, a list of readings, as the programs in `node/` do. `Case.way` is a
client of `READERS` and how it asks: `langchain-openai stream`.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PLACE = "http://127.0.0.1:4000"
"""The gateway's address on the page."""
MODELS = ("gpt-4o-mini", "claude-sonnet")
_PARAMETERS = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}
Read = Callable[[str, str, str], dict[str, Any]]


def set_up(section: str, number: int, model: str) -> dict[str, Any]:
    """Run the block of a section of the page for the gateway and this model, and return the names that it sets."""
    page = Path(sys.argv[1]).read_text(encoding="utf-8")
    text = re.search(rf"^## {section}\n((?:(?!^## ).*\n)*)", page, flags=re.MULTILINE)
    assert text is not None, section
    block = re.findall(r"^```python\n(.*?)^```", text[1], flags=re.MULTILINE | re.DOTALL)[number]
    block = block.replace(PLACE, sys.argv[2])
    for name in MODELS:
        block = block.replace(f'"{name}"', repr(model))
    names: dict[str, Any] = {"os": os}
    exec(block, names)
    return names


def look_up(place: str) -> str:
    """Find it."""
    return f"{place} lies on the Seine."


def _read_openai(way: str, model: str, prompt: str) -> dict[str, Any]:
    create = set_up("OpenAI SDK", 0, model)["client"].chat.completions.create
    messages = [{"role": "user", "content": prompt}]
    if way == "stream":
        chunks = [chunk for chunk in create(model=model, messages=messages, stream=True) if chunk.choices]
        return {"text": "".join(chunk.choices[0].delta.content or "" for chunk in chunks), "events": len(chunks)}
    tool = {"type": "function", "function": {"name": "look_up", "parameters": _PARAMETERS}}
    asked = {"tools": [tool]} if way == "tools" else {}
    message = create(model=model, messages=messages, **asked).choices[0].message
    calls = [call.function for call in message.tool_calls or ()]
    finish = [f"{call.name} {json.dumps(json.loads(call.arguments))}" for call in calls]
    return {"text": message.content or "", "finish": finish[0] if finish else None, "events": 1}


def _read_anthropic(way: str, model: str, prompt: str) -> dict[str, Any]:
    client = set_up("Anthropic SDK", 0, model)["client"]
    asked: dict[str, Any] = {
        "model": model,
        "max_tokens": 1000,
        "messages": [{"role": "user", "content": prompt}],
    }
    if way == "stream":
        with client.messages.stream(**asked) as stream:
            texts = list(stream.text_stream)
        return {"text": "".join(texts), "events": len(texts)}
    if way == "tools":
        asked["tools"] = [{"name": "look_up", "input_schema": _PARAMETERS}]
    blocks = client.messages.create(**asked).content
    text = "".join(block.text for block in blocks if block.type == "text")
    calls = [f"{block.name} {json.dumps(block.input)}" for block in blocks if block.type == "tool_use"]
    return {"text": text, "finish": calls[0] if calls else None, "events": 1}


def _read_langchain(number: int) -> Read:
    def read(way: str, model: str, prompt: str) -> dict[str, Any]:
        chat = set_up("LangChain", number, model)["model"]
        if way == "stream":
            chunks = list(chat.stream(prompt))
            return {"text": "".join(chunk.text for chunk in chunks), "events": len(chunks)}
        answer = (chat.bind_tools([look_up]) if way == "tools" else chat).invoke(prompt)
        calls = [f"{call['name']} {json.dumps(call['args'])}" for call in answer.tool_calls]
        return {"text": str(answer.text), "finish": calls[0] if calls else None, "events": 1}

    return read


def _read_llama_index(way: str, model: str, prompt: str) -> dict[str, Any]:
    from llama_index.core.llms import ChatMessage
    from llama_index.core.tools import FunctionTool

    llm = set_up("LlamaIndex", 0, model)["model"]
    messages = [ChatMessage(role="user", content=prompt)]
    if way == "stream":
        chunks = list(llm.stream_chat(messages))
        return {"text": "".join(chunk.delta or "" for chunk in chunks), "events": len(chunks)}
    if way == "tools":
        answer = llm.chat_with_tools([FunctionTool.from_defaults(look_up)], chat_history=messages)
        [call] = llm.get_tool_calls_from_response(answer)
        return {"text": answer.message.content or "", "finish": f"{call.tool_name} {json.dumps(call.tool_kwargs)}"}
    return {"text": llm.chat(messages).message.content, "events": 1}


def _read_agents(way: str, model: str, prompt: str) -> dict[str, Any]:
    from agents import Agent, Runner, StopAtTools, function_tool

    set_up("OpenAI Agents SDK", 0, model)
    tools = [function_tool(look_up)] if way == "tools" else []
    agent = Agent(
        name="support", model=model, tools=tools, tool_use_behavior=StopAtTools(stop_at_tool_names=["look_up"])
    )

    async def read_stream() -> dict[str, Any]:
        result = Runner.run_streamed(agent, prompt)
        events = [event async for event in result.stream_events()]
        data = [event.data for event in events if event.type == "raw_response_event"]
        deltas = "".join(one.delta for one in data if one.type == "response.output_text.delta")
        assert deltas == result.final_output, "the pieces of the stream are not the answer"
        return {"text": deltas, "events": len(data)}

    if way == "stream":
        return asyncio.run(read_stream())
    result = asyncio.run(Runner.run(agent, prompt))
    items = [item for response in result.raw_responses for item in response.output]
    calls = [f"{item.name} {json.dumps(json.loads(item.arguments))}" for item in items if item.type == "function_call"]
    texts = [part.text for item in items if item.type == "message" for part in item.content]
    return {"text": "".join(texts), "finish": calls[0] if calls else None, "events": 1}


READERS: dict[str, Read] = {
    "openai": _read_openai,
    "anthropic": _read_anthropic,
    "langchain-openai": _read_langchain(0),
    "langchain-anthropic": _read_langchain(1),
    "llama-index": _read_llama_index,
    "openai-agents": _read_agents,
}


def read_case(case: dict[str, str]) -> dict[str, Any]:
    """What a client holds in the end of one case."""
    client, way = case["way"].split()
    try:
        return READERS[client](way, case["model"], case["prompt"])
    except Exception as error:  # noqa: BLE001 - whatever it raises is what the client holds
        return {
            "error": type(error).__name__,
            "status": getattr(error, "status_code", None),
            "message": str(error)[:2000],
        }


def main() -> None:
    """Answer batches until the input ends."""
    os.environ["ALIGNER_KEY"] = sys.argv[3]
    for line in sys.stdin:
        sys.stdout.write(json.dumps([read_case(case) for case in json.loads(line)]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

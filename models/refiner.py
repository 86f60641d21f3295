"""Who reviews and revises in a comparison? A model of an OpenAI-compatible server, asked through LiteLLM's router.

Without an address the demo's SmolLM2-135M-Instruct is served by llama.cpp as long as it is needed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aligner_proxy.chat_group import Chat, ChatGroup

from .field import REFINER

GROUP = REFINER


@contextmanager
def served(address: str | None, out: Path) -> Iterator[str]:
    """The address of a server: the one that is named, or one that is started here and gone afterwards."""
    if address is not None:
        yield address
        return
    from demo.processes import free_port, process, wait_for

    port, log = free_port(), out / "refiner.log"
    out.mkdir(parents=True, exist_ok=True)
    with process(["demo.upstream", str(port)], log, dict(os.environ)) as child:
        wait_for(f"http://127.0.0.1:{port}/said", child, log, lambda _: None)
        yield f"http://127.0.0.1:{port}/v1"


def chat(address: str, model: str) -> Chat:
    """Asks the model there, as the gateway asks a model of its model_list."""
    from litellm.router import Router

    params = {"model": f"openai/{model}", "api_base": address, "api_key": "none"}
    router = Router(model_list=[{"model_name": GROUP, "litellm_params": params}])
    return ChatGroup(GROUP, lambda: router)

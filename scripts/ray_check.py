"""Checks the Ray Serve application: a gateway's client sends requests to two engines on a local Ray.

scripts/ray_check.sh runs it in an environment with Ray; it stops what it started. At each address an engine must
identify its aligner, correct an answer, read one while it arrives, and refuse a request of another version.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import httpx
import ray
import yaml
from ray import serve

from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.engine.client.http import HttpEngine
from aligner_proxy.engine.wire import HEADER
from aligner_proxy.types import Turn
from demo.processes import free_port

RAY = Path(__file__).parents[1] / "deploy" / "ray"
ANSWER = "The capital of France is Paris. You are an idiot for asking. It lies on the Seine."
KEPT = ("The capital of France is Paris.", "It lies on the Seine.")


def make_request(name: str) -> AlignRequest:
    """A request with an insult in its answer."""
    objective = "Harmlessness: The response should avoid content that is offensive, discriminatory, or harmful"
    turns = (Turn("user", "What is the capital of France?"),)
    return AlignRequest(request_id=name, turns=turns, answer=ANSWER, objectives=(objective,), deadline_s=120)


async def check_engine(address: str) -> str:
    """Correct the answer with one engine, whole and read piece by piece; return a summary.

    Asserts that both results are equal, that the good sentences stay, and that the insult is flagged.
    """
    engine = HttpEngine(address)
    try:
        about = await engine.info()
        whole = await engine.align(make_request("whole"))
        session = await engine.read(make_request("read").model_copy(update={"answer": ""}))
        for at in range(0, len(ANSWER), 20):
            await session.feed(ANSWER[at : at + 20])
        read = await session.finish(make_request("read"))
        await session.aclose()
    finally:
        await engine.aclose()
    assert whole.text == read.text, (whole.text, read.text)
    assert all(sentence in whole.text for sentence in KEPT), whole.text
    assert any(segment.flagged for segment in whole.segments), "the insult was not found"
    return f"{about.model} {about.content_hash[:12]}: {len(whole.segments)} segments judged, whole and read alike"


def main() -> int:
    """Start the engines, check them and stop them; return 0 if all checks pass."""
    sys.path.insert(0, str(RAY))
    import aligner_engine

    file = yaml.safe_load((RAY / "engines.yaml").read_text())
    path = [str(RAY), str(RAY.parents[1])]
    environment = {"env_vars": {"PYTHONPATH": ":".join([*path, *sys.path[1:]]), "OMP_NUM_THREADS": "1"}}
    ray.init(num_cpus=4, include_dashboard=False, object_store_memory=80 << 20, runtime_env=environment)
    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    try:
        for one in file["applications"]:
            assert one["import_path"] == "aligner_engine:application"
            built = aligner_engine.application(aligner_engine.Arguments(**one["args"]))
            serve.run(built, name=one["name"], route_prefix=one["route_prefix"])
        for one in file["applications"]:
            address = f"http://127.0.0.1:{port}{one['route_prefix']}"
            print(one["name"], asyncio.run(check_engine(address)))
            assert httpx.get(f"{address}/health/ready", timeout=10).status_code == httpx.codes.OK
            other = httpx.post(f"{address}/v1/corrections", headers={HEADER: "1"}, json={}, timeout=10)
            assert other.status_code >= httpx.codes.BAD_REQUEST, "a gateway of another version is refused"
    finally:
        serve.shutdown()
        ray.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())

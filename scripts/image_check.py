"""Tries an image with podman: read-only root, no capabilities, one answer corrected, and its health check.

`python -m scripts.image_check IMAGE` starts a scripted provider and a container of the image on this machine's network,
and prints what it measured. With `--without-torch` it also starts an engine of this environment, which the container
asks. It ends what it started.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx

from demo.processes import free_port

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".build" / "image" / "etc"
STATE = "/var/lib/aligner-proxy"
KEY = "sk-of-the-image-check-alone"
INSULT = "You are an idiot for asking."
KEPT = ("The capital of France is Paris.", "It lies on the Seine.")
READY_S = 600.0
ROUTES = "routes: [{match: {model: '*'}, objectives: [harmless]}]\n"


class ImageFault(Exception):
    """What the image does not do as it should."""


class Container:
    """A running container of an image."""

    def __init__(self, podman: Sequence[str], name: str) -> None:
        self._podman = podman
        self._name = name

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command of podman, and return what it printed."""
        return subprocess.run([*self._podman, *command], capture_output=True, text=True, check=False)

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the container."""
        return self.run("exec", self._name, *command)

    def log(self) -> str:
        """The end of what the container wrote."""
        logged = self.run("logs", "--tail", "30", self._name)
        return logged.stdout + logged.stderr


def write_configuration(folder: Path, provider: str, aligner: str = "model: embedded") -> None:
    """Write the files of a gateway in front of the scripted provider, with this aligner."""
    folder.mkdir(parents=True, exist_ok=True)
    litellm = {
        "model_list": [
            {
                "model_name": "gpt",
                "litellm_params": {"model": "openai/gpt", "api_base": f"{provider}/v1", "api_key": "none"},
            }
        ],
        "guardrails": [
            {
                "guardrail_name": "aligner",
                "litellm_params": {
                    "guardrail": "aligner_proxy.guardrail.AlignerGuardrail",
                    "mode": "post_call",
                    "default_on": True,
                },
            }
        ],
        "general_settings": {"master_key": "os.environ/LITELLM_MASTER_KEY"},
    }
    (folder / "litellm.yaml").write_text(json.dumps(litellm), encoding="utf-8")  # JSON is YAML
    (folder / "policies.yaml").write_text(f"aligner: {{{aligner}}}\n{ROUTES}", encoding="utf-8")


@contextlib.contextmanager
def run_provider() -> Iterator[str]:
    """The address of a scripted provider."""
    port = free_port()
    with subprocess.Popen([sys.executable, "-m", "tests.e2e.upstreams", str(port)], cwd=ROOT) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


@contextlib.contextmanager
def run_aligner(*, is_elsewhere: bool) -> Iterator[str]:
    """The policy's words for the aligner: that of the image, or an engine of this environment while it runs."""
    if not is_elsewhere:
        yield "model: embedded"
        return
    port = free_port()
    command = [sys.executable, "-m", "aligner_proxy", "engine", "--port", str(port)]
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            yield f"engine: 'http://127.0.0.1:{port}'"
        finally:
            process.terminate()


@contextlib.contextmanager
def run_container(podman: Sequence[str], image: str, port: int) -> Iterator[Container]:
    """A container of the image as deploy/compose.yaml runs it, on this machine's network."""
    # Where this runs in a container itself, no limit may be raised; podman would raise these two.
    files = "{}:{}".format(*resource.getrlimit(resource.RLIMIT_NOFILE))
    container = Container(podman, "aligner-proxy-check")
    container.run("rm", "--force", "aligner-proxy-check")
    options = [
        *("--name", "aligner-proxy-check", "--network", "host", "--read-only", "--cap-drop", "all"),
        *("--ulimit", f"nofile={files}", "--ulimit", "nproc=4096:4096"),
        *("--security-opt", "no-new-privileges", "--tmpfs", "/tmp:mode=1777,size=256m"),
        *("--volume", f"{FOLDER}:/etc/aligner-proxy:ro", "--volume", f"aligner-proxy-check:{STATE}"),
        *("--env", f"LITELLM_MASTER_KEY={KEY}"),
    ]
    serve = ["serve", "--config", "/etc/aligner-proxy/litellm.yaml", "--host", "127.0.0.1", "--port", str(port)]
    started = container.run("run", "--detach", *options, image, *serve)
    if started.returncode:
        raise ImageFault(f"the container does not start: {started.stderr.strip()[-1000:]}")
    try:
        yield container
    finally:
        container.run("stop", "--time", "75", "aligner-proxy-check")
        container.run("rm", "--force", "aligner-proxy-check")
        container.run("volume", "rm", "aligner-proxy-check")


def wait_until_ready(container: Container, port: int) -> float:
    """Wait until the gateway is ready; return the seconds that it took."""
    began = time.monotonic()
    while time.monotonic() - began < READY_S:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"http://127.0.0.1:{port}/health/readiness", trust_env=False).status_code == 200:
                return time.monotonic() - began
        if container.run("ps", "--quiet", "--filter", "name=aligner-proxy-check").stdout.strip() == "":
            raise ImageFault(f"the container ended: {container.log()}")
        time.sleep(1)
    raise ImageFault(f"it is not ready after {READY_S:.0f} s: {container.log()}")


def ask_question(port: int) -> str:
    """Ask one question, and return the corrected answer."""
    body = {"model": "gpt", "messages": [{"role": "user", "content": "rude"}]}
    response = httpx.post(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        json=body,
        headers={"authorization": f"Bearer {KEY}"},
        timeout=120,
        trust_env=False,
    )
    if response.status_code != 200 or response.headers.get("x-aligner-status") != "corrected":
        raise ImageFault(f"the answer was not corrected: {response.status_code} {response.headers}")
    text: str = response.json()["choices"][0]["message"]["content"]
    if INSULT in text or any(sentence not in text for sentence in KEPT):
        raise ImageFault("the answer is not the corrected one")
    return text


def check_confinement(container: Container, port: int) -> list[str]:
    """Check user, read-only root and health check; return what was found."""
    user = container.execute("id", "-u").stdout.strip()
    root_write = container.execute("touch", "/opt/aligner-proxy/written")
    state_write = container.execute("touch", f"{STATE}/written")
    health = container.execute("aligner-proxy", "health", "--port", str(port))
    faults = {
        f"it runs as user {user}": user != "10001",
        "its root can be written to": root_write.returncode == 0,
        f"its state folder cannot be written to: {state_write.stderr}": state_write.returncode != 0,
        f"its health check fails: {health.stdout} {health.stderr}": health.returncode != 0,
    }
    if any(faults.values()):
        raise ImageFault("; ".join(fault for fault, is_so in faults.items() if is_so))
    return [f"user {user}, read-only root", f"health: {health.stdout.strip().splitlines()[0]}"]


def check_image(podman: Sequence[str], image: str, *, is_without_torch: bool) -> list[str]:
    """Run the image, and return what was found, one fact a line."""
    size = int(Container(podman, "").run("image", "inspect", "--format", "{{.Size}}", image).stdout or 0)
    port = free_port()
    with run_provider() as provider, run_aligner(is_elsewhere=is_without_torch) as aligner:
        write_configuration(FOLDER, provider, aligner)
        with run_container(podman, image, port) as container:
            ready_s = wait_until_ready(container, port)
            text = ask_question(port)
            facts = check_confinement(container, port)
    return [f"{image}: {size / 1e9:.2f} GB", f"ready after {ready_s:.0f} s", *facts, f"corrected: {text}"]


def main() -> int:
    """Check an image; return 1 if it does not do what it should."""
    parser = argparse.ArgumentParser(description="Try an image with podman.")
    parser.add_argument("image")
    parser.add_argument("--podman", default="podman", help="how podman is called, with its own options")
    parser.add_argument("--without-torch", action="store_true", help="let the image ask an engine of this environment")
    arguments = parser.parse_args()
    try:
        facts = check_image(shlex.split(arguments.podman), arguments.image, is_without_torch=arguments.without_torch)
    except ImageFault as error:
        sys.stderr.write(f"image: {error}\n")
        return 1
    sys.stdout.write("".join(f"image: {fact}\n" for fact in facts))
    return 0


if __name__ == "__main__":
    sys.exit(main())

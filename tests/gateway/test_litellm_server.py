"""Workers of a LiteLLM whose main process is killed: they end with it, and nobody answers on the port."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

WAIT_S = 100.0
SERVER = """
    import os, socket

    async def app(scope, receive, send):
        await send({{"type": "http.response.start", "status": 200, "headers": []}})
        await send({{"type": "http.response.body", "body": f"pid {{os.getpid()}} ".encode()}})

    if __name__ == "__main__":
        from aligner_proxy.connections import ConnectionLimits
        from aligner_proxy.gateway.process.litellm_server import serve
        listeners = [socket.socket(fileno={descriptor})]
        serve(listeners, ConnectionLimits(), "server:app", workers=2, log_config=None, lifespan="off")
"""
"""A server whose application says which process answers."""


def asked(port: int) -> str:
    """The answer on a connection of its own; empty where none comes."""
    try:
        with socket.create_connection(("127.0.0.1", port), 2) as client:
            client.settimeout(2)
            client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            return "".join(iter(lambda: client.recv(4096).decode(), ""))
    except OSError:
        return ""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tethers children")
def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    script = tmp_path / "server.py"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        script.write_text(textwrap.dedent(SERVER.format(descriptor=listener.fileno())))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
        server = subprocess.Popen([sys.executable, str(script)], pass_fds=[listener.fileno()], env=environment)
        answer = ""
        try:
            end = time.monotonic() + WAIT_S
            while "pid" not in answer and time.monotonic() < end:
                answer = asked(port)
            assert "pid" in answer
            worker = int(answer.rpartition("pid ")[2].split()[0])
        finally:
            server.kill()
            server.wait()
        assert server.returncode == -signal.SIGKILL
        end = time.monotonic() + WAIT_S
        while asked(port) and time.monotonic() < end:
            time.sleep(0.2)
        assert asked(port) == "", "clients wait for a successor"
        assert not Path(f"/proc/{worker}").exists() or "Z" in Path(f"/proc/{worker}/stat").read_text()

"""A judge over a real socket that decides by a function of the two responses, and remembers what it was asked."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Decide = Callable[[str, str], str | int]
_RESPONSES = re.compile(r'RESPONSE 1: (.*) \n \| RESPONSE 2: (.*)" {4,}"\n Consider', re.DOTALL)


class ScriptedJudge:
    """`decide(first, second)` is what it replies, or an HTTP status with which it fails."""

    def __init__(self, decide: Decide) -> None:
        self.decide = decide
        self.questions: list[dict[str, Any]] = []
        self.url = ""

    def reply(self, body: dict[str, Any]) -> str | int:
        """The verdict on one request."""
        self.questions.append(body)
        match = _RESPONSES.search(body["messages"][-1]["content"])
        assert match, "not a prompt of a judge"
        return self.decide(match[1], match[2])


@contextmanager
def serve_judge(decide: Decide) -> Iterator[ScriptedJudge]:
    """The judge, listening on a port of its own."""
    judge = ScriptedJudge(decide)

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            reply = judge.reply(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            status, text = (reply, "") if isinstance(reply, int) else (200, reply)
            message = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
            whole = {"id": "1", "object": "chat.completion", "created": 1, "model": "judge", "choices": [message]}
            body = json.dumps(whole).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Quietly."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    judge.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield judge
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

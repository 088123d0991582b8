"""An OpenAI-compatible endpoint on the loopback that answers as a test wants."""

import json
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any


@dataclass(frozen=True)
class Failure:
    """An HTTP status with OpenAI's body for it; 0 cuts the connection."""

    status: int
    code: str = ""
    headers: dict[str, str] = field(default_factory=dict)


CUT = Failure(0)


@dataclass(frozen=True)
class Body:
    """A whole body with status 200, right or wrong."""

    text: str


Reply = str | None | Failure | Body
Behaviour = Callable[[str, int], Reply]
"""(prompt, how often it has been asked before) -> the model's words, or something else."""


@dataclass
class FakeEndpoint:
    """Where it listens, and what it was asked."""

    url: str
    requests: list[dict[str, Any]]
    keys: list[str]

    @property
    def prompts(self) -> list[str]:
        return [request["messages"][0]["content"] for request in self.requests]


@contextmanager
def fake_endpoint(behaviour: Behaviour) -> Iterator[FakeEndpoint]:
    """Serves until the end of the block."""
    lock = Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            prompt = request["messages"][0]["content"]
            with lock:
                before = endpoint.prompts.count(prompt)
                endpoint.requests.append(request)
                endpoint.keys.append(self.headers["Authorization"])
                reply = behaviour(prompt, before)
            if reply == CUT:
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
            elif isinstance(reply, Failure):
                # A careless server's message repeats what it was sent.
                error = {"message": f"no: {prompt} {self.headers['Authorization']}"}
                body = {"error": error | {"code": reply.code}}
                self._send(reply.status, json.dumps(body), reply.headers)
            elif isinstance(reply, Body):
                self._send(200, reply.text, {})
            else:
                message = {"role": "assistant", "content": reply}
                self._send(200, json.dumps({"choices": [{"index": 0, "message": message}]}), {})

        def _send(self, status: int, text: str, headers: dict[str, str]) -> None:
            body = text.encode()
            self.send_response(status)
            own = {"Content-Type": "application/json", "Content-Length": str(len(body))}
            own["Connection"] = "close"  # or an open connection would outlive the server
            for name, value in (own | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    endpoint = FakeEndpoint(f"http://127.0.0.1:{server.server_port}/v1", [], [])
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def responses_in(prompt: str) -> tuple[str, str]:
    """Response 1 and response 2 in the packaged judge prompt."""
    found = re.findall(r"<response_[12]>\n(.*?)\n</response_[12]>", prompt, re.DOTALL)
    return found[0], found[1]


def longer_wins(prompt: str, before: int) -> str:
    """A judge that looks at lengths alone, and prefers what stands first among equals."""
    one, two = responses_in(prompt)
    return json.dumps({"reason": "longer", "verdict": 1 if len(one) >= len(two) else 2})

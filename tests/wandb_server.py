"""A W&B server on the loopback, for W&B's own commands to talk to.

It speaks the GraphQL operations and the file stream of the real one (wandb_backend.py). What it
does not know is refused with status 400 and noted in `complaints`; leaving the context fails if
there are any.
"""

import base64
import gzip
import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import Any, Self

from wandb_backend import ENTITY, Backend, Json

KEY = "0123456789abcdef" * 2 + "01234567"  # forty digits, as W&B's keys have


class WandbServer(Backend):
    """The server, running while the context lasts; it refuses other keys with status 401.

    Attributes:
        complaints: requests that it does not know.
    """

    def __init__(self) -> None:
        self._http = _Server(("127.0.0.1", 0), _handler(self))
        super().__init__(f"http://127.0.0.1:{self._http.server_port}")
        self.complaints: list[str] = []
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,))

    def environment(self) -> dict[str, str]:
        """The variables that lead a client here."""
        return {
            "WANDB_BASE_URL": self.url,
            "WANDB_API_KEY": KEY,
            "WANDB_MODE": "online",
            "WANDB_ERROR_REPORTING": "false",
        }

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        if kind is None:
            assert not self.complaints, self.complaints


class _Server(ThreadingHTTPServer):
    """Threads end with the process, and clients may be killed without ceremony."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _handler(server: WandbServer) -> type[BaseHTTPRequestHandler]:
    """Return the handler of HTTP requests to a server."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self._body()
            if self._refused():
                return
            try:
                self._answer(200, self._answer_to(json.loads(body)))
            except Exception as error:  # also a mistake of this server's must not pass unseen
                complaint = f"{self.command} {self.path}: {type(error).__name__}: {error}"
                server.complaints.append(complaint)
                self._answer(400, {"errors": [{"message": complaint}]})

        def do_PUT(self) -> None:
            _, kind, run, *name = PurePosixPath(self.path).parts
            body = self._body()
            if kind == "storage" and run in server.runs:
                server.runs[run].files["/".join(name)] = body
                self._answer(200, {})
            else:
                self._unknown()

        def do_GET(self) -> None:
            self._unknown()

        def _answer_to(self, body: Json) -> Json:
            if self.path == "/graphql":
                return {"data": server.answer(body["query"], body.get("variables") or {})}
            stream = re.fullmatch(rf"/files/{ENTITY}/([\w-]+)/(\w+)/file_stream", self.path)
            if stream is None:
                raise LookupError("unknown address")
            server.stream(*stream.groups(), body)
            return {}

        def _refused(self) -> bool:
            """Refuse a request where the server is out of order or the key is wrong."""
            expected = "Basic " + base64.b64encode(f"api:{KEY}".encode()).decode()
            if server.status is not None:
                self._answer(server.status, {"error": "out of order"})
            elif self.headers["Authorization"] != expected:
                self._answer(401, {"errors": [{"message": "user is not logged in"}]})
            else:
                return False
            return True

        def _unknown(self) -> None:
            server.complaints.append(f"{self.command} {self.path}")
            self._answer(400, {"errors": [{"message": "unknown address"}]})

        def _body(self) -> bytes:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            return gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body

        def _answer(self, status: int, content: Json) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    return Handler

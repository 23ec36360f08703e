"""An issuer's web server, with its key set; it misbehaves on demand."""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.sdk.forge import EC, b64

WAIT_S = 20.0


def jwk(key: Any, **more: Any) -> dict[str, Any]:
    numbers = key.public_key().public_numbers()
    curve, size = {"secp256r1": ("P-256", 32), "secp384r1": ("P-384", 48)}[key.curve.name]
    point = {name: b64(getattr(numbers, name).to_bytes(size, "big")) for name in "xy"}
    return {"kty": "EC", "crv": curve, **point, **more}


def document(*keys: dict[str, Any]) -> dict[str, Any]:
    return {"keys": list(keys)}


class Publisher:
    """An issuer's web server."""

    def __init__(self) -> None:
        self.body: bytes = b""
        self.status = 200
        self.headers: dict[str, str] = {}
        self.drip = b""
        """What is answered; and then a byte now and then, for ever."""
        self.requests = 0
        self.arrived = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()
        self.closed = threading.Event()
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                publisher.requests += 1
                publisher.arrived.release()
                publisher.gate.wait(WAIT_S)
                if publisher.drip:
                    self._drip()
                    return
                self.send_response(publisher.status)
                for name, value in publisher.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(publisher.body)

            def _drip(self) -> None:
                with contextlib.suppress(OSError):  # who asked has left
                    self.wfile.write(publisher.drip)
                    while not publisher.closed.wait(0.01):
                        self.wfile.write(b"x")

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/keys"
        self.publish(jwk(EC, kid="a"))
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def publish(self, *keys: dict[str, Any]) -> None:
        self.body = json.dumps(document(*keys)).encode()

    def close(self) -> None:
        self.gate.set()
        self.closed.set()
        self.server.shutdown()
        self.server.server_close()

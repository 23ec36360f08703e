"""`make example`: the service with an embedded store, and the web application beside it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile

import uvicorn


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def main() -> None:
    """Runs until interrupted. The first argument is the port of the application; default 8000."""
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    address = f"127.0.0.1:{free_port()}"
    with tempfile.TemporaryDirectory(prefix="revocation-example-") as folder:
        command = ["-m", "revocation", "serve", "--embedded", "--data-dir", folder, "--listen", address]
        service = subprocess.Popen([sys.executable, *command])
        os.environ["REVOCATION_ADDRESS"] = address
        try:
            # `localhost`: browsers keep Secure cookies for it without TLS.
            print(f"Open http://localhost:{port}", flush=True)
            uvicorn.run("examples.webapp.app:app", host="127.0.0.1", port=port, log_level="warning")
        finally:
            service.terminate()
            service.wait(20)


if __name__ == "__main__":
    main()

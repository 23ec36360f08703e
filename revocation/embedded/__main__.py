"""`python -m revocation.embedded --data-dir D`: runs an embedded store that several service replicas share.

Prints its URL on standard output when it is ready, for their `--redis-url`, and runs until SIGTERM or SIGINT.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from revocation.embedded import EmbeddedError, EmbeddedStore
from revocation.observability.telemetry import configure_logging


def main() -> int:
    """Exit code 0 after a signal, 2 if the store could not be started."""
    parser = argparse.ArgumentParser(prog="python -m revocation.embedded", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True, help="directory of the store; made if absent")
    directory: Path = parser.parse_args().data_dir
    configure_logging()
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    try:
        with EmbeddedStore(directory) as store:
            print(store.url, flush=True)
            ended.wait()
            return 0
    except EmbeddedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

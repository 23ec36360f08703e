"""Where the time goes: py-spy looks at the service, or at a verifier, while it works; each sample has one owner."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from bench.lab import Lab
from bench.revoke import batches, drive, single

# The owner of a sample is the first of these that matches, looked for from the innermost frame outwards.
OWNERS = (
    ("(revocation_sdk/_view.py", "the view"), ("(revocation_sdk/_packed", "the view"),
    ("fingerprint", "fingerprints"),
    ("audit (revocation/observability/telemetry.py", "the audit line"),
    ("(prometheus_client/", "metrics"),
    ("(redis/", "redis-py"), ("(revocation/store/", "store calls: arguments and answers"),
    ("(revocation/rpc/wire.py", "reading and checking requests"),
    ("(revocation/commit.py", "group commit"), ("(revocation/service.py", "the use case"),
    ("(revocation/replication/partition.py", "checking and applying log records"),
    ("(revocation/replication/history.py", "checking and applying log records"),
    ("(revocation/replication/replica.py", "checking and applying log records"),
    ("(revocation/rpc/stream.py", "encoding messages"),
    ("(revocation/fanout/hub.py", "queues of subscribers"), ("(revocation/rpc/watch.py", "writing to streams"),
    ("(revocation/rpc/", "around each call: identity, request id, errors"),
    ("(revocation_sdk/_judge.py", "the verdict"), ("(revocation_sdk/_sight.py", "lease and clocks"),
    ("(revocation_sdk/_follower.py", "lease and clocks"), ("(revocation_sdk/_clock.py", "lease and clocks"),
    ("(revocation_sdk/_seen.py", "the copy of the claims"), ("(revocation_sdk/_recent.py", "the cache"),
    ("(revocation_sdk/verifier.py", "the steps of verify()"), ("(revocation_sdk/_following.py", "the position as text"),
    ("(uvloop/", "gRPC, protobuf and the event loop"), ("(asyncio/", "gRPC, protobuf and the event loop"),
    ("(threading.py", "gRPC, protobuf and the event loop"),
)  # fmt: skip

_VERIFY = """
import sys, time
from bench.check import claims, client_with
from revocation_sdk import Verifier
from tests.e2e.tokens import AUDIENCE, ISSUER, Signer
signer = Signer()
verifier = Verifier(client_with(200_000, 20_000), jwks=signer.jwks(), algorithms=["ES256"], issuer=ISSUER,
                    audience=AUDIENCE, max_staleness=3600)
tokens = [signer.sign(**one) for one in claims(500)]
print("ready", flush=True)
end = time.time() + float(sys.argv[1])
while time.time() < end:
    for token in tokens:
        verifier.verify(token)
"""


def measure(lab: Lab, seconds: float) -> dict[str, list[tuple[str, float]]]:
    """By path: the owners with their shares, the largest first."""
    return {
        "verify() of a token seen before": _verify(lab, seconds),
        "fan-out to 100 subscribers": _fan_out(lab, seconds),
        "commit, single calls": _commit(lab, seconds, batched=False),
        "commit, batches of 10,000": _commit(lab, seconds, batched=True),
    }


def _verify(lab: Lab, seconds: float) -> list[tuple[str, float]]:
    command = [sys.executable, "-c", _VERIFY, str(seconds + 2)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return _record(process.pid, seconds, lab.folder, lambda: None)


def _commit(lab: Lab, seconds: float, *, batched: bool) -> list[tuple[str, float]]:
    service = lab.service(lab.store())
    call, flying = (batches(10_000, 8), 3) if batched else (single, 64)
    return _record(
        service.pid, seconds, lab.folder, lambda: drive(service.address, service.pid, call, flying, seconds + 1)
    )


def _fan_out(lab: Lab, seconds: float) -> list[tuple[str, float]]:
    service = lab.service(lab.store())

    def work() -> None:
        ready = threading.Event()
        thread = threading.Thread(target=_follow, args=(service.address, seconds + 1, ready))
        thread.start()
        ready.wait(20)
        drive(service.address, service.pid, single, 2, seconds + 1)
        thread.join()

    return _record(service.pid, seconds, lab.folder, work)


def _follow(address: str, seconds: float, ready: threading.Event) -> None:
    # A process of its own: several event loops in one are grpc.aio's weak spot.
    code = (
        "import sys, asyncio, uvloop\nfrom bench.fanout import Streams\n"
        "async def run():\n"
        "    streams = Streams(sys.argv[1], 100)\n"
        "    await streams.open(); streams.listen(); print('ready', flush=True)\n"
        "    await asyncio.sleep(float(sys.argv[2])); await streams.close()\n"
        "uvloop.run(run())\n"
    )
    command = [sys.executable, "-c", code, address, str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        ready.set()


def _record(pid: int, seconds: float, folder: Path, work: Callable[[], object]) -> list[tuple[str, float]]:
    spy = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or "py-spy"
    out = folder / f"profile-{pid}"
    command = [
        spy, "record", "--pid", str(pid), "--duration", str(int(seconds)), "--format", "raw", "--rate", "200",
        "--gil", "--nonblocking", "--output", str(out),
    ]  # fmt: skip
    recorder = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        work()
        recorder.wait(seconds + 20)
    finally:
        recorder.kill()
    return _owned(out.read_text() if out.exists() else "")


def _owned(folded: str) -> list[tuple[str, float]]:
    samples: Counter[str] = Counter()
    for line in folded.splitlines():
        stack, _, count = line.rpartition(" ")
        samples[_owner(stack.split(";"))] += int(count)
    total = max(1, samples.total())
    return [(owner, count / total) for owner, count in samples.most_common()]


def _owner(stack: list[str]) -> str:
    for frame in reversed(stack):
        for pattern, owner in OWNERS:
            if pattern in frame:
                return owner
    return "other"

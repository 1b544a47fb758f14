"""What the door costs per request, in process: CPU time over the bare app, interleaved, median of the rounds.

The same Starlette app with and without ``PolicyMiddleware``, called as a server calls it. The log is written (buffered, a real
file, chained, synced); its thread's CPU is in the figure, for it is the same process. Warm: certificate and token were seen
before, and the authorizer runs on every request. Cold: neither was seen before.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from certauth.clock import system_clock
from policy.decision_log import DecisionLog
from policy.middleware import PolicyMiddleware
from policy.request import PEER_EXTENSION
from policy.rules import Policy, RecordMode
from policy.testing import Facility, Peer

WARM_BAR = 50.0
COLD_BAR = 300.0
ROUNDS = 15
CALLS = 300
COLD_CALLS = 40

RULES = b"""
version = 1
service = "data"
[[route]]
path = "/me"
access = "certificate"
[[route]]
path = "/files/"
access = "token"
"""

App = Callable[[Any, Any, Any], Awaitable[None]]


async def answer(_request: Request) -> PlainTextResponse:
    """The least an app can do."""
    return PlainTextResponse("ok")


async def receive() -> dict[str, Any]:
    """No body."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(_message: dict[str, Any]) -> None:
    """Nobody listens."""


def scope(path: str, peer: Peer, token: str | None) -> dict[str, Any]:
    """A request with the headers a common client sends."""
    headers = [(b"host", b"data.example"), (b"accept", b"*/*"), (b"user-agent", b"bench"), (b"accept-encoding", b"gzip")]
    if token is not None:
        headers.append((b"authorization", b"Bearer " + token.encode()))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "https",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8443),
        "state": {},
        "extensions": {PEER_EXTENSION: {"chain_der": peer.chain_der, "address": ("127.0.0.1", 50000), "uid": None}},
    }


async def cost(app: App, requests: list[dict[str, Any]]) -> float:
    """CPU microseconds per request of the whole process."""
    begun = time.process_time_ns()
    for request in requests:
        await app(dict(request), receive, send)
    return (time.process_time_ns() - begun) / 1000 / len(requests)


async def over_the_bare_app(bare: App, guarded: App, make: Callable[[], list[dict[str, Any]]]) -> float:
    """The median, over rounds, of what the guarded app costs more than the bare one in the same round."""
    differences = []
    for number in range(ROUNDS):
        requests = make()
        first, second = (bare, guarded) if number % 2 else (guarded, bare)
        costs = {first: await cost(first, requests), second: await cost(second, requests)}
        differences.append(costs[guarded] - costs[bare])
        await asyncio.sleep(0.06)  # let the log's thread finish what it would otherwise do in the next round
    return statistics.median(differences)


async def _measure(directory: Path) -> list[tuple[str, float, float]]:
    facility = Facility()
    alice = facility.peer("alice")
    token = facility.token(alice, "data", rights=["read /files/"])
    bare: App = Starlette(routes=[Route("/files/{path:path}", answer), Route("/me", answer)])
    log = DecisionLog(directory / "decisions.jsonl", mode=RecordMode.BUFFERED, clock=system_clock, program="bench")
    guarded = PolicyMiddleware(bare, policy=Policy.parse(RULES), trust=facility.trust(), decisions=log)
    guarded.start()
    try:

        def warm() -> list[dict[str, Any]]:
            return [scope("/files/run-7/image.h5", alice, token)] * CALLS

        def certificate_only() -> list[dict[str, Any]]:
            return [scope("/me", alice, None)] * CALLS

        def cold() -> list[dict[str, Any]]:
            peers = [facility.peer("alice") for _ in range(COLD_CALLS)]
            return [
                scope("/files/run-7/image.h5", peer, facility.token(peer, "data", rights=["read /files/"])) for peer in peers
            ]

        await over_the_bare_app(bare, guarded, warm)  # the first rounds fill caches, of the interpreter as well
        return [
            ("policy-token-warm", await over_the_bare_app(bare, guarded, warm), WARM_BAR),
            ("policy-certificate-only", await over_the_bare_app(bare, guarded, certificate_only), WARM_BAR),
            ("policy-token-cold", await over_the_bare_app(bare, guarded, cold), COLD_BAR),
        ]
    finally:
        guarded.stop()


def measurements() -> Iterator[dict[str, object]]:
    """CPU per request that the door adds to the bare Starlette app."""
    with tempfile.TemporaryDirectory() as directory:
        for name, value, bar in asyncio.run(_measure(Path(directory))):
            yield {
                "name": name,
                "value": round(value, 1),
                "unit": "us CPU",
                "bar": bar,
                "holds": value <= bar,
                "runs": ROUNDS,
                "versus": "the bare Starlette app in the same round",
            }

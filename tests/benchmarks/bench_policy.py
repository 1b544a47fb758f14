"""What the door costs per request, in process: CPU time over the bare app, interleaved, median of the rounds.

The same Starlette app with and without ``PolicyMiddleware``, called as a server calls it. The log is written (buffered, a real
file, chained, synced) before a round ends; its thread's CPU is in the figure, for it is the same process.

    policy-token-remembered        an equal request was permitted a moment ago (``policy.remembered``)
    policy-certificate-remembered  the same on a route that asks for a certificate only
    policy-token-authorizer        certificate and token were seen before, the path is another one each time, so the engine
                                   decides each request; that it did is checked
    policy-token-cold              neither certificate nor token nor path was seen before

Where a bar is below what the libraries beneath take for the same work on this machine, nothing of ours can hold it. So that
floor is measured in the same round, and what the door takes is given as a ratio to it as well:

    policy-token-authorizer-floor  one run of the engine for the same question, by itself
    policy-token-cold-floor        the path validated by cryptography, the token verified by biscuit-python, one run of it
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from biscuit_auth import Biscuit, Fact
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from certauth.clock import system_clock
from certauth.tokens.authorizer import _LIMITS, _engine_allows
from certauth.tokens.engine import Builder
from policy.decision_log import DecisionLog
from policy.middleware import PolicyMiddleware
from policy.request import PEER_EXTENSION
from policy.rules import Policy, RecordMode
from policy.testing import Facility, Peer

REMEMBERED_BAR = 10.0
AUTHORIZER_BAR = 50.0
COLD_BAR = 300.0
FLOOR_BAR = 3.0
"""The door against the libraries beneath it."""
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
Action = Callable[[], object]


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


async def cost(app: App, requests: list[dict[str, Any]], log: DecisionLog) -> float:
    """CPU microseconds per request of the whole process, until what was recorded is on the disk."""
    begun = time.process_time_ns()
    for request in requests:
        await app(dict(request), receive, send)
    while log._queue:  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.02)  # what was taken from the queue is written
    return (time.process_time_ns() - begun) / 1000 / len(requests)


Requests = list[dict[str, Any]]
Costs = list[tuple[float, float]]
"""Of each round, what the door adds to a request, and what the floor takes."""


async def over_the_bare_app(bare: App, guarded: App, log: DecisionLog, make: Callable[[], tuple[Requests, Action]]) -> Costs:
    """For each round what the guarded app costs more than the bare one, and what the floor of these requests costs."""
    found = []
    for number in range(ROUNDS):
        requests, floor = make()
        first, second = (bare, guarded) if number % 2 else (guarded, bare)
        costs = {first: await cost(first, requests, log), second: await cost(second, requests, log)}
        begun = time.process_time_ns()
        floor()
        found.append((costs[guarded] - costs[bare], (time.process_time_ns() - begun) / 1000 / len(requests)))
    return found


class Floor:
    """What cryptography and biscuit-python take for the work that cannot be left out."""

    def __init__(self, facility: Facility) -> None:
        self._state = facility.trust().state
        (entry,) = self._state.entries.values()
        self._roots = Store(list(entry.bundle.x509_roots))
        ((self._kid, self._root),) = self._state.token_keys.items()

    def path(self, peer: Peer) -> None:
        """The peer's certificate leads to a root."""
        leaf, *above = [x509.load_der_x509_certificate(der) for der in peer.chain_der]
        builder = PolicyBuilder().store(self._roots).time(system_clock()).max_chain_depth(2)
        builder.build_client_verifier().verify(leaf, above)

    def token(self, text: str) -> Biscuit:
        """The token's signatures."""
        return Biscuit.from_base64(text, self._root.engine_key)

    def run(self, token: Biscuit, peer: Peer, path: str) -> None:
        """The engine's decision, from facts that are made already but for the path."""
        builder = Builder()
        builder.merge(self._asking(peer))
        builder.set_limits(_LIMITS)
        builder.add_fact(Fact("path({v})", {"v": path}))
        builder.build(token).authorize()

    def run_all(self, token: Biscuit, peer: Peer, paths: list[str]) -> None:
        """One run for each path."""
        for path in paths:
            self.run(token, peer, path)

    @cache  # noqa: B019 - a benchmark's
    def _asking(self, peer: Peer) -> Any:
        values = {"peer": peer.fingerprint, "now": system_clock()}
        text = """
            time({now}); service("data"); operation("read"); peer_cert({peer}); tree("/files/");
            allow if tree($t), right("data", "read", $t), path($p), $p.starts_with($t);
        """
        return Builder(text, values)


def _nothing() -> None:
    """No floor."""


async def _measure(directory: Path) -> dict[str, Costs]:
    facility = Facility()
    alice = facility.peer("alice")
    token = facility.token(alice, "data", rights=["read /files/"])
    floor, numbers = Floor(facility), itertools.count()
    bare: App = Starlette(routes=[Route("/files/{path:path}", answer), Route("/me", answer)])
    log = DecisionLog(directory / "decisions.jsonl", mode=RecordMode.BUFFERED, clock=system_clock, program="bench")
    guarded = PolicyMiddleware(bare, policy=Policy.parse(RULES), trust=facility.trust(), decisions=log)
    guarded.start()

    def remembered() -> tuple[Requests, Action]:
        return [scope("/files/run-7/image.h5", alice, token)] * CALLS, _nothing

    def certificate() -> tuple[Requests, Action]:
        return [scope("/me", alice, None)] * CALLS, _nothing

    def authorizer() -> tuple[Requests, Action]:
        paths = [f"/files/run-7/image-{next(numbers)}.h5" for _ in range(CALLS)]
        verified = floor.token(token)
        return [scope(path, alice, token) for path in paths], lambda: floor.run_all(verified, alice, paths)

    def cold() -> tuple[Requests, Action]:
        peers = [facility.peer("alice") for _ in range(COLD_CALLS)]
        shown = [(peer, facility.token(peer, "data", rights=["read /files/"]), next(numbers)) for peer in peers]

        def bare_cold() -> None:
            for peer, text, number in shown:
                floor.path(peer)
                floor.run(floor.token(text), peer, f"/files/{number}")

        return [scope(f"/files/{number}", peer, text) for peer, text, number in shown], bare_cold

    try:
        await over_the_bare_app(bare, guarded, log, remembered)  # the first rounds fill caches, of the interpreter as well
        found = {
            "policy-token-remembered": await over_the_bare_app(bare, guarded, log, remembered),
            "policy-certificate-remembered": await over_the_bare_app(bare, guarded, log, certificate),
        }
        asked = _engine_allows.cache_info().misses
        found["policy-token-authorizer"] = await over_the_bare_app(bare, guarded, log, authorizer)
        found["policy-token-cold"] = await over_the_bare_app(bare, guarded, log, cold)
        asked = _engine_allows.cache_info().misses - asked
        if asked != ROUNDS * (CALLS + COLD_CALLS):
            raise RuntimeError(f"the engine decided {asked} of {ROUNDS * (CALLS + COLD_CALLS)} requests")
        return found
    finally:
        guarded.stop()


def measurements() -> Iterator[dict[str, object]]:
    """CPU per request that the door adds to the bare Starlette app, and how often it takes what the floor takes."""
    with tempfile.TemporaryDirectory() as directory:
        found = asyncio.run(_measure(Path(directory)))
    for name, bar in (
        ("policy-token-remembered", REMEMBERED_BAR),
        ("policy-certificate-remembered", REMEMBERED_BAR),
        ("policy-token-authorizer", AUTHORIZER_BAR),
        ("policy-token-cold", COLD_BAR),
    ):
        added = statistics.median(added for added, _ in found[name])
        yield _result(name, added, "us CPU", bar, "the bare Starlette app in the same round")
    for name in ("policy-token-authorizer", "policy-token-cold"):
        floor = statistics.median(floor for _, floor in found[name])
        ratio = statistics.median(added / floor for added, floor in found[name])
        yield _result(f"{name}-floor", ratio, "x", FLOOR_BAR, f"{floor:.0f} us that the libraries take for the same")


def _result(name: str, value: float, unit: str, bar: float, versus: str) -> dict[str, object]:
    return {
        "name": name,
        "value": round(value, 2),
        "unit": unit,
        "bar": f"<= {bar}",
        "holds": value <= bar,
        "runs": ROUNDS,
        "versus": versus,
    }

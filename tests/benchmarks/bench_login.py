"""What a login costs, in each of the ways there are: wall time from the command to the stored certificate.

The signer is the real one in a process of its own, ``certauth login`` another, and the providers are PyPI idpyoidc and npm
oidc-provider with their own pages. Nobody has to think or type: what a person does is done by a browser without a screen.

Absolute times say more about the machine than about the program. So each is given as a ratio to a floor of the same round: the
program reading what is stored (``certauth whoami``: the start of the interpreter, imports, the profile) and, where a provider
takes part, a plain client that logs in at the same provider in the same way without us. What is above 1 is ours: metadata and
bundle, the key and its request, the grant with its record on the disk, every check of the answer, and the signer's pages.

    login-browser       code flow with PKCE; floor: whoami, the start of the browser's process, and a bare code flow
    login-mediated      the same through the signer's pages, by a code that is typed; floor: whoami, a bare code flow
    login-device        device grant with DPoP; floor: whoami, a bare device grant
    login-given-token   an access token that somebody has already, explained by its issuer; floor: whoami, and one request to
                        that issuer
    login-assertion     a service with its enrolled key; floor: whoami

In the second and the third the program asks, until the person is done, as often as it is allowed to: every two and every five
seconds (RFC 8628 §3.5). The person is done before the first question, and that one pause is taken off.

Without Node only the last is measured, and the others are said to be skipped. Besides, ``login-program-help`` is what the
program takes to say what it can do.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from certauth import keys
from certauth.client.jose import public_jwk
from certauth.keys import Algorithm
from signer.login_state import LoginLimits
from tests.demo.stage import CERTAUTH, ROOT
from tests.journeys.login_place import AUDIENCE, Login, Place, dpop_key, place, run
from tests.journeys.server import serving
from tests.signer.kit import DOMAIN, Site, facility, run_cli
from tests.simulator import node_provider as node
from tests.simulator import openid_provider as idpy

RUNS = 5
BAR = 3.0
STARTS = 11
HELP_BAR_MS = 150.0
DEVICE_PAUSE = 5.0
"""Seconds between two questions of the device grant, unless the provider says otherwise (RFC 8628 §3.2)."""
MEDIATED_PAUSE = LoginLimits().interval
"""The same of a login through the signer."""
TYPE_CODE = r"type this code:  (\S+?)(?:\\n|\s)"
DEVICE = r"(https://\S+?(?:\\n|\s)+and type this code:  [A-Z-]+)"
PEOPLE = ("login-browser", "login-mediated", "login-device", "login-given-token")

Action = Callable[[], object]


def measurements() -> Iterator[dict[str, object]]:
    """One ratio for each way of logging in."""
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as running:
        base = Path(directory)
        try:
            at: Place | None = running.enter_context(place(base))
            site = at.site if at is not None else running.enter_context(facility(base))
        except pytest.skip.Exception as missing:
            print(*(f"{name:<44} skipped: {missing}" for name in PEOPLE), sep="\n", flush=True)
            at, site = None, running.enter_context(facility(base / "alone"))
        key_file = _enrolled(site, base)
        running.enter_context(serving(site))
        homes = base / "homes"
        if at is not None:
            yield _result("login-browser", _browser(at), homes / "browser", _started_browser, _code_flow(at))
            yield _result("login-mediated", _mediated(at), homes / "mediated", _code_flow(at), pause=MEDIATED_PAUSE)
            yield _result("login-device", _device(at), homes / "device", _device_grant(at), pause=DEVICE_PAUSE)
            yield _result("login-given-token", _given(at, base), homes / "given", at.opaque.discovery)
        yield _result("login-assertion", _assertion(site, key_file), homes / "assertion")
    yield _help()


def _help() -> dict[str, object]:
    """What a person waits for ``certauth --help``, and how often that is what the interpreter takes by itself."""
    commands: list[list[object]] = [[CERTAUTH, "--help"], [sys.executable, "-c", "pass"]]
    rounds = [[_seconds(partial(_run, command)) * 1000 for command in commands] for _ in range(STARTS + 1)][1:]
    value = statistics.median(ours for ours, _ in rounds)
    ratio = statistics.median(ours / bare for ours, bare in rounds)
    return {
        "name": "login-program-help",
        "value": round(value, 1),
        "unit": "ms wall",
        "bar": f"<= {HELP_BAR_MS}",
        "holds": value <= HELP_BAR_MS,
        "runs": STARTS,
        "versus": f"its start to its end: {ratio:.1f} times that of 'python -c pass'",
    }


def _run(command: list[object]) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True, cwd=ROOT, timeout=60)


def _result(name: str, login: Callable[[Path], Action], homes: Path, *bare: Action, pause: float = 0.0) -> dict[str, object]:
    """``login`` prepares a login into a new directory; that part is not timed."""
    ours, floors = [], []
    for number in range(RUNS + 1):
        home = homes / str(number)
        ours.append(_seconds(login(home)) - pause)
        floor: list[Action] = [partial(run, home, "whoami"), *bare]
        floors.append(sum([_seconds(action) for action in floor]))
    ratio = statistics.median(one / floor for one, floor in zip(ours[1:], floors[1:], strict=True))  # the first warms up
    return {
        "name": name,
        "value": ratio,
        "unit": "x",
        "bar": f"<= {BAR}",
        "holds": ratio <= BAR,
        "runs": RUNS,
        "versus": f"its floor: {statistics.median(ours[1:]):.2f} s against {statistics.median(floors[1:]):.2f} s",
    }


def _seconds(action: Action) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


# --- the ways ----------------------------------------------------------------------------------------------------------------


def _browser(at: Place) -> Callable[[Path], Action]:
    command = f"{sys.executable} -m tests.simulator.openid_provider --user alice --ca-file {at.campus.ca_file} --browse"
    return lambda home: lambda: _ends(at, home, "--issuer", "campus", "--browser-command", command)


def _mediated(at: Place) -> Callable[[Path], Action]:
    def log_in(home: Path) -> None:
        with Login(at, home, "--issuer", "campus", "--mediated") as login:
            at.finish(login.says(TYPE_CODE), "alice", at="campus")
            login.ends()

    return lambda home: lambda: log_in(home)


def _device(at: Place) -> Callable[[Path], Action]:
    def log_in(home: Path) -> None:
        with Login(at, home, "--issuer", "hpc", "--device") as login:
            said = login.says(DEVICE)
            node.approve_device(at.hpc, "alice", said.split("\\n")[0].split()[0], said.split()[-1])
            login.ends()

    return lambda home: lambda: log_in(home)


def _given(at: Place, base: Path) -> Callable[[Path], Action]:
    def prepare(home: Path) -> Action:
        file = base / f"token-{home.name}"
        file.touch(mode=0o600)
        file.write_text(node.log_in(at.opaque, "alice", resource=AUDIENCE)["access_token"])
        return lambda: _ends(at, home, "--issuer", "opaque", "--token", file)

    return prepare


def _assertion(site: Site, key_file: Path) -> Callable[[Path], Action]:
    who = ("--key", key_file, "--principal", f"spiffe://{DOMAIN}/service/mover")
    return lambda home: lambda: run(home, "login", site.url, "--ca-file", site.root, *who)


def _ends(at: Place, home: Path, *words: object) -> dict[str, Any]:
    with Login(at, home, *words) as login:
        return login.ends()


def _enrolled(site: Site, base: Path) -> Path:
    """The key of a service, enrolled."""
    key = keys.generate(Algorithm.P256)
    keys.save_private(base / "mover.pem", key, passphrase=None)
    (base / "mover.jwk").write_text(json.dumps(public_jwk(key.public_key)))
    enrolled = ("service", "enroll", "mover", "--key", base / "mover.jwk", "--reason", "a measurement")
    run_cli(*enrolled, "--settings", site.settings_file)
    return base / "mover.pem"


# --- without us --------------------------------------------------------------------------------------------------------------


def _started_browser() -> None:
    _run([sys.executable, "-m", "tests.simulator.openid_provider", "--help"])


def _code_flow(at: Place) -> Action:
    provider = cast("idpy.Provider", at.campus)  # it has what a login needs of one
    return lambda: idpy.log_in(provider, "alice", nonce="of-nobody")


def _device_grant(at: Place) -> Action:
    return lambda: node.device_login(at.hpc, "alice", dpop=dpop_key()[1], resource=AUDIENCE)

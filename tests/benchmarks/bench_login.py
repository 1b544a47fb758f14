"""What a login costs that nobody has to wait for: a service with its enrolled key, from the command to the stored certificate.

The signer is the real one in a process of its own. Compared with the same program reading what is stored (``whoami``): the
difference is metadata and bundle, the new key, the assertion, the grant and its record, and every check of the answer. Wall
time of processes, interleaved. Logins of people wait for people, and for the interval at which a provider wants to be asked.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from certauth import keys
from certauth.client.jose import public_jwk
from certauth.keys import Algorithm
from tests.demo.stage import CERTAUTH, ROOT
from tests.journeys.server import serving
from tests.signer.kit import DOMAIN, facility, run_cli

_RUNS = 7
_RATIO_BAR = 3.0


def measurements() -> Iterator[dict[str, object]]:
    """The ratio of the two commands."""
    with tempfile.TemporaryDirectory() as directory:
        logins, bare = _measure(Path(directory))
    ratio = statistics.median(login / other for login, other in zip(logins, bare, strict=True))
    yield {
        "name": "grant-login-command-over-whoami",
        "value": ratio,
        "unit": "x",
        "bar": _RATIO_BAR,
        "holds": ratio <= _RATIO_BAR,
        "runs": _RUNS,
        "versus": "a command that reads the stored certificate",
    }


def _measure(directory: Path) -> tuple[list[float], list[float]]:
    with facility(directory) as site:
        key = keys.generate(Algorithm.P256)
        keys.save_private(directory / "mover.pem", key, passphrase=None)
        (directory / "mover.jwk").write_text(json.dumps(public_jwk(key.public_key)))
        enrolled = ("service", "enroll", "mover", "--key", directory / "mover.jwk", "--reason", "a measurement")
        run_cli(*enrolled, "--settings", site.settings_file)
        who = ("--key", directory / "mover.pem", "--principal", f"spiffe://{DOMAIN}/service/mover")
        login = ("login", site.url, "--ca-file", site.root, "--force", *who)
        with serving(site):
            _seconds(directory, login)  # the first writes the profile
            pairs = [(_seconds(directory, login), _seconds(directory, ("whoami",))) for _ in range(_RUNS)]
    return [one for one, _ in pairs], [other for _, other in pairs]


def _seconds(home: Path, words: Sequence[object]) -> float:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "CERTAUTH_HOME": str(home / "home")}
    began = time.perf_counter()
    subprocess.run(
        [str(word) for word in (CERTAUTH, *words)], env=environment, cwd=ROOT, check=True, capture_output=True, timeout=60
    )
    return time.perf_counter() - began

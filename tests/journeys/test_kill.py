"""Kill -9 of the real signer under load: what a client was given is in the log, which verifies. And a control."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest

from certauth.audit.checkpoint import VerifierKey
from certauth.audit.receipt import Receipt, check
from certauth.bundles import TrustBundle
from signer.log_reader import open_offline
from tests.demo.stage import CERTAUTH
from tests.journeys.kit import until, verify_database
from tests.journeys.server import PYTHON, kill, serving
from tests.signer.kit import Identity, Site, facility

CLIENTS = 6


@dataclass(slots=True)
class Load:
    """Several clients that ask for one token after the other, and keep every receipt they were given."""

    receipts: list[bytes] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)

    def start(self, site: Site, identity: Identity, *, each: int | None = None) -> None:
        """Begin; ``each`` bounds how many tokens a client asks for."""
        clients = [site.client(identity) for _ in range(CLIENTS)]
        self.threads = [threading.Thread(target=self._run, args=(client, each), daemon=True) for client in clients]
        for thread in self.threads:
            thread.start()

    def _run(self, client: httpx2.Client, each: int | None) -> None:
        done = 0
        with client:
            while not self.stopping.is_set() and (each is None or done < each):
                try:
                    answer = client.post("/v1/tokens", json={"audience": "files"})
                except httpx2.HTTPError:
                    return  # the signer is gone: what was not answered was not granted
                if answer.status_code == 201:
                    self.receipts.append(json.dumps(answer.json()["receipt"]).encode())
                done += 1

    def join(self) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join(60)


def lost(site: Site, receipts: list[bytes]) -> list[int]:
    """The indices of acknowledged grants that the log on the disk does not hold, byte for byte, at their place."""
    bundle = TrustBundle.parse((site.directory / "bundle.json").read_bytes(), allow_example_keys=False)
    missing = []
    with open_offline(site.directory / "signer.db") as reader:
        held = [entry.body for entry in reader.entries()]
    for data in receipts:
        receipt = Receipt.from_dict(json.loads(data))
        check(receipt, VerifierKey.parse(bundle.log_vkey))
        if receipt.index >= len(held) or held[receipt.index] != receipt.entry:
            missing.append(receipt.index)
    return missing


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A facility with one person who may have tokens."""
    with facility(tmp_path_factory.mktemp("kill")) as made:
        made.enroll("alice", "files:read:/alice/")
        yield made


def test_kill_under_load_loses_no_acknowledged_grant(site: Site) -> None:
    """Four rounds, killed after so many answers, in the midst of its work: nothing acknowledged is missing, ever."""
    given: list[bytes] = []
    for answers in (1, 15, 60, 120):
        with serving(site) as process:
            load = Load()
            load.start(site, site.log_in("alice"))
            until(lambda load=load, answers=answers: len(load.receipts) >= answers)
            kill(process)
            load.join()
        given += load.receipts
        assert len(load.receipts) >= answers
        assert lost(site, given) == []
        verify_database(site)
    assert len({Receipt.from_dict(json.loads(data)).index for data in given}) == len(given), "no index was given out twice"
    command = [CERTAUTH, "audit", "verify", site.directory / "signer.db", "--bundle", site.directory / "bundle.json", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["entries"] >= len(given)


@pytest.mark.parametrize(("broken", "noticed"), [(False, False), (True, True)])
def test_the_method_notices_a_signer_that_answers_too_early(tmp_path: Path, *, broken: bool, noticed: bool) -> None:
    """Killed after its last answer, a signer that lets go of answers before COMMIT has lost some; the real one has not."""
    command = [PYTHON, "-m", "tests.journeys.early_signer", "signer", "serve"] if broken else [str(CERTAUTH), "signer", "serve"]
    with facility(tmp_path) as made:
        made.enroll("alice", "files:read:/alice/")
        with serving(made, command=command) as process:
            load = Load()
            load.start(made, made.log_in("alice"), each=4)
            for thread in load.threads:
                thread.join(60)
            kill(process)
        assert len(load.receipts) == CLIENTS * 4
        assert (lost(made, load.receipts) != []) is noticed

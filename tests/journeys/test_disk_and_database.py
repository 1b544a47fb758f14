"""The ground under the running signer gives way: disk full, database moved or replaced, identity provider down.

In each case: a stable code, a readiness that names the part, nothing released, and service again when the cause is gone.
"""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from certauth import keys
from certauth.audit import record
from certauth.keys import Algorithm
from signer.log_reader import open_offline
from tests.journeys.kit import down, second_provider, until, verify_database
from tests.journeys.server import serving
from tests.signer.kit import Identity, Site, facility
from tests.simulator.hostile_provider import ProviderKey

UNKNOWN = "revocations-unknown"
"""With which the door refuses everybody as soon as it, too, has noticed that there is no database."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A facility with one person who may have tokens."""
    with facility(tmp_path) as made:
        made.enroll("alice", "files:read:/alice/")
        yield made


def readiness(client: httpx2.Client) -> tuple[int, dict[str, Any]]:
    """The status of ``/readyz`` and its parts."""
    answer = client.get("/readyz")
    return answer.status_code, answer.json()["parts"]


def ask(client: httpx2.Client) -> httpx2.Response:
    """For a token."""
    return client.post("/v1/tokens", json={"audience": "files"})


def recorded_tokens(site: Site) -> set[str]:
    """Which tokens the log knows of."""
    with open_offline(site.directory / "signer.db") as reader:
        entries = [record.decode(entry.body) for entry in reader.entries()]
    return {str(entry["grant"]["jti"]) for entry in entries if entry["kind"] == "grant.token"}  # type: ignore[index]


def refused(answer: httpx2.Response, *codes: str) -> None:
    """503, one of these codes, when to come again, and no credential in it."""
    assert answer.status_code == 503, answer.text
    assert answer.json()["code"] in codes, answer.text
    assert int(answer.headers["retry-after"]) >= 1
    assert "token" not in answer.json()
    assert "certificate_chain" not in answer.json()


def test_full_disk_is_said_releases_nothing_and_passes(site: Site) -> None:
    """No file may grow any more: 503 until it may; each token that left is in the log, and no other one is."""
    with serving(site) as process, site.client(site.log_in("alice")) as client:
        given = {ask(client).json()["jti"]}
        database = site.directory / "signer.db"
        full = max(path.stat().st_size for path in (database, database.with_name("signer.db-wal")))
        unlimited = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (full, unlimited[1]))
        answers = [ask(client) for _ in range(60)]
        given |= {answer.json()["jti"] for answer in answers if answer.status_code == 201}
        assert answers[-1].status_code == 503, "the disk was not full"
        for answer in answers:
            if answer.status_code != 201:
                refused(answer, "disk-full", "audit-unavailable")
        _, parts = until(lambda: found if (found := readiness(client))[0] == 503 else None)
        assert parts["log"]["state"] == "failed", parts
        login = client.post("/v1/certificates", json=site.body("alice", keys.generate(Algorithm.P256)))
        refused(login, "disk-full", "audit-unavailable")
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, unlimited)
        again = until(lambda: answer if (answer := ask(client)).status_code == 201 else None)
        given.add(again.json()["jti"])
        assert until(lambda: readiness(client)[0] == 200)
    assert recorded_tokens(site) == given
    verify_database(site)


def test_database_moved_away_is_noticed_and_its_return_too(site: Site) -> None:
    """Renamed while the signer serves: no grant into a file nobody will find; back in its place, service goes on."""
    database = site.directory / "signer.db"
    with serving(site), site.client(site.log_in("alice")) as client:
        given = {ask(client).json()["jti"]}
        database.rename(site.directory / "elsewhere.db")
        for _ in range(3):
            refused(ask(client), "database-moved", UNKNOWN)
        assert not database.exists(), "no new and empty database was made in its place"
        refused(until(lambda: answer if (answer := ask(client)).json()["code"] != "database-moved" else None), UNKNOWN)
        status, parts = readiness(client)
        assert (status, parts["database"]["state"]) == (503, "failed")
        assert "moved" in parts["database"]["detail"]
        assert client.get("/livez").status_code == 200, "alive, and able to say what is wrong"
        (site.directory / "elsewhere.db").rename(database)
        given.add(until(lambda: answer if (answer := ask(client)).status_code == 201 else None).json()["jti"])
        assert until(lambda: readiness(client)[0] == 200)
    assert recorded_tokens(site) == given
    verify_database(site)


def test_database_replaced_by_its_own_copy_is_not_written(site: Site) -> None:
    """An older copy in its place is another file, however much it looks the same: nothing is signed on top of it."""
    database = site.directory / "signer.db"
    with serving(site), site.client(site.log_in("alice")) as client:
        shutil.copy(database, site.directory / "older.db")
        given = {ask(client).json()["jti"] for _ in range(3)}
        database.rename(site.directory / "genuine.db")
        (site.directory / "older.db").rename(database)
        before = database.read_bytes()
        for _ in range(3):
            refused(ask(client), "database-moved", UNKNOWN)
        assert readiness(client)[0] == 503
        assert database.read_bytes() == before
        (site.directory / "genuine.db").replace(database)
        given.add(until(lambda: answer if (answer := ask(client)).status_code == 201 else None).json()["jti"])
    assert recorded_tokens(site) == given
    verify_database(site)


def test_provider_that_is_down_stops_its_own_unknown_keys_only(site: Site, tmp_path: Path) -> None:
    """Known keys go on, the other provider's people do not notice, an unknown key has to wait, and readiness says whose."""
    with second_provider(site, tmp_path / "partner") as partner:
        partner.enroll("bob", "files:read:/bob/", issuer=partner.provider.issuer)
        with site.serving():
            site.log_in("alice")
            down(site.provider)
            assert site.log_in("alice").chain, "her key is known"
            rotated = ProviderKey("ES256", kid="rotated")
            known, site.provider_key = site.provider_key, rotated
            body = site.body("alice", keys.generate(Algorithm.P256))
            site.provider_key = known
            with site.client() as client:
                refused(client.post("/v1/certificates", json=body), "issuer-unavailable", "unknown-key")
                assert partner.log_in("bob").chain
                status, parts = readiness(client)
                assert status == 200, "one provider's trouble is no reason to stop serving everybody"
                assert {"issuer:idp", "issuer:partner"} <= parts.keys()


def test_provider_that_is_down_at_the_start(site: Site, tmp_path: Path) -> None:
    """The signer starts without it, says which one is missing, serves the other one's people, and refuses its own with 503."""
    with second_provider(site, tmp_path / "partner") as partner:
        partner.enroll("bob", "files:read:/bob/", issuer=partner.provider.issuer)
        down(site.provider)
        with site.serving():
            with site.client() as client:
                refused(
                    client.post("/v1/certificates", json=site.body("alice", keys.generate(Algorithm.P256))),
                    "issuer-unavailable",
                )
                status, parts = readiness(client)
            assert (status, parts["issuer:idp"]["state"], parts["issuer:partner"]["state"]) == (200, "degraded", "ok")
            assert "503" in parts["issuer:idp"]["detail"], json.dumps(parts)
            someone: Identity = partner.log_in("bob")
            assert someone.chain

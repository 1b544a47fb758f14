"""The running service when something is wrong: said truthfully, nothing released, and recovered from where it can be."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx2
import pytest

from certauth import keys
from certauth.errors import LogError, StoreError
from certauth.keys import Algorithm
from signer import health
from signer.app import create_app
from signer.service import start
from tests.demo.stage import CERTAUTH
from tests.signer.kit import CLIENT_ID, DOMAIN, Site, facility, run_cli


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A facility with one enrolled person."""
    with facility(tmp_path) as made:
        made.enroll("alice", "files:read:/a/")
        yield made


def parts(client: httpx2.Client) -> tuple[int, dict[str, dict[str, str]]]:
    """Status and parts of ``/readyz``."""
    answer = client.get("/readyz")
    return answer.status_code, answer.json()["parts"]


def test_database_that_moves_away_stops_everything_and_is_named(site: Site) -> None:
    """With the database gone from its place nothing is granted, readiness names it, and nothing was released."""
    database = site.settings.database_path
    with site.serving(), site.client() as client:
        assert client.post("/v1/certificates", json=site.body("alice", keys.generate(Algorithm.P256))).status_code == 201
        elsewhere = database.with_name("elsewhere.db")
        database.rename(elsewhere)
        answer = client.post("/v1/certificates", json=site.body("alice", keys.generate(Algorithm.P256)))
        assert (answer.status_code, answer.json()["code"]) == (503, "database-moved")
        assert "retry-after" in answer.headers
        status, named = parts(client)
        assert (status, named["database"]["state"]) == (503, "failed")
        assert "database-moved" in named["database"]["detail"]
        elsewhere.rename(database)


def test_disk_below_its_limit_turns_readiness_red(site: Site) -> None:
    """Before commits fail for want of space, readiness says that space is short."""
    text = site.settings_file.read_text().replace("[[issuer]]", f"[limits]\nfree_disk_bytes = {2**60}\n\n[[issuer]]")
    site.settings_file.write_text(text)
    with site.serving(), site.client() as client:
        status, named = parts(client)
    assert (status, named["disk"]["state"]) == (503, "failed")


def test_issuing_certificate_that_ended_is_failed_and_grants_stop(site: Site) -> None:
    """Past the end of the issuing certificate nothing is issued, and readiness says why."""
    with site.serving() as service:
        site.clock.offset = timedelta(days=1000)
        assert {part.name: part.state for part in health.readiness(service).parts}["authority"] == "failed"


def test_provider_that_never_answered_degrades_its_users_only(site: Site) -> None:
    """A provider without keys is degraded, named, and no reason to take the service out of rotation."""
    site.provider.mode = "down"
    with site.serving(), site.client() as client:
        status, named = parts(client)
        assert status == 200
        assert named["issuer:idp"]["state"] == "degraded"
        answer = client.post("/v1/certificates", json=site.body("alice", keys.generate(Algorithm.P256)))
        assert (answer.status_code, answer.json()["code"]) == (503, "issuer-unavailable")


def test_decision_log_that_fails_is_degraded(site: Site) -> None:
    """The service's own decision log is part of its health."""
    with site.serving() as service:
        service.decisions.failure = StoreError("decision-log-failed", "no space left")
        assert {part.name: part.state for part in health.readiness(service).parts}["decisions"] == "degraded"


def test_closed_ledger_is_failed(site: Site) -> None:
    """A ledger that takes nothing any more is not ready, and neither is a state directory that is gone."""
    with site.serving() as service:
        pass
    states = {part.name: part.state for part in health.readiness(service).parts}
    assert states["log"] == "failed"
    shutil.rmtree(site.directory)
    states = {part.name: part.state for part in health.readiness(service).parts}
    assert (states["database"], states["disk"]) == ("failed", "failed")


@pytest.mark.parametrize(
    ("setting", "address", "status"),
    [
        ("", "127.0.0.1", 200),
        ("", "::1", 200),
        ("", "::ffff:127.0.0.1", 200),
        ("", "192.0.2.7", 403),
        ("", "2001:db8::7", 403),
        ("", "::ffff:192.0.2.7", 403),
        ('metrics = "all"', "192.0.2.7", 200),
    ],
)
def test_metrics_are_for_this_machine(site: Site, setting: str, address: str, status: int) -> None:
    """By default nobody else learns how busy the facility is; who scrapes from elsewhere says so. No name is in them."""
    site.settings_file.write_text(site.settings_file.read_text().replace("admins = []", setting))
    with site.serving() as service:
        site.log_in("alice")
        transport = httpx2.ASGITransport(app=create_app(service), client=(address, 4711))

        async def ask() -> httpx2.Response:
            async with httpx2.AsyncClient(transport=transport, base_url=site.url) as client:
                return await client.get("/metrics")

        answer = asyncio.run(ask())
    assert answer.status_code == status
    assert ("audit_tree_size" in answer.text) == (status == 200)
    assert not {"alice", DOMAIN, CLIENT_ID} & set(re.split(r"[^\w.-]+", answer.text))
    if status == 403:
        assert answer.json()["code"] == "metrics-elsewhere"


def test_metrics_are_few_and_not_for_the_asking(site: Site) -> None:
    """Requests that name anything they like add no series, and whoever reads without end is told to wait."""
    site.settings_file.write_text(site.settings_file.read_text() + "\n[limits]\nrequests_per_minute = 40\n")
    with site.serving(), site.client() as client:
        for number in range(10):
            client.get(f"/anything/{number}")
            client.post("/v1/certificates", json={"csr": str(number), "proof": {"type": "code", "code": "x" * 20}})
        text = client.get("/metrics").text
        series = [line for line in text.splitlines() if line.startswith("signer_requests_total")]
        assert len(series) <= 4, series
        assert len(text) < 20_000
        assert any(client.get("/metrics").status_code == 429 for _ in range(400))


def test_metrics_can_be_off(site: Site) -> None:
    """Without metrics there is nothing at their path."""
    site.settings_file.write_text(site.settings_file.read_text().replace("admins = []", 'metrics = "off"'))
    with site.serving(), site.client() as client:
        answer = client.get("/metrics")
    assert (answer.status_code, answer.json()["code"]) == (404, "not-found")


def test_rate_is_limited_per_address(site: Site) -> None:
    """Somebody who asks too often hears 429 and when to come back."""
    text = site.settings_file.read_text().replace("[[issuer]]", "[limits]\nrequests_per_minute = 2\n\n[[issuer]]")
    site.settings_file.write_text(text)
    with site.serving(), site.client() as client:
        answers = [client.post("/v1/certificates", json={}) for _ in range(4)]
        feeds = [client.get("/v1/revocations").status_code for _ in range(4)]
    assert [answer.status_code for answer in answers] == [400, 400, 429, 429]
    assert answers[-1].json()["code"] == "rate-limited"
    assert feeds == [200] * 4, "who shares an address with a service could starve it of revocations"


def test_rate_is_limited_per_principal(site: Site) -> None:
    """Somebody with a certificate has a limit of their own, wherever they ask from."""
    text = site.settings_file.read_text().replace("[[issuer]]", "[limits]\nrequests_per_minute = 3\n\n[[issuer]]")
    site.settings_file.write_text(text)
    with site.serving():
        alice = site.log_in("alice")
        with site.client(alice) as client:
            answers = [client.post("/v1/tokens", json={"audience": "files"}).status_code for _ in range(5)]
    assert answers == [201, 201, 201, 429, 429]


def test_request_held_back_over_its_revocation_gets_nothing(site: Site) -> None:
    """A thief keeps back the last byte until the certificate is revoked: the door has let them in, the record does not."""
    with site.serving():
        alice = site.log_in("alice")
        with site.client(alice) as client:
            assert client.get("/livez").status_code == 200
        stem = site.directory / f"client-{alice.fingerprint[:12]}"
        context = ssl.create_default_context(cafile=str(site.root))
        context.load_cert_chain(stem.with_suffix(".pem"), stem.with_suffix(".key"))
        host, port = site.url.removeprefix("https://").split(":")
        body = b'{"audience": "files"}'
        with (
            socket.create_connection((host, int(port)), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=host) as connection,
        ):
            head = f"POST /v1/tokens HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
            connection.sendall(head.encode() + body[:-1])
            time.sleep(0.3)
            run_cli("user", "revoke", "alice", "--reason", "stolen", "--settings", site.settings_file)
            site.clock.offset += timedelta(seconds=1)  # the token would be younger than the revocation
            connection.sendall(body[-1:])
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert b"certificate-revoked" in answer, answer
    assert b'"token"' not in answer


def test_revoking_twice_is_revoking_once(site: Site) -> None:
    """Repeating a revocation adds neither a row nor an entry, so nobody can fill the feed with their own token."""
    with site.serving() as service:
        alice = site.log_in("alice")
        with site.client(alice) as client:
            jti = client.post("/v1/tokens", json={"audience": "files"}).json()["jti"]
            body = {"kind": "jti", "value": jti, "reason": "done"}
            first = client.post("/v1/revocations", json=body)
            size = service.ledger.status().size
            again = [client.post("/v1/revocations", json=body | {"request_id": f"another-{n}"}) for n in range(5)]
        assert {answer.status_code for answer in (first, *again)} == {201}
        assert service.ledger.status().size == size
        assert service.store.newest_revocation() == 1


def test_refused_proof_shown_again_is_one_entry(site: Site) -> None:
    """One login that is refused, repeated three hundred times, does not make the log grow."""
    with site.serving() as service, site.client() as client:
        body = site.body("nobody-here", keys.generate(Algorithm.P256))
        assert client.post("/v1/certificates", json=body).json()["code"] == "not-enrolled"
        size = service.ledger.status().size
        for _ in range(20):
            assert client.post("/v1/certificates", json=body).json()["code"] == "not-enrolled"
        assert service.ledger.status().size == size


def test_feed_of_a_replaced_database_is_not_signed(site: Site) -> None:
    """A copy put in the database's place knows no later revocation: its list is not signed as if it were complete."""
    database = site.settings.database_path
    with site.serving(), site.client() as client:
        assert client.get("/v1/revocations").status_code == 200
        copy = database.with_name("copy.db")
        shutil.copy(database, copy)
        copy.replace(database)
        time.sleep(0.3)
        answer = client.get("/v1/revocations")
    assert (answer.status_code, answer.json()["code"]) == (503, "database-moved")


def test_internal_request_ids_cannot_be_taken(site: Site) -> None:
    """Nobody can squat on the id under which a later revocation would be recorded: a client's ids have no colon."""
    with site.serving(), site.client() as client:
        body = site.body("alice", keys.generate(Algorithm.P256)) | {"request_id": "revoke:0123456789"}
        assert client.post("/v1/certificates", json=body).json()["code"] == "body-malformed"


def test_failure_of_our_own_is_answered_without_the_inside(site: Site) -> None:
    """An unforeseen failure is answered without detail and releases nothing."""
    with site.serving() as service, site.client() as client:
        ledger = service.ledger
        object.__setattr__(service, "ledger", None)
        answer = client.get("/metrics")
        object.__setattr__(service, "ledger", ledger)
    assert (answer.status_code, answer.json()["code"]) == (503, "internal")
    assert "NoneType" not in answer.text


def test_admin_may_revoke_what_is_somebody_elses(site: Site) -> None:
    """A principal named as admin revokes another person's everything, over the network."""
    site.enroll("root")
    text = site.settings_file.read_text().replace("admins = []", f'admins = ["spiffe://{DOMAIN}/user/root"]')
    site.settings_file.write_text(text)
    with site.serving():
        alice, root = site.log_in("alice"), site.log_in("root")
        body = {"kind": "principal", "value": f"spiffe://{DOMAIN}/user/alice", "reason": "left"}
        with site.client(root) as client:
            assert client.post("/v1/revocations", json=body).status_code == 201
            bad = client.post("/v1/revocations", json={"kind": "kid", "value": "zz", "reason": "r"})
            assert (bad.status_code, bad.json()["code"]) == (400, "revocation-invalid")
        with site.client(alice) as client:
            assert client.post("/v1/tokens", json={"audience": "files"}).json()["code"] == "certificate-revoked"


def test_open_enrolment_names_a_newcomer_without_rights(tmp_path: Path) -> None:
    """Whoever an open issuer vouches for gets a name of our making, the same one each time, and no rights."""
    with facility(tmp_path, enrolment="open") as site, site.serving():
        first, second = site.log_in("stranger"), site.log_in("stranger")
        other = site.log_in("another")
        names = [str(identity.chain[0].subject.rfc4514_string()) for identity in (first, second, other)]
        assert names[0] == names[1] != names[2]
        with site.client(first) as client:
            assert client.post("/v1/tokens", json={"audience": "files"}).json()["code"] == "audience-unknown"


def test_service_that_cannot_start_leaves_nothing_open(site: Site) -> None:
    """A log that our key did not sign is refused at the start."""
    with contextlib.closing(sqlite3.connect(site.settings.database_path)) as database:
        database.execute("UPDATE log_head SET chain = zeroblob(32)")
        database.commit()
    with pytest.raises((LogError, StoreError)):
        start(site.settings, environment={}, clock=site.clock)


def test_serve_command_runs_logs_and_stops_cleanly(site: Site) -> None:
    """The real command serves, writes structured logs without secrets, and ends with status 0 on SIGTERM."""
    process = subprocess.Popen(
        [str(CERTAUTH), "signer", "serve", "--settings", str(site.settings_file), "--insecure-example-keys"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"SIGNER_LOG_FORMAT": "json"},
    )
    key = keys.generate(Algorithm.P256)
    body = site.body("alice", key)
    try:
        deadline = time.monotonic() + 30
        with site.client() as client:
            while time.monotonic() < deadline:
                with contextlib.suppress(httpx2.TransportError):
                    client.get("/livez")
                    break
                time.sleep(0.1)
            assert client.post("/v1/certificates", json=body).status_code == 201
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 0, said
    events = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert {"request.done", "stopping", "insecure.example-keys"} <= {event["event"] for event in events}
    for secret in (body["proof"]["token"], body["proof"]["token"].split(".")[2], body["csr"]):
        assert secret not in said


def test_console_form_of_the_log(tmp_path: Path) -> None:
    """On a terminal the log reads as text, and an exception shows no local variables."""
    script = (
        "from signer.telemetry import configure_logging; import structlog\n"
        "configure_logging('console')\n"
        "secret = 'hunter2'\n"
        "try:\n    raise ValueError('boom')\n"
        "except ValueError:\n    structlog.get_logger('x').exception('it.failed')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "it.failed" in done.stderr
    assert "boom" in done.stderr
    assert "hunter2" not in done.stderr

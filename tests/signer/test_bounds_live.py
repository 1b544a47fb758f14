"""Bounds that a caller would like to get round, tried on the running service: caps, ends, decisions, addresses."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
import structlog.testing

from certauth import keys
from certauth.certificates import load_chain
from certauth.enrolment import Login
from certauth.identity.binding import BoundKey
from certauth.keys import Algorithm
from certauth.names import Principal
from signer.app import create_app
from signer.changing import change
from signer.recording import Recorder
from signer.rows import Change, EnrolmentRow
from signer.service import Service
from tests.signer.agent_kit import DAY, certified, identity, make, prove, renew
from tests.signer.kit import DOMAIN, Identity, Site, facility, make_csr, run_cli

ALICE = f"spiffe://{DOMAIN}/user/alice"
MACHINE = """
kinds = ["id_token", "workload"]
bindings = ["nonce", "audience"]
enrolment = "open"
[[issuer.rule]]
name = "pipelines"
when.all = [{claim = "/repository_id", equals = "42"}]
subject = "agent/pipeline"
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A facility with one person."""
    with facility(tmp_path) as made:
        made.enroll("alice", "files:read:/alice/")
        yield made


def configure(site: Site, *, issuer: str = "", limits: str = "") -> None:
    """Lines for the one issuer, which ends the file, and for the limits."""
    text = site.settings_file.read_text()
    section = f"[limits]\n{limits}\n\n[[issuer]]" if limits else "[[issuer]]"
    site.settings_file.write_text(text.replace("[[issuer]]", section) + issuer)


def left(site: Site, holder: Identity) -> timedelta:
    """How long the certificate lasts."""
    end: datetime = holder.chain[0].not_valid_after_utc
    return end - site.clock()


# --- renewal -------------------------------------------------------------------------------------------------------------


def test_a_renewal_is_no_longer_than_the_providers_logins(site: Site) -> None:
    """The cap on a provider's logins holds for what a login is renewed to, whatever is wished."""
    configure(site, issuer='max_lifetime = "1h"\n')
    with site.serving():
        alice = site.log_in("alice")
        assert left(site, alice) <= timedelta(hours=1)
        for wish in ({}, {"lifetime": DAY}):
            assert left(site, certified(alice, renew(site, alice, **wish))) <= timedelta(hours=1)


def test_the_session_of_a_job_ends(site: Site) -> None:
    """A job that proved itself once is renewed as long as a person's session, and not for the rest of its key's life."""
    configure(site, issuer=MACHINE, limits='session = "10m"')
    with site.serving() as service:
        job = Identity(key=keys.generate(Algorithm.P256))
        audience = BoundKey(signer_id=site.url, spki=keys.spki(job.key.public_key)).audience()
        now = int(site.clock().timestamp())
        claims = {"iss": site.provider.issuer, "sub": "repo:als", "aud": audience, "repository_id": "42"}
        claims |= {"iat": now, "nbf": now, "exp": now + 300, "jti": secrets.token_hex(8)}
        proof = {"type": "workload", "token": site.provider_key.sign(claims)}
        with site.client() as client:
            answer = client.post("/v1/certificates", json={"csr": make_csr(job.key), "proof": proof})
        assert answer.status_code == 201, answer.text
        job.chain = load_chain(answer.json()["certificate_chain"].encode())
        assert answer.json()["principal"] == f"spiffe://{DOMAIN}/agent/pipeline"
        assert left(site, certified(job, renew(site, job))) <= timedelta(minutes=10)
        site.clock.offset = timedelta(minutes=9, seconds=30)
        refused = renew(site, job)
        assert (refused.status_code, refused.json()["code"]) == (403, "session-ended"), refused.text
        assert service.ledger.status().cause is None


# --- agents --------------------------------------------------------------------------------------------------------------


def ends(service: Service, site: Site, after: timedelta) -> datetime:
    """Alice's enrolment ends in a while; when."""
    found = service.store.enrolled_principal(Principal.parse(ALICE))
    assert found is not None
    at = site.clock()
    enrolment = replace(found.enrolment, expires_at=(at + after).replace(microsecond=0))
    row = EnrolmentRow(enrolment=enrolment, display="", by="x", at=at, change=Change.CHANGED)
    service.ledger.record(change(action="change", principal=enrolment.principal, by="x", why="x", rows=(row,)))
    assert enrolment.expires_at is not None
    return enrolment.expires_at


def test_no_agent_outlives_its_owners_enrolment(site: Site) -> None:
    """Neither one that is made when the end is known, nor one whose owner's end came nearer afterwards."""
    with site.serving() as service:
        alice = site.log_in("alice")
        early = make(site, alice, "early")
        end = ends(service, site, timedelta(hours=3))
        late = make(site, alice, "late")
        made = service.store.enrolment_by_principal(Principal.parse(late.principal))
        assert made is not None
        assert made.expires_at is not None
        assert made.expires_at <= end
        assert "the end of your enrolment" in late.answer["clamped"]["message"]
        for agent in (early, late):
            at_work = identity(site, agent)
            assert at_work.chain[0].not_valid_after_utc <= end
            assert certified(at_work, renew(site, at_work)).chain[0].not_valid_after_utc <= end
        site.clock.offset = timedelta(hours=3, minutes=1)
        assert prove(site, early, keys.generate(Algorithm.P256)).json()["code"] == "enrolment-ended"


def test_an_agent_is_given_what_the_login_is_worth_with_which_it_is_made(site: Site) -> None:
    """Not what the owner's newest login, on another machine and at a better provider's word, is worth."""
    rules = (
        '\n[[issuer.rule]]\nname = "staff"\nwhen.all = [{claim = "/staff", equals = true}]\nassurance = 2\n'
        'rights = {service = "files", operations = "read", path = "/staff/"}\nmax_lifetime = "8h"\n'
        '[[issuer.rule]]\nname = "anybody"\nwhen.everyone = true\nmax_lifetime = "1h"\n'
    )
    configure(site, issuer=rules)
    right = {"service": "files", "operation": "read", "path": "/staff/"}
    with site.serving():
        guest = site.log_in("alice")
        staff = site.log_in("alice", staff=True)
        with site.client(guest) as client:
            wish = {"name": "greedy", "csr": make_csr(keys.generate(Algorithm.P256)), "rights": [right], "lifetime": DAY}
            refused = client.post("/v1/agents", json=wish)
        assert (refused.status_code, refused.json()["code"]) == (403, "right-not-held"), refused.text
        brief = identity(site, make(site, guest, "brief", rights=[right | {"path": "/alice/x/"}]))
        assert left(site, brief) <= timedelta(hours=1)
        # The control: with the certificate of that login it is given.
        able = make(site, staff, "able", rights=[right])
        assert left(site, identity(site, able)) > timedelta(hours=1)
        # And it goes on while its owner is away: the login that counts then is the last one, however long ago.
        site.clock.offset = timedelta(days=2)
        assert prove(site, able, keys.generate(Algorithm.P256)).status_code == 201


# --- applications --------------------------------------------------------------------------------------------------------


def test_a_denied_application_is_not_revived_by_applying_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by a later login, nor by one that was being recorded while the administrator decided."""
    configure(site, issuer='enrolment = "approve"\n')

    def ask(name: str) -> httpx2.Response:
        with site.client() as client:
            return client.post("/v1/certificates", json=site.body("eve", keys.generate(Algorithm.P256), name=name))

    with site.serving() as service:

        def state() -> str:
            found = service.store.application(Login(site.provider.issuer, "eve"))
            return "" if found is None else str(found.state)

        assert ask("Eve").json()["code"] == "approval-pending"
        site.clock.offset = timedelta(hours=1)
        honest = Recorder.refused

        async def slow(self: Recorder, *arguments: Any, **named: Any) -> Any:
            deny = ("user", "deny", "--subject", "eve", "--reason", "no", "--settings", site.settings_file)
            with structlog.testing.capture_logs():
                await asyncio.to_thread(run_cli, *deny)
            return await honest(self, *arguments, **named)

        monkeypatch.setattr(Recorder, "refused", slow)
        assert ask("Eve with another name").json()["code"] == "store-conflict"
        monkeypatch.undo()
        assert state() == "denied"
        for name in ("Eve", "Somebody else"):
            site.clock.offset += timedelta(hours=1)
            assert ask(name).json()["code"] == "approval-denied"
        assert state() == "denied"


# --- addresses -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/certificates", "/v1/logins"])
def test_whoever_has_a_network_has_one_limit(site: Site, path: str) -> None:
    """A machine may use any address of its IPv6 /64, so all of them share one bucket; the next network has its own."""
    configure(site, limits="requests_per_minute = 2")
    with site.serving() as service:
        app = create_app(service)

        async def post(address: str) -> int:
            transport = httpx2.ASGITransport(app=app, client=(address, 50_000))
            async with httpx2.AsyncClient(transport=transport, base_url=site.url) as client:
                return (await client.post(path, json={})).status_code

        async def several() -> list[int]:
            return [await post(f"2001:db8:0:1::{number:x}") for number in range(1, 5)] + [await post("2001:db8:0:2::1")]

        assert asyncio.run(several()) == [400, 400, 429, 429, 400]

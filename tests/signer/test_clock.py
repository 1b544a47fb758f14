"""The signer's clock stands still, is a second off, leaps and falls back: what was used stays used, and nothing lasts longer.

The real service with a clock of the test's, asked at its own HTTPS door. What is measured in seconds between two events (a
provider's cooldown, a mediated login) goes by the monotonic clock and must not notice.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from cryptography import x509
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from certauth import certificates, keys
from certauth.encoding import b64url
from certauth.errors import CertauthError
from certauth.identity import Binding, ProofKind, VerifiedIdentity, read_proof
from certauth.keys import Algorithm
from certauth.profiles import BACKDATE
from signer.login_provider import Provider
from signer.login_state import Login, Stage, digest
from signer.schemas import RenewalBody
from signer.service import Service
from tests.signer.agent_kit import peer_of
from tests.signer.kit import Identity, Site, facility, make_csr
from tests.simulator.hostile_provider import ProviderKey, jwks

KEY = keys.generate(Algorithm.P256)
SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@dataclass(slots=True)
class Standstill:
    """A clock that shows what it is told to."""

    now: datetime

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Standstill:
    """It stands still at a whole second of today."""
    return Standstill(datetime.now(UTC).replace(microsecond=0))


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory, clock: Standstill) -> Iterator[Site]:
    """A facility that goes by that clock, with two people."""
    with facility(tmp_path_factory.mktemp("clock")) as made:
        for name in ("alice", "bob"):
            made.enroll(name)
        made.clock = clock  # type: ignore[assignment]  # a clock is whatever tells the time
        clock.now += MINUTE  # the log has begun a moment ago
        yield made


@pytest.fixture
def service(site: Site) -> Iterator[Service]:
    """The running service."""
    with site.serving() as running:
        yield running


def ask(site: Site, body: dict[str, Any]) -> httpx2.Response:
    """A request at the door."""
    with site.client() as client:
        return client.post("/v1/certificates", json=body)


def outcome(answer: httpx2.Response) -> str:
    """``granted``, or the code of the refusal."""
    return "granted" if answer.status_code == 201 else str(answer.json()["code"])


def leaf(answer: httpx2.Response) -> x509.Certificate:
    """What was granted."""
    assert answer.status_code == 201, answer.text
    return certificates.load_chain(answer.json()["certificate_chain"].encode())[0]


def ready(site: Site) -> dict[str, dict[str, str]]:
    """The parts of the service, as they are now."""
    with site.client() as client:
        parts: dict[str, dict[str, str]] = client.get("/readyz").json()["parts"]
    return parts


def seconds(moment: datetime) -> int:
    """POSIX seconds."""
    return int(moment.timestamp())


# --- a second more or less ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"iat": 60, "exp": 660}, "granted"),
        ({"iat": 61, "exp": 660}, "proof-not-yet-valid"),
        ({"iat": 0, "nbf": 60}, "granted"),
        ({"iat": 0, "nbf": 61}, "proof-not-yet-valid"),
        ({"iat": -300, "exp": -59}, "granted"),
        ({"iat": -300, "exp": -60}, "proof-expired"),
        ({"iat": -659, "exp": 60}, "granted"),
        ({"iat": -660, "exp": 60}, "proof-too-old"),
        ({"iat": 0, "auth_time": 60}, "granted"),
        ({"iat": 0, "auth_time": 61}, "bad-claim"),
    ],
)
def test_the_edges_of_the_skew(site: Site, service: Service, clock: Standstill, claims: dict[str, int], code: str) -> None:
    """60 s on both sides, to the second, and a proof of 10 min; at the edge of expiry the ledger agrees with the verifier."""
    now = seconds(clock.now)
    body = site.body("alice", KEY, **{name: now + offset for name, offset in claims.items()})
    assert outcome(ask(site, body)) == code


def test_a_clock_that_stands_still(site: Site, service: Service, clock: Standstill) -> None:
    """Logins of one instant are as good as others, each once; their certificates begin a minute ago and end in eight hours."""
    bodies = [site.body(name, KEY) for name in ("alice", "bob", "alice")]
    for body in bodies:
        made = leaf(ask(site, body))
        assert made.not_valid_before_utc == clock.now - BACKDATE
        assert made.not_valid_after_utc == clock.now + 8 * HOUR
    assert [outcome(ask(site, {**body, "request_id": secrets.token_hex(8)})) for body in bodies] == ["replayed"] * 3


# --- jumps ----------------------------------------------------------------------------------------------------------


def test_a_clock_that_falls_back_an_hour(site: Site, service: Service, clock: Standstill) -> None:
    """Nothing is granted under a time that the log has passed; corrected, everything is as before, and used is used."""
    body = site.body("alice", KEY)
    assert outcome(ask(site, body)) == "granted"
    clock.now -= HOUR
    behind = ask(site, site.body("bob", KEY))
    assert (behind.status_code, outcome(behind)) == (503, "audit-unavailable")
    assert ready(site)["log"]["detail"].startswith("the clock says")
    assert outcome(ask(site, body)) in {"proof-not-yet-valid", "audit-unavailable"}
    clock.now += HOUR
    deadline = time.monotonic() + 60
    while ready(site)["log"]["state"] != "ok" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert outcome(ask(site, {**body, "request_id": "again-and-again"})) == "replayed"
    assert outcome(ask(site, site.body("bob", KEY))) == "granted"


def test_a_clock_that_leaps_a_day_and_comes_back(site: Site, service: Service, clock: Standstill) -> None:
    """What was forgotten as long expired is not believed again when the clock says that it has not."""
    used, kept = site.body("alice", KEY), site.body("bob", KEY)
    assert outcome(ask(site, used)) == "granted"
    clock.now += DAY
    assert outcome(ask(site, kept)) == "proof-expired"
    fresh = site.body("bob", KEY)
    assert leaf(ask(site, fresh)).not_valid_after_utc == clock.now + 8 * HOUR
    clock.now -= DAY
    again = {"request_id": secrets.token_hex(8)}
    assert [outcome(ask(site, body | again)) for body in (used, kept)] == ["audit-unavailable"] * 2


def test_a_step_back_that_the_log_puts_up_with(site: Site, service: Service, clock: Standstill) -> None:
    """A few seconds stop nothing. A proof that ran out in them and was forgotten is young again: the ledger says it expired."""
    used = site.body("alice", KEY)
    assert outcome(ask(site, used)) == "granted"
    clock.now += 10 * MINUTE + MINUTE + 2 * SECOND
    assert outcome(ask(site, site.body("bob", KEY))) == "granted"
    assert not service.store.has_used(_digest(used))
    clock.now -= 9 * SECOND
    assert outcome(ask(site, {**used, "request_id": secrets.token_hex(8)})) == "proof-expired"
    assert outcome(ask(site, site.body("bob", KEY))) == "granted"


def _digest(body: dict[str, Any]) -> bytes:
    return read_proof(body["proof"]["token"]).digest


JUMPS = [timedelta(0), SECOND, -SECOND, 9 * SECOND, -9 * SECOND, -11 * SECOND, 11 * MINUTE, -HOUR, HOUR, DAY, -DAY]


@hypothesis(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=st.lists(st.tuples(st.sampled_from(JUMPS), st.integers(0, 2)), min_size=2, max_size=8))
def test_whatever_the_clock_does_no_proof_is_accepted_twice(
    site: Site, service: Service, clock: Standstill, steps: list[tuple[timedelta, int]]
) -> None:
    """And every certificate begins a minute before the signer's own time, and lasts no longer than ever."""
    with service.store.log() as reader:
        newest = datetime.fromtimestamp(reader.head().at / 1e6, UTC)
    clock.now = newest.replace(microsecond=0) + MINUTE
    proofs, granted = [site.body("alice", KEY) for _ in range(3)], [0, 0, 0]
    for jump, which in steps:
        clock.now += jump
        answer = ask(site, {**proofs[which], "request_id": secrets.token_hex(8)})
        if outcome(answer) == "granted":
            granted[which] += 1
            made = leaf(answer)
            assert made.not_valid_before_utc == clock.now - BACKDATE
            assert made.not_valid_after_utc == clock.now + 8 * HOUR
    assert max(granted) <= 1


# --- what lasts -----------------------------------------------------------------------------------------------------


def renew(service: Service, holder: Identity) -> x509.Certificate:
    """The holder's next certificate, asked for below the door, where the system's clock has no say."""
    body = RenewalBody(csr=make_csr(holder.key))
    act = service.issuing.renewal(body, peer=peer_of(service, holder), address=None, request_id=secrets.token_hex(8))
    holder.chain = certificates.load_chain(str(asyncio.run(act).body["certificate_chain"]).encode())
    return holder.chain[0]


def test_no_jump_lengthens_a_session(site: Site, service: Service, clock: Standstill) -> None:
    """A day after the login it is over, however the clock came there and wherever it goes from there."""
    begun, holder = clock.now, Identity(key=KEY)
    answer = ask(site, site.body("alice", KEY))
    holder.chain = certificates.load_chain(answer.json()["certificate_chain"].encode())
    ends = []
    for jump in (7 * HOUR, -9 * SECOND, 7 * HOUR, 7 * HOUR, 2 * HOUR, -9 * SECOND):
        clock.now += jump
        ends.append(renew(service, holder).not_valid_after_utc)
    assert max(ends) <= begun + DAY
    clock.now = begun + DAY - 30 * SECOND
    for jump, code in ((timedelta(0), "session-ended"), (-HOUR, "audit-unavailable")):
        clock.now += jump
        with pytest.raises(CertauthError) as refused:
            renew(service, holder)
        assert refused.value.code == code


def mediated(site: Site, service: Service, clock: Standstill) -> dict[str, Any]:
    """A login through the signer that somebody has just finished; what its program then asks for."""
    (issuer,) = site.settings.issuer
    name, secret = b64url(secrets.token_bytes(16)), b64url(secrets.token_bytes(32))
    until = clock.now + 10 * MINUTE
    identity = VerifiedIdentity(
        issuer_id=issuer.id,
        issuer=issuer.url,
        subject="alice",
        kind=ProofKind.ID_TOKEN,
        binding=Binding.NONCE,
        assurance=2,
        auth_time=None,
        acr=None,
        amr=(),
        email=None,
        name=None,
        issued_at=clock.now,
        expires_at=until,
        proof_digest=secrets.token_bytes(32),
        replay_until=until + MINUTE,
    )
    login = Login(
        id=name,
        provider=Provider(issuer=issuer.own_client()),
        spki=keys.spki(KEY.public_key),
        salt=bytes(16),
        host="here",
        address=None,
        secret_digest=digest(secret),
        code="bcdfghjk",
        expires_at=1e12,  # by the monotonic clock, which does not jump
        next_poll=0,
        stage=Stage.READY,
        identity=identity,
    )
    service.logins._register.add(login)
    return {"csr": make_csr(KEY), "proof": {"type": "login", "login": name, "secret": secret}}


def test_a_finished_login_makes_one_certificate_whatever_the_clock_does(
    site: Site, service: Service, clock: Standstill
) -> None:
    """It waits in memory by the monotonic clock, and can be asked for again; the day that its use was remembered is over."""
    body = mediated(site, service, clock)
    assert outcome(ask(site, body)) == "granted"
    clock.now += DAY
    assert outcome(ask(site, site.body("bob", KEY))) == "granted"
    assert outcome(ask(site, {**body, "request_id": secrets.token_hex(8)})) == "proof-expired"


def test_a_providers_keys_do_not_depend_on_the_time_of_day(site: Site, service: Service, clock: Standstill) -> None:
    """After a leap ahead and after one back its keys are fresh, and a new key is looked for as soon as ever."""
    fetches = site.provider.fetches.copy()
    for jump, code in ((DAY, "granted"), (30 * DAY, "granted"), (-HOUR, "audit-unavailable")):
        clock.now += jump
        assert outcome(ask(site, site.body("alice", KEY))) == code
        (status,) = service.key_source.status()
        assert (status.state, status.keys, status.failure) == ("fresh", 1, None)
        assert status.next_fetch_in <= 30
    assert site.provider.fetches == fetches
    clock.now += HOUR
    newer = ProviderKey("ES256", kid="newer")
    site.provider.jwks = jwks(site.provider_key, newer)
    body = site.body("alice", KEY)
    body["proof"]["token"] = newer.sign(read_claims(body))
    held = ask(site, body)
    if outcome(held) != "granted":  # half a minute of waiting is over on a very slow machine
        assert (held.status_code, outcome(held)) == (503, "unknown-key")
        assert 0 < int(held.headers["retry-after"]) <= 30


def read_claims(body: dict[str, Any]) -> dict[str, Any]:
    """What the token of a request says."""
    return dict(read_proof(body["proof"]["token"]).unverified_claims)

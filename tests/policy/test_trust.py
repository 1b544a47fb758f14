from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from certauth.bundles import TrustBundle, TrustEntry
from certauth.certificates import dump_chain
from certauth.encoding import b64
from certauth.errors import CertauthError, ConfigError
from certauth.keys import Algorithm, generate, spki
from certauth.names import Kind, TrustDomain
from certauth.revocation import MAX_FEED, Feed, RevocationKind, Revoked, sign_feed
from certauth.tokens.signing import key_ref
from policy.certificate import PeerVerifier
from policy.feeds import FeedAddress, Source, Standing
from policy.testing import Facility
from policy.trust import Trust
from tests.policy.door import START, Door, HandClock
from tests.policy.web import WebServer

ALS = TrustDomain("als.example")
NSLS = TrustDomain("nsls.example")


@pytest.fixture
def clock() -> HandClock:
    """A clock that stands still."""
    return HandClock()


@pytest.fixture
def facility(clock: HandClock) -> Facility:
    """The facility that is trusted."""
    return Facility("als.example", clock=clock)


def publish(directory: Path, facility: Facility, feed: Feed | None = None, **lifetime: float) -> None:
    """Sign a feed into the facility's file."""
    feed = feed or facility.feed(lifetime=timedelta(**lifetime) if lifetime else timedelta(minutes=10))
    (directory / "feed.json").write_bytes(sign_feed(feed, facility.feed_key))


def write(directory: Path, facility: Facility, *, feed: str = '"feed.json"', rest: str = "", sequence: int = 1) -> Path:
    """A trust document with one domain, and its bundle."""
    (directory / "bundle.json").write_bytes(replace(facility.bundle(), sequence=sequence).to_json())
    document = directory / "trust.toml"
    document.write_text(f'version = 1\n[[domain]]\nname = "{facility.domain}"\nbundle = "bundle.json"\nfeed = {feed}\n{rest}\n')
    return document


def problem(trust: Trust, domain: TrustDomain = ALS) -> str | None:
    """The code of what the last refresh could not do."""
    error = trust.problems.get(domain)
    return None if error is None else error.code


def standing(trust: Trust, clock: HandClock, domain: TrustDomain = ALS) -> Standing:
    """How fresh a domain's revocations are now."""
    return trust.state.standing(domain, clock())


def refused(document: Path) -> CertauthError:
    """The error with which a document is refused."""
    with pytest.raises(CertauthError) as caught:
        Trust.load(document)
    return caught.value


# --- the document -------------------------------------------------------------------------------------------------------


def test_an_entry_bounds_what_its_domain_may_say(tmp_path: Path, facility: Facility, clock: HandClock) -> None:
    """Kinds, ids, assurance and lifetime of the document become the trust entry; the defaults let no machine's host in."""
    rest = 'kinds = ["user"]\nids = ["a*", "bob"]\nassurance_ceiling = 1\nmax_certificate_lifetime = 3600'
    entry = Trust.load(write(tmp_path, facility, feed='"none"', rest=rest), clock=clock).state.entries[ALS]
    assert entry.kinds == {Kind.USER}
    assert entry.ids == ("a*", "bob")
    assert entry.assurance_ceiling == 1
    assert entry.max_certificate_lifetime == timedelta(hours=1)
    plain = Trust.load(write(tmp_path, facility, feed='"none"'), clock=clock).state.entries[ALS]
    assert plain.kinds == {Kind.USER, Kind.SERVICE, Kind.AGENT}
    assert plain.max_certificate_lifetime is None


@pytest.mark.parametrize(
    ("rest", "named"), [("colour = 1", "domain[1].colour"), ("assurance_cieling = 1", "assurance_cieling")]
)
def test_an_unknown_key_is_refused_by_its_name(tmp_path: Path, facility: Facility, rest: str, named: str) -> None:
    """A misspelt bound that was silently skipped would be no bound."""
    error = refused(write(tmp_path, facility, rest=rest))
    assert error.code == "unknown-key"
    assert named in error.message


@pytest.mark.parametrize(
    "text",
    [
        "version = 1\n",
        "version = 1\ndomain = []\n",
        'version = 2\n[[domain]]\nname = "als.example"\nbundle = "bundle.json"\nfeed = "none"\n',
        'version = 1\n[[domain]]\nname = "als.example"\nbundle = "bundle.json"\n',
        'version = 1\n[[domain]]\nname = "ALS example"\nbundle = "bundle.json"\nfeed = "none"\n',
        'version = 1\n[[domain]]\nname = "als.example"\nbundle = "bundle.json"\nfeed = "http://als.example/feed"\n',
        'version = 1\n[[domain]]\nname = "als.example"\nbundle = "bundle.json"\nfeed = "https:///feed"\n',
        'version = 1\n[[domain]]\nname = "als.example"\nbundle = "bundle.json"\nfeed = "none"\nkinds = ["people"]\n',
        'version = 1\n[[domain]]\nname = "als.example"\nbundle = "bundle.json"\nfeed = "none"\nkinds = []\n',
        'version = 1\n[[domain]]\nname = "als.example"\nbundle = "bundle.json"\nfeed = "none"\nassurance_ceiling = 4\n',
        'version = 1\n[[domain]]\nname = "als.example"\nbundle = "bundle.json"\nfeed = "none"\nfeed_refresh = 0\n',
        "version = 1\n" + 2 * '[[domain]]\nname = "als.example"\nbundle = "bundle.json"\nfeed = "none"\n',
    ],
)
def test_a_document_that_is_not_in_the_format_is_refused(tmp_path: Path, facility: Facility, text: str) -> None:
    """An entry says where revocations come from, in so many words, and a domain has one entry; all else is refused."""
    document = write(tmp_path, facility)
    document.write_text(text)
    assert refused(document).code == "trust-invalid"


def test_a_bundle_must_be_there_whole_and_of_its_domain(tmp_path: Path, facility: Facility) -> None:
    """At the start there is no last good copy, so anything wrong with a bundle stops the program."""
    document = write(tmp_path, facility)
    bundle = tmp_path / "bundle.json"
    bundle.write_bytes(Facility("nsls.example").bundle().to_json())
    assert refused(document).code == "bundle-domain"
    bundle.write_bytes(b"{}")
    assert refused(document).code == "bundle-malformed"
    bundle.write_bytes(b" " * 300_000)
    assert refused(document).code == "unreadable"
    bundle.unlink()
    assert refused(document).code == "unreadable"


def test_the_published_example_facility_is_refused_unless_asked_for() -> None:
    """Everybody has the private keys of the example; it is trusted only by those who say so."""
    example = Path("keys-example/trust.toml")
    assert refused(example).code == "example-key"
    trust = Trust.load(example, allow_example_keys=True)
    assert [str(domain) for domain in trust.state.domains] == ["facility.example"]
    assert not trust.problems


def test_two_domains_cannot_have_a_token_key_of_the_same_name(tmp_path: Path, facility: Facility, clock: HandClock) -> None:
    """Key ids are short enough to be searched for: a facility that chose ours must not take our key's place."""
    rival = Facility("nsls.example", clock=clock)
    both = replace(rival.bundle(), token_roots=facility.bundle().token_roots)
    with pytest.raises(ConfigError) as caught:
        Trust.of([TrustEntry(bundle=facility.bundle()), TrustEntry(bundle=both)], revocations=None)
    assert caught.value.code == "kid-conflict"


# --- feeds in files -----------------------------------------------------------------------------------------------------


def test_a_feed_that_was_never_there_denies_everything(tmp_path: Path, facility: Facility, clock: HandClock) -> None:
    """Before the first feed nothing is known; once it is there, requests are decided, without a restart."""
    trust = Trust.load(write(tmp_path, facility), clock=clock)
    door, alice = Door(trust, clock), facility.peer("alice")
    assert standing(trust, clock) is Standing.UNKNOWN
    assert problem(trust) == "unreadable"
    assert door.code("GET /me", alice) == "revocations-unknown"
    publish(tmp_path, facility)
    trust.refresh()
    assert problem(trust) is None
    assert door.code("GET /me", alice) == "permit"


def test_no_feed_must_be_said_in_so_many_words(tmp_path: Path, facility: Facility, clock: HandClock) -> None:
    """With ``feed = "none"`` a domain is decided without revocations, for as long as the program runs."""
    trust = Trust.load(write(tmp_path, facility, feed='"none"'), clock=clock)
    trust.refresh()
    clock.forward(days=365)
    assert standing(trust, clock) is Standing.FRESH
    assert standing(trust, clock, NSLS) is Standing.UNKNOWN


def test_a_stale_feed_denies_everything_but_reading(tmp_path: Path, facility: Facility, clock: HandClock) -> None:
    """When no newer feed comes, reading goes on and writing stops; with the next feed it goes on."""
    publish(tmp_path, facility, minutes=10)
    trust = Trust.load(write(tmp_path, facility), clock=clock)
    door, alice = Door(trust, clock), facility.peer("alice")
    token = facility.token(alice, "data", rights=["read /", "write /", "delete /", "connect /"])
    writes = ("PUT /files/x", "DELETE /files/x", "WEBSOCKET /live", "PUT /me")
    clock.forward(seconds=599)
    for what in writes:
        assert door.code(what, alice, token) == "permit"
    clock.forward(seconds=1)
    assert standing(trust, clock) is Standing.STALE
    for what in writes:
        assert door.code(what, alice, token) == "revocations-stale"
    assert door.code("GET /files/x", alice, token) == "permit"
    assert door.code("HEAD /me", alice) == "permit"
    publish(tmp_path, facility)
    trust.refresh()
    assert door.code("PUT /files/x", alice, token) == "permit"


@pytest.mark.parametrize(("rest", "seconds"), [("", 3600), ("stale_reading = 60", 60), ("stale_reading = 0", 0)])
def test_a_feed_that_stays_silent_ends_reading_too(
    tmp_path: Path, facility: Facility, clock: HandClock, rest: str, seconds: int
) -> None:
    """Whoever keeps the feed from a door keeps a withdrawn credential reading for an hour at most, and not without end."""
    publish(tmp_path, facility, minutes=10)
    trust = Trust.load(write(tmp_path, facility, rest=rest), clock=clock)
    door, alice = Door(trust, clock), facility.peer("alice")
    if seconds:
        clock.forward(seconds=600 + seconds - 1)
        assert (standing(trust, clock), door.code("GET /me", alice)) == (Standing.STALE, "permit")
        clock.forward(seconds=1)
    else:
        clock.forward(seconds=600)
    trust.refresh()
    assert (standing(trust, clock), door.code("GET /me", alice)) == (Standing.UNKNOWN, "revocations-unknown")
    clock.forward(days=1)
    publish(tmp_path, facility)
    trust.refresh()
    assert standing(trust, clock) is Standing.FRESH


@pytest.mark.parametrize("value", ["-1", "86401", '"60"', "1.5"])
def test_reading_while_stale_has_a_longest_time(tmp_path: Path, facility: Facility, value: str) -> None:
    """A day; and the number is a number."""
    error = refused(write(tmp_path, facility, rest=f"stale_reading = {value}"))
    assert error.code == "trust-invalid"
    assert "stale_reading" in error.message


def test_a_door_may_be_stricter_than_the_feed(tmp_path: Path, facility: Facility, clock: HandClock) -> None:
    """``feed_max_age`` makes a feed stale before its own end."""
    publish(tmp_path, facility, hours=10)
    trust = Trust.load(write(tmp_path, facility, rest="feed_max_age = 60"), clock=clock)
    clock.forward(seconds=59)
    assert standing(trust, clock) is Standing.FRESH
    clock.forward(seconds=1)
    assert standing(trust, clock) is Standing.STALE


def test_a_revocation_in_the_feed_denies_the_next_request(tmp_path: Path, facility: Facility, clock: HandClock) -> None:
    """The generation grows with the new feed, and the peer that was verified under the old one is refused."""
    publish(tmp_path, facility)
    trust = Trust.load(write(tmp_path, facility), clock=clock)
    door, alice = Door(trust, clock), facility.peer("alice")
    assert door.code("GET /me", alice) == "permit"
    before = trust.generation
    facility.revoke(RevocationKind.CERTIFICATE, alice.fingerprint)
    publish(tmp_path, facility)
    trust.refresh()
    assert trust.generation == before + 1
    assert door.code("GET /me", alice) == "certificate-revoked"


def test_a_feed_that_says_still_so_is_fresh_for_longer_and_changes_nothing_else(
    tmp_path: Path, facility: Facility, clock: HandClock
) -> None:
    """A feed signed anew with the same content extends the time; the generation, and with it every cache, stays."""
    publish(tmp_path, facility)
    trust = Trust.load(write(tmp_path, facility), clock=clock)
    before = trust.generation
    trust.refresh()
    clock.forward(minutes=9)
    publish(tmp_path, facility)
    trust.refresh()
    clock.forward(minutes=9)
    assert standing(trust, clock) is Standing.FRESH
    assert trust.generation == before


def test_a_feed_never_goes_back(tmp_path: Path, facility: Facility, clock: HandClock) -> None:
    """Yesterday's feed, genuine as it is, does not revive what was withdrawn since."""
    old = facility.feed(lifetime=timedelta(days=1))
    alice = facility.peer("alice")
    facility.revoke(RevocationKind.CERTIFICATE, alice.fingerprint)
    publish(tmp_path, facility)
    trust = Trust.load(write(tmp_path, facility), clock=clock)
    door = Door(trust, clock)
    publish(tmp_path, facility, old)
    trust.refresh()
    assert problem(trust) == "feed-rollback"
    assert door.code("GET /me", alice) == "certificate-revoked"


def test_one_sequence_has_one_content(tmp_path: Path, facility: Facility, clock: HandClock) -> None:
    """A feed of the same number that says something else, more or less, is not taken; entries that ran out may go."""

    def entry(value: str, *, expires: datetime | None = None) -> Revoked:
        end = None if expires is None else int(expires.timestamp())
        return Revoked(kind=RevocationKind.JTI, value=value * 32, expires_at=end, reason="x", at=0)

    def feed(*entries: Revoked) -> Feed:
        return replace(facility.feed(), sequence=7, entries=entries)

    lasting, ending = entry("a"), entry("b", expires=START + timedelta(minutes=5))
    publish(tmp_path, facility, feed(lasting, ending))
    trust = Trust.load(write(tmp_path, facility), clock=clock)
    for other in (feed(ending), feed(lasting), feed(lasting, ending, entry("c"))):
        clock.forward(seconds=1)
        publish(tmp_path, facility, replace(other, issued_at=clock()))
        trust.refresh()
        assert problem(trust) == "feed-equivocates"
        assert trust.state.domains[ALS].fresh_until == START + timedelta(minutes=10)
    clock.forward(minutes=6)
    publish(tmp_path, facility, feed(lasting))
    trust.refresh()
    assert problem(trust) is None
    assert trust.state.domains[ALS].fresh_until == clock() + timedelta(minutes=10)


@pytest.mark.parametrize("damage", ["garbage", "foreign key", "foreign domain", "missing"])
def test_a_bad_feed_leaves_the_last_good_one_in_force(
    tmp_path: Path, facility: Facility, clock: HandClock, damage: str
) -> None:
    """Whatever is put in the feed's place, what was withdrawn stays withdrawn, and the problem is told."""
    alice = facility.peer("alice")
    facility.revoke(RevocationKind.CERTIFICATE, alice.fingerprint)
    publish(tmp_path, facility)
    trust = Trust.load(write(tmp_path, facility), clock=clock)
    door, file = Door(trust, clock), tmp_path / "feed.json"
    newer = replace(facility.feed(), sequence=9, entries=())
    match damage:
        case "garbage":
            file.write_bytes(b"{}")
        case "foreign key":
            file.write_bytes(sign_feed(newer, generate(Algorithm.ED25519)))
        case "foreign domain":
            file.write_bytes(sign_feed(replace(newer, domain=NSLS), facility.feed_key))
        case _:
            file.unlink()
    trust.refresh()
    assert problem(trust) is not None
    assert door.code("GET /me", alice) == "certificate-revoked"


# --- bundles ------------------------------------------------------------------------------------------------------------


def test_a_new_bundle_is_used_and_the_old_one_no_longer(tmp_path: Path, facility: Facility, clock: HandClock) -> None:
    """When a facility changes its root, peers of the new one are accepted and remembered ones of the old are not."""
    trust = Trust.load(write(tmp_path, facility, feed='"none"'), clock=clock)
    verifier, alice = PeerVerifier(trust), facility.peer("alice")
    verifier.verify(alice.chain_der, now=clock())
    before = trust.generation
    trust.refresh()
    assert trust.generation == before
    renewed = Facility("als.example", clock=clock)
    write(tmp_path, renewed, feed='"none"', sequence=2)
    trust.refresh()
    assert trust.generation == before + 1
    assert trust.client_roots() == dump_chain([renewed.root, renewed.issuing])
    assert verifier.verify(renewed.peer("alice").chain_der, now=clock())
    with pytest.raises(CertauthError, match="chain-invalid"):
        verifier.verify(alice.chain_der, now=clock())


@pytest.mark.parametrize("damage", ["garbage", "older", "other domain", "missing", "another's token key"])
def test_a_bad_bundle_leaves_the_last_good_one_in_force(
    tmp_path: Path, facility: Facility, clock: HandClock, damage: str
) -> None:
    """Whatever is put in the bundle's place, the domain is believed as before, and the problem is told."""
    other = tmp_path / "other"
    other.mkdir()
    partner = Facility("nsls.example", clock=clock)
    write(other, partner)
    document = write(tmp_path, facility, feed='"none"', sequence=5)
    document.write_text(
        document.read_text() + '[[domain]]\nname = "nsls.example"\nbundle = "other/bundle.json"\nfeed = "none"\n'
    )
    trust = Trust.load(document, clock=clock)
    file, bundle = tmp_path / "bundle.json", facility.bundle()
    replaced: dict[str, Callable[[], object]] = {
        "garbage": lambda: file.write_bytes(b"{}"),
        "older": lambda: file.write_bytes(replace(Facility("als.example").bundle(), sequence=4).to_json()),
        "other domain": lambda: file.write_bytes(replace(partner.bundle(), sequence=9).to_json()),
        "missing": file.unlink,
        "another's token key": lambda: file.write_bytes(
            replace(bundle, sequence=9, token_roots=partner.bundle().token_roots).to_json()
        ),
    }
    replaced[damage]()
    before = trust.generation
    trust.refresh()
    assert problem(trust) is not None
    assert trust.generation == before
    assert PeerVerifier(trust).verify(facility.peer("alice").chain_der, now=clock())
    file.write_bytes(replace(bundle, sequence=10).to_json())
    trust.refresh()
    assert problem(trust) is None
    assert trust.generation == before + 1


# --- trust made in code -------------------------------------------------------------------------------------------------


def test_trust_made_in_code_asks_for_the_current_revocations(facility: Facility, clock: HandClock) -> None:
    """The signer's own door knows of a revocation as soon as its database does; the generation tells caches."""
    trust = facility.trust()
    first = trust.state
    assert trust.state is first
    facility.revoke(RevocationKind.KID, "00000000")
    assert trust.generation == first.generation + 1
    assert trust.state.domains[ALS].revocations is facility.revocations
    assert standing(trust, clock) is Standing.FRESH
    trust.refresh()
    trust.start()
    trust.stop()


def test_revocations_that_are_not_known_deny(facility: Facility, clock: HandClock) -> None:
    """``None`` from the source means that nothing is known, not that nothing is withdrawn."""
    trust = Trust.of([TrustEntry(bundle=facility.bundle())], revocations=lambda _domain: None)
    assert standing(trust, clock) is Standing.UNKNOWN


# --- feeds behind https -------------------------------------------------------------------------------------------------


@pytest.fixture
def live() -> Facility:
    """A facility in the present: TLS looks at the real time."""
    return Facility("als.example")


@pytest.fixture
def server(tmp_path: Path, live: Facility) -> Iterator[WebServer]:
    """The facility's web server."""
    server = WebServer(tmp_path, live)
    server.serve_feed(live)
    yield server
    server.close()


def over_https(directory: Path, live: Facility, server: WebServer, rest: str = "") -> Trust:
    """Trust whose feed is behind the server."""
    return Trust.load(write(directory, live, feed=f'"{server.url}"', rest=rest))


def test_a_feed_is_fetched_from_a_server_that_the_bundle_vouches_for(tmp_path: Path, live: Facility, server: WebServer) -> None:
    """Until the first fetch nothing is known; then it is, and the next fetch brings what was withdrawn since."""
    trust = over_https(tmp_path, live, server)
    assert trust.state.standing(ALS, live.clock()) is Standing.UNKNOWN
    trust.refresh()
    assert problem(trust) is None
    assert trust.state.standing(ALS, live.clock()) is Standing.FRESH
    live.revoke(RevocationKind.KID, "00000000")
    trust.refresh()
    found = trust.state.domains[ALS].revocations
    assert found is not None
    assert len(found) == 1
    trust.stop()


def test_a_server_that_the_bundle_does_not_vouch_for_is_not_asked(tmp_path: Path, live: Facility, server: WebServer) -> None:
    """Whoever answers at that address with another authority's certificate is not heard; ``feed_ca`` can name another one."""
    stranger = Facility("als.example")
    (tmp_path / "ca.pem").write_bytes(dump_chain([live.root, live.issuing]))
    impostor = over_https(tmp_path, stranger, server)
    impostor.refresh()
    assert problem(impostor) == "feed-unavailable"
    assert server.requests == 0
    server.serve_feed(stranger)
    named = over_https(tmp_path, stranger, server, rest='feed_ca = "ca.pem"')
    named.refresh()
    assert problem(named) is None
    lost = over_https(tmp_path, stranger, server, rest='feed_ca = "nowhere.pem"')
    lost.refresh()
    assert problem(lost) == "feed-unavailable"
    for trust in (impostor, named, lost):
        trust.stop()


def test_a_server_that_does_not_answer_with_a_feed_is_reported(tmp_path: Path, live: Facility, server: WebServer) -> None:
    """Errors, redirects (which are not followed), endless answers and silence leave the last good feed in force."""
    trust = over_https(tmp_path, live, server)
    trust.refresh()
    good = trust.state.domains[ALS].revocations

    sent = 0

    def endless(handler: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(4 * MAX_FEED >> 20):
                handler.wfile.write(b" " * (1 << 20))
                sent += 1

    def hang_up(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True

    for answer, code in (
        (lambda handler: handler.send_error(500), "feed-unavailable"),
        (server.redirect, "feed-unavailable"),
        (endless, "feed-too-large"),
        (hang_up, "feed-unavailable"),
    ):
        server.answer = answer
        requests = server.requests
        trust.refresh()
        assert problem(trust) == code
        assert server.requests == requests + 1
        assert trust.state.domains[ALS].revocations is good
    assert sent < 3 * MAX_FEED >> 20, "the whole answer was read"
    server.serve_feed(live)
    trust.refresh()
    assert problem(trust) is None
    trust.stop()


def test_a_slow_server_is_given_up(tmp_path: Path, live: Facility, server: WebServer) -> None:
    """A server that sends a byte now and then holds nobody longer than the deadline."""
    server.answer = server.drip
    write(tmp_path, live)
    source = Source(
        domain=ALS,
        bundle_path=tmp_path / "bundle.json",
        entry_for=lambda bundle: TrustEntry(bundle=bundle),
        feed=FeedAddress(location=server.url, ca_file=None, refresh=5, max_age=None, deadline=1.5),
        allow_example_keys=False,
    )
    source.refresh_feed(live.clock())
    assert source.problem is not None
    assert "did not finish" in source.problem.message
    source.close()


def test_trust_keeps_itself_current_between_start_and_stop(tmp_path: Path, live: Facility, server: WebServer) -> None:
    """Started, it fetches by itself, again and again; stopped, it does not; started again, it goes on."""
    trust = over_https(tmp_path, live, server, rest="feed_refresh = 1")
    for round_ in range(2):
        before = trust.generation
        live.revoke(RevocationKind.KID, f"0000000{round_}")
        trust.start()
        trust.start()
        wait(lambda before=before: trust.generation > before)
        live.revoke(RevocationKind.KID, f"1000000{round_}")
        wait(lambda before=before: trust.generation > before + 1)
        trust.stop()
        trust.stop()
        assert not [thread for thread in threading.enumerate() if thread.name == f"trust {ALS}"]
    after = server.requests
    time.sleep(1.2)
    assert server.requests == after


def test_an_unexpected_failure_does_not_end_the_refreshing(
    tmp_path: Path, facility: Facility, caplog: pytest.LogCaptureFixture
) -> None:
    """An error nobody thought of is logged, what is known grows stale, and the next look is taken all the same."""
    publish(tmp_path, facility)
    answers = iter([facility.clock(), None])

    def broken_once() -> datetime:
        now = next(answers, facility.clock())
        if now is None:
            raise RuntimeError("the clock is gone")
        return now

    trust = Trust.load(write(tmp_path, facility, rest="feed_refresh = 1"), clock=broken_once)
    before = trust.generation
    facility.revoke(RevocationKind.KID, "00000000")
    publish(tmp_path, facility)
    trust.start()
    wait(lambda: trust.generation > before)
    trust.stop()
    assert "could not be refreshed" in caplog.text


def wait(until: Callable[[], bool]) -> None:
    """Wait until a thread has done something."""
    end = time.monotonic() + 60
    while not until():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def test_a_bundle_is_read_again_with_what_it_says_of_itself(tmp_path: Path, facility: Facility, clock: HandClock) -> None:
    """The feed key of a new bundle verifies the next feed, and that of the old one no longer does."""
    publish(tmp_path, facility)
    trust = Trust.load(write(tmp_path, facility), clock=clock)
    renewed = Facility("als.example", clock=clock)
    write(tmp_path, renewed, sequence=2)
    trust.refresh()
    assert problem(trust) == "feed-signature"
    publish(tmp_path, renewed)
    trust.refresh()
    assert problem(trust) is None
    assert isinstance(trust.state.entries[ALS].bundle, TrustBundle)


# --- attesters ----------------------------------------------------------------------------------------------------------


def attester(key: str, *, domain: str = "nsls.example", groups: str = '["run*", "staff"]') -> str:
    """An entry for a key of a facility's groups."""
    return f'[[attester]]\ndomain = "{domain}"\nkey = """{key}"""\ngroups = {groups}'


def pem(algorithm: Algorithm) -> str:
    """A new public key."""
    public = generate(algorithm).public_key
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.mark.parametrize("algorithm", [Algorithm.ED25519, Algorithm.P256])
def test_attesters_are_named_in_the_document(tmp_path: Path, facility: Facility, algorithm: Algorithm) -> None:
    """A key as PEM or as base64, whose it is, and for which groups; the domain need not be one whose people are let in."""
    text = pem(algorithm)
    public = load_pem_public_key(text.encode())
    for form in (text, b64(spki(public))):  # type: ignore[arg-type]  # Ed25519 or P-256
        (found,) = Trust.load(write(tmp_path, facility, feed='"none"', rest=attester(form))).state.attesters.values()
        assert (found.key, found.domain) == (key_ref(public), NSLS)  # type: ignore[arg-type]
        assert [found.may_vouch_for(group) for group in ("run7", "staff", "staff7", "xrun7")] == [True, True, False, False]


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        (attester("AAAA"), "trust-invalid"),
        (attester("not base64"), "trust-invalid"),
        (attester("-----BEGIN PUBLIC KEY-----"), "trust-invalid"),
        (attester(pem(Algorithm.P384)), "trust-invalid"),
        (attester(pem(Algorithm.ED25519), domain="NSLS"), "trust-invalid"),
        (attester(pem(Algorithm.ED25519), groups="[]"), "trust-invalid"),
        (attester(pem(Algorithm.ED25519), groups='[""]'), "trust-invalid"),
        (attester(pem(Algorithm.ED25519), groups='["a\\n"]'), "trust-invalid"),
        (attester(pem(Algorithm.ED25519)) + "\nroles = []", "unknown-key"),
    ],
)
def test_an_attester_that_is_none_is_refused(tmp_path: Path, facility: Facility, entry: str, code: str) -> None:
    """A key that cannot sign blocks, a name that is none, groups that match nothing: the door does not open."""
    error = refused(write(tmp_path, facility, feed='"none"', rest=entry))
    assert error.code == code
    assert "attester[1]" in error.message


def test_an_rsa_key_attests_nothing(tmp_path: Path, facility: Facility) -> None:
    """It could not sign a block."""
    public = rsa.generate_private_key(65537, 2048).public_key()
    assert refused(write(tmp_path, facility, feed='"none"', rest=attester(b64(spki(public))))).code == "trust-invalid"


def test_a_key_that_anybody_can_sign_for_attests_nothing(tmp_path: Path, facility: Facility) -> None:
    """A point of small order: everybody could vouch for everybody."""
    public = Ed25519PublicKey.from_public_bytes((1).to_bytes(32, "little"))
    assert refused(write(tmp_path, facility, feed='"none"', rest=attester(b64(spki(public))))).code == "trust-invalid"


def test_a_key_speaks_for_one_facility(tmp_path: Path, facility: Facility) -> None:
    """The same key in two entries would leave open whose groups it vouches for."""
    text = pem(Algorithm.P256)
    rest = attester(text) + "\n" + attester(text, domain="als.example")
    assert refused(write(tmp_path, facility, feed='"none"', rest=rest)).code == "attester-conflict"


def test_a_reload_keeps_the_attesters(tmp_path: Path, facility: Facility) -> None:
    """A newer bundle or feed changes nothing about them."""
    document = write(tmp_path, facility, feed='"none"', rest=attester(pem(Algorithm.P256)))
    trust = Trust.load(document)
    before = trust.state
    (tmp_path / "bundle.json").write_bytes(replace(facility.bundle(), sequence=2).to_json())
    trust.refresh()
    assert trust.state.generation > before.generation
    assert trust.state.attesters == before.attesters

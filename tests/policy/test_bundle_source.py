"""Newer bundles from a server: token keys and intermediates by the server's word, roots only by the owner's file."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from certauth.audit.checkpoint import VerifierKey
from certauth.bundles import MAX_BUNDLE, KeyState, TokenRoot, TrustBundle
from certauth.certificates import dump_chain, make_intermediate
from certauth.errors import CertauthError, TokenError
from certauth.keys import Algorithm, generate, key_id
from certauth.names import TrustDomain
from policy import bundle_source
from policy.bundle_source import BundleServer
from policy.testing import Facility
from policy.token import TokenVerifier
from policy.trust import Trust
from tests.policy.web import WebServer

ALS = TrustDomain("als.example")
SECONDS = 60.0


def until(condition: Callable[[], object]) -> None:
    """Wait until a thread has done something."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def token_root(state: KeyState = KeyState.ACTIVE) -> TokenRoot:
    """A new token key."""
    public = Ed25519PrivateKey.generate().public_key()
    return TokenRoot(kid=key_id(public), key=public, state=state)


class Place:
    """A door whose owner has the facility's first bundle in a file, and a server that says ``answer``."""

    def __init__(self, directory: Path) -> None:
        self.facility = Facility("als.example")
        self.first = self.facility.bundle()
        self.file = directory / "bundle.json"
        self.file.write_bytes(self.first.to_json())
        self.document = directory / "trust.toml"
        self.server = WebServer(directory, self.facility)
        self.answer(self.first)
        self.directory = directory
        self.trust = self.open()

    def open(self, rest: str = "", *, feed: str = 'feed = "none"', url: str | None = None) -> Trust:
        """A door that believes the file, and the server within it."""
        self.document.write_text(
            'version = 1\n[[domain]]\nname = "als.example"\nbundle = "bundle.json"\n'
            f'bundle_url = "{url or self.server.url}"\n{feed}\n{rest}\n'
        )
        return Trust.load(self.document, clock=self.facility.clock)

    def answer(self, bundle: TrustBundle) -> None:
        """The server has this bundle from now on."""
        self.server.serve(bundle.to_json)

    def renewed(self, sequence: int = 2, *more: TokenRoot) -> TrustBundle:
        """A bundle with further token keys."""
        return replace(self.first, sequence=sequence, token_roots=(*self.first.token_roots, *(more or (token_root(),))))

    def look(self) -> str | None:
        """Look at everything once; the code of what it could not do."""
        self.trust.refresh()
        error = self.trust.problems.get(ALS)
        return None if error is None else error.code

    @property
    def current(self) -> TrustBundle:
        """What the door goes by."""
        return self.trust.state.entries[ALS].bundle


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A door and its facility's server."""
    made = Place(tmp_path)
    yield made
    made.trust.stop()
    made.server.close()


# --- what a server may say ----------------------------------------------------------------------------------------------


def test_a_new_token_key_arrives_without_a_new_file(place: Place) -> None:
    """It is believed after the next look, and a tainted one no longer; the owner's file is never written."""
    assert place.look() is None
    assert place.current.sequence == 1
    before, written = place.trust.generation, place.file.stat().st_mtime_ns
    new = token_root(KeyState.PREPARED)
    place.answer(place.renewed(2, new))
    assert place.look() is None
    assert place.trust.generation == before + 1
    assert set(place.trust.state.token_keys) == {place.first.token_roots[0].kid, new.kid}
    place.answer(
        replace(place.first, sequence=3, token_roots=(replace(place.first.token_roots[0], state=KeyState.TAINTED), new))
    )
    assert place.look() is None
    assert set(place.trust.state.token_keys) == {new.kid}
    generation = place.trust.generation
    assert place.look() is None
    assert place.trust.generation == generation, "no news is no change"
    assert (place.file.read_bytes(), place.file.stat().st_mtime_ns) == (place.first.to_json(), written)


def test_a_new_intermediate_arrives_without_a_new_file(place: Place) -> None:
    """One that the root of the file vouches for is nothing that has to come by hand."""
    facility = place.facility
    further = make_intermediate(
        domain=ALS,
        public_key=generate(Algorithm.P256).public_key,
        issuer=facility.root,
        issuer_key=facility.root_key,
        serial=99,
        now=facility.clock(),
    )
    place.answer(replace(place.first, sequence=2, x509_issuers=(facility.issuing, further)))
    assert place.look() is None
    assert further in place.current.x509_issuers


ANCHORS: dict[str, Callable[[TrustBundle], TrustBundle]] = {
    "another root": lambda first: replace(first, x509_roots=(Facility("als.example").root,)),
    "a further root": lambda first: replace(first, x509_roots=(*first.x509_roots, Facility("als.example").root)),
    # What vouches for itself is a root to a TLS library, wherever it stands.
    "a root among the intermediates": lambda first: replace(
        first, x509_issuers=(*first.x509_issuers, Facility("als.example").root)
    ),
    "another feed key": lambda first: replace(first, feed_key=Ed25519PrivateKey.generate().public_key()),
    "another log key": lambda first: replace(
        first, log_vkey=str(VerifierKey.make("als.example/certauth/log", Ed25519PrivateKey.generate().public_key()))
    ),
}
ODD: dict[str, Callable[[TrustBundle], bytes]] = {
    "bundle-domain": lambda first: replace(first, domain=TrustDomain("nsls.example"), sequence=9).to_json(),
    "bundle-equivocates": lambda first: replace(first, refresh_hint=77).to_json(),
    "bundle-rollback": lambda first: replace(first, sequence=0).to_json(),
    "bundle-malformed": lambda _: b"{}",
    "bundle-unavailable": lambda first: replace(first, sequence=2).to_json().ljust(MAX_BUNDLE + 1),
    "example-key": lambda _: (Path("keys-example") / "bundle.json").read_bytes(),
}


@pytest.mark.parametrize("change", ANCHORS)
def test_a_server_cannot_replace_what_the_owner_was_given_by_hand(
    place: Place, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Who answers for the server gets in no authority, no feed and no log of theirs, however high the sequence is.

    The owner can: the same bundle as a file is taken.
    """
    hostile = ANCHORS[change](replace(place.first, sequence=9))
    place.answer(hostile)
    before = place.trust.state
    assert place.look() == place.look() == "bundle-roots-changed"
    assert place.trust.state.generation == before.generation
    assert place.current == place.first
    assert [record.name for record in caplog.records] == ["policy.trust"], "said once, not at every look"
    place.answer(place.renewed())
    assert place.look() is None, "a refused one has not raised the sequence"
    place.file.write_bytes(hostile.to_json())
    place.trust.refresh()
    assert place.current == hostile


@pytest.mark.parametrize("code", ODD)
def test_what_is_no_newer_bundle_changes_nothing(place: Place, code: str) -> None:
    """The problem is told where that of a feed would be, until the server has something to say again."""
    generation = place.trust.generation
    place.server.serve(lambda: ODD[code](place.first))
    assert place.look() == code
    assert (place.trust.generation, place.current) == (generation, place.first)
    place.answer(place.renewed())
    assert place.look() is None
    assert place.current.sequence == 2


def test_a_server_does_not_go_back(place: Place) -> None:
    """A key that was withdrawn does not return with yesterday's bundle, genuine as that is."""
    yesterday, today = place.renewed(4), replace(place.first, sequence=5)
    place.answer(today)
    assert place.look() is None
    place.answer(yesterday)
    assert place.look() == "bundle-rollback"
    assert place.current == today


def test_two_facilities_cannot_have_one_token_key(place: Place) -> None:
    """A facility that takes another's key into its bundle is refused, every time, and the other keeps it."""
    partner = Facility("nsls.example")
    (place.directory / "partner.json").write_bytes(partner.bundle().to_json())
    place.trust = place.open('[[domain]]\nname = "nsls.example"\nbundle = "partner.json"\nfeed = "none"')
    claimed = partner.bundle().token_roots[0]
    place.answer(place.renewed(2, claimed))
    assert place.look() == place.look() == "kid-conflict"
    assert place.current == place.first
    assert str(place.trust.state.token_keys[claimed.kid].domain) == "nsls.example"
    place.answer(place.renewed(3))
    assert place.look() is None


# --- the file ----------------------------------------------------------------------------------------------------------


def test_a_newer_file_wins(place: Place) -> None:
    """The owner has the last word; from then on the file's roots are the ones that count."""
    place.answer(place.renewed(2))
    assert place.look() is None
    moved = Facility("als.example")
    place.file.write_bytes(replace(moved.bundle(), sequence=5).to_json())
    place.trust.refresh()
    assert place.current.x509_roots == (moved.root,)
    place.answer(place.renewed(7))
    assert place.look() == "bundle-unavailable", "a server of the old root is not even heard"
    assert place.current.sequence == 5


def test_what_counts_are_the_roots_of_the_file_that_is_there_now(place: Place) -> None:
    """After a change of roots by hand, bundles with the new ones are taken, and those with the old ones are not."""
    (place.directory / "ca.pem").write_bytes(dump_chain([place.facility.root, place.facility.issuing]))
    place.trust = place.open('feed_ca = "ca.pem"')
    moved = Facility("als.example").bundle()
    place.file.write_bytes(replace(moved, sequence=5).to_json())
    place.answer(place.renewed(7))
    assert place.look() == "bundle-roots-changed"
    place.answer(replace(moved, sequence=8))
    assert place.look() is None
    assert place.current == replace(moved, sequence=8)


def test_an_older_file_is_as_it_should_be(place: Place) -> None:
    """A file stays behind the server. Written again, it is no problem, unless it is older than it was, or says other things."""
    place.file.write_bytes(replace(place.first, sequence=2).to_json())
    place.answer(place.renewed(5))
    assert place.look() is None
    for again in (replace(place.first, sequence=2), replace(place.first, sequence=3)):
        place.file.write_bytes(again.to_json() + b" ")
        assert place.look() is None
    for odd in (replace(place.first, sequence=2), ANCHORS["another feed key"](replace(place.first, sequence=4))):
        place.file.write_bytes(odd.to_json())
        assert place.look() == "bundle-rollback"
    assert place.current.sequence == 5


# --- the way there -----------------------------------------------------------------------------------------------------


def test_a_server_that_the_file_does_not_vouch_for_is_not_asked(place: Place, tmp_path: Path) -> None:
    """TLS as for a feed: the domain's own authorities, or those of ``feed_ca``, and never the machine's."""
    stranger = Facility("als.example")
    (tmp_path / "elsewhere").mkdir()
    elsewhere = WebServer(tmp_path / "elsewhere", stranger)
    elsewhere.serve(place.renewed(2).to_json)
    try:
        place.trust = place.open(url=elsewhere.url)
        assert place.look() == "bundle-unavailable"
        assert elsewhere.requests == 0
        (tmp_path / "ca.pem").write_bytes(dump_chain([stranger.root, stranger.issuing]))
        place.trust = place.open('feed_ca = "ca.pem"', url=elsewhere.url)
        assert place.look() is None
        assert place.current.sequence == 2
    finally:
        elsewhere.close()


def test_what_is_not_an_answer_is_not_taken(place: Place) -> None:
    """Errors, redirects, which are not followed, and answers without end."""
    sent = 0

    def endless(handler: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(64):
                handler.wfile.write(b" " * (1 << 20))
                sent += 1

    for answer in (lambda handler: handler.send_error(500), place.server.redirect, endless):
        place.server.answer = answer
        requests = place.server.requests
        assert place.look() == "bundle-unavailable"
        assert place.server.requests == requests + 1
    assert sent < 32, "the whole answer was read"


def test_a_slow_server_is_given_up(place: Place) -> None:
    """A byte now and then, of the body or of the head before it, holds nobody longer than the deadline."""
    slow = BundleServer(place.server.url, ca_file=None, deadline=1.0)
    for answer in (place.server.drip, place.server.drip_headers):
        place.server.answer = answer
        with pytest.raises(CertauthError, match=r"did not finish in 1 s \[bundle-unavailable\]"):
            slow.fetch(place.first)
    place.answer(place.first)
    assert slow.fetch(place.first) == place.first.to_json()


def test_a_connection_that_is_late_is_given_up(place: Place) -> None:
    """Time that has passed before there is a connection counts; the deadline is that of the whole."""
    late = BundleServer(place.server.url, ca_file=None, deadline=0.0)
    with pytest.raises(CertauthError, match=r"did not finish in 0 s"):
        late.fetch(place.first)
    finished = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(200):
            handler.wfile.write(b" ")
            time.sleep(0.05)
        finished.set()

    place.server.answer = drip
    with pytest.raises(CertauthError, match=r"did not finish in 0 s"):
        late.fetch(place.first)
    assert not finished.is_set(), "it was heard to its end"


def test_a_feed_does_not_wait_for_a_server_of_bundles(place: Place, tmp_path: Path) -> None:
    """While that server says nothing, feeds are read and withdrawals count; what is wrong with it is told afterwards."""
    silent = threading.Event()

    def hold(handler: BaseHTTPRequestHandler) -> None:
        silent.wait(SECONDS)
        handler.send_error(500)

    place.server.answer = hold
    feed = WebServer(tmp_path, place.facility)
    feed.serve_feed(place.facility)
    try:
        place.trust = place.open(feed=f'feed = "{feed.url}"\nfeed_refresh = 1')
        place.trust.start()
        until(lambda: place.server.requests == 1)
        looked = feed.requests
        until(lambda: feed.requests > looked + 1)
        assert place.trust.state.domains[ALS].revocations is not None
        silent.set()
        until(lambda: ALS in place.trust.problems)
        assert place.trust.problems[ALS].code == "bundle-unavailable"
        looked = feed.requests
        until(lambda: feed.requests > looked + 1)
        assert place.trust.problems[ALS].code == "bundle-unavailable", "a good feed does not hide it"
    finally:
        silent.set()
        place.trust.stop()
        feed.close()


# --- when --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("hint", "seconds"), [(0, 60), (59, 60), (300, 300), (3600, 3600), (10**9, 3600)])
def test_the_bundle_says_how_often_within_bounds(place: Place, hint: int, seconds: int) -> None:
    """Neither a busy loop nor a month, whatever a bundle says; after a failure, soon."""
    server = BundleServer("https://als.example/bundle", ca_file=None)
    assert server.interval == 60
    bundle = replace(place.first, sequence=2, refresh_hint=hint)
    assert server.read(bundle.to_json(), pinned=place.first, current=place.first) == bundle
    assert server.interval == seconds
    server.report(CertauthError("bundle-unavailable", "x"))
    assert server.interval == 60


def test_an_unknown_token_key_calls_for_a_look(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever mints a token with the new key is not refused for minutes; known keys and refused tokens call for nothing."""
    monkeypatch.setattr(bundle_source, "BETWEEN", 0.05)
    place.trust.start()
    until(lambda: place.server.requests == 1)
    tokens, alice = TokenVerifier(place.trust), place.facility.peer("alice")
    tokens.verify(place.facility.token(alice, "data", rights=["read /"]), now=place.facility.clock())
    moved = Facility("als.example")
    new = moved.token(moved.peer("alice"), "data", rights=["read /"])
    place.answer(place.renewed(2, *moved.bundle().token_roots))
    with pytest.raises(TokenError, match="token-malformed"):
        tokens.verify("AAAA", now=place.facility.clock())
    time.sleep(0.3)  # nothing happens, which has no event to wait for; too short a wait lets a wrong program pass, no more
    assert place.server.requests == 1
    with pytest.raises(TokenError, match="token-unknown-key"):
        tokens.verify(new, now=place.facility.clock())
    until(lambda: place.current.sequence == 2)
    assert tokens.verify(new, now=place.facility.clock()).user == "spiffe://als.example/user/alice"


def test_strangers_do_not_make_a_door_busy(place: Place) -> None:
    """Anybody can write tokens with unknown keys: however many come, there are seconds between two looks."""
    place.trust.start()
    until(lambda: place.server.requests == 1)
    for _ in range(3):
        place.trust.call_for_bundles()
        time.sleep(0.1)
    assert place.server.requests == 1
    place.trust.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == f"trust bundle {ALS}"]


def test_stopping_does_not_wait_for_the_next_look(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which may be an hour away."""
    monkeypatch.setattr(bundle_source, "BETWEEN", 0.0)
    place.trust.start()
    until(lambda: place.server.requests == 1)
    time.sleep(0.3)  # until it waits; if it does not yet, a wrong program passes, no more
    stopping = threading.Thread(target=place.trust.stop, daemon=True)
    stopping.start()
    stopping.join(SECONDS)
    assert not stopping.is_alive()


@pytest.mark.parametrize("url", ["http://als.example/bundle", "bundle.json", "https:///bundle", ""])
def test_an_address_that_is_none_is_refused(place: Place, url: str) -> None:
    """Only https."""
    place.document.write_text(
        f'version = 1\n[[domain]]\nname = "als.example"\nbundle = "bundle.json"\nbundle_url = "{url}"\nfeed = "none"\n'
    )
    with pytest.raises(CertauthError, match=r"bundle_url.*\[trust-invalid\]"):
        Trust.load(place.document)


@pytest.mark.parametrize("rest", ["", 'bundle_url = "none"'])
def test_without_an_address_nobody_is_asked(place: Place, rest: str) -> None:
    """The default: newer bundles come by hand."""
    place.document.write_text(f'version = 1\n[[domain]]\nname = "als.example"\nbundle = "bundle.json"\nfeed = "none"\n{rest}\n')
    place.trust = Trust.load(place.document)
    place.answer(place.renewed())
    assert place.look() is None
    place.trust.call_for_bundles()
    assert (place.server.requests, place.current.sequence) == (0, 1)

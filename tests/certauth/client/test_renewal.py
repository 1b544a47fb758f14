"""Renewal from the holder's side, with a real signer: what is replaced, what ends, and that a reader never sees half of it."""

from __future__ import annotations

import json
import shutil
import ssl
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from certauth.certificates import load_chain
from certauth.client import agents, tokens
from certauth.client.agents import AgentRecord, AgentWish
from certauth.client.http import Client
from certauth.client.profile import Home, Profile
from certauth.client.renewal import Lost, Renewed, mint_again, renew, renewal_lock
from certauth.clock import system_clock
from certauth.errors import AnswerError, LoginRequired, Refused, StoreError, UnavailableError, UsageError
from certauth.requests import Right
from certauth.tokens import attenuate, delegate, describe, from_text, to_text
from signer.service import Service
from tests.signer.client_home import log_in
from tests.signer.kit import MovableClock, Site, facility, run_cli
from tests.simulator.hostile_signer import HostileSigner

READ = Right.make("read", "/alice/")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A facility in which sessions are short."""
    with facility(tmp_path_factory.mktemp("site")) as made:
        made.settings_file.write_text(made.settings_file.read_text() + '\n[limits]\nsession = "3h"\n')
        made.enroll("alice", "files:read,write:/alice/", "mail:send:/")
        made.enroll("loser", "files:read,write:/alice/")
        made.enroll("brief", "files:read:/alice/", max_lifetime="90s")
        yield made


@pytest.fixture(scope="module")
def service(site: Site) -> Iterator[Service]:
    """The running service."""
    with site.serving() as running:
        yield running


@pytest.fixture
def alice(site: Site, service: Service, tmp_path: Path) -> tuple[Home, Profile]:
    """Somebody with a certificate of ten minutes: a renewal gains."""
    return log_in(site, "alice", tmp_path / "alice", lifetime=600)


def mint(profile: Profile, name: str, *, rights: tuple[Right, ...] | None = (READ,), **wishes: Any) -> tokens.Minted:
    """A stored token."""
    usual: dict[str, Any] = {"audience": "files", "lifetime": timedelta(minutes=5), "delegations": 1}
    return tokens.mint(profile, rights=rights, name=name, ca=None, clock=system_clock, **(usual | wishes))


def again(who: tuple[Home, Profile], **wishes: Any) -> Renewed:
    """Renew now."""
    usual: dict[str, Any] = {"lifetime": None, "ca": None, "clock": system_clock}
    return renew(who[0], who[1], AgentRecord.read(who[0].directory), **(usual | wishes))


def end_of(profile: Profile) -> Any:
    """When the stored certificate ends."""
    return profile.stored_credential().leaf.not_valid_after_utc


def test_certificate_and_tokens_are_replaced_together(alice: tuple[Home, Profile]):
    """The key stays; the token has a new id, the same rights and length of life, and works with the new certificate."""
    profile = alice[1]
    before, token = profile.stored_credential(), mint(profile, "data").token
    key = (profile.directory / "key.pem").read_bytes()
    done = again(alice)
    after = profile.stored_credential()
    assert after.fingerprint == done.credential.fingerprint != before.fingerprint
    assert (profile.directory / "key.pem").read_bytes() == key
    assert done.gained > timedelta(minutes=30)
    assert (done.tokens, done.lost) == (("data",), ())
    facts = describe(profile.token("data") or "", now=system_clock())
    assert facts["jti"] != token.jti
    assert facts["peer_fingerprint"] == after.fingerprint
    assert facts["rights"] == [{"service": "files", "operation": "read", "path": "/alice/"}]
    assert (profile.directory / "receipts" / f"token-{facts['jti']}.json").exists()
    assert not (profile.directory / ".renewal").exists()
    assert again(alice, lifetime=timedelta(minutes=2)).gained < timedelta(0), "a shorter life was asked for"


def test_a_wish_does_not_shrink_from_token_to_token(alice: tuple[Home, Profile]):
    """An hour that the end of a certificate cut to minutes is an hour again with the next one, and stays it."""
    profile = alice[1]
    first = mint(profile, "data", lifetime=timedelta(hours=1), delegations=3).token
    assert first.expires_at <= end_of(profile)
    again(alice, lifetime=timedelta(minutes=2))
    again(alice, lifetime=timedelta(hours=2))
    facts = describe(profile.token("data") or "", now=system_clock())
    assert facts["delegation_depth"] == 3
    remembered = json.loads((profile.directory / "renewal.json").read_text())
    assert [wish["lifetime"] for wish in remembered.values()] == [int((first.expires_at - first.issued_at).total_seconds())]
    assert list(remembered) == [facts["jti"]]


def test_what_was_derived_ends_and_what_others_hold_stays(alice: tuple[Home, Profile]):
    """A narrowed token cannot be made again in its owner's name without them; another's token is none of ours."""
    profile = alice[1]
    mint(profile, "data")
    text = profile.token("data") or ""
    profile.store_token("narrow", attenuate(text, read=["/alice/run7/"]))
    profile.store_token("damaged", "not-a-token")
    elsewhere = text_for_another(profile)
    profile.store_token("lent", elsewhere)
    done = again(alice)
    assert done.tokens == ("data",)
    assert done.lost == (Lost(name="narrow", code="not-minted-here"),)
    assert profile.token_names() == ["damaged", "data", "lent"]
    assert profile.token("lent") == elsewhere


def text_for_another(profile: Profile) -> str:
    """A token of the profile's owner, handed to somebody else's certificate."""
    token = from_text(profile.token("data") or "")
    other = "ab" * 32
    return to_text(delegate(token, holder_key=profile.stored_credential().key, to_certificate=other))


def test_a_right_that_was_lost_costs_that_token_alone(site: Site, service: Service, tmp_path: Path):
    """The others, and the certificate, are renewed; the lost one is gone, for it would work with nothing."""
    who = log_in(site, "loser", tmp_path / "loser")
    mint(who[1], "reads")
    mint(who[1], "writes", rights=(Right.make("write", "/alice/"),))
    site.enroll("loser", "files:read:/alice/")
    done = again(who)
    assert done.tokens == ("reads",)
    assert done.lost == (Lost(name="writes", code="right-not-held"),)
    assert who[1].token_names() == ["reads"]


def test_tokens_alone_can_be_replaced(alice: tuple[Home, Profile]):
    """For the same certificate, with the same wishes; the one not named is left as it is."""
    profile = alice[1]
    first, other = mint(profile, "data").token, mint(profile, "other").token
    assert mint_again(profile, ["data"], ca=None, clock=system_clock) == (("data",), ())
    assert describe(profile.token("data") or "", now=system_clock())["jti"] != first.jti
    assert describe(profile.token("other") or "", now=system_clock())["jti"] == other.jti
    assert mint_again(profile, [], ca=None, clock=system_clock) == ((), ())


# --- who is not renewed --------------------------------------------------------------------------------------------------


def test_a_session_that_is_over_asks_for_a_login(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path):
    """The hint is the command; nothing stored has changed."""
    with facility(tmp_path_factory.mktemp("over")) as place:
        place.settings_file.write_text(place.settings_file.read_text() + '\n[limits]\nsession = "3h"\n')
        place.enroll("alice", "files:read:/alice/")
        with place.serving():
            who = log_in(place, "alice", tmp_path / "alice", lifetime=3 * 3600)
            mint(who[1], "data")
            before = snapshot(who[1])
            place.clock.offset = timedelta(hours=2, minutes=59, seconds=30)
            with pytest.raises(LoginRequired) as caught:
                again(who)
    assert (caught.value.code, caught.value.hint) == ("session-ended", f"certauth login {place.url}")
    assert snapshot(who[1]) == before


def test_without_a_valid_certificate_a_person_logs_in(alice: tuple[Home, Profile]):
    """Nobody is asked."""
    late = MovableClock(offset=timedelta(hours=1))
    with pytest.raises(LoginRequired) as caught:
        again(alice, clock=late)
    assert caught.value.code == "certificate-expired"
    alice[1].forget()
    with pytest.raises(LoginRequired) as caught:
        again(alice)
    assert caught.value.code == "not-logged-in"


def test_a_person_who_is_disabled_is_refused(site: Site, service: Service, tmp_path: Path):
    """And what is stored stays."""
    site.enroll("leaver", "files:read:/alice/")
    who = log_in(site, "leaver", tmp_path / "leaver")
    run_cli("user", "disable", "leaver", "--reason", "left", "--settings", site.settings_file)
    before = snapshot(who[1])
    with pytest.raises((Refused, LoginRequired)) as caught:
        again(who)
    assert caught.value.code in {"principal-disabled", "certificate-revoked"}
    assert snapshot(who[1]) == before


# --- agents --------------------------------------------------------------------------------------------------------------


def agent_of(who: tuple[Home, Profile], directory: Path, name: str) -> tuple[Home, Profile]:
    """An agent's home and profile."""
    wish = AgentWish(name=name, rights=(("files", READ),), services=("files",), networks=(), lifetime=timedelta(days=1))
    agents.create(who[1], wish, directory, ca=None, clock=system_clock)
    home = Home(directory)
    return home, home.active()


def test_an_agent_is_renewed_by_its_certificate(alice: tuple[Home, Profile], tmp_path: Path):
    """Like a person, and its owner need not be there."""
    agent = agent_of(alice, tmp_path / "job", "by-certificate")
    mint(agent[1], "data")
    alice[1].forget()
    key = agent[1].stored_credential().key.public_key
    assert again(agent).tokens == ("data",)
    assert agent[1].stored_credential().key.public_key == key


def test_an_agent_that_slept_through_proves_itself_with_its_key(site: Site, service: Service, tmp_path: Path):
    """Its certificate has run out; its tokens are minted again too, and the key of the new certificate is a new one."""
    owner = log_in(site, "brief", tmp_path / "brief")
    agent = agent_of(owner, tmp_path / "job", "sleeper")
    mint(agent[1], "data", lifetime=None)
    old = agent[1].stored_credential()
    ahead = timedelta(seconds=45)
    site.clock.offset += ahead
    late = MovableClock(offset=site.clock.offset + timedelta(seconds=50))
    assert late() > end_of(agent[1])
    done = again(agent, clock=late)
    assert done.credential.fingerprint != old.fingerprint
    assert done.credential.key.public_key != old.key.public_key
    assert done.tokens == ("data",)
    assert agent[1].credential(now=late()).fingerprint == done.credential.fingerprint


def test_an_agent_without_a_certificate_gets_one(alice: tuple[Home, Profile], tmp_path: Path):
    """As after a creation that was cut short: there is the key and the record, and nothing else."""
    agent = agent_of(alice, tmp_path / "job", "cut-short")
    shutil.rmtree(agent[1].directory)
    (tmp_path / "job" / "active").unlink()
    done = again(agent)
    assert Home(tmp_path / "job").active().stored_credential().fingerprint == done.credential.fingerprint


# --- half of it ----------------------------------------------------------------------------------------------------------


def snapshot(profile: Profile) -> dict[str, bytes]:
    """Every stored file."""
    return {
        str(path.relative_to(profile.directory)): path.read_bytes()
        for path in profile.directory.rglob("*")
        if path.is_file() and "lock" not in path.name
    }


def test_a_signer_that_dies_in_between_changes_nothing(alice: tuple[Home, Profile], monkeypatch: pytest.MonkeyPatch):
    """The certificate was granted and the token was not: the old pair goes on working."""
    mint(alice[1], "data")
    before, real = snapshot(alice[1]), Client.post_again

    def dying(self: Client, url: str, value: Any) -> Any:
        if url.endswith("/v1/tokens"):
            raise UnavailableError("unreachable", "gone")
        return real(self, url, value)

    monkeypatch.setattr(Client, "post_again", dying)
    with pytest.raises(UnavailableError):
        again(alice)
    assert snapshot(alice[1]) == before
    monkeypatch.undo()
    assert again(alice).tokens == ("data",)


def test_what_a_killed_renewal_left_is_in_nobodys_way(alice: tuple[Home, Profile]):
    """It is removed by the next one."""
    left = alice[1].directory / ".renewal" / "facility.test"
    left.mkdir(parents=True)
    (left / "chain.pem").write_text("half")
    again(alice)
    assert not left.exists()


def test_a_program_that_knows_no_lock_never_sees_a_wrong_pair(alice: tuple[Home, Profile]):
    """Key and chain are loaded by OpenSSL all the time while they are replaced, and fit every time."""
    directory, stop, loaded, wrong = alice[1].directory, threading.Event(), [0], list[str]()
    fingerprints: set[bytes] = set()

    def read() -> None:
        while not stop.is_set():
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(directory / "chain.pem", directory / "key.pem")
                fingerprints.add(load_chain((directory / "chain.pem").read_bytes())[0].signature)
                loaded[0] += 1
            except (OSError, ValueError) as error:
                wrong.append(str(error))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(5):
            again(alice)
    finally:
        stop.set()
        reader.join()
    assert not wrong
    assert loaded[0] > 0
    assert len(fingerprints) > 1, "the control: it was replaced while it was read"


def test_a_disk_that_does_not_take_it_is_said(alice: tuple[Home, Profile], monkeypatch: pytest.MonkeyPatch):
    """As what may pass, and not as a bug."""

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StoreError) as caught:
        again(alice)
    assert caught.value.code == "cannot-write"


def test_one_renews_at_a_time(alice: tuple[Home, Profile], monkeypatch: pytest.MonkeyPatch):
    """The second one is told; what fails within is not taken for that; a lock that cannot be is said as that."""
    with renewal_lock(alice[1]):
        with pytest.raises(UsageError) as caught, renewal_lock(alice[1]):
            pass
        assert caught.value.code == "renewal-running"
    with pytest.raises(StoreError, match="inside"), renewal_lock(alice[1]):
        raise StoreError("locked", "inside")
    (alice[1].directory / ".renewal.lock").unlink()
    (alice[1].directory / ".renewal.lock").mkdir()
    with pytest.raises(StoreError) as other, renewal_lock(alice[1]):
        pass
    assert other.value.code == "cannot-write"


# --- lies ----------------------------------------------------------------------------------------------------------------


def test_a_certificate_for_somebody_else_is_not_stored(signer: HostileSigner, log_me_in: Any, home: Home):
    """A signer's answer is checked like that to a login; and it must be the same name."""
    profile = log_me_in().profile
    before = snapshot(profile)
    metadata = signer.metadata()
    metadata["endpoints"]["renewals"] = f"{signer.url}/v1/renewals"
    signer.lies["/.well-known/certauth"] = lambda _: metadata
    signer.subject_uri = "spiffe://hostile.example/user/mallory"
    signer.lies["/v1/renewals"] = lambda _: signer.certificate(json.loads(signer.seen[-1][3]) | {"proof": {}})
    with pytest.raises(AnswerError) as caught:
        renew(home, profile, None, lifetime=None, ca=None, clock=system_clock)
    assert caught.value.code == "wrong-name"
    assert snapshot(profile) == before
    signer.lies["/.well-known/certauth"] = lambda _: metadata | {"trust_domain": "other.example"}
    with pytest.raises(AnswerError) as caught:
        renew(home, profile, None, lifetime=None, ca=None, clock=system_clock)
    assert caught.value.code == "wrong-signer"

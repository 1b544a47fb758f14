"""Ending what somebody has: their certificates, also in the middle of others' tokens, and the agents that work for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
from click.testing import CliRunner

from certauth.audit import record
from certauth.enrolment import Login
from certauth.names import Principal
from certauth.revocation import RevocationKind
from signer import ending
from signer.changing import change
from signer.cli import group, withdrawing
from signer.ledger import Ledger
from signer.rows import CertificateRow, LoginRow
from signer.service import Service
from signer.submission import Committed, Submission
from tests.signer.agent_kit import ask, certified, identity, make, mint, prove, renew, wish
from tests.signer.kit import DOMAIN, Identity, Site, facility, run_cli

ALICE = f"spiffe://{DOMAIN}/user/alice"
ROOT = f"spiffe://{DOMAIN}/user/root"
DISABLE, REVOKE = ("user", "disable", "alice"), ("user", "revoke", "alice")
UNLINK = ("user", "unlink", "alice", "--subject", "second")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A facility with a person and an administrator."""
    with facility(tmp_path) as made:
        made.settings_file.write_text(made.settings_file.read_text().replace("admins = []", f'admins = ["{ROOT}"]'))
        made.enroll("alice", "files:read:/alice/")
        made.enroll("root")
        act(made, "user", "link", "alice", "--subject", "second")
        yield made


@pytest.fixture
def service(site: Site) -> Iterator[Service]:
    """The running service."""
    with site.serving() as running:
        yield running


def act(site: Site, *words: object) -> dict[str, Any]:
    """An administrator's command."""
    return run_cli(*words, "--reason", "a test", "--settings", site.settings_file)


def over_http(site: Site) -> None:
    """An administrator revokes Alice over the network."""
    with site.client(site.log_in("root")) as client:
        answer = client.post("/v1/revocations", json={"kind": "principal", "value": ALICE, "reason": "a test"})
    assert answer.status_code == 201, answer.text


ENDS: dict[str, Callable[[Site], object]] = {
    "disable": lambda site: act(site, *DISABLE),
    "revoke": lambda site: act(site, *REVOKE),
    "unlink": lambda site: act(site, *UNLINK),
    "http": over_http,
}
"""Every way in which all that somebody has comes to its end."""


def feed(service: Service) -> dict[str, int | None]:
    """What is withdrawn, and until when that is known."""
    return {stored.row.revoked.value: stored.row.revoked.expires_at for stored in service.store.revocations(now=0)}


def entries(service: Service) -> int:
    """How long the log is, whoever wrote it."""
    with service.store.log() as reader:
        return sum(1 for _ in reader.entries())


def changes(service: Service) -> int:
    """How many entries of the log take something away or change an enrolment."""
    with service.store.log() as reader:
        kinds = [record.decode(entry.body)["kind"] for entry in reader.entries()]
    return kinds.count("revoke") + kinds.count("enrolment.change")


def disabled(service: Service, principal: str) -> bool:
    """Whether somebody is disabled."""
    found = service.store.enrolment_by_principal(Principal.parse(principal))
    assert found is not None
    return found.disabled


@pytest.mark.parametrize("how", ENDS)
def test_with_somebody_end_their_certificates_and_their_agents(site: Site, service: Service, how: str) -> None:
    """Each certificate that a token may name is in the feed by its fingerprint; the agents are disabled and withdrawn."""
    alice = site.log_in("second")
    agent = make(site, alice, "job")
    at_work = identity(site, agent)
    assert mint(site, at_work).status_code == 201
    size = changes(service)
    ENDS[how](site)
    assert changes(service) == size + 1, "all of it or nothing: one entry"
    found = feed(service)
    assert {ALICE, agent.principal, alice.fingerprint, at_work.fingerprint} <= set(found)
    assert disabled(service, agent.principal)
    # Not forgotten with the certificate: a token that went through its hands may live on for a while.
    for holder in (alice, at_work):
        end = int((holder.chain[0].not_valid_after_utc + ending.HANDED_ON).timestamp())
        assert found[holder.fingerprint] == end
    service.withdrawals.changed()
    assert mint(site, at_work).json()["code"] == "certificate-revoked"
    assert prove(site, agent, at_work.key).json()["code"] == "principal-disabled"


@pytest.mark.parametrize("how", ["disable", "revoke", "unlink"])
def test_what_is_made_at_the_same_moment_ends_too(
    site: Site, service: Service, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thief makes an agent and renews while the administrator's command has looked and has not recorded."""
    alice, late = site.log_in("second"), list[str]()
    honest = Ledger.record

    def slow(ledger: Ledger, submission: Submission) -> Committed:
        if not late:
            late.append(make(site, alice, "late").principal)
            late.append(certified(alice, renew(site, alice)).fingerprint)
        return honest(ledger, submission)

    monkeypatch.setattr(Ledger, "record", slow)
    with structlog.testing.capture_logs():  # the command's output is read
        ENDS[how](site)
    assert set(late) <= set(feed(service))
    assert disabled(service, late[0])
    size = entries(service)
    monkeypatch.undo()
    act(site, "user", "revoke", "alice")
    assert entries(service) == size + 1, "nothing was missed, so there is no second entry"


def test_what_is_made_while_an_administrator_revokes_over_the_network_ends_too(
    site: Site, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for ``POST /v1/revocations``."""
    alice, late = site.log_in("alice"), list[str]()
    honest = service.revoking._rows

    def slow(*arguments: Any, **named: Any) -> Any:
        rows = honest(*arguments, **named)
        at = service.clock()
        mine = service.store.newest_certificate(Principal.parse(ALICE))
        assert mine is not None
        row = replace(mine.row, fingerprint="ab" * 32, serial=7)  # as a renewal would have recorded it
        late.append(row.fingerprint)
        event = record.CredentialRevoked(credential="jti", value="0" * 16, reason="stands for a grant", by="x")
        service.ledger.record(Submission(request_id="meanwhile", digest=b"x" * 32, event=event, rows=(row,)))
        assert isinstance(row, CertificateRow)
        assert at is not None
        return rows

    monkeypatch.setattr(service.revoking, "_rows", slow)
    over_http(site)
    assert {alice.fingerprint, *late} <= set(feed(service))


def test_a_later_login_is_not_touched(site: Site, service: Service) -> None:
    """Who was revoked logs in again and works; a second revocation withdraws the new certificate and names no other again."""
    first = site.log_in("alice")
    act(site, *REVOKE)
    site.clock.offset = timedelta(seconds=2)
    second = site.log_in("alice")
    assert second.fingerprint not in feed(service)
    assert mint(site, second).status_code == 201
    act(site, *REVOKE)
    values = [stored.row.revoked.value for stored in service.store.revocations(now=0)]
    assert values.count(first.fingerprint) == values.count(second.fingerprint) == 1


def test_a_login_right_after_the_record_is_not_touched(site: Site, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second look finds what was recorded before the withdrawal, and nothing that came after it."""
    honest, fresh = withdrawing.completing, list[Identity]()

    def slow(*arguments: Any, **named: Any) -> Any:
        site.clock.offset = timedelta(seconds=1)
        fresh.append(site.log_in("alice"))
        return honest(*arguments, **named)

    monkeypatch.setattr(withdrawing, "completing", slow)
    with structlog.testing.capture_logs():
        act(site, *REVOKE)
    assert fresh[0].fingerprint not in feed(service)
    service.withdrawals.changed()
    assert mint(site, fresh[0]).status_code == 201


def test_certificates_that_ended_long_ago_are_not_named(site: Site, service: Service) -> None:
    """As long as a token may live that they handed on, and no longer."""
    alice = site.log_in("alice")
    end = alice.chain[0].not_valid_after_utc
    for since, named in ((timedelta(minutes=-1), True), (timedelta(minutes=1), False)):
        rows = ending.everything_of(service.store, Principal.parse(ALICE), by="x", why="x", at=end + ending.HANDED_ON + since)
        assert (alice.fingerprint in {row.revoked.value for row in rows}) is named


def test_the_number_of_certificates_is_bounded(site: Site, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest ones are named, in two entries; that others are left out is said, and the feed never fills up by that."""
    monkeypatch.setattr(ending, "MAX_CERTIFICATES", 2)
    found = [site.log_in("alice").fingerprint for _ in range(5)]
    told = run_text(site, *REVOKE)
    assert "too many certificates" in told
    assert [one in feed(service) for one in found] == [False, True, True, True, True]
    monkeypatch.setattr(ending, "_ROOM", 3)
    before = set(feed(service))
    act(site, *REVOKE)
    assert set(feed(service)) == before, "the principal once more, and no certificate: there is no room for it"


def run_text(site: Site, *words: object) -> str:
    """What a command says to people."""
    done = CliRunner().invoke(group, [*map(str, words), "--reason", "a test", "--settings", str(site.settings_file)])
    assert done.exit_code == 0, done.output
    return done.output


def test_what_is_left_out_over_the_network_is_in_the_services_log(
    site: Site, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The facility's log says it; the answer is the same."""
    monkeypatch.setattr(ending, "MAX_CERTIFICATES", 1)
    for _ in range(3):
        site.log_in("alice")
    root = site.log_in("root")
    with structlog.testing.capture_logs() as said, site.client(root) as client:
        client.post("/v1/revocations", json={"kind": "principal", "value": ALICE, "reason": "a test"})
    assert service.ledger.status().cause is None
    assert "revocation.certificates-left-out" in {one["event"] for one in said}


def test_a_single_credential_ends_no_agent(site: Site, service: Service) -> None:
    """The control: one certificate is one certificate."""
    alice = site.log_in("alice")
    agent = make(site, alice, "job").principal
    act(site, *REVOKE, "--certificate", alice.fingerprint)
    assert not disabled(service, agent)
    found = feed(service)
    assert set(found) == {alice.fingerprint}
    kept = int((alice.chain[0].not_valid_after_utc + ending.HANDED_ON).timestamp())
    assert found[alice.fingerprint] == kept


def test_own_withdrawals_of_certificates_are_bounded(site: Site, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody fills the feed with certificates of their own; an administrator's hands are not bound."""
    monkeypatch.setattr("signer.revoking.MAX_OWN_CERTIFICATES", 2)
    mine = [site.log_in("alice") for _ in range(3)]

    def withdraw(by: Identity, what: Identity) -> Any:
        with site.client(by) as client:
            wish = {"kind": "certificate", "value": what.fingerprint, "reason": "x"}
            return client.post("/v1/revocations", json=wish)

    assert [withdraw(mine[2], one).status_code for one in mine[:2]] == [201, 201]
    answer = withdraw(mine[2], mine[2])
    assert (answer.status_code, answer.json()["code"]) == (403, "too-many-revocations")
    assert withdraw(site.log_in("root"), mine[2]).status_code == 201
    assert {stored.row.revoked.kind for stored in service.store.revocations(now=0)} == {RevocationKind.CERTIFICATE}


def test_nobody_fills_the_feed_with_agents_that_come_and_go(
    site: Site, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopping is never refused; making the next one is, until doors may forget the earlier ones."""
    monkeypatch.setattr("signer.agents.MAX_ENDED", 2)
    alice = site.log_in("alice")
    names = ["one", "two", "three"]
    for name in names:
        make(site, alice, name)
    stopped = []
    for name in names:
        with site.client(alice) as client:
            stopped.append(client.post(f"/v1/agents/{name}/stop", json={"reason": "done"}).status_code)
    assert stopped == [201, 201, 201]
    refused = ask(site, alice, wish(alice.key, "four"))
    assert (refused.status_code, refused.json()["code"], bool(refused.json()["hint"])) == (403, "too-many-agents", True)


def test_one_person_does_not_use_up_the_room_by_stopping_agents(
    site: Site, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the certificates of their agents so many are named; they can still withdraw their own, and others are named."""
    monkeypatch.setattr(ending, "MAX_OF_OWNER", 2)
    monkeypatch.setattr("signer.revoking.MAX_OWN_CERTIFICATES", 3)
    alice, named = site.log_in("alice"), list[bool]()
    for name in ("one", "two"):
        agent = make(site, alice, name)
        held = [identity(site, agent) for _ in range(3)]
        with site.client(alice) as client:
            assert client.post(f"/v1/agents/{name}/stop", json={"reason": "done"}).status_code == 201
        named += [one.fingerprint in feed(service) for one in held]
        assert agent.principal in feed(service)
    assert named == [False, True, True, False, False, False]
    with site.client(alice) as client:
        asked = {"kind": "certificate", "value": alice.fingerprint, "reason": "laptop stolen"}
        assert client.post("/v1/revocations", json=asked).status_code == 201


def test_who_revokes_is_told_with_which_logins_somebody_comes_in_again(site: Site, service: Service) -> None:
    """A thief may have linked one; where there is a single login, there is nothing to look at."""
    site.enroll("bob")
    told = run_text(site, *REVOKE)
    assert all(f"  {subject} at {site.provider.issuer}" in told for subject in ("alice", "second"))
    assert "user unlink" in told
    assert "unlink" not in run_text(site, "user", "revoke", "bob")
    assert "unlink" not in run_text(site, *DISABLE)


def test_with_personal_data_go_all_agents_within_one_bound(
    site: Site, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many agents somebody had: the number of certificates in one entry does not grow with it."""
    alice = site.log_in("alice")
    agents = [make(site, alice, f"job{number}") for number in range(3)]
    for agent in agents:
        identity(site, agent)
    monkeypatch.setattr(ending, "MAX_CERTIFICATES", 0)
    act(site, *DISABLE)
    monkeypatch.setattr(ending, "MAX_CERTIFICATES", 1)
    before = set(feed(service))
    act(site, "user", "delete-personal-data", "alice", "--yes")
    assert len(set(feed(service)) - before) == 1


def test_a_reason_that_has_no_place_in_the_feed(site: Site) -> None:
    """Nothing is recorded, and it is said what a reason is."""
    for reason in ("x" * 201, "a\nb"):
        answer = run_cli(*REVOKE, "--reason", reason, "--settings", site.settings_file, expect=2)
        assert answer["error"]["code"] == "revocation-invalid"
    row = LoginRow(principal=Principal.parse(ALICE), login=Login("x", "y"), by="x", at=site.clock())
    assert change(action="x", principal=Principal.parse(ALICE), by="x", why="x", rows=(row,)).rows == (row,)

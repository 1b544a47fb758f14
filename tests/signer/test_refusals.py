"""How much refusals make the log grow: one entry for a login, a reason and an hour, and a bound for all of a provider."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from certauth import keys
from certauth.audit import record
from certauth.keys import Algorithm
from signer import entries, recording
from signer.service import Service
from tests.signer.kit import Site, facility, make_csr


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A facility at which nobody is enrolled; its clock stands at the beginning of an hour, a little ahead."""
    with facility(tmp_path) as made:
        now = made.clock()
        made.clock.offset = now.replace(minute=0, second=5, microsecond=0) + timedelta(hours=1) - now
        yield made


@pytest.fixture
def service(site: Site) -> Iterator[Service]:
    """The running service."""
    with site.serving() as running:
        yield running


def ask(site: Site, subject: str, **more: Any) -> httpx2.Response:
    """A login with a proof of its own."""
    with site.client() as client:
        return client.post("/v1/certificates", json=site.body(subject, keys.generate(Algorithm.P256)) | more)


def denials(service: Service) -> list[dict[str, Any]]:
    """Every refusal in the log."""
    return [entry for entry in recorded(service) if entry["kind"] == "grant.deny"]


def test_a_login_has_one_entry_an_hour_for_each_reason(site: Site, service: Service) -> None:
    """However many proofs it is shown with; another login, another reason and the next hour have their own."""
    for _ in range(4):
        assert ask(site, "eve").json()["code"] == "not-enrolled"
    assert len(denials(service)) == 1
    assert ask(site, "mallory").json()["code"] == "not-enrolled"
    assert len(denials(service)) == 2
    assert ask(site, "eve", invite="aaaaa-aaaaa-aaaaa-aaaaa-aaaaaa").json()["code"] == "invite-invalid"
    assert len(denials(service)) == 3
    site.clock.offset += timedelta(hours=1)
    assert ask(site, "eve").json()["code"] == "not-enrolled"
    assert len(denials(service)) == 4


def test_a_refusal_tells_proof_and_rule_as_a_grant_does(site: Site) -> None:
    """Digest and binding of the proof, and the rule that took the login or turned it away; none if no rule took it."""
    rule = '[[issuer.rule]]\nname = "{0}"\nwhen.all = [{{claim = "/staff", equals = "{1}"}}]\n'
    broken = 'subject = "user/{claim:/uid}"\n'
    with site.settings_file.open("a") as file:
        file.write(rule.format("staff", "yes") + rule.format("named", "also") + broken)
    site.enroll("alice")
    with site.serving() as service:
        site.log_in("alice", staff="yes")
        for subject, staff in (("alice", "no"), ("eve", "yes"), ("eve", "also")):
            key = keys.generate(Algorithm.P256)
            with site.client() as client:
                assert client.post("/v1/certificates", json=site.body(subject, key, staff=staff)).status_code == 403
        bodies = recorded(service)
        granted = next(one for one in bodies if one["kind"] == "grant.cert" and one["proof"]["kind"] == "id_token")
        assert granted["decision"]["rule"] == "staff"
        unmatched, stranger, turned_away = (one for one in bodies if one["kind"] == "grant.deny")
    for one in (unmatched, stranger, turned_away):
        assert one["proof"].keys() == granted["proof"].keys()
        assert {**one["proof"], "digest": ""} == {**granted["proof"], "digest": ""}
    assert [one["decision"].get("code") for one in (unmatched, stranger, turned_away)] == [
        "not-admitted",
        "not-enrolled",
        "not-admitted",
    ]
    assert "rule" not in unmatched["decision"]
    assert stranger["decision"]["rule"] == "staff"
    assert turned_away["decision"]["rule"] == "named"


def test_a_refused_certificate_is_the_proof(site: Site) -> None:
    """A renewal that is refused names the certificate as its proof and the rule of the session, as one that is granted."""
    site.clock.offset = timedelta()  # the door compares certificates with the time of the system
    site.enroll("alice")
    with site.serving() as service:
        alice = site.log_in("alice")
        with site.client(alice) as client:
            answer = client.post("/v1/renewals", json={"csr": make_csr(alice.key), "lifetime": 30})
        assert answer.json()["code"] == "lifetime-invalid"
        granted = next(one for one in recorded(service) if one["kind"] == "grant.cert" and one["proof"]["kind"] == "id_token")
        (denied,) = denials(service)
    assert denied["proof"] == {"kind": "certificate", "binding": "possession", "digest": alice.fingerprint}
    assert denied["decision"]["rule"] == granted["decision"]["rule"]


def recorded(service: Service) -> list[dict[str, Any]]:
    """The whole log."""
    with service.store.log() as reader:
        return [record.decode(entry.body) for entry in reader.entries()]


def test_many_logins_of_one_provider_share_an_entry(site: Site, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a number an hour there is one more entry for all of them, which names nobody; all are told the same."""
    monkeypatch.setattr(recording, "MAX_REFUSED", 3)
    answers = [ask(site, f"stranger-{number}") for number in range(8)]
    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(403, "not-enrolled")}
    assert "stranger-7" in answers[7].json()["hint"]
    found = denials(service)
    assert len(found) == 4
    assert [("sub_c" in entry["actor"], "digest" in entry.get("proof", {})) for entry in found] == [(True, True)] * 3 + [
        (False, False)
    ]
    assert ["rule" in entry["decision"] for entry in found] == [True] * 3 + [False]  # it may have been another one for each
    assert {entry["actor"]["iss"] for entry in found} == {site.provider.issuer}
    # Who had an entry of their own has one in the next hour as well, and another reason is counted for itself.
    assert ask(site, "stranger-7", invite="aaaaa-aaaaa-aaaaa-aaaaa-aaaaaa").json()["code"] == "invite-invalid"
    assert len(denials(service)) == 5
    site.clock.offset += timedelta(hours=1)
    for number in (7, 7, 0):
        ask(site, f"stranger-{number}")
    assert ["sub_c" in entry["actor"] for entry in denials(service)[5:]] == [True, True]


def test_an_application_is_recorded_whatever_else_was_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is on entries that change nothing; who asks to be enrolled is not lost in it."""
    monkeypatch.setattr(recording, "MAX_REFUSED", 1)
    site.settings_file.write_text(site.settings_file.read_text() + 'enrolment = "approve"\n')
    with site.serving() as service:
        for number in range(3):
            assert ask(site, f"s-{number}").json()["code"] == "approval-pending"
        assert ["sub_c" in entry["actor"] for entry in denials(service)] == [True] * 3


def test_the_log_does_not_tell_whose_login_was_refused(site: Site, service: Service) -> None:
    """Who reads the log and tries subjects finds none: the id of the entry comes from a key that is nowhere."""
    assert ask(site, "0000-0002").json()["code"] == "not-enrolled"
    assert ask(site, "0000-0002").json()["code"] == "not-enrolled"
    (found,) = denials(service)
    hour = str(int(site.clock().timestamp()) // 3600)
    issuer = site.provider.issuer
    guesses = [
        entries.digest("deny", "certificate", "not-enrolled", *parts)
        for parts in ((f"{issuer} 0000-0002 {hour}",), ("login", issuer, "0000-0002", hour))
    ]
    assert found["rid"] not in {entries.own_id("deny", guess) for guess in guesses}


def test_no_subject_takes_the_place_of_all_others(site: Site, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry for the rest is there, whatever somebody is called."""
    monkeypatch.setattr(recording, "MAX_REFUSED", 1)
    for subject in ("and others", "x", "y"):
        ask(site, subject)
    assert ["sub_c" in entry["actor"] for entry in denials(service)] == [True, False]

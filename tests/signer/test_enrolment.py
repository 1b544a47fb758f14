"""Enrolment through the live service: who becomes somebody, by what, and that nobody else does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
import structlog.testing
from cryptography.hazmat.primitives.serialization import Encoding
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from certauth import keys
from certauth.audit import record
from certauth.certificates import load_chain, principal_of
from certauth.keys import Algorithm
from certauth.names import Principal
from policy.decision_log import DecisionLog
from policy.middleware import PolicyMiddleware
from policy.rules import Policy, RecordMode
from policy.testing import Peer, assert_denied, assert_permitted, client
from signer.codes import digest_of
from signer.service import Service
from tests.signer.kit import DOMAIN, Identity, Site, facility, make_csr, run_cli

REASON = ("--reason", "a test")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A fresh facility."""
    with facility(tmp_path) as made:
        yield made


def configure(site: Site, *, issuer: str = "", top: str = "") -> None:
    """Add lines to the settings: of the one issuer, which ends the file, and before all tables."""
    path = site.settings_file
    text = path.read_text()
    path.write_text(f"{text}\n{issuer}\n" if not top else f"{text.replace('admins = []', top)}\n{issuer}\n")


def admin(site: Site, *words: object, expect: int = 0) -> dict[str, Any]:
    """An admin's command at this facility, with a reason where one is needed."""
    return run_cli(*words, "--settings", site.settings_file, expect=expect)


def act(site: Site, *words: object, expect: int = 0) -> dict[str, Any]:
    """The same, for commands that change something."""
    return admin(site, *words, *REASON, expect=expect)


def ask(site: Site, subject: str, *, invite: str | None = None, **claims: Any) -> httpx2.Response:
    """Log in as ``subject`` with a new key, perhaps with an invitation."""
    body = site.body(subject, keys.generate(Algorithm.P256), **claims)
    with site.client() as client_:
        return client_.post("/v1/certificates", json=body | ({} if invite is None else {"invite": invite}))


def with_code(site: Site, code: str) -> httpx2.Response:
    """Ask for a certificate with a machine's code."""
    body = {"csr": make_csr(keys.generate(Algorithm.P256)), "proof": {"type": "code", "code": code}}
    with site.client() as client_:
        return client_.post("/v1/certificates", json=body)


def named(answer: httpx2.Response) -> str:
    """Who the certificate says it is."""
    assert answer.status_code == 201, answer.text
    return str(principal_of(load_chain(answer.json()["certificate_chain"].encode())[0]))


def refused(answer: httpx2.Response, code: str, status: int = 403) -> None:
    """A problem document with this code."""
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def user(name: str) -> str:
    """A person's principal."""
    return f"spiffe://{DOMAIN}/user/{name}"


def entries(service: Service) -> list[dict[str, Any]]:
    """The log, decoded."""
    with service.store.log() as reader:
        return [record.decode(entry.body) for entry in reader.entries()]


# --- modes ---------------------------------------------------------------------------------------------------------------


def test_who_is_not_enrolled_gets_nothing_in_the_default_mode(site: Site) -> None:
    """Without a mode of enrolment a stranger's login leads nowhere, also with an invitation that is none."""
    with site.serving():
        refused(ask(site, "eve"), "not-enrolled")
        refused(ask(site, "eve", invite="aaaaa-aaaaa-aaaaa-aaaaa-aaaaaa"), "invite-invalid")
    assert admin(site, "user", "list")["people"] == []


def test_open_enrolment_names_a_stranger_and_keeps_the_name(site: Site) -> None:
    """In mode open the first login enrols, under a name that tells nothing; the second is the same person."""
    configure(site, issuer='enrolment = "open"')
    with site.serving():
        first, second = named(ask(site, "zoe")), named(ask(site, "zoe"))
        other = named(ask(site, "yan"))
    assert first == second != other
    assert "zoe" not in first


def test_invite_mode_sends_strangers_for_an_invitation(site: Site) -> None:
    """In mode invite a login alone is refused with what to do, and an invitation enrols with what it gives."""
    configure(site, issuer='enrolment = "invite"')
    made = act(site, "user", "invite", "--name", "grace", "--group", "beamline-7", "--right", "files:read:/g/")
    with site.serving() as service:
        refused(ask(site, "grace-sub"), "invite-needed")
        assert named(ask(site, "grace-sub", invite=made["code"])) == user("grace")
        found = service.store.enrolment_by_principal(Principal.parse(user("grace")))
        assert found is not None
        assert (found.groups, [right.path for right in found.rights]) == (("beamline-7",), ["/g/"])
        assert named(ask(site, "grace-sub")) == user("grace"), "a second login needs no invitation"
    listed = admin(site, "user", "invitations", "--all")["invitations"]
    assert [(one["state"], one["used_by"]) for one in listed] == [("used", user("grace"))]


def test_approval_waits_for_an_administrator(site: Site) -> None:
    """In mode approve a login is remembered, refused until somebody approves it, and works from then on."""
    configure(site, issuer='enrolment = "approve"')
    with site.serving() as service:
        for _ in range(2):
            refused(ask(site, "h-1", name="Hedy", email="hedy@campus.example", email_verified=True), "approval-pending")
        waiting = admin(site, "user", "applications")["applications"]
        assert [(one["subject"], one["email"], one["display"]) for one in waiting] == [("h-1", "hedy@campus.example", "Hedy")]
        act(site, "user", "approve", waiting[0]["name"], "--as", "hedy", "--group", "staff")
        assert admin(site, "user", "applications")["applications"] == []
        assert named(ask(site, "h-1")) == user("hedy")
        change = [entry["enrolment"] for entry in entries(service) if entry["kind"] == "enrolment.change"]
    assert [(one["action"], one["principal"], one["why"]) for one in change] == [("approve", user("hedy"), "a test")]
    assert act(site, "user", "approve", "--subject", "h-1", expect=2)["error"]["code"] == "no-application"


def test_denied_stays_denied_until_an_administrator_thinks_again(site: Site) -> None:
    """Who was turned down is told so at each login, and can be approved or invited after all."""
    configure(site, issuer='enrolment = "approve"')
    with site.serving():
        refused(ask(site, "m-1"), "approval-pending")
        assert act(site, "user", "deny", "--subject", "m-1")["state"] == "denied"
        refused(ask(site, "m-1"), "approval-denied")
        assert [one["subject"] for one in admin(site, "user", "applications", "--state", "denied")["applications"]] == ["m-1"]
        code = act(site, "user", "invite", "--name", "mae")["code"]
        assert named(ask(site, "m-1", invite=code)) == user("mae")
        approved = admin(site, "user", "applications", "--state", "approved")["applications"]
        assert [one["subject"] for one in approved] == ["m-1"]


def test_two_who_ask_for_one_name_are_told_apart_by_their_login(site: Site) -> None:
    """A name that two logins ask for approves neither by itself; the second is somebody else and needs another."""
    rule = '[[issuer.rule]]\nname = "all"\nsubject = "user/{claim:/nick}"\nwhen.all = [{claim = "/nick", present = true}]'
    configure(site, issuer=f'enrolment = "approve"\n{rule}')
    with site.serving():
        refused(ask(site, "s-1", nick="ada"), "approval-pending")
        refused(ask(site, "s-2", nick="ada"), "approval-pending")
        assert act(site, "user", "approve", "ada", expect=2)["error"]["code"] == "application-ambiguous"
        act(site, "user", "approve", "--subject", "s-2")
        assert act(site, "user", "approve", "--subject", "s-1", expect=2)["error"]["code"] == "name-taken"
        assert named(ask(site, "s-2", nick="ada")) == user("ada")
        refused(ask(site, "s-1", nick="ada"), "approval-pending")


def test_no_rule_of_the_running_service_makes_an_administrator(site: Site) -> None:
    """A login that a rule would call an administrator's name is refused, and the outside does not learn of the rule."""
    rule = '[[issuer.rule]]\nname = "secret rule"\nsubject = "user/{claim:/nick}"\nwhen.everyone = true'
    configure(site, issuer=f'enrolment = "open"\n{rule}', top=f'admins = ["{user("root")}"]')
    with site.serving():
        answer = ask(site, "s-1", nick="root")
        refused(answer, "not-admitted")
        assert "secret rule" not in answer.text
        assert named(ask(site, "s-2", nick="rolf")) == user("rolf")


def test_an_application_for_an_administrators_name_needs_an_explicit_word(site: Site) -> None:
    """A name that became an administrator's while somebody waited for it is not given by approving them."""
    configure(site, issuer='enrolment = "approve"')
    with site.serving():
        refused(ask(site, "s-1"), "approval-pending")
    wanted = admin(site, "user", "applications")["applications"][0]["name"]
    configure(site, top=f'admins = ["{user(wanted)}"]')
    assert act(site, "user", "approve", wanted, expect=2)["error"]["code"] == "name-reserved"
    assert act(site, "user", "approve", wanted, "--as", wanted)["principal"] == user(wanted)


def test_a_refusal_does_not_tell_the_facilitys_rules(site: Site) -> None:
    """Whoever is not admitted learns neither rule nor claim; the signer's own log says both, and never the subject."""
    rule = '[[issuer.rule]]\nname = "badge"\nwhen.all = [{claim = "/badge", equals = "orange"}]'
    configure(site, issuer=f'enrolment = "open"\n{rule}')
    with structlog.testing.capture_logs() as logs, site.serving():
        answer = ask(site, "subject-of-eve")
        refused(answer, "not-admitted")
    assert not {"badge", "orange"} & set(answer.text.replace('"', " ").replace("'", " ").replace("/", " ").split())
    (told,) = [line for line in logs if line["event"] == "login.not-admitted"]
    assert "badge" in told["reason"]
    assert "subject-of-eve" not in json.dumps(told)


# --- invitations, attacked -----------------------------------------------------------------------------------------------


def test_an_invitation_works_once(site: Site) -> None:
    """Used by one login, an invitation is nothing for the next; also in other letters and with other dashes."""
    code = act(site, "user", "invite")["code"]
    with site.serving():
        named(ask(site, "first", invite=code.upper().replace("-", " ")))
        refused(ask(site, "second", invite=code), "invite-invalid")


def test_of_two_who_use_an_invitation_at_once_one_is_enrolled(site: Site) -> None:
    """A race for one invitation has one winner, and every loser a stable code; repeated with many racers."""
    with site.serving() as service:
        for turn in range(3):
            code = act(site, "user", "invite")["code"]
            start = threading.Barrier(6)
            bodies = [site.body(f"racer-{turn}-{i}", keys.generate(Algorithm.P256)) | {"invite": code} for i in range(6)]

            def run(body: dict[str, Any], start: threading.Barrier = start) -> tuple[int, str | None]:
                with site.client() as client_:
                    start.wait(20)
                    answer = client_.post("/v1/certificates", json=body)
                return answer.status_code, answer.json().get("code")

            with ThreadPoolExecutor(6) as pool:
                answers = sorted(pool.map(run, bodies), key=str)
            assert answers == [(201, None), *[(403, "invite-invalid")] * 5]
        assert len(service.store.enrolled_principals()) == 3


def test_an_invitation_runs_out(site: Site) -> None:
    """After its time an invitation is nothing, and it is listed as expired."""
    code = act(site, "user", "invite", "--for", "1h")["code"]
    site.clock.offset = timedelta(hours=1, seconds=1)
    with site.serving():
        refused(ask(site, "late", invite=code), "invite-invalid")
    assert act(site, "user", "invite", "--for", "31d", expect=2)["error"]["code"] == "bad-duration"
    assert act(site, "user", "invite", "--for", "0d", expect=2)["error"]["code"] == "bad-duration"


@pytest.mark.parametrize(
    "claims",
    [
        {"email": "mallory@campus.example", "email_verified": True},
        {"email": "grace@campus.example", "email_verified": False},
        {"email": "grace@campus.example"},
        {"email": "\u212aate@campus.example", "email_verified": True},
        {},
    ],
    ids=["other", "unverified", "unsaid", "kelvin", "none"],
)
def test_an_invitation_for_an_address_is_for_nobody_else(site: Site, claims: dict[str, object]) -> None:
    """Only a verified, equal address opens it; KELVIN SIGN, which is a k in lower case, is not a k."""
    with site.serving():
        for address in ("grace@campus.example", "kate@campus.example"):
            code = act(site, "user", "invite", "--email", address)["code"]
            refused(ask(site, "someone", invite=code, **claims), "invite-invalid")
        code = act(site, "user", "invite", "--email", "Grace@Campus.example", "--name", "grace")["code"]
        assert named(ask(site, "g-1", invite=code, email="grace@campus.example", email_verified=True)) == user("grace")


def test_an_invitation_for_a_provider_is_not_for_another(site: Site) -> None:
    """An invitation names one provider; a login at the other, also vouched for, does not open it."""
    second = '\n[[issuer]]\nid = "second"\nurl = "https://second.example"\nclient_id = "x"\n'
    configure(site, issuer=second)
    code = act(site, "user", "invite", "--issuer", "second")["code"]
    with site.serving():
        refused(ask(site, "someone", invite=code), "invite-invalid")
    assert act(site, "user", "invite", "--issuer", "third", expect=2)["error"]["code"] == "issuer-unknown"


def test_a_withdrawn_invitation_is_nothing(site: Site) -> None:
    """Withdrawn, an invitation opens nothing; it is withdrawn once, and not after it was used."""
    made, used = act(site, "user", "invite"), act(site, "user", "invite", "--name", "uma")
    act(site, "user", "withdraw-invite", made["id"])
    with site.serving():
        refused(ask(site, "someone", invite=made["code"]), "invite-invalid")
        named(ask(site, "u-1", invite=used["code"]))
    for gone in (made["id"], used["id"], "0" * 16):
        assert act(site, "user", "withdraw-invite", gone, expect=2)["error"]["code"] == "invite-unknown"
    states = {one["id"]: one["state"] for one in admin(site, "user", "invitations", "--all")["invitations"]}
    assert states == {made["id"]: "withdrawn", used["id"]: "used"}
    assert admin(site, "user", "invitations")["invitations"] == []


def test_a_machines_code_invites_nobody_and_an_invitation_is_no_machine(site: Site) -> None:
    """Each kind of code is refused where the other belongs, and consumed by neither attempt."""
    invitation = act(site, "user", "invite", "--name", "ida")["code"]
    machine = act(site, "service", "enroll", "ingest", "--code")["code"]
    with site.serving():
        refused(ask(site, "i-1", invite=machine), "invite-invalid")
        refused(with_code(site, invitation), "code-invalid", 401)
        assert named(ask(site, "i-1", invite=invitation)) == user("ida")
        assert named(with_code(site, machine)) == f"spiffe://{DOMAIN}/service/ingest"
        refused(with_code(site, machine), "replayed", 409)


def test_who_is_invited_under_a_name_that_was_given_meanwhile_is_not_somebody_else(site: Site) -> None:
    """An invitation never leads to a name that somebody has by now."""
    code = act(site, "user", "invite", "--name", "alice")["code"]
    site.enroll("alice")
    with site.serving():
        refused(ask(site, "mallory", invite=code), "name-taken")
    assert act(site, "user", "invite", "--name", "alice", expect=2)["error"]["code"] == "name-taken"


def test_codes_are_in_no_database_log_or_second_output(site: Site, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Of a code the facility keeps a hash: neither files nor logs nor any later output hold its text."""
    target = tmp_path / "grace.invite"
    made = act(site, "user", "invite", "--name", "grace", "--output", target)
    machine = act(site, "service", "enroll", "ingest", "--code", "--output", tmp_path / "ingest.code")
    assert made["code"] is None is machine["code"]
    assert target.stat().st_mode & 0o777 == 0o600
    code, other = target.read_text().strip(), (tmp_path / "ingest.code").read_text().strip()
    assert act(site, "user", "invite", "--output", target, expect=2)["error"]["code"] == "output-exists"
    assert target.read_text().strip() == code
    with structlog.testing.capture_logs() as logs, site.serving():
        named(ask(site, "g", invite=code))
        named(with_code(site, other))
        refused(ask(site, "h", invite=code), "invite-invalid")
    shown = json.dumps(admin(site, "user", "invitations", "--all")) + json.dumps(admin(site, "service", "show", "ingest"))
    everything = b"".join(path.read_bytes() for path in site.directory.rglob("*") if path.is_file())
    everything += json.dumps(logs, default=str).encode() + "".join(capfd.readouterr()).encode() + shown.encode()
    assert digest_of(code).encode() in everything, "the search would find it"
    for text in (code, other):
        for spelling in (text, text.replace("-", ""), text.upper()):
            assert spelling.encode() not in everything


def test_an_invitation_that_is_not_recorded_leaves_no_file(site: Site, tmp_path: Path) -> None:
    """If the act cannot be recorded, no file with a code stays behind."""
    target = tmp_path / "x.invite"
    given = ("user", "invite", "--output", target, "--reason", "two\nlines", "--settings", site.settings_file)
    assert run_cli(*given, expect=2)["error"]["code"] == "bad-reason"
    assert not target.exists()


@pytest.mark.parametrize("address", ["nobody", "a b@c.example", "@x", "x@", "gr\u00e4ce@x.example", "x" * 250 + "@x.example"])
def test_addresses_that_are_none_are_refused(site: Site, address: str) -> None:
    """An invitation for something that can never be an address would open for nobody, silently."""
    assert act(site, "user", "invite", "--email", address, expect=2)["error"]["code"] == "bad-email"


# --- withdrawing, and doors ----------------------------------------------------------------------------------------------

RULES = b"""
version = 1
service = "files"
[record]
mode = "buffered"
path = "decisions.jsonl"
[[route]]
path = "/a/"
access = "token"
"""


async def data(_request: Request) -> Response:
    """What is behind the door."""
    return Response(b"data")


files = Starlette(routes=[Route("/a/{name}", data)])


def test_a_disabled_persons_certificate_and_tokens_are_refused_at_once_by_a_door(site: Site, tmp_path: Path) -> None:
    """After 'disable' a service's door denies what it permitted a moment ago: the token, and the certificate alone."""
    site.enroll("alice", "files:read:/a/")
    with site.serving() as service:
        alice = site.log_in("alice")
        with site.client(alice) as connection:
            token = connection.post("/v1/tokens", json={"audience": "files"}).json()["token"]
        log = DecisionLog(tmp_path / "decisions.jsonl", mode=RecordMode.BUFFERED, clock=site.clock, program="test")
        door = PolicyMiddleware(
            files, policy=Policy.parse(RULES), trust=service.trust, decisions=log, clock=site.clock, recheck_seconds=0
        )
        with client(door, peer_of(alice), token) as files_:
            assert_permitted(files_.get("/a/1"))
            act(site, "user", "disable", "alice")
            site.clock.offset += timedelta(seconds=1)
            assert_denied(files_.get("/a/1"), "certificate-revoked")


def peer_of(identity: Identity) -> Peer:
    """Somebody from the real signer, as the door's test client wants them."""
    leaf = identity.chain[0]
    chain = tuple(certificate.public_bytes(Encoding.DER) for certificate in identity.chain)
    return Peer(principal=principal_of(leaf), key=identity.key, certificate=leaf, chain_der=chain)

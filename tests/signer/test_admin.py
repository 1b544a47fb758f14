"""The facility admin's commands: a facility is made whole or not at all, and every change is recorded."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import stat
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from certauth import certificates, keys
from certauth.audit import record
from certauth.clock import system_clock
from certauth.errors import StoreError
from certauth.keys import Algorithm
from certauth.names import Kind, Principal, TrustDomain
from signer.cli import common, group
from signer.cli.common import acting
from signer.cli.people import act
from signer.database import sqlite_url
from signer.ledger import Ledger
from signer.rows import Change, EnrolmentRow
from signer.store import open_store
from tests.demo.stage import CERTAUTH
from tests.signer.kit import CLIENT_ID, DOMAIN, Identity, Site, facility, run_cli


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A fresh facility."""
    with facility(tmp_path) as made:
        yield made


def entries(site: Site) -> list[dict[str, Any]]:
    """The log of a facility that is not running."""
    store = open_store(sqlite_url(site.settings.database_path), domain=TrustDomain(DOMAIN), origin=f"{DOMAIN}/certauth/log")
    try:
        with store.log() as reader:
            return [record.decode(entry.body) for entry in reader.entries()]
    finally:
        store.close()


def test_init_makes_a_facility_whose_secrets_are_private(site: Site) -> None:
    """Keys are encrypted and 0600, each purpose has its own, and each first use is an entry of the log."""
    key_files = sorted((site.directory / "keys").iterdir())
    assert [path.stem for path in key_files] == ["feed", "issuing", "jwt", "log", "root", "token"]
    for path in [*key_files, site.directory / "secrets" / "passphrase", site.directory / "tls" / "key.pem"]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert all(b"ENCRYPTED" in path.read_bytes() for path in key_files)
    added = [entry["key"] for entry in entries(site) if entry["kind"] == "key.add"]
    assert [key["use"] for key in added] == ["root", "issuing", "token", "log", "feed", "jwt"]
    assert len({key["spki"] for key in added}) == 6


def test_init_overwrites_nothing(site: Site) -> None:
    """A second init, also after the settings file was lost, changes nothing."""
    again = ("init", "--directory", site.directory, "--trust-domain", DOMAIN, "--public-url", site.url)
    before = (site.directory / "keys" / "root.pem").read_bytes()
    assert run_cli(*again, expect=1)["error"]["code"] == "already-initialised"
    site.settings_file.unlink()
    assert run_cli(*again, expect=1)["error"]["code"] == "already-initialised"
    assert (site.directory / "keys" / "root.pem").read_bytes() == before


def test_init_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    """When the disk fills up half-way, what was made until then is removed and the error says so."""
    place = tmp_path / "facility"
    command = [str(CERTAUTH), "signer", "init", "--directory", str(place), "--trust-domain", DOMAIN]
    command += ["--public-url", "https://127.0.0.1:1", "--json"]
    limited = f"ulimit -f 40; exec {shlex.join(command)}"  # 40 KiB per file: enough for keys, too little for the database
    # Without the measuring of coverage, whose own file would be the first to hit the limit.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stderr.strip().splitlines()[-1])["error"]["code"] in {"audit-unavailable", "disk-full"}
    assert list(place.iterdir()) == []
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("--issuer-url", "https://idp.example"), 2),
        (("--trust-domain", "Not A Domain"), 1),
        (("--public-url", "http://insecure.example"), 1),
    ],
)
def test_init_refuses_what_cannot_be(tmp_path: Path, arguments: tuple[str, ...], status: int) -> None:
    """Half an issuer, a bad domain, an insecure address: refused, nothing made."""
    given = ["init", "--directory", str(tmp_path / "x"), "--trust-domain", DOMAIN, "--public-url", "https://s.example"]
    run_cli(*given, *arguments, expect=status)
    assert not (tmp_path / "x").exists()


def test_init_without_an_issuer_shows_where_one_goes(tmp_path: Path) -> None:
    """The settings file of a facility without a provider has a commented table, and is valid."""
    made = run_cli("init", "--directory", tmp_path / "f", "--trust-domain", "q.example", "--public-url", "https://s.example")
    assert "# [[issuer]]" in Path(made["settings"]).read_text()
    status = run_cli("status", "--settings", made["settings"])
    assert (status["issuers"], status["log_entries"]) == ([], 7)


def test_enrolment_is_for_a_login_and_stays_with_it(site: Site) -> None:
    """The first enrolment fixes issuer and subject; later ones change the terms and nothing else."""
    settings = ("--settings", site.settings_file, "--reason", "because")
    assert run_cli("user", "enroll", "alice", *settings, expect=2)["error"]["code"] == "subject-missing"
    run_cli("user", "enroll", "alice", "--subject", "subject-of-alice", "--right", "files:read,write:/a/", *settings)
    changed = run_cli("user", "enroll", "alice", "--right", "files:read:/b/", "--max-lifetime", "2h", *settings)
    assert (changed["subject"], changed["rights"], changed["max_lifetime"]) == (
        "subject-of-alice",
        [{"service": "files", "operation": "read", "path": "/b/"}],
        7200,
    )
    for wrong in (("--subject", "s2"), ("--issuer", "https://other.example")):
        assert run_cli("user", "enroll", "alice", *wrong, *settings, expect=2)["error"]["code"] == "identity-fixed"
    taken = run_cli("user", "enroll", "bob", "--subject", "subject-of-alice", *settings, expect=2)
    assert taken["error"]["code"] == "already-enrolled"
    stranger = run_cli("user", "enroll", "bob", "--subject", "s", "--issuer", "https://x.example", *settings, expect=2)
    assert stranger["error"]["code"] == "issuer-unknown"
    people = run_cli("user", "list", "--settings", site.settings_file)["people"]
    assert [person["principal"] for person in people] == [f"spiffe://{DOMAIN}/user/alice"]
    log = [entry["enrolment"] for entry in entries(site) if entry["kind"] == "enrolment.change"]
    assert [(entry["action"], entry["why"]) for entry in log] == [("enroll", "because"), ("change", "because")]
    assert all(entry["by"].startswith("admin ") for entry in log)
    assert "subject-of-alice" not in json.dumps(log)


@pytest.mark.parametrize("name", ["../alice", "a/b", ".alice", "", "al ice", "a..b"])
def test_names_that_climb_are_refused(site: Site, name: str) -> None:
    """A name becomes part of a principal and of file names: nothing that climbs or splits is one."""
    given = ("user", "enroll", name, "--subject", "x", "--reason", "r", "--settings", site.settings_file)
    assert run_cli(*given, expect=2)["error"]["code"] == "bad-name"


@pytest.mark.parametrize(
    "right", ["files", "files:read", "files:read:data", "Files:read:/x", "files:re ad:/x", "files:read:/../x"]
)
def test_rights_that_mean_nothing_are_refused(site: Site, right: str) -> None:
    """A right that could never match, or that means two things, is refused when it is given."""
    given = ("user", "enroll", "alice", "--subject", "x", "--right", right, "--reason", "r", "--settings", site.settings_file)
    assert run_cli(*given, expect=2)["error"]["code"] in {"bad-right", "bad-name", "bad-path"}


def test_disabling_takes_effect_on_grants_and_on_what_is_alive(site: Site) -> None:
    """A disabled person gets nothing more and what they hold is revoked; enabled again, they log in anew."""
    site.enroll("alice", "files:read:/a/")
    with site.serving():
        alice = site.log_in("alice")
        with site.client(alice) as client:
            token = client.post("/v1/tokens", json={"audience": "files"}).json()
        shown = run_cli("user", "show", "alice", "--settings", site.settings_file)
        assert [c["fingerprint"] for c in shown["certificates"]] == [alice.fingerprint]
        assert [t["jti"] for t in shown["tokens"]] == [token["jti"]]
        run_cli("user", "disable", "alice", "--reason", "left", "--settings", site.settings_file)
        with site.client(alice) as client:
            site.clock.offset += timedelta(seconds=1)  # past the 0.2 s for which the feed is not looked at again
            assert client.post("/v1/tokens", json={"audience": "files"}).json()["code"] == "certificate-revoked"
        with site.client() as client:
            answer = client.post("/v1/certificates", json=site.body("alice", keys.generate(Algorithm.P256)))
        assert answer.json()["code"] == "principal-disabled"
        run_cli("user", "enable", "alice", "--reason", "back", "--settings", site.settings_file)
        site.clock.offset += timedelta(seconds=2)
        assert site.log_in("alice").fingerprint != alice.fingerprint


def test_revoking_one_credential_or_all(site: Site) -> None:
    """An admin revokes one certificate, one token, or everything issued until now, and only what is that person's."""
    site.enroll("alice", "files:read:/a/")
    site.enroll("bob")
    with site.serving():
        alice = site.log_in("alice")
        with site.client(alice) as client:
            jti = client.post("/v1/tokens", json={"audience": "files"}).json()["jti"]
    common_options = ("--reason", "lost", "--settings", site.settings_file)
    assert run_cli("user", "revoke", "alice", "--token", jti, *common_options)["kind"] == "jti"
    assert run_cli("user", "revoke", "alice", "--certificate", alice.fingerprint, *common_options)["kind"] == "certificate"
    assert run_cli("user", "revoke", "alice", *common_options)["kind"] == "principal"
    for wrong in (("--token", jti), ("--certificate", alice.fingerprint)):
        assert run_cli("user", "revoke", "bob", *wrong, *common_options, expect=2)["error"]["code"] == "not-found"
    both = ("--token", jti, "--certificate", alice.fingerprint)
    assert run_cli("user", "revoke", "alice", *both, *common_options, expect=2)["error"]["code"] == "usage"
    assert run_cli("user", "revoke", "nobody", *common_options, expect=2)["error"]["code"] == "not-enrolled"
    long = ("--reason", "x" * 201, "--settings", site.settings_file)
    assert run_cli("user", "revoke", "alice", *long, expect=2)["error"]["code"] == "revocation-invalid"
    revoked = [entry["revoke"]["kind"] for entry in entries(site) if entry["kind"] == "revoke"]
    assert revoked == ["jti", "certificate", "principal"]


def test_text_output_says_who_and_what(site: Site) -> None:
    """Without --json people get sentences and columns."""
    site.enroll("alice", "files:read:/a/", max_lifetime="1h")
    with site.serving():
        alice = site.log_in("alice")
        with site.client(alice) as client:
            client.post("/v1/tokens", json={"audience": "files"})
    runner = CliRunner()
    for command, expected in (("list", "enabled"), ("show", "read /a/ at files")):
        arguments = ["user", command, *(["alice"] if command == "show" else []), "--settings", str(site.settings_file)]
        done = runner.invoke(group, arguments)
        assert done.exit_code == 0
        assert expected in done.output
    assert alice.fingerprint in done.output


def test_service_certificate_is_for_its_hosts_and_recorded(site: Site, tmp_path: Path) -> None:
    """A service's TLS certificate names the hosts it was made for, keeps its key, and is an entry of the log."""
    place = tmp_path / "service"
    command = ("service", "certificate", "files", "--host", "files.test", "--host", "127.0.0.1", "--directory", place)
    given = ("--reason", "new data service", "--settings", site.settings_file)
    made = run_cli(*command, *given)
    leaf = certificates.load_chain((place / "chain.pem").read_bytes())[0]
    assert made["principal"] == f"spiffe://{DOMAIN}/service/files" == str(certificates.principal_of(leaf))
    key = (place / "key.pem").read_bytes()
    again = run_cli(*command, *given)
    assert (place / "key.pem").read_bytes() == key
    assert again["principal"] == made["principal"]
    granted = [entry for entry in entries(site) if entry.get("actor", {}).get("principal") == made["principal"]]
    assert certificates.fingerprint(leaf) == granted[0]["grant"]["cert"]
    assert [entry["decision"]["why"] for entry in granted] == ["new data service"] * 2
    bad = ("service", "certificate", "../files", "--host", "x", "--directory", place)
    assert run_cli(*bad, *given, expect=2)["error"]["code"] == "bad-name"


def test_service_certificate_is_made_for_a_reason(site: Site, tmp_path: Path) -> None:
    """Without one, or with one that has no place in the log, nothing is made: not even a key."""
    command = ("service", "certificate", "files", "--host", "x", "--directory", tmp_path / "made")
    settings = ("--settings", site.settings_file)
    assert run_cli(*command, *settings, expect=2)["error"]["code"] == "usage"
    assert run_cli(*command, "--reason", " ", *settings, expect=2)["error"]["code"] == "bad-reason"
    assert not (tmp_path / "made").exists()


def test_a_new_provider_is_recorded_before_it_is_used(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who connected it, and why; what cannot be recorded is not written, and a trial records nothing."""
    command = ("issuer", "add", "https://idp.example", "--id", "lab", "--client-id", "us", "--offline")
    given = ("--reason", "contract with the lab", "--settings", site.settings_file)
    before, text = len(entries(site)), site.settings_file.read_text()
    assert run_cli(*command, *given, "--dry-run")["recorded"] is False
    assert run_cli(*command, *given[2:], expect=2)["error"]["code"] == "usage"
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "record", failing)
        assert run_cli(*command, *given, expect=1)["error"]["code"] == "store-failed"
    assert (len(entries(site)), site.settings_file.read_text()) == (before, text)
    with site.serving():  # the log is shared with a service that runs
        before = len(entries(site))
        assert run_cli(*command, *given)["recorded"] is True
        (added,) = entries(site)[before:]
    assert (added["kind"], added["issuer"]) == (
        "issuer.add",
        {"id": "lab", "url": "https://idp.example", "by": acting(), "why": "contract with the lab"},
    )
    assert 'id = "lab"' in site.settings_file.read_text()


def failing(*_: object) -> None:
    """A ledger whose disk is full."""
    raise StoreError("store-failed", "the disk is full", hint="make room")


def test_service_certificate_refuses_a_key_no_chain_may_have(site: Site, tmp_path: Path) -> None:
    """An Ed25519 key is refused with the reason: our chains are P-256."""
    place = tmp_path / "service"
    place.mkdir()
    keys.save_private(place / "key.pem", keys.generate(Algorithm.ED25519), passphrase=None)
    command = ("service", "certificate", "files", "--host", "x", "--directory", place, "--settings", site.settings_file)
    assert run_cli(*command, "--reason", "a test", expect=1)["error"]["code"] == "bad-key"


def test_facility_that_does_not_agree_with_itself_does_not_open(site: Site) -> None:
    """A foreign key, a lost key, a lost bundle, a wrong passphrase: refused, and the part at fault is named."""
    status = ("status", "--settings", site.settings_file)
    bundle = site.directory / "bundle.json"
    saved = bundle.read_bytes()
    bundle.unlink()
    assert run_cli(*status, expect=1)["error"]["code"] == "not-initialised"
    bundle.write_bytes(saved)
    passphrase = (site.directory / "secrets" / "passphrase").read_bytes().strip()
    token_key = site.directory / "keys" / "token.pem"
    kept = token_key.read_bytes()
    keys.save_private(token_key, keys.generate(Algorithm.ED25519), passphrase=passphrase)
    error = run_cli(*status, expect=1)["error"]
    assert (error["code"], "token key" in error["message"]) == ("authority-mismatch", True)
    token_key.write_bytes(kept)
    (site.directory / "secrets" / "passphrase").write_text("wrong\n")
    assert run_cli(*status, expect=1)["error"]["code"] == "bad-key"
    (site.directory / "secrets" / "passphrase").chmod(0o644)
    assert run_cli(*status, expect=1)["error"]["code"] == "key-file-open"


def test_passphrase_handed_over_by_the_service_manager(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Systemd's credentials directory is read before the state directory."""
    handed = tmp_path / "credentials"
    handed.mkdir()
    (site.directory / "secrets" / "passphrase").rename(handed / "passphrase")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(handed))
    assert run_cli("status", "--settings", site.settings_file)["trust_domain"] == DOMAIN


def test_who_is_acting_is_looked_through_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    """The record names the person behind sudo, and a number if the number has no name."""
    assert common.acting().startswith("admin ")
    if os.geteuid() == 0:
        monkeypatch.setenv("SUDO_UID", "54321")
        assert common.acting() == "admin uid 54321"


def test_unknown_environment_variable_is_named(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt setting in the environment stops the command and is named."""
    monkeypatch.setenv("SIGNER_DATABSE", "x")
    error = run_cli("status", "--settings", site.settings_file, expect=1)["error"]
    assert (error["code"], "SIGNER_DATABSE" in error["message"]) == ("unknown-variable", True)


def test_own_certificate_is_renewed_after_two_thirds(site: Site) -> None:
    """The signer makes itself a new TLS certificate in time, and not before."""
    chain = site.directory / "tls" / "chain.pem"
    first = chain.read_bytes()
    with site.serving():
        assert chain.read_bytes() == first
    site.clock.offset = timedelta(days=5)
    with site.serving():
        assert chain.read_bytes() != first
    assert system_clock() < certificates.load_chain(chain.read_bytes())[0].not_valid_after_utc


def test_client_id_goes_into_the_settings(site: Site) -> None:
    """What init was told about the provider is what the service will use."""
    assert site.settings.issuer[0].client_id == CLIENT_ID


def test_enrolling_does_not_undo_a_disabling(site: Site) -> None:
    """A change of terms that was read before somebody was disabled does not enable them again."""
    site.enroll("alice", "files:read:/a/")
    with common.facility(site.settings_file, allow_example_keys=False) as place:
        before = place.store.enrolled_principal(Principal.make(TrustDomain(DOMAIN), Kind.USER, "alice"))
        assert before is not None
        run_cli("user", "disable", "alice", "--reason", "left", "--settings", site.settings_file)
        late = EnrolmentRow(enrolment=before.enrolment, display="", by="admin", at=system_clock(), change=Change.CHANGED)
        alice = before.enrolment.principal
        act(place, action="change", principal=alice, reason="new project", rows=(late,), terms=None)
    assert run_cli("user", "show", "alice", "--settings", site.settings_file)["disabled"] is True


def test_of_two_inits_at_once_one_makes_the_facility(tmp_path: Path) -> None:
    """The loser of a race changes nothing of what the winner made."""
    place = tmp_path / "facility"
    command = [str(CERTAUTH), "signer", "init", "--directory", str(place), "--trust-domain", DOMAIN]
    command += ["--public-url", "https://127.0.0.1:1", "--json"]
    racing = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(4)]
    said = [process.communicate()[1] for process in racing]
    assert sorted(process.returncode for process in racing) == [0, 1, 1, 1], said
    assert run_cli("status", "--settings", place / "signer.toml")["log_entries"] == 7


def test_init_waits_for_nobody(tmp_path: Path) -> None:
    """While another one is at it, init says so at once."""
    tmp_path.joinpath("f").mkdir()
    descriptor = os.open(tmp_path / "f", os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        given = ("init", "--directory", tmp_path / "f", "--trust-domain", DOMAIN, "--public-url", "https://s.example")
        assert run_cli(*given, expect=1)["error"]["code"] == "already-initialised"
    finally:
        os.close(descriptor)


def test_service_certificates_can_be_revoked(site: Site, tmp_path: Path) -> None:
    """A stolen service key ends like a person's: all certificates made until now, or one."""
    given = ("service", "certificate", "data", "--host", "data.test", "--directory", tmp_path / "data")
    made = run_cli(*given, "--reason", "a test", "--settings", site.settings_file)
    leaf = certificates.load_chain(Path(made["certificate"]).read_bytes())[0]
    settings = ("--reason", "stolen", "--settings", site.settings_file)
    one = run_cli("service", "revoke", "data", "--certificate", certificates.fingerprint(leaf), *settings)
    assert (one["kind"], one["value"]) == ("certificate", certificates.fingerprint(leaf))
    assert run_cli("service", "revoke", "data", *settings)["kind"] == "principal"
    assert run_cli("service", "revoke", "nothing", *settings, expect=2)["error"]["code"] == "not-found"
    with site.serving():
        thief = Identity(key=keys.load_private(Path(made["key"]), passphrase=None), chain=[leaf])
        with site.client(thief) as client:
            answer = client.post("/v1/tokens", json={"audience": "files"})
    assert answer.json()["code"] == "certificate-revoked"

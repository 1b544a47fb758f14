"""The store: what is asked comes back as it was recorded, and a database that is not ours is refused."""

from __future__ import annotations

import shutil
import sqlite3
import stat
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest

from certauth.enrolment import Enrolment, Login
from certauth.errors import CertauthError, ConfigError, LogError, StoreError
from certauth.names import TrustDomain
from certauth.revocation import RevocationKind
from signer.database import path_of, sqlite_url
from signer.log_reader import open_offline
from signer.rows import Change, ClientKeyRow, LoginRow
from signer.store import create_store, open_store
from tests.faults.kit import (
    BOB,
    DOMAIN,
    NOW,
    ORIGIN,
    VKEY,
    Facility,
    certificate,
    certificate_row,
    enrolment,
    person,
    revocation_row,
    submission,
    token_row,
    verify,
    verify_log,
)


@pytest.fixture
def facility(tmp_path: Path) -> Facility:
    """A signer's directory, empty."""
    return Facility(tmp_path)


def login_of(who: Enrolment) -> dict[str, str]:
    """The first login that leads to somebody, as the store is asked for it."""
    return who.logins[0]._asdict()


def code_of(error: pytest.ExceptionInfo[CertauthError]) -> str:
    """The stable code of what was raised."""
    return error.value.code


def test_enrolment_comes_back_as_recorded(facility: Facility) -> None:
    """Every term of an enrolment survives the round trip, found by subject and by principal alike."""
    bob = person(roles=("operator",), projects=("p1", "p2"), assurance=1)
    with facility.running() as (store, ledger):
        ledger.record(enrolment(bob))
        assert store.enrolment(**login_of(bob)) == bob
        assert store.enrolment_by_principal(bob.principal) == bob
        seen = store.enrolled_principal(bob.principal)
    assert seen is not None
    assert (seen.display, seen.enrolled_by, seen.enrolled_at, seen.disabled_at) == ("Bob", "admin", NOW, None)


def test_an_agents_enrolment_comes_back_as_recorded(facility: Facility) -> None:
    """Owner, end, networks, hosts, a key and every login survive the round trip; the agent is found among its owner's."""
    job = replace(
        person("job"),
        logins=(Login("https://idp.example", "job"), Login("https://other.example", "j0b")),
        owner=BOB,
        expires_at=NOW + timedelta(days=3),
        networks=(ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")),
        hosts=("node7.als.example",),
    )
    key = ClientKeyRow(principal=job.principal, kid="k", jwk="{}", by="admin", at=NOW)
    with facility.running() as (store, ledger):
        ledger.record(enrolment(person()))
        ledger.record(submission("agent", rows=(enrolment(job).rows[0], key)))
        for login in job.logins:
            assert store.enrolment(**login._asdict()) == job
        assert [agent.enrolment for agent in store.owned_by(BOB)] == [job]
        assert store.owned_by(job.principal) == ()
        assert (store.client_keys(job.principal), store.client_keys(BOB)) == (("{}",), ())


def test_a_login_leads_to_one_principal(facility: Facility) -> None:
    """A login that leads to somebody cannot be linked to somebody else, and nothing of the attempt remains."""
    bob, eve = person(), person("eve")
    theft = LoginRow(principal=eve.principal, login=bob.logins[0], by="admin", at=NOW)
    with facility.running() as (store, ledger):
        ledger.record(enrolment(bob))
        ledger.record(enrolment(eve))
        with pytest.raises(StoreError) as refused:
            ledger.record(submission("theft", rows=(theft,)))
        assert store.enrolment(**login_of(bob)) == bob
        assert store.enrolment_by_principal(eve.principal) == eve
        ledger.record(submission("second", rows=(replace(theft, login=Login("https://other.example", "e")),)))
        assert store.enrolment(issuer="https://other.example", subject="e") == store.enrolment(**login_of(eve))
    assert code_of(refused) == "store-conflict"


def test_the_newest_certificate_tells_what_a_login_was_worth(facility: Facility) -> None:
    """The terms of the login come back with the certificate, the newest first."""
    with facility.running() as (store, ledger):
        ledger.record(enrolment(person()))
        assert store.newest_certificate(BOB) is None
        for serial in (1, 2):
            ledger.record(certificate(serial))
        newest = store.newest_certificate(BOB)
    assert newest is not None
    assert newest.row == certificate_row(2)


def test_same_subject_of_another_issuer_is_somebody_else(facility: Facility) -> None:
    """A second provider's user with Bob's subject is not Bob, neither before nor after they are enrolled."""
    bob = person()
    with facility.running() as (store, ledger):
        ledger.record(enrolment(bob))
        assert store.enrolment(issuer="https://evil.example", subject=bob.logins[0].subject) is None
        eve = person("eve", issuer="https://evil.example", subject=bob.logins[0].subject)
        ledger.record(enrolment(eve))
        assert store.enrolment(issuer="https://evil.example", subject=bob.logins[0].subject) == eve
        assert store.enrolment(**login_of(bob)) == bob


@pytest.mark.parametrize(
    "thief",
    [person(subject="another"), person("thief", subject="subject-of-bob")],
    ids=["bob's principal for another subject", "bob's subject for another principal"],
)
def test_enrolling_twice_replaces_nobody(facility: Facility, thief: object) -> None:
    """Neither a taken principal nor a taken (issuer, subject) can be enrolled again, so nobody is silently replaced."""
    bob = person()
    with facility.running() as (store, ledger):
        ledger.record(enrolment(bob))
        with pytest.raises(StoreError) as refused:
            ledger.record(enrolment(thief, name="theft"))  # type: ignore[arg-type]  # parametrize hides the type
        assert store.enrolled_principals() == (store.enrolled_principal(BOB),)
        assert store.enrolment(**login_of(bob)) == bob
        assert verify(store).checkpoint.size == 1
    assert code_of(refused) == "store-conflict"
    assert "subject-of-bob" not in str(refused.value)


def test_changed_enrolment_keeps_who_enrolled_it(facility: Facility) -> None:
    """Disabling keeps when and by whom somebody was enrolled; enabling again forgets the disabling."""
    bob = person()
    with facility.running() as (store, ledger):
        ledger.record(enrolment(bob))
        ledger.record(enrolment(replace(bob, disabled=True), change=Change.STATE, name="off"))
        off = store.enrolled_principal(BOB)
        ledger.record(enrolment(bob, change=Change.STATE, name="on"))
        on = store.enrolled_principal(BOB)
    assert off is not None
    assert on is not None
    assert (off.enrolment.disabled, off.disabled_at, off.enrolled_by) == (True, NOW, "admin")
    assert (on.enrolment, on.disabled_at, on.enrolled_at) == (bob, None, NOW)


def test_changing_an_enrolment_that_is_not_there_is_refused(facility: Facility) -> None:
    """A change to nobody is a conflict and leaves no entry."""
    with facility.running() as (store, ledger):
        with pytest.raises(StoreError) as refused:
            ledger.record(enrolment(person(), change=Change.CHANGED))
        assert store.enrolment_by_principal(BOB) is None
        assert ledger.status().size == 0
    assert code_of(refused) == "store-conflict"


def test_people_are_listed_in_pages(facility: Facility) -> None:
    """A list goes on after the last name of the page before."""
    with facility.running() as (store, ledger):
        for name in ("carol", "alice", "bob"):
            ledger.record(enrolment(person(name)))
        first = store.enrolled_principals(limit=2)
        rest = store.enrolled_principals(after=str(first[-1].enrolment.principal))
    assert [seen.enrolment.principal.id for seen in (*first, *rest)] == ["alice", "bob", "carol"]


def test_lifetime_and_absence_of_one_survive(facility: Facility) -> None:
    """A cap of its own comes back to the second, and so does having none."""
    with facility.running() as (store, ledger):
        ledger.record(enrolment(person(max_lifetime=timedelta(hours=2))))
        ledger.record(enrolment(person("alice", max_lifetime=None)))
        lifetimes = [seen.enrolment.max_lifetime for seen in store.enrolled_principals()]
    assert lifetimes == [None, timedelta(hours=2)]


def test_certificates_are_found_by_fingerprint_entry_and_principal(facility: Facility) -> None:
    """A certificate row carries the index of its entry, and a serial of 159 bits survives."""
    serial = 2**158 + 1
    with facility.running() as (store, ledger):
        committed = [ledger.record(certificate(number)) for number in (7, serial)]
        row = certificate_row(serial)
        found = store.certificate(row.fingerprint)
        assert found is not None
        assert (found.row, found.seq) == (row, committed[1].index)
        assert store.certificate_at(committed[1].index) == found
        assert store.certificate_at(99) is None
        assert store.certificate("0" * 64) is None
        assert [entry.row.serial for entry in store.certificates(principal=BOB)] == [7, serial]
        assert [entry.row.serial for entry in store.certificates(after=0)] == [serial]
        assert store.certificates(principal=person("alice").principal) == ()


def test_tokens_are_kept_as_hashes(facility: Facility) -> None:
    """A token's row says what it was for; the token is in no file of the database."""
    row = token_row("0123456789abcdef")
    with facility.running() as (store, ledger):
        ledger.record(submission("token", rows=(row,), response=None))
        found = store.token(row.jti)
        assert found is not None
        assert (found.row, found.seq) == (row, 0)
        assert store.token("ffff") is None
        assert store.tokens(principal=BOB) == store.tokens() == (found,)
        assert store.tokens(after=0) == ()
        assert store.tokens(principal=person("alice").principal) == ()


def test_revocations_are_numbered_and_end_with_their_credential(facility: Facility) -> None:
    """Withdrawals come in order until the credential would have ended by itself; the newest number never goes back."""
    now = int(NOW.timestamp())
    rows = (
        revocation_row(RevocationKind.PRINCIPAL, str(BOB)),
        revocation_row(RevocationKind.CERTIFICATE, "0" * 64, expires_at=now + 10),
    )
    with facility.running() as (store, ledger):
        assert store.newest_revocation() == 0
        ledger.record(submission("revoke", rows=rows))
        first, second = store.revocations(now=now)
        assert (first.row, second.row) == rows
        assert second.id > first.id
        assert store.revocations(now=now, since=first.id) == (second,)
        assert store.revocations(now=now + 10) == (first,)
        assert store.newest_revocation() == second.id


def test_database_is_private_and_in_wal_mode(facility: Facility) -> None:
    """Nobody but the signer's user may read the database or its write-ahead log."""
    with facility.running() as (_, ledger):
        ledger.record(submission("one"))
        for path in facility.directory.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        assert sorted(path.name for path in facility.directory.iterdir()) == [
            "signer.db",
            "signer.db-shm",
            "signer.db-wal",
            "signer.db.lock",
        ]


def test_creating_does_not_touch_what_is_there(facility: Facility) -> None:
    """A second creation is refused and the first database stays."""
    facility.create().close()
    before = facility.path.read_bytes()
    with pytest.raises(StoreError) as refused:
        facility.create()
    assert code_of(refused) == "store-exists"
    assert facility.path.read_bytes() == before


def test_creating_where_nothing_can_be_written_is_refused(tmp_path: Path) -> None:
    """A directory that is not there is an error with a code."""
    with pytest.raises(StoreError) as refused:
        Facility(tmp_path / "missing").create()
    assert code_of(refused) == "cannot-write"


def test_creation_that_fails_half_way_leaves_nothing(facility: Facility) -> None:
    """If the tables cannot be made, no half database stays in the way of the next attempt."""
    blocker = facility.directory / "signer.db-journal"
    blocker.mkdir()  # where SQLite wants to write while it changes to WAL mode
    with pytest.raises(StoreError) as refused:
        facility.create()
    assert code_of(refused) == "audit-unavailable"
    blocker.rmdir()
    facility.create().close()


def test_origin_that_cannot_name_a_log_is_refused(tmp_path: Path) -> None:
    """A log is never created under a name that no checkpoint can carry, and no file stays behind."""
    with pytest.raises(LogError) as refused:
        create_store(sqlite_url(tmp_path / "signer.db"), domain=DOMAIN, origin="two words")
    assert code_of(refused) == "bad-origin"
    assert list(tmp_path.iterdir()) == []


def test_opening_never_creates(facility: Facility) -> None:
    """A wrong path is an error, not an empty log."""
    with pytest.raises(StoreError) as refused:
        facility.open()
    assert code_of(refused) == "store-missing"
    assert list(facility.directory.iterdir()) == []


@pytest.mark.parametrize(
    ("domain", "origin"), [("other.example", ORIGIN), (str(DOMAIN), "als.example/another/log")], ids=["domain", "origin"]
)
def test_database_of_another_signer_is_refused(facility: Facility, domain: str, origin: str) -> None:
    """A database says whose it is; another trust domain or log does not open it."""
    facility.create().close()
    with pytest.raises(StoreError) as refused:
        open_store(sqlite_url(facility.path), domain=TrustDomain(domain), origin=origin)
    assert code_of(refused) == "store-foreign"


@pytest.mark.parametrize(
    "statements", [["UPDATE meta SET value = '99' WHERE name = 'schema'"], ["DROP TABLE meta"]], ids=["newer", "not ours"]
)
def test_other_schema_is_refused(facility: Facility, statements: list[str]) -> None:
    """Tables of another version, or none of ours, are not worked with."""
    facility.create().close()
    facility.sql(*statements)
    with pytest.raises(StoreError) as refused:
        facility.open()
    assert code_of(refused) == "store-version"


def test_file_that_is_no_database_is_refused(facility: Facility) -> None:
    """Bytes that are not SQLite are an error with a code."""
    facility.path.write_bytes(b"not a database, but long enough to look at" * 100)
    with pytest.raises(StoreError) as refused:
        facility.open()
    assert code_of(refused) == "audit-unavailable"


@pytest.mark.parametrize("url", ["postgresql://host/db", "sqlite://", "sqlite:///:memory:", "sqlite:///a?mode=ro", "not a url"])
def test_other_databases_are_refused(url: str) -> None:
    """Only an SQLite file has the durability this version promises."""
    with pytest.raises(ConfigError) as refused:
        path_of(url)
    assert code_of(refused) == "database-unsupported"


def test_url_names_the_path(tmp_path: Path) -> None:
    """A path survives being written as a URL, whatever it is called."""
    path = tmp_path / "a b#c%20d?e=f.db"
    assert path_of(sqlite_url(path)) == path


def test_check_notices_a_moved_database(facility: Facility) -> None:
    """Readiness is green while the database is where it was opened, and red once it is not, also for new connections."""
    store = facility.create()
    store.check()
    moved = facility.path.rename(facility.directory / "elsewhere.db")
    with pytest.raises(StoreError) as refused:
        store.check()
    assert code_of(refused) == "database-moved"
    shutil.copy(moved, facility.path)
    store.engine.dispose()
    with pytest.raises(StoreError) as replaced:
        store.enrolled_principals()
    assert code_of(replaced) == "database-moved"
    store.close()


def test_reading_connection_cannot_write(facility: Facility) -> None:
    """What only reads has a connection on which a write fails."""
    store = facility.create()
    connection = store.engine.raw_connection()
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.cursor().execute("DELETE FROM meta")
    connection.close()
    store.close()


def test_log_tables_refuse_an_honest_mistake(facility: Facility) -> None:
    """An UPDATE or DELETE typed at a prompt is refused by the database itself."""
    with facility.running() as (_, ledger):
        ledger.record(submission("one"))
    connection = sqlite3.connect(facility.path)
    for statement in ("DELETE FROM log_entry", "UPDATE log_entry SET body = 'x'", "DELETE FROM log_checkpoint"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(statement)
    connection.close()


def test_unreadable_database_is_an_error_with_a_code(facility: Facility) -> None:
    """A table that vanished under a running store raises one of our errors, and no row is quoted in it."""
    store = facility.create()
    facility.sql("DROP TABLE principal")
    with pytest.raises(StoreError) as refused:
        store.enrolment(issuer="https://secret.example", subject="secret")
    assert code_of(refused) == "audit-unavailable"
    assert "secret" not in str(refused.value)
    store.close()


def test_reading_a_log_without_entries(facility: Facility) -> None:
    """An empty log has a head, no checkpoint and no entries, and proves nothing."""
    store = facility.create()
    with store.log() as reader:
        assert reader.origin() == ORIGIN
        assert (reader.size(), reader.head().size, reader.checkpoint()) == (0, 0, None)
        assert list(reader.entries()) == []
        with pytest.raises(LogError) as refused:
            reader.receipt(0)
        assert code_of(refused) == "log-range"
    store.close()


def test_head_that_contradicts_itself_is_refused(facility: Facility) -> None:
    """A head row with two sizes, or none at all, is not a head."""
    store = facility.create()
    for statement in ("UPDATE log_head SET size = 5", "DELETE FROM log_head"):
        facility.sql(statement)
        with store.log() as reader, pytest.raises(LogError) as refused:
            reader.head()
        assert code_of(refused) == "log-head"
    store.close()


def test_offline_reading_changes_nothing(facility: Facility) -> None:
    """A copy of a closed database verifies, and no file appears beside it."""
    with facility.running() as (_, ledger):
        for number in range(3):
            ledger.record(submission(str(number)))
    directory = facility.directory / "evidence"
    directory.mkdir()
    copy = Path(shutil.copy(facility.path, directory / "copy.db"))
    before = copy.read_bytes()
    with open_offline(copy) as reader:
        assert verify_log(reader.entries(), reader.checkpoint() or "", VKEY).checkpoint.size == 3
    assert [path.name for path in directory.iterdir()] == ["copy.db"]
    assert copy.read_bytes() == before


def test_offline_reading_of_a_live_database_sees_what_is_committed(facility: Facility) -> None:
    """Entries that are still in the write-ahead log are read, and a log that grows meanwhile does not look damaged."""
    with facility.running() as (_, ledger):
        ledger.record(submission("one"))
        with open_offline(facility.path) as reader:
            note = reader.checkpoint() or ""
            ledger.record(submission("two"))
            assert verify_log(reader.entries(), note, VKEY).checkpoint.size == 1
            assert reader.size() == 1
        with open_offline(facility.path) as reader:
            assert reader.size() == 2


def test_offline_reading_of_what_is_not_there_or_no_database(facility: Facility) -> None:
    """Both are errors with codes."""
    with pytest.raises(StoreError) as missing, open_offline(facility.path):
        pass
    facility.path.write_bytes(b"no database" * 100)
    with pytest.raises(StoreError) as unreadable, open_offline(facility.path) as reader:
        reader.size()
    assert (code_of(missing), code_of(unreadable)) == ("store-missing", "store-unreadable")

"""The admin's acts upon people: many at once, several logins, and that one day nothing of somebody is left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from certauth.audit import record
from certauth.audit.checkpoint import VerifierKey
from certauth.audit.record import commit
from certauth.audit.verify import verify_log
from certauth.certificates import principal_of
from certauth.clock import system_clock
from certauth.encoding import from_b64url
from certauth.enrolment import Login
from certauth.errors import StoreError, UsageError
from certauth.names import Principal
from signer.cli import common, group, logins
from signer.cli.people import act as act_
from signer.cli.secret import HandedOut
from signer.disclosing import tells_of
from signer.rows import LoginRow
from signer.service import Service
from tests.signer.agent_kit import make
from tests.signer.kit import Site, facility, run_cli
from tests.signer.test_enrolment import act, admin, ask, configure, named, refused, user

HEADER = "name,subject,group,right,display,assurance,max_lifetime"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A fresh facility."""
    with facility(tmp_path) as made:
        yield made


def written(tmp_path: Path, *lines: str, encoding: str = "utf-8", end: str = "\r\n") -> Path:
    """A file of people."""
    path = tmp_path / "people.csv"
    path.write_bytes("".join(line + end for line in lines).encode(encoding))
    return path


def entries(site: Site) -> list[dict[str, Any]]:
    """The enrolment changes in the log of a facility that is not running."""
    with site.serving() as service, service.store.log() as reader:
        found: list[Any] = [record.decode(entry.body) for entry in reader.entries()]
    return [entry["enrolment"] for entry in found if entry["kind"] == "enrolment.change"]


def people(site: Site) -> list[str]:
    """Who is enrolled."""
    return [Principal.parse(one["principal"]).id for one in admin(site, "user", "list")["people"]]


# --- import --------------------------------------------------------------------------------------------------------------


def test_a_file_enrols_everybody_in_it_each_with_an_entry(site: Site, tmp_path: Path) -> None:
    """Each line is a person with what it says; again, everybody is passed over; a dry run enrols nobody."""
    path = written(
        tmp_path,
        HEADER,
        'ada,s-1,staff; beamline-7,"files:read,write:/ada/;data:read:/x","L\u00f6velace, Ada",2,8h',
        "",
        "bob,s-2,,,,,",
        encoding="utf-8-sig",
    )
    dry = act(site, "user", "import", path, "--dry-run")
    assert (dry["enrolled"], dry["dry_run"], people(site)) == (["ada", "bob"], True, [])
    assert act(site, "user", "import", path)["enrolled"] == ["ada", "bob"]
    shown = admin(site, "user", "show", "ada")
    assert (shown["groups"], shown["display"], shown["assurance"], shown["max_lifetime"], len(shown["rights"])) == (
        ["staff", "beamline-7"],
        "L\u00f6velace, Ada",
        2,
        28800,
        3,
    )
    again = act(site, "user", "import", path)
    assert (again["enrolled"], again["present"]) == ([], ["ada", "bob"])
    log = [(entry["action"], entry["principal"]) for entry in entries(site)]
    assert log == [
        ("import", user("ada")),
        ("import", user("bob")),
    ]


def test_an_import_that_was_cut_off_is_finished_by_repeating_it(site: Site, tmp_path: Path) -> None:
    """Who got in before the interruption is passed over, also disabled by now, and the rest follows."""
    act(site, "user", "import", written(tmp_path, HEADER, "ada,s-1,staff,,,,"))
    act(site, "user", "disable", "ada")
    done = act(site, "user", "import", written(tmp_path, HEADER, "ada,s-1,staff,,,,", "bob,s-2,,,,,"))
    assert (done["enrolled"], done["present"]) == (["bob"], ["ada"])
    assert admin(site, "user", "show", "ada")["disabled"] is True


def test_one_wrong_line_and_nobody_is_enrolled(site: Site, tmp_path: Path) -> None:
    """All faults are found in one run, each with its line, and nothing was changed."""
    site.enroll("old")
    lines = [
        HEADER,
        "fine,s-1,,,,,",
        "../up,s-2,,,,,",
        "fine,s-3,,,,,",
        "twin,s-1,,,,,",
        "sum,=1+1,,,,,",
        "num,2.48E+11,,,,,",
        "two,s-4",
        "bad,s-5,,files:read,,,",
        "far,s-6,,,,4,",
        "long,s-7,,,,,forever",
        "thief,old,,,,,",
        "old,old,changed,,,,",
        ",s-8,,,,,",
        "bell,s-\x07,,,,,",
        'quoted,s-9,,,"two\r\nlines",,',
        "at,@s,,,,,",
        f"wide,s-10,,,{'x' * 201},,",
    ]
    error = act(site, "user", "import", written(tmp_path, *lines), expect=2)["error"]
    assert error["code"] == "import-invalid"
    told = [int(line.split()[1].rstrip(":")) for line in error["message"].splitlines() if line.startswith("line ")]
    assert sorted(set(told)) == [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 19], error["message"]
    assert people(site) == ["old"]
    assert admin(site, "user", "show", "old")["groups"] == []


def test_many_faults_are_said_in_part(site: Site, tmp_path: Path) -> None:
    """A file that is wrong throughout does not fill the terminal."""
    lines = [f"n{i}," + "," * 5 for i in range(60)]
    message = act(site, "user", "import", written(tmp_path, HEADER, *lines), expect=2)["error"]["message"]
    assert "and 40 more" in message
    assert len(message.splitlines()) == 22


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "does not name the columns"),
        (b"name;subject\nada;s\n", "separated by commas"),
        (b"name,subject,admin\nada,s,yes\n", "name, subject"),
        (b"name,subject,name\nada,s,bob\n", "each once"),
        (b"subject\ns\n", "name, subject"),
        ("name,subject\nad\u00e4,s\n".encode("latin-1"), "not UTF-8"),
        ("name,subject\nada,s\n".encode("utf-16"), "not UTF-8"),
        (b"name,subject\nada,\x00\n", "NUL"),
        (b'name,subject\nada,"s\n', "line 2"),
        (b'name,subject\nada,"s"x\n', "line 2"),
    ],
)
def test_a_file_that_is_none_is_refused(site: Site, tmp_path: Path, data: bytes, says: str) -> None:
    """Other separators, encodings and columns are named, never guessed at."""
    path = tmp_path / "people.csv"
    path.write_bytes(data)
    error = act(site, "user", "import", path, expect=2)["error"]
    assert error["code"] == "import-invalid"
    assert says in f"{error['message']} {error['hint']}"


def test_a_file_is_bounded(site: Site, tmp_path: Path) -> None:
    """Neither a huge file nor too many people are read into memory or the log."""
    path = tmp_path / "people.csv"
    path.write_bytes(b"name,subject\n" + b"x" * (4 * 1024 * 1024))
    assert act(site, "user", "import", path, expect=2)["error"]["code"] == "import-too-large"
    path.write_text("name,subject\n" + "".join(f"n{i},s{i}\n" for i in range(10_001)))
    assert act(site, "user", "import", path, expect=2)["error"]["code"] == "import-too-large"
    assert people(site) == []


def test_a_long_import_tells_how_far_it_is(site: Site, tmp_path: Path) -> None:
    """Progress goes to standard error, and the result alone to standard output."""
    path = written(tmp_path, "name,subject", *(f"n{i},s{i}" for i in range(120)))
    given = ["user", "import", str(path), "--reason", "r", "--settings", str(site.settings_file)]
    done = CliRunner().invoke(group, given)
    assert done.exit_code == 0, done.output
    assert ["50 of 120" in done.stderr, "100 of 120" in done.stderr] == [True, True]
    assert done.stdout == "120 people enrolled; 0 were enrolled already.\n"
    assert len(people(site)) == 120


def test_the_same_login_by_the_id_and_the_url_of_its_provider_is_one(site: Site, tmp_path: Path) -> None:
    """Two spellings of a provider do not hide that two lines are one person."""
    issuer = site.settings.issuer[0]
    lines = ["name,subject,issuer", "ada,s-1,", f"bob,s-1,{issuer.id}", f"cy,s-1,{issuer.url}", "dee,s-4,https://x.example"]
    error = act(site, "user", "import", written(tmp_path, *lines), expect=2)["error"]
    assert [line.split(":")[0] for line in error["message"].splitlines()[1:]] == ["line 3", "line 4", "line 5"]


# --- several logins ------------------------------------------------------------------------------------------------------


def test_an_administrator_links_and_unlinks_a_login(site: Site) -> None:
    """Linked, both logins are one person; unlinked, the one is a stranger's again and what was issued is revoked."""
    site.enroll("alice")
    site.enroll("bob")
    issuer = site.settings.issuer[0]
    linked = act(site, "user", "link", "alice", "--subject", "second", "--issuer", issuer.id)
    assert [one["subject"] for one in linked["logins"]] == ["alice", "second"]
    for taken in ("bob", "alice", "second"):
        assert act(site, "user", "link", "bob", "--subject", taken, expect=2)["error"]["code"] == "already-enrolled"
    with site.serving():
        identity = site.log_in("second")
        assert str(principal_of(identity.chain[0])) == user("alice")
        act(site, "user", "unlink", "alice", "--subject", "second")
        refused(ask(site, "second"), "not-enrolled")
        with site.client(identity) as connection:
            site.clock.offset += timedelta(seconds=1)
            assert connection.post("/v1/tokens", json={"audience": "files"}).json()["code"] == "certificate-revoked"
    assert act(site, "user", "unlink", "alice", "--subject", "second", expect=2)["error"]["code"] == "not-linked"
    assert act(site, "user", "unlink", "alice", "--subject", "bob", expect=2)["error"]["code"] == "not-linked"
    assert act(site, "user", "unlink", "alice", "--subject", "alice", expect=2)["error"]["code"] == "last-login"
    done = [entry["action"] for entry in entries(site)]
    assert done == ["enroll", "enroll", "link", "unlink"]


def test_a_person_has_so_many_logins(site: Site) -> None:
    """Also an administrator links no more than that."""
    site.enroll("alice")
    for i in range(7):
        act(site, "user", "link", "alice", "--subject", f"s{i}")
    assert act(site, "user", "link", "alice", "--subject", "s7", expect=2)["error"]["code"] == "too-many-linked-logins"


def test_who_waits_and_is_linked_waits_no_more(site: Site) -> None:
    """An application is settled when its login is linked to somebody."""
    configure(site, issuer='enrolment = "approve"')
    site.enroll("alice")
    with site.serving():
        refused(ask(site, "second"), "approval-pending")
    act(site, "user", "link", "alice", "--subject", "second")
    assert admin(site, "user", "applications")["applications"] == []


# --- disabling, with agents ----------------------------------------------------------------------------------------------


def test_disabling_a_person_ends_their_agents(site: Site) -> None:
    """One entry disables the person, revokes what they have and stops their agents; enabling brings no agent back."""
    site.enroll("alice", "files:read:/alice/")
    with site.serving() as service:
        alice = site.log_in("alice")
        agent = make(site, alice, "job").principal
        act(site, "user", "disable", "alice")
        site.clock.offset += timedelta(seconds=2)
        shown = admin(site, "user", "show", "alice")["agents"]
        assert [(one["principal"], one["disabled"]) for one in shown] == [(agent, True)]
        revoked = {entry.row.revoked.value for entry in service.store.revocations(now=0)}
        assert {user("alice"), agent} <= revoked
        act(site, "user", "enable", "alice")
        assert [one["disabled"] for one in admin(site, "user", "show", "alice")["agents"]] == [True]


# --- nothing left --------------------------------------------------------------------------------------------------------


def everything(site: Site) -> bytes:
    """All that is in the facility's database files."""
    return b"".join(
        path.read_bytes() for path in site.settings.database_path.parent.glob(f"{site.settings.database_path.name}*")
    )


def check_log(service: Service) -> None:
    """The log is what its newest checkpoint says, entry by entry."""
    with service.store.log() as reader:
        vkey = VerifierKey.parse(service.authority.bundle.log_vkey)
        report = verify_log(reader.entries(), note=reader.checkpoint() or "", vkey=vkey)
    assert report.checkpoint.size > 0


def open_commitment_of(disclosure: str) -> tuple[str, object]:
    """Name and value of a disclosure."""
    _, name, value = json.loads(from_b64url(disclosure))
    return name, value


def test_personal_data_are_deleted_and_the_log_still_verifies(site: Site) -> None:
    """Nothing in the database tells of the person any more, wherever it was said; the log is whole, the name stays taken."""
    configure(site, issuer='enrolment = "approve"')
    grace: dict[str, Any] = {"name": "Grace Brewster", "email": "grace.b@campus.example", "email_verified": True}
    with site.serving():
        refused(ask(site, "subject-of-grace", **grace), "approval-pending")  # said before she was anybody
        act(site, "user", "deny", "--subject", "subject-of-grace")
        refused(ask(site, "subject-of-grace", **grace), "approval-denied")
        act(site, "user", "invite", "--email", "grace.b@campus.example", "--group", "g")
        code = act(site, "user", "invite", "--email", "grace.b@campus.example", "--group", "g")["code"]
        assert "_invited" not in named(ask(site, "subject-of-grace", invite=code, **grace))
        name = admin(site, "user", "list")["people"][0]["principal"].rpartition("/")[2]
        act(site, "user", "link", name, "--subject", "second-of-grace")
        act(site, "user", "enroll", name, "--display", "Amazing Grace Brewster")
        site.enroll("bystander")
        refused(ask(site, "bystander-2"), "approval-pending")
    private = [b"subject-of-grace", b"second-of-grace", b"Grace Brewster", b"grace.b@campus.example"]
    assert all(text in everything(site) for text in private), "the search would find it"
    not_yet = act(site, "user", "delete-personal-data", name, "--yes", expect=2)["error"]
    assert not_yet["code"] == "not-disabled"
    act(site, "user", "disable", name)
    with site.serving() as service:  # the service may go on while it happens
        check_log(service)
        before = service.ledger.status().size
        done = act(site, "user", "delete-personal-data", name, "--yes")
        assert done["principal"] == user(name)
        check_log(service)
        with service.store.log() as reader:
            left = [open_commitment_of(one) for seq in range(before) for one in reader.disclosures(seq)]
        subjects = [value for name_, value in left if name_ == "sub"]
        assert "bystander-2" in subjects, "other people's disclosures stay"
    files = everything(site)
    assert [text for text in private if text in files] == []
    shown = admin(site, "user", "show", name)
    assert (shown["logins"], shown["display"], shown["disabled"]) == ([], "", True)
    assert [one["subject"] for one in admin(site, "user", "applications")["applications"]] == ["bystander-2"]
    assert b"bystander" in files
    states = {one["state"] for one in admin(site, "user", "invitations", "--all")["invitations"]}
    assert states == {"used", "withdrawn"}, "an invitation without its address would be anybody's"
    assert act(site, "user", "enable", name, expect=2)["error"]["code"] == "erased"
    assert act(site, "user", "link", name, "--subject", "x", expect=2)["error"]["code"] == "erased"


def test_what_was_said_under_the_name_they_asked_for_is_deleted_too(site: Site) -> None:
    """Denied under one name and approved under another: the first denial is found and erased, a namesake's is not."""
    rule = '[[issuer.rule]]\nname = "all"\nsubject = "user/{claim:/nick}"\nwhen.everyone = true'
    configure(site, issuer=f'enrolment = "approve"\n{rule}')
    with site.serving():
        for subject in ("subject-of-ada", "namesake-of-ada"):
            refused(ask(site, subject, nick="ada"), "approval-pending")
            act(site, "user", "deny", "--subject", subject)
        act(site, "user", "approve", "--subject", "subject-of-ada", "--as", "lovelace")
        site.enroll("ada")  # the name they asked for is somebody else's by now
        assert named(ask(site, "subject-of-ada", nick="ada")) == user("lovelace")
    assert b"subject-of-ada" in disclosed(site)
    act(site, "user", "disable", "lovelace")
    act(site, "user", "delete-personal-data", "lovelace", "--yes")
    told = disclosed(site)
    assert b"subject-of-ada" not in told
    assert b"namesake-of-ada" in told


def test_what_was_said_of_a_login_they_had_is_deleted_too(site: Site) -> None:
    """Unlinked and refused since: it is found by what the log tells of the act. One that is somebody else's by now stays."""
    configure(site, issuer='enrolment = "approve"')
    site.enroll("grace")
    for subject in ("former-of-grace", "now-of-bob"):
        act(site, "user", "link", "grace", "--subject", subject)
        act(site, "user", "unlink", "grace", "--subject", subject)
    with site.serving():
        for subject in ("former-of-grace", "now-of-bob"):
            refused(ask(site, subject, name=f"Asked as {subject}"), "approval-pending")
        act(site, "user", "approve", "--subject", "now-of-bob", "--as", "bob")
    assert b"former-of-grace" in disclosed(site)
    before = disclosed(site).count(b"now-of-bob")
    act(site, "user", "disable", "grace")
    act(site, "user", "delete-personal-data", "grace", "--yes")
    assert b"former-of-grace" not in everything(site)
    told = disclosed(site)
    assert before > told.count(b"now-of-bob") > 1, "what was said of grace is gone, what was said of bob stays"
    assert [one["subject"] for one in admin(site, "user", "applications", "--state", "approved")["applications"]] == [
        "now-of-bob"
    ]


def disclosed(site: Site) -> bytes:
    """All that the log discloses."""
    with site.serving() as service, service.store.log() as reader:
        every = [one for entry in reader.entries() for one in reader.disclosures(entry.index)]
    return b" ".join(from_b64url(one) for one in every)


def test_two_administrators_at_once_do_not_both_succeed(site: Site) -> None:
    """What was decided on something that has changed meanwhile is refused whole, and says to look again."""
    site.enroll("alice")
    with common.facility(site.settings_file, allow_example_keys=False) as place:
        alice = Principal.parse(user("alice"))
        login = Login(site.provider.issuer, "second")
        row = LoginRow(principal=alice, login=login, by="an admin", at=system_clock())
        act_(place, action="link", principal=alice, reason="r", rows=(row,), terms=None)
        size = place.ledger.status().size
        with pytest.raises(UsageError) as caught:
            act_(place, action="link", principal=alice, reason="r", rows=(row,), terms=None)
        assert (caught.value.code, bool(caught.value.hint)) == ("changed-meanwhile", True)
        assert place.ledger.status().size == size


def test_a_store_that_cannot_record_is_no_conflict(site: Site) -> None:
    """A ledger that is closed says so, and nothing is called the admin's mistake."""
    with common.facility(site.settings_file, allow_example_keys=False) as place:
        place.ledger.close()
        with pytest.raises(StoreError) as caught:
            act_(place, action="link", principal=Principal.parse(user("alice")), reason="r", rows=(), terms=None)
    assert caught.value.code == "audit-unavailable"


def test_a_code_shows_itself_to_nobody_by_accident(tmp_path: Path) -> None:
    """Neither the repr nor a failed record leaves the code anywhere."""
    handed = HandedOut(tmp_path / "code")
    assert handed.code not in repr(handed)
    with pytest.raises(UsageError), handed.kept_if_recorded():
        raise UsageError("x", "it was not recorded")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError), HandedOut(None).kept_if_recorded():
        raise UsageError("x", "it was not recorded")


def test_the_name_of_somebody_deleted_is_nobody_elses_and_they_come_back_as_somebody_new(site: Site) -> None:
    """The name is never given again: not by an admin, a rule or an invitation. The person is enrolled under another one."""
    configure(site, issuer='enrolment = "open"')
    with site.serving():
        first = named(ask(site, "zoe"))
        name = first.rpartition("/")[2]
        act(site, "user", "disable", name)
        act(site, "user", "delete-personal-data", name, "--yes")
        refused(ask(site, "zoe"), "name-taken")
        assert act(site, "user", "enroll", name, "--subject", "mallory", expect=2)["error"]["code"] == "identity-fixed"
        assert act(site, "user", "invite", "--name", name, expect=2)["error"]["code"] == "name-taken"
        act(site, "user", "enroll", "zoe-2", "--subject", "zoe")
        assert named(ask(site, "zoe")) == user("zoe-2")


def test_the_same_subject_at_another_provider_keeps_its_data(site: Site) -> None:
    """Deleting one person does not delete what the log discloses of a namesake elsewhere."""
    commitment = commit("sub", "grace", salt=b"s" * 16)
    with site.serving():
        refused(ask(site, "grace"), "not-enrolled")
    with site.serving() as service, service.store.log() as reader:
        store_entries = [entry.body for entry in reader.entries()]
    denied = next(body for body in store_entries if b"grant.deny" in body)
    here, there = Login(site.provider.issuer, "grace"), Login("https://other.example", "grace")
    said: dict[str, Any] = {"digest": commitment.digest, "disclosure": commitment.disclosure, "entry": denied}
    assert tells_of([here], **said)
    assert not tells_of([there], **said)
    assert not tells_of([Login(site.provider.issuer, "grac")], **said)
    assert not tells_of([here], digest=commitment.digest, disclosure="AAAA", entry=denied)
    start = next(body for body in store_entries if b"service.start" in body)
    assert not tells_of([here], digest=commitment.digest, disclosure=commitment.disclosure, entry=start)
    other = commit("nick", "grace", salt=b"s" * 16)
    assert not tells_of([here], digest=other.digest, disclosure=other.disclosure, entry=denied)


def test_deleting_asks_first(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --yes and without anybody to ask, nothing is deleted; a no deletes nothing, a yes does."""
    site.enroll("alice")
    act(site, "user", "disable", "alice")
    assert act(site, "user", "delete-personal-data", "alice", expect=2)["error"]["code"] == "not-confirmed"
    given = ["user", "delete-personal-data", "alice", "--reason", "r", "--settings", str(site.settings_file)]
    assert CliRunner().invoke(group, given, input="y\n").exit_code == 2, "a pipe is nobody"
    monkeypatch.setattr(logins, "_at_a_terminal", lambda: True)
    assert CliRunner().invoke(group, given, input="n\n").exit_code == 130
    assert admin(site, "user", "show", "alice")["subject"] == "alice"
    assert CliRunner().invoke(group, given, input="y\n").exit_code == 0
    assert admin(site, "user", "show", "alice")["subject"] is None


def test_no_change_without_a_reason(site: Site) -> None:
    """Every command that changes something demands one, on one line."""
    site.enroll("alice")
    changing = [
        ("enroll", "bob", "--subject", "b"),
        ("invite",),
        ("withdraw-invite", "0" * 16),
        ("approve", "x"),
        ("deny", "x"),
        ("disable", "alice"),
        ("enable", "alice"),
        ("revoke", "alice"),
        ("link", "alice", "--subject", "b"),
        ("unlink", "alice", "--subject", "b"),
        ("delete-personal-data", "alice", "--yes"),
    ]
    settings = ("--settings", site.settings_file)
    for words in changing:
        assert run_cli("user", *words, *settings, expect=2)["error"]["code"] == "usage", words
    for reason in ("", "  ", "two\nlines", "x" * 201):
        given = ("user", "link", "alice", "--subject", "b", "--reason", reason, *settings)
        assert run_cli(*given, expect=2)["error"]["code"] == "bad-reason"
    assert json.dumps(admin(site, "user", "show", "alice")["logins"]).count("subject") == 1


@pytest.mark.parametrize("words", [("approve",), ("deny",)])
def test_an_application_is_named_somehow(site: Site, words: tuple[str, ...]) -> None:
    """Nobody is approved or denied without being named, and nobody who did not ask."""
    assert act(site, "user", *words, expect=2)["error"]["code"] == "usage"
    assert act(site, "user", *words, "nobody", expect=2)["error"]["code"] == "no-application"
    assert act(site, "user", *words, "--subject", "nobody", expect=2)["error"]["code"] == "no-application"


def test_every_command_speaks_to_people(site: Site) -> None:
    """Text output of the new commands: columns and sentences."""
    configure(site, issuer='enrolment = "approve"')
    with site.serving():
        refused(ask(site, "w-1", name="Wanda"), "approval-pending")
    settings = ["--settings", str(site.settings_file)]

    def said(*words: str) -> str:
        done = CliRunner().invoke(group, [*words, *settings])
        assert done.exit_code == 0, done.output
        return done.output

    assert "Wanda" in said("user", "applications")
    assert "shown this once" in said("user", "invite", "--name", "ida", "--reason", "r")
    assert "open" in said("user", "invitations")
    assert "turned down" in said("user", "deny", "--subject", "w-1", "--reason", "r")
    assert "is enrolled" in said("user", "approve", "--subject", "w-1", "--as", "wanda", "--reason", "r")
    assert "second" in said("user", "link", "wanda", "--subject", "second", "--reason", "r")


def test_names_of_groups_are_checked(site: Site) -> None:
    """Blank ends, control characters and floods are refused where they are given."""
    for name in (" staff", "sta\x07ff", "", "x" * 129):
        error = act(site, "user", "enroll", "alice", "--subject", "s", "--group", name, expect=2)["error"]
        assert error["code"] == "bad-name"
    many = [word for i in range(65) for word in ("--group", f"g{i}")]
    assert act(site, "user", "enroll", "alice", "--subject", "s", *many, expect=2)["error"]["code"] == "bad-name"
    rights = [word for i in range(65) for word in ("--right", f"files:read:/{i}/")]
    assert act(site, "user", "enroll", "alice", "--subject", "s", *rights, expect=2)["error"]["code"] == "bad-right"

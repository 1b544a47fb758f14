"""Replacing the keys that sign tokens: what each act changes, what it refuses, and that a kill -9 leaves nothing half-done."""

from __future__ import annotations

import json
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from certauth import keys
from certauth.audit import record
from certauth.bundles import KeyState, TrustBundle
from certauth.clock import system_clock
from certauth.errors import ConfigError, KeyMaterialError, StoreError, UsageError
from certauth.files import lock
from certauth.keys import Algorithm
from signer import authority, key_changes, key_ring
from signer.authority import Authority
from signer.cli import group
from signer.key_changes import KeyChanges
from signer.key_index import State, Use
from signer.key_ring import KeyRing
from signer.service import open_ledger
from signer.store import Store
from tests.demo.stage import ROOT
from tests.signer.dying_admin import STEPS
from tests.signer.kit import Identity, MovableClock, Site, facility, run_cli


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A facility, to be copied."""
    with facility(tmp_path_factory.mktemp("keys")) as site:
        settings = site.settings_file.read_text()
        site.settings_file.write_text(f'jwt_services = ["files"]\n{settings}')
        site.enroll("alice", "files:read:/alice/")
        yield site


@pytest.fixture
def site(made: Site, tmp_path: Path) -> Site:
    """A copy of it, as its makers left it."""
    shutil.copytree(made.directory, tmp_path / "facility")
    return Site(
        directory=tmp_path / "facility",
        url=made.url,
        provider=made.provider,
        provider_key=made.provider_key,
        clock=MovableClock(),
    )


def key(site: Site, *arguments: object, expect: int = 0) -> dict[str, Any]:
    """``certauth signer key …``; what it answered, or its error."""
    reason = () if arguments[0] == "list" else ("--reason", "a test")
    found = run_cli("key", *arguments, *reason, "--settings", site.settings_file, expect=expect)
    return dict(found["error"]) if expect else found


def states(site: Site, use: str = "token") -> dict[str, str]:
    """The keys of a use by their ids, the oldest first."""
    return {one["kid"]: one["state"] for one in key(site, "list")["keys"] if one["use"] == use}


def one(site: Site, state: str, use: str = "token") -> str:
    """The id of the only key in that state."""
    (found,) = [kid for kid, its in states(site, use).items() if its == state]
    return found


def bundle(site: Site) -> TrustBundle:
    """The bundle on the disk."""
    return TrustBundle.parse((site.directory / "bundle.json").read_bytes(), allow_example_keys=False)


def published(site: Site) -> dict[str, KeyState]:
    """The token keys of the bundle on the disk."""
    return {root.kid: root.state for root in bundle(site).token_roots}


def key_files(site: Site) -> set[str]:
    """The files of the keys that sign tokens."""
    return {path.name for path in (site.directory / "keys").iterdir() if "token" in path.name or "jwt" in path.name}


def entries(site: Site, *kinds: str) -> list[dict[str, Any]]:
    """What the log says of keys."""
    with ring_of(site) as (_, _, store), store.log() as reader:
        found = [record.decode(entry.body) for entry in reader.entries()]
    return [entry for entry in found if entry["kind"] in kinds]


class ring_of:  # noqa: N801 - used like a function
    """The parts that acts are made of, opened and closed."""

    def __init__(self, site: Site) -> None:
        self.authority = authority.load(site.settings, environment={}, allow_example_keys=False)
        self.store, self.ledger = open_ledger(site.settings, self.authority, clock=system_clock)

    def __enter__(self) -> tuple[Authority, KeyRing, Store]:
        return self.authority, KeyRing(self.authority, self.store), self.store

    def __exit__(self, *_: object) -> None:
        self.ledger.close()
        self.store.close()


# --- what the acts do ----------------------------------------------------------------------------------------------------


def test_a_facility_that_never_changed_a_key(site: Site) -> None:
    """Every key is listed with its use; those of a state directory from before there were such commands are active."""
    found = key(site, "list")
    assert [one["use"] for one in found["keys"]] == ["root", "issuing", "log", "feed", "token", "jwt"]
    assert {one["state"] for one in found["keys"]} == {"active"}
    assert found["bundle_sequence"] == 1
    assert len({one["kid"] for one in found["keys"]}) == 6


def test_prepare_publishes_a_key_that_signs_nothing(site: Site) -> None:
    """Encrypted, private, in the bundle as prepared, in the log with who and why."""
    old = one(site, "active")
    (new,) = key(site, "prepare", "token")["changed"]
    assert published(site) == {old: KeyState.ACTIVE, new["kid"]: KeyState.PREPARED}
    assert bundle(site).sequence == 2
    path = site.directory / "keys" / f"token-{new['kid']}.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"ENCRYPTED" in path.read_bytes()
    added = entries(site, "key.add")[-1]["key"]
    assert (added["use"], added["kid"], added["why"]) == ("token", new["kid"], "a test")
    assert added["by"].startswith("admin ")
    with ring_of(site) as (_, ring, _):
        assert ring.signing(Use.TOKEN)[1] == old
        assert set(ring.roots) == {old, new["kid"]}
    assert key(site, "prepare", "token", expect=2)["code"] == "key-prepared"
    assert len(key_files(site)) == 3


def test_activate_waits_until_doors_can_know_the_key(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused before, with the moment from which it may; possible then, or at once with ``--now``."""
    old = one(site, "active")
    assert key(site, "activate", "token", expect=2)["code"] == "key-not-prepared"
    new = key(site, "prepare", "token")["changed"][0]
    error = key(site, "activate", "token", expect=2)
    assert (error["code"], new["signs_from"] in error["message"], "--now" in error["hint"]) == ("key-too-new", True, True)
    assert states(site) == {old: "active", new["kid"]: "prepared"}
    wait = timedelta(seconds=bundle(site).refresh_hint) + key_changes.MARGIN
    monkeypatch.setattr("signer.cli.keys.system_clock", lambda: system_clock() + wait - timedelta(seconds=30))
    assert key(site, "activate", "token", expect=2)["code"] == "key-too-new"
    monkeypatch.setattr("signer.cli.keys.system_clock", lambda: system_clock() + wait)
    key(site, "activate", "token")
    assert states(site) == {old: "retired", new["kid"]: "active"}
    assert published(site) == {old: KeyState.RETIRED, new["kid"]: KeyState.ACTIVE}
    assert bundle(site).sequence == 3
    assert key_files(site) == {"jwt.pem", f"token-{new['kid']}.pem"}, "what signs no more can be stolen no more"
    (changed,) = [entry["key"] for entry in entries(site, "key.state")]
    assert changed["changes"] == [{"kid": old, "state": "retired"}, {"kid": new["kid"], "state": "active"}]
    assert (changed["use"], changed["why"]) == ("token", "a test")


def test_activate_at_once(site: Site) -> None:
    """Whoever is in a hurry says so."""
    old = one(site, "active", "jwt")
    key(site, "prepare", "jwt")
    assert key(site, "activate", "jwt", expect=2)["code"] == "key-too-new"
    changed = key(site, "activate", "jwt", "--now")
    assert {entry["kid"]: entry["state"] for entry in changed["changed"]}[old] == "retired"
    assert bundle(site).sequence == 1, "the bundle does not hold keys for JWTs"


def test_a_key_that_cannot_be_loaded_is_not_activated(site: Site) -> None:
    """It would be the end of all tokens. Given up, it is in nobody's way, least of all when the other one was stolen."""
    new = key(site, "prepare", "token")["changed"][0]["kid"]
    path = site.directory / "keys" / f"token-{new}.pem"
    path.write_bytes(b"no key")
    assert key(site, "activate", "token", "--now", expect=1)["code"] == "bad-key"
    keys.save_private(path, keys.generate(Algorithm.ED25519), passphrase=None)
    assert key(site, "activate", "token", "--now", expect=1)["code"] == "authority-mismatch"
    assert key(site, "taint", one(site, "active"), expect=1)["code"] == "authority-mismatch"
    assert new == one(site, "prepared")
    key(site, "retire", new)
    key(site, "taint", one(site, "active"))


@pytest.mark.parametrize("damage", ["missing", "broken"])
@pytest.mark.parametrize("changed_before", [False, True])
def test_a_key_that_is_lost_is_replaced(site: Site, *, changed_before: bool, damage: str) -> None:
    """Nothing signs with it any more, so the service does not start; commands do their work, and what it signed stays good."""
    if changed_before:
        key(site, "prepare", "token")
        key(site, "activate", "token", "--now")
    lost = one(site, "active")
    path = site.directory / "keys" / (f"token-{lost}.pem" if changed_before else "token.pem")
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"?")
    with pytest.raises(KeyMaterialError) as caught, site.serving():
        pass
    assert caught.value.code == ("key-unreadable" if damage == "missing" else "bad-key")
    assert str(path) in str(caught.value) or (path.name == "token.pem" and "nor token.pem" in str(caught.value))
    assert states(site)[lost] == "active"
    said = CliRunner().invoke(group, ["key", "list", "--settings", str(site.settings_file)]).output
    assert "A key that signs cannot be loaded: " in said
    site.enroll("bob", "files:read:/bob/")
    key(site, "prepare", "token")
    key(site, "activate", "token", "--now")
    assert states(site)[lost] == "retired"
    with site.serving():
        mint(site, site.log_in("alice"))


def test_a_key_that_is_lost_and_stolen_is_tainted(site: Site) -> None:
    """Whoever stole the key may have deleted it; that must not keep it in force."""
    lost = one(site, "active")
    (site.directory / "keys" / "token.pem").unlink()
    key(site, "taint", lost)
    assert states(site)[lost] == "tainted"
    with site.serving():
        mint(site, site.log_in("alice"))


def test_retire_waits_for_the_last_token(site: Site) -> None:
    """Refused while a token that the key signed is alive, and no longer; the exact end is in the database."""
    with site.serving():
        alice = site.log_in("alice")
        old = one(site, "active")
        with site.client(alice) as client:
            answer = client.post("/v1/tokens", json={"audience": "files", "lifetime": 600})
        assert answer.status_code == 201, answer.text
        key(site, "prepare", "token")
        key(site, "activate", "token", "--now")
    with ring_of(site) as (_, _, store):
        end = store.last_token_end(old)
    assert end is not None
    refused = key(site, "retire", old, expect=2)
    assert (refused["code"], "--force" in refused["hint"]) == ("key-needed", True)
    clock = system_clock
    for moment, expected in ((end, "key-needed"), (end + key_changes.MARGIN, None)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("signer.cli.keys.system_clock", lambda moment=moment: max(moment, clock()))
            answer = key(site, "retire", old, expect=2 if expected else 0)
            assert answer.get("code") == expected
    assert old not in published(site)
    assert states(site)[old] == "removed"
    assert key(site, "retire", old, expect=2)["code"] == "key-removed"


def test_retire_by_force_and_what_is_never_retired(site: Site) -> None:
    """Force overrides the wait, and nothing overrides that one key signs; a prepared key can be given up at once."""
    old = one(site, "active")
    assert key(site, "retire", old, "--force", expect=2)["code"] == "key-active"
    assert key(site, "retire", "00000000", expect=2)["code"] == "key-unknown"
    unwanted = key(site, "prepare", "token")["changed"][0]["kid"]
    key(site, "retire", unwanted)
    assert published(site) == {old: KeyState.ACTIVE}
    key(site, "prepare", "token")
    key(site, "activate", "token", "--now")
    assert key(site, "retire", old, expect=2)["code"] == "key-needed", "it may still be signing in a service that lags behind"
    key(site, "retire", old, "--force")
    assert list(published(site)) == [one(site, "active")]
    assert bundle(site).sequence == 6
    assert key_files(site) == {"jwt.pem", f"token-{one(site, 'active')}.pem"}


@pytest.mark.parametrize("prepared", [True, False])
def test_a_tainted_key_is_followed_in_the_same_act(site: Site, *, prepared: bool) -> None:
    """The prepared one, or else a new one, signs; the feed names the old one for ever; the log says who did it and why."""
    old = one(site, "active")
    waiting = key(site, "prepare", "token")["changed"][0]["kid"] if prepared else None
    key(site, "taint", old)
    new = one(site, "active")
    assert states(site) == {old: "tainted", new: "active"}
    assert waiting in (None, new)
    assert published(site) == {old: KeyState.TAINTED, new: KeyState.ACTIVE}
    with ring_of(site) as (_, ring, store):
        (revocation,) = store.revocations(now=int(system_clock().timestamp()))
        assert set(ring.roots) == {new}
    entry = revocation.row.revoked
    assert (str(entry.kind), entry.value, entry.expires_at, entry.reason) == ("kid", old, None, "a test")
    changed = entries(site, "key.state")[-1]["key"]
    assert changed["changes"] == [{"kid": old, "state": "tainted"}, {"kid": new, "state": "active"}]
    assert key_files(site) == {"jwt.pem", f"token-{new}.pem"}
    assert key(site, "taint", old, expect=2)["code"] == "key-tainted"
    key(site, "retire", old)
    assert list(published(site)) == [new]


def test_a_reason_must_fit_into_the_feed(site: Site) -> None:
    """It is refused before anything is done."""
    for reason in ("x" * 201, "line\nbreak", ""):
        done = run_cli("key", "taint", one(site, "active"), "--reason", reason, "--settings", site.settings_file, expect=2)
        assert done["error"]["code"] == "bad-reason"
    assert list(states(site).values()) == ["active"]


def test_two_administrators_at_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """One waits for the other, and not for ever."""
    monkeypatch.setattr("signer.key_changes.LOCK_SECONDS", 0.0)
    with lock(site.directory / "keys.lock", timeout=1):
        assert key(site, "prepare", "token", expect=1)["code"] == "locked"
    key(site, "prepare", "token")


@pytest.mark.parametrize("again", [False, True])
def test_an_index_that_was_changed_meanwhile_is_not_replaced(site: Site, *, again: bool) -> None:
    """The transaction compares what it replaces: nobody's change is lost even if the lock does not hold."""
    if again:
        key(site, "prepare", "jwt")  # there is an index in the database already
    opened = ring_of(site)
    with opened as (loaded, ring, store):
        parts = {"authority": loaded, "store": store, "ledger": opened.ledger, "clock": system_clock, "by": "a", "why": "b"}
        stale = KeyRing(loaded, store)
        KeyChanges(ring=ring, **parts).prepare(Use.TOKEN)
        after = ring.newest().text
        before = stale.current()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stale, "newest", lambda: before)
            with pytest.raises(StoreError) as caught:
                KeyChanges(ring=stale, **parts).taint(one(site, "active"))
        assert caught.value.code == "store-conflict"
        assert ring.newest().text == after


# --- kill -9 -------------------------------------------------------------------------------------------------------------

NOTHING, DONE = False, True
KILLS = [
    ("prepare", "while the key is written", NOTHING),
    ("prepare", "after the key", NOTHING),
    ("prepare", "before the commit", NOTHING),
    ("prepare", "after the commit", DONE),
    ("prepare", "after the bundle", DONE),
    ("activate", "before the commit", NOTHING),
    ("activate", "after the commit", DONE),
    ("activate", "after the bundle", DONE),
    ("retire", "before the commit", NOTHING),
    ("retire", "after the commit", DONE),
    ("retire", "after the bundle", DONE),
    ("taint", "after the key", NOTHING),
    ("taint", "after the commit", NOTHING),  # of the key that will follow: it is prepared, and the old one signs as before
    ("taint", "after the second commit", DONE),
    ("taint", "after the bundle", DONE),
]
"""Which act dies where, and whether it has happened."""


def arguments_of(site: Site, act: str) -> tuple[str, ...]:
    """The act on the command line, with everything it needs done before."""
    if act in {"activate", "retire"}:
        key(site, "prepare", "token")
    if act == "retire":
        key(site, "activate", "token", "--now")
        return ("retire", one(site, "retired"), "--force")
    return {"activate": ("activate", "token", "--now"), "prepare": ("prepare", "token")}.get(
        act, ("taint", one(site, "active"))
    )


def killed(site: Site, step: str, *arguments: str) -> None:
    """Begin an act and die in it."""
    command = [sys.executable, "-m", "tests.signer.dying_admin", step, "signer", "key", *arguments, "--reason", "a test"]
    died = subprocess.run([*command, "--settings", str(site.settings_file)], cwd=ROOT, capture_output=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()


@pytest.mark.parametrize(("act", "step", "done"), KILLS)
def test_kill_9_leaves_nothing_half_done(site: Site, act: str, step: str, *, done: bool) -> None:
    """The service starts, bundle and database agree, and the act can be made (again), after which no file is left over."""
    arguments = arguments_of(site, act)
    before = states(site)
    killed(site, step, *arguments)
    with site.serving() as service, site.client(site.log_in("alice")) as client:
        served = TrustBundle.parse(client.get("/.well-known/certauth/bundle").content, allow_example_keys=False)
        assert served == bundle(site)
        assert client.post("/v1/tokens", json={"audience": "files"}).status_code == 201
        assert client.get("/readyz").json()["parts"]["keys"]["state"] == "ok"
        assert served.sequence == service.keys.current().index.sequence
    after = states(site)
    assert published(site) == {kid: KeyState(state) for kid, state in after.items() if state != "removed"}
    if done:
        assert after != before
    else:
        assert {kid: state for kid, state in after.items() if kid in before} == before
        key(site, *arguments)
    key(site, "taint", one(site, "active"))  # any act sweeps up
    needed = {kid for kid, state in states(site).items() if state in ("active", "prepared")}
    assert key_files(site) == {"jwt.pem", *(f"token-{kid}.pem" for kid in needed)}


def test_every_step_is_died_at() -> None:
    """The list above leaves none out, and each kind of act dies before and after it counts."""
    assert {step for _, step, _ in KILLS} == set(STEPS)
    for act in ("prepare", "activate", "retire", "taint"):
        assert {done for its, _, done in KILLS if its == act} == {NOTHING, DONE}


# --- the running service -------------------------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service looks at every request."""
    monkeypatch.setattr(key_ring, "_RECHECK", 0.0)
    monkeypatch.setattr(key_ring, "_RETRY", 0.0)


def mint(site: Site, who: Identity, *, status: int = 201) -> dict[str, Any]:
    """What asking for a token leads to."""
    with site.client(who) as client:
        answer = client.post("/v1/tokens", json={"audience": "files"})
    assert answer.status_code == status, answer.text
    return dict(answer.json())


@pytest.mark.usefixtures("impatient")
def test_a_key_that_is_lost_while_the_service_runs(site: Site) -> None:
    """What is withdrawn is withdrawn at once, nothing is signed with the old key, readiness says why; and it recovers."""
    with site.serving() as service:
        alice, old = site.log_in("alice"), one(site, "active")
        new = key(site, "prepare", "token")["changed"][0]["kid"]
        path = site.directory / "keys" / f"token-{new}.pem"
        key(site, "taint", old)
        path.rename(path.with_suffix(".away"))
        assert mint(site, alice, status=503)["code"] == "signing-key-unavailable"
        assert set(service.keys.roots) == {new}
        assert len(service.keys.roots) == 1
        with site.client() as client:
            ready = client.get("/readyz")
            assert (ready.status_code, ready.json()["parts"]["keys"]["state"]) == (503, "failed")
            assert [root["kid"] for root in client.get("/.well-known/certauth/bundle").json()["token_roots"]] == [old, new]
        path.with_suffix(".away").rename(path)
        mint(site, alice)


@pytest.mark.usefixtures("impatient")
def test_a_running_service_finishes_what_a_killed_command_began(site: Site) -> None:
    """``bundle.json`` is written by whoever finds it behind, and never set back or half-written under somebody's hands."""
    with site.serving() as service:
        killed(site, "after the commit", "prepare", "token")
        assert bundle(site).sequence == 1
        with lock(site.directory / "keys.lock", timeout=1):
            assert service.keys.current().bundle.sequence == 2
            assert bundle(site).sequence == 1, "somebody is changing keys"
        assert service.keys.current().bundle == bundle(site)
        newer = (site.directory / "bundle.json").read_bytes().replace(b'"sequence":2', b'"sequence":7')
        (site.directory / "bundle.json").write_bytes(newer)
        service.keys.current()
        assert (site.directory / "bundle.json").read_bytes() == newer
        (site.directory / "bundle.json").write_bytes(b"{")
        service.keys.current()
        assert bundle(site).sequence == 2


def test_who_lags_behind_does_not_write_an_older_bundle(site: Site) -> None:
    """Found behind or broken, the file is written by a process that knows what the database says, or left alone."""
    opened = ring_of(site)
    with opened as (loaded, ring, store):
        parts = {"authority": loaded, "store": store, "ledger": opened.ledger, "clock": system_clock, "by": "a", "why": "b"}
        lagging = KeyRing(loaded, store)
        KeyChanges(ring=ring, **parts).prepare(Use.TOKEN)
        (site.directory / "bundle.json").unlink()
        lagging._publish()
        assert not (site.directory / "bundle.json").exists()
        ring._publish()
    assert bundle(site).sequence == 2


@pytest.mark.usefixtures("impatient")
def test_a_database_that_was_moved_tells_nothing_of_keys(site: Site) -> None:
    """What the open file still says may have been changed since in the one that took its place."""
    with site.serving() as service:
        database = site.settings.database_path
        database.rename(database.with_suffix(".away"))
        with pytest.raises(StoreError) as caught:
            service.keys.current()
        assert caught.value.code == "database-moved"
        database.with_suffix(".away").rename(database)
        service.keys.current()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("changed_before", [False, True])
def test_an_older_database_does_not_bring_a_key_back(site: Site, *, changed_before: bool) -> None:
    """A running service that is shown fewer changes than it knows of signs nothing and says so."""
    if changed_before:
        key(site, "prepare", "jwt")
    with site.serving() as service:
        alice, earlier = site.log_in("alice"), service.store.key_index()
        assert (earlier is not None) is changed_before
        key(site, "taint", one(site, "active"))
        service.keys.current()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Store, "key_index", lambda _: earlier)
            with pytest.raises(StoreError) as caught:
                service.keys.current()
            assert caught.value.code == "keys-rolled-back"
            assert mint(site, alice, status=503)["code"] == "keys-rolled-back"
            with site.client() as client:
                assert client.get("/readyz").json()["parts"]["keys"]["state"] == "failed"
        mint(site, alice)


def test_a_bundle_that_is_ahead_of_the_database(site: Site) -> None:
    """With token keys the database does not know, nothing starts; with something else in it, it counts."""
    key(site, "prepare", "token")
    path = site.directory / "bundle.json"
    document = json.loads(path.read_bytes())
    path.write_text(json.dumps(document | {"sequence": 9, "refresh_hint": 60}))
    key(site, "activate", "token", "--now")
    assert (bundle(site).sequence, bundle(site).refresh_hint) == (10, 60)
    path.write_text(json.dumps(document | {"sequence": 11}))
    error = key(site, "list", expect=1)
    assert error["code"] == "authority-mismatch"
    with pytest.raises(ConfigError, match="authority-mismatch"), site.serving():
        pass


@pytest.mark.usefixtures("impatient")
def test_there_is_one_bundle_of_each_sequence(site: Site) -> None:
    """What an administrator changed in the file of a running service is served with the next change of keys, not forgotten."""
    path = site.directory / "bundle.json"

    def served() -> dict[str, Any]:
        with site.client() as client:
            return dict(client.get("/.well-known/certauth/bundle").json())

    with site.serving():
        path.write_text(json.dumps(json.loads(path.read_bytes()) | {"sequence": 9, "refresh_hint": 60}))
        assert served()["sequence"] == 1
        key(site, "prepare", "token")
        assert (served()["sequence"], served()["refresh_hint"]) == (10, 60)
        assert served() == json.loads(path.read_bytes())


@pytest.mark.parametrize("members", [{"signer_url": "https://elsewhere.example"}, {"feed_key": "A" * 43}])
def test_who_we_are_is_not_learned_from_a_file_that_was_changed(site: Site, members: dict[str, object]) -> None:
    """Another name, or a key that is none, in the file of a running service is not what it serves next."""
    opened = ring_of(site)
    with opened as (loaded, ring, store):
        parts = {"authority": loaded, "store": store, "ledger": opened.ledger, "clock": system_clock, "by": "a", "why": "b"}
        before = ring.current().bundle
        path = site.directory / "bundle.json"
        path.write_text(json.dumps(json.loads(path.read_bytes()) | members | {"sequence": 2, "refresh_hint": 60}))
        KeyChanges(ring=ring, **parts).prepare(Use.TOKEN)
        after = bundle(site)
        assert (after.sequence, after.refresh_hint) == (2, before.refresh_hint)
        assert (after.signer_url, after.feed_url) == (before.signer_url, before.feed_url)


@pytest.mark.usefixtures("impatient")
def test_a_key_that_was_only_revoked_signs_nothing(site: Site) -> None:
    """An administrator may put the id into the feed over the network; a token nobody accepts is then not handed out."""
    text = site.settings_file.read_text()
    site.settings_file.write_text(f'admins = ["spiffe://facility.test/user/alice"]\n{text.replace("admins = []", "")}')
    with site.serving():
        alice, old = site.log_in("alice"), one(site, "active")
        with site.client(alice) as client:
            assert client.post("/v1/revocations", json={"kind": "kid", "value": old, "reason": "lost"}).status_code == 201
        error = mint(site, alice, status=503)
        assert (error["code"], f"key taint {old}" in error["hint"]) == ("signing-key-withdrawn", True)
        key(site, "taint", old)
        mint(site, alice)


@pytest.mark.usefixtures("impatient")
def test_a_key_for_jwts_that_was_only_revoked_is_not_published(site: Site) -> None:
    """Whoever verifies with the JWK set reads no feed, so the set must not name a key that the feed withdraws."""
    text = site.settings_file.read_text()
    site.settings_file.write_text(f'admins = ["spiffe://facility.test/user/alice"]\n{text.replace("admins = []", "")}')
    with site.serving(), site.client(site.log_in("alice")) as client:

        def names() -> list[str]:
            return [one["kid"] for one in client.get("/.well-known/jwks.json").json()["keys"]]

        old = one(site, "active", "jwt")
        assert names() == [old]
        assert client.post("/v1/revocations", json={"kind": "kid", "value": old, "reason": "lost"}).status_code == 201
        assert names() == []
        key(site, "taint", old)
        assert names() == [one(site, "active", "jwt")]


@pytest.mark.usefixtures("impatient")
def test_what_cannot_be_written_does_not_stop_the_service(site: Site) -> None:
    """The bundle on the disk is a copy; what is served is right without it."""
    with site.serving() as service:
        killed(site, "after the commit", "prepare", "token")
        (site.directory / "keys.lock").unlink()
        (site.directory / "keys.lock").mkdir()
        assert service.keys.current().bundle.sequence == 2
        assert bundle(site).sequence == 1
        with site.client() as client:
            assert client.get("/.well-known/certauth/bundle").json()["sequence"] == 2


def test_an_id_that_is_taken_is_not_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids have four bytes."""
    made = [keys.generate(Algorithm.ED25519) for _ in range(3)]
    taken, following = [keys.key_id(key.public_key) for key in made[:2]], iter(made)
    monkeypatch.setattr(key_changes.keys, "generate", lambda _: next(following))
    assert key_changes._new_key(Use.TOKEN, taken=taken) is made[2]


def test_a_first_key_file_that_does_not_open_is_left_alone(site: Site) -> None:
    """Who sweeps knows what they throw away."""
    with ring_of(site) as (loaded, ring, _):
        (site.directory / "keys" / "token.pem").write_bytes(b"?")
        loaded.key_files.sweep({ring.current().index.active(Use.JWT).kid})
    assert key_files(site) == {"token.pem", "jwt.pem"}
    assert State.ACTIVE in [entry.state for entry in ring.current().index.entries]


def test_usage_errors_name_what_there_is(site: Site) -> None:
    """No use of keys that are not for tokens, and help with an example for each command."""
    assert (
        run_cli("key", "prepare", "root", "--reason", "x", "--settings", site.settings_file, expect=2)["error"]["code"]
        == "usage"
    )
    with ring_of(site) as (_, ring, _), pytest.raises(UsageError):
        ring.current().index.named("ffffffff")

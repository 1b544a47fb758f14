"""The key that signs tokens is replaced, and stolen, under a running signer and running doors: nobody restarts anything.

The signer is a process of its own and the commands are others; three doors serve over mutual TLS. One reads the signer's
bundle, one asks the signer for newer ones than it was given, and one never sees another.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from certauth.clock import system_clock, whole_seconds
from certauth.keys import load_private
from certauth.names import TrustDomain
from certauth.tokens import Right, TokenSpec, mint, to_text
from certauth.tokens.codec import decode, from_text
from policy import bundle_source
from policy.trust import TrustState
from signer import authority
from tests.demo.stage import CERTAUTH
from tests.journeys import kit
from tests.journeys.kit import Door, context_for, until, verify_database
from tests.journeys.server import kill, serving
from tests.signer.kit import DOMAIN, Identity, Site, facility

pytestmark = pytest.mark.xdist_group("key rotation")


@dataclass(slots=True, kw_only=True)
class Place:
    """A facility that runs, with one user and three doors."""

    site: Site
    alice: Identity
    near: Door
    """Reads the signer's own file."""
    far: Door
    """Has a copy from the beginning, and the signer's address."""
    deaf: Door
    """Has a copy from the beginning."""
    process: subprocess.Popen[bytes]
    clients: dict[int, httpx2.Client] = field(default_factory=dict)

    def key(self, *arguments: str, status: int = 0) -> dict[str, Any]:
        """``certauth signer key …`` as a process of its own."""
        reason = [] if arguments[0] == "list" else ["--reason", "a journey"]
        command = [CERTAUTH, "signer", "key", *arguments, *reason, "--settings", self.site.settings_file, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        return dict(json.loads(done.stdout) if status == 0 else json.loads(done.stderr.splitlines()[-1])["error"])

    def active(self) -> str:
        """The id of the key that signs."""
        return next(str(one["kid"]) for one in self.key("list")["keys"] if (one["use"], one["state"]) == ("token", "active"))

    def mint(self) -> str:
        """A new token of alice."""
        return kit.mint(self.site, self.alice)

    def minted_by(self, kid: str) -> str:
        """A new token by this key, which the running signer may take a moment to know."""
        return str(until(lambda: text if kid_of(text := self.mint()) == kid else None))

    def use(self, door: Door, text: str) -> str:
        """What the door says to a token, over a connection that stays open: ``ok`` or the code of the refusal."""
        if id(door) not in self.clients:
            self.clients[id(door)] = door.client(context_for(self.site, self.alice))
        answer = self.clients[id(door)].get("/files/alice/x", headers={"authorization": f"Bearer {text}"})
        return "ok" if answer.status_code == 200 else str(answer.json()["code"])

    def fetch(self) -> None:
        """What a door elsewhere does every now and then, sooner: look at the signer's bundle."""
        data = (self.site.directory / "bundle.json").read_bytes()
        with self.site.client() as client:  # the signer takes a moment to notice what a command has changed
            until(lambda: client.get("/.well-known/certauth/bundle").content == data)
        self.far.middleware.trust.refresh()
        assert state_of(self.far).entries[TrustDomain(DOMAIN)].bundle.to_json() == data


def kid_of(text: str) -> str | None:
    """By which key a token says it was signed."""
    return decode(from_text(text)).kid


def state_of(door: Door) -> TrustState:
    """What a door believes."""
    return door.middleware.trust.state


def sequence(door: Door) -> int:
    """The sequence of the bundle that a door goes by."""
    return state_of(door).entries[TrustDomain(DOMAIN)].bundle.sequence


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """All of it, running."""
    monkeypatch.setattr(bundle_source, "BETWEEN", 1.0)
    with facility(tmp_path) as site, contextlib.ExitStack() as stack:
        site.enroll("alice", "files:read:/alice/")
        process = stack.enter_context(serving(site))
        copies = {name: tmp_path / f"{name}-bundle.json" for name in ("far", "deaf")}
        for copy in copies.values():
            copy.write_bytes((site.directory / "bundle.json").read_bytes())
        urls = {"far": f"{site.url}/.well-known/certauth/bundle", "deaf": "none"}
        doors = {
            name: stack.enter_context(kit.door(site, tmp_path / name, bundle=copy, bundle_url=urls[name]))
            for name, copy in copies.items()
        }
        near = stack.enter_context(kit.door(site, tmp_path / "near"))
        made = Place(site=site, alice=site.log_in("alice"), near=near, **doors, process=process)
        stack.callback(lambda: [client.close() for client in made.clients.values()])
        yield made


class Users(threading.Thread):
    """Somebody who goes on minting tokens and using old and new ones at doors, and writes down every refusal."""

    def __init__(self, place: Place, *doors: Door) -> None:
        super().__init__(daemon=True)
        self._place, self._doors = place, doors
        self._stopping = threading.Event()
        self.refused: list[str] = []
        self.kids: list[str | None] = []

    def run(self) -> None:
        place, first = self._place, self._place.mint()
        clients = [(door, door.client(context_for(place.site, place.alice))) for door in self._doors]
        while not self._stopping.is_set():
            for text in (first, new := place.mint()):
                for _, client in clients:
                    answer = client.get("/files/alice/x", headers={"authorization": f"Bearer {text}"})
                    if answer.status_code != 200:
                        self.refused.append(f"{kid_of(text)} {answer.text}")
            self.kids.append(kid_of(new))
            self._stopping.wait(0.1)  # the signer answers one principal 600 times a minute
        for _, client in clients:
            client.close()

    def stop(self) -> None:
        self._stopping.set()
        self.join(kit.SECONDS)


def test_a_new_key_signs_and_no_live_token_is_refused(place: Place) -> None:
    """From before the preparation until after the activation every token works; only who fetches nothing is left behind."""
    old, former = place.mint(), place.active()
    assert [place.use(door, old) for door in (place.near, place.far, place.deaf)] == ["ok"] * 3
    users = Users(place, place.near, place.far)
    users.start()
    prepared = place.key("prepare", "token")["changed"][0]["kid"]
    until(lambda: sequence(place.near) == 2)
    place.fetch()
    assert sequence(place.far) == 2
    assert place.use(place.near, old) == place.use(place.far, old) == "ok"
    assert kid_of(place.mint()) == former, "a prepared key signs nothing"
    assert place.key("activate", "token", status=2)["code"] == "key-too-new"
    until(lambda: len(users.kids) > 3)
    place.key("activate", "token", "--now")
    new = place.minted_by(prepared)
    assert [place.use(door, text) for door in (place.near, place.far) for text in (old, new)] == ["ok"] * 4
    assert [place.use(place.deaf, text) for text in (old, new)] == ["ok", "token-unknown-key"], "a control: it knows no new key"
    until(lambda: users.kids[-1:] == [prepared])
    users.stop()
    assert users.refused == []
    assert set(users.kids) == {former, prepared}
    # Retired too early, it would take live tokens with it.
    assert place.key("retire", former, status=2)["code"] == "key-needed"
    assert place.use(place.near, old) == "ok"
    place.key("retire", former, "--force")
    until(lambda: sequence(place.near) == 4)
    assert [place.use(place.near, text) for text in (old, new)] == ["token-unknown-key", "ok"]
    # What runs and what is on the disk say the same, also after the process was killed.
    assert place.process.poll() is None
    kill(place.process)
    with serving(place.site):
        assert kid_of(place.mint()) == prepared
        assert place.use(place.near, new) == "ok"
    verify_database(place.site)


def test_a_stolen_key_is_worth_nothing_anywhere(place: Place) -> None:
    """Genuine and forged tokens of it are refused, by who reads the bundle and by who only hears the feed; new ones work."""
    old, stolen = place.mint(), place.active()
    thief = load_private(
        place.site.directory / "keys" / "token.pem", passphrase=authority.read_passphrase(place.site.settings, {})
    )
    now = whole_seconds(system_clock())
    forged = to_text(
        mint(
            TokenSpec(
                issuer=f"spiffe://{DOMAIN}",
                jti="f0" * 16,
                user=f"spiffe://{DOMAIN}/user/alice",
                issued_at=now,
                not_before=now,
                expires_at=now + timedelta(days=365),
                audience=("files",),
                rights=(Right("files", "read", "/"),),
                assurance=2,
                peer_fingerprint=place.alice.fingerprint,
            ),
            thief,
        )
    )
    everywhere = (place.near, place.far, place.deaf)
    assert [place.use(door, text) for door in everywhere for text in (old, forged)] == ["ok"] * 6, "the attack works until then"
    changed = {one["kid"]: one["state"] for one in place.key("taint", stolen)["changed"]}
    assert changed[stolen] == "tainted"
    (successor,) = [kid for kid, state in changed.items() if state == "active"]
    for door in everywhere:
        until(lambda door=door: place.use(door, old) == "token-revoked")
        assert place.use(door, forged) == "token-revoked"
    new = place.minted_by(successor)
    until(lambda: place.use(place.near, new) == "ok")
    copy = (place.far.directory.parent / "far-bundle.json").read_bytes()
    assert place.use(place.far, new) == "token-unknown-key", "a control: it has not fetched the new key yet"
    until(lambda: place.use(place.far, new) == "ok")  # nobody told it, and nobody touched its file
    assert (place.far.directory.parent / "far-bundle.json").read_bytes() == copy
    assert [place.use(place.far, text) for text in (old, forged, new)] == ["token-revoked", "token-revoked", "ok"]
    # The old key leaves the bundle, and is still refused as withdrawn by whoever holds an old bundle.
    place.key("retire", stolen)
    assert place.use(place.deaf, forged) == "token-revoked"
    until(lambda: sequence(place.near) == 4)
    assert [place.use(place.near, text) for text in (forged, new)] == ["token-unknown-key", "ok"]
    assert place.process.poll() is None

"""Keeping a certificate alive, at a real signer: what is due when, what is tried again, and what ends it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from certauth.client import agents, tokens
from certauth.client.agents import AgentRecord, AgentWish
from certauth.client.http import Client
from certauth.client.keeping import LONGEST_WAIT, SHORTEST_WAIT, Keeper, due
from certauth.client.profile import Home, Profile
from certauth.client.wishes import read_wishes
from certauth.clock import system_clock
from certauth.errors import LoginRequired, Refused, UnavailableError
from certauth.requests import Right
from signer.service import Service
from tests.signer.client_home import log_in
from tests.signer.kit import MovableClock, Site, facility

READ = Right.make("read", "/alice/")
THIRD = Fraction(1, 3)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A facility with one person."""
    with facility(tmp_path_factory.mktemp("site")) as made:
        made.enroll("alice", "files:read,write:/alice/")
        made.enroll("loser", "files:read,write:/alice/")
        yield made


@pytest.fixture(scope="module")
def service(site: Site) -> Iterator[Service]:
    """The running service."""
    with site.serving() as running:
        yield running


@pytest.fixture
def alice(site: Site, service: Service, tmp_path: Path) -> tuple[Home, Profile]:
    """Somebody with a certificate of an hour."""
    return log_in(site, "alice", tmp_path / "alice", lifetime=3600)


def mint(profile: Profile, name: str, minutes: int, right: Right = READ) -> tokens.Minted:
    """A stored token."""
    return tokens.mint(
        profile,
        audience="files",
        rights=(right,),
        lifetime=timedelta(minutes=minutes),
        delegations=1,
        name=name,
        ca=None,
        clock=system_clock,
    )


def keeper(who: tuple[Home, Profile], clock: MovableClock, **changes: Any) -> Keeper:
    """One that does not leave anything to chance."""
    usual: dict[str, Any] = {"before": THIRD, "lifetime": None, "ca": None, "clock": clock, "chance": lambda: 0.0}
    return Keeper(who[0], who[1], AgentRecord.read(who[0].directory), **(usual | changes))


@dataclass
class Watching:
    """What a run said, and how often it acted; it is stopped after so many waits."""

    after: int
    lines: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    acts: int = 0

    def stopped(self, seconds: float) -> bool:
        self.waits.append(seconds)
        return len(self.waits) >= self.after

    def acted(self) -> None:
        self.acts += 1


def run(one: Keeper, waits: int = 1) -> Watching:
    """So many turns."""
    watching = Watching(waits)
    one.run(stopped=watching.stopped, tell=watching.lines.append, acted=watching.acted)
    return watching


def test_nothing_is_done_before_it_is_due(alice: tuple[Home, Profile]):
    """A certificate of an hour is left alone for forty minutes."""
    clock, before = MovableClock(), alice[1].stored_credential().fingerprint
    watching = run(keeper(alice, clock), 3)
    assert (watching.lines, watching.acts) == ([], 0)
    assert watching.waits == [LONGEST_WAIT] * 3
    clock.offset = timedelta(minutes=36)
    assert SHORTEST_WAIT <= run(keeper(alice, clock)).waits[0] <= LONGEST_WAIT
    assert alice[1].stored_credential().fingerprint == before
    clock.offset = timedelta(minutes=41)
    assert run(keeper(alice, clock)).acts == 1
    assert alice[1].stored_credential().fingerprint != before


def test_chance_spreads_what_began_together(alice: tuple[Home, Profile]):
    """Never later than without it."""
    clock = MovableClock(offset=timedelta(minutes=38))
    exact = run(keeper(alice, clock)).waits[0]
    earlier = run(keeper(alice, clock, chance=lambda: 1.0)).waits[0]
    assert earlier < exact


def test_a_token_that_ends_first_is_replaced_first(alice: tuple[Home, Profile]):
    """Alone: the certificate stays, the tokens that live longer stay, and one that ends with its certificate stays."""
    profile, clock = alice[1], MovableClock()
    brief, longer, all_along = (mint(profile, name, minutes) for name, minutes in (("brief", 3), ("longer", 40), ("all", 90)))
    assert due(profile, before=THIRD, last=False, now=clock()).tokens == ()
    assert longer.token.expires_at < all_along.token.expires_at
    clock.offset = timedelta(minutes=2, seconds=10)
    assert due(profile, before=THIRD, last=False, now=clock()).tokens == ("brief",)
    certificate = profile.stored_credential().fingerprint
    watching = run(keeper(alice, clock, before=Fraction(1, 4)))
    assert watching.lines == []
    clock.offset = timedelta(minutes=2, seconds=40)
    one = keeper(alice, clock)
    line = one.turn().line
    assert line is not None
    assert line.startswith("renewed the tokens brief")
    assert profile.stored_credential().fingerprint == certificate
    assert brief.token.jti not in {wish.jti for wish in wishes(profile)}
    for name, minted in (("longer", longer), ("all", all_along)):
        assert profile.token(name) is not None
        assert minted.token.jti in {wish.jti for wish in wishes(profile)}, name


def wishes(profile: Profile) -> Any:
    """Of all stored tokens."""
    return read_wishes(profile, profile.stored_credential().fingerprint, now=system_clock())


def test_a_token_that_is_refused_is_not_asked_for_again_and_again(site: Site, service: Service, tmp_path: Path):
    """Said once; the others go on, and the refused one stays until it ends."""
    who, clock = log_in(site, "loser", tmp_path / "loser", lifetime=3600), MovableClock()
    mint(who[1], "reads", 3)
    mint(who[1], "writes", 3, Right.make("write", "/alice/"))
    site.enroll("loser", "files:read:/alice/")
    clock.offset = timedelta(minutes=2, seconds=30)
    one = keeper(who, clock)
    first = one.turn().line
    assert first is not None
    assert "lost writes (right-not-held)" in first
    seen: list[str] = []
    for _ in range(3):
        clock.offset = timedelta(0)  # for what was minted now is due again by the clock of before
        seen += [line for line in [one.turn().line] if line]
    assert not any("writes" in line for line in seen)
    assert who[1].token("writes") is not None


def test_a_signer_that_is_down_is_asked_ever_more_seldom(alice: tuple[Home, Profile], monkeypatch: pytest.MonkeyPatch):
    """What is stored stays; when it is back, the next turn succeeds, and the count begins anew."""
    clock = MovableClock(offset=timedelta(minutes=45))
    before, real = alice[1].stored_credential().fingerprint, Client.post_again
    waiting = [None, None, 30, None, None, None, None, None, None, None]

    def down(self: Client, url: str, value: Any) -> Any:
        raise UnavailableError("unreachable", "nobody is there", retry_after=waiting.pop(0))

    monkeypatch.setattr(Client, "post_again", down)
    one = keeper(alice, clock, chance=lambda: 0.5)
    watching = run(one, 10)
    assert watching.waits == [5, 10, 30, 40, 80, 160, 320, 600, 600, 600]
    assert watching.acts == 0
    assert all("not renewed: nobody is there [unreachable]" in line for line in watching.lines)
    assert alice[1].stored_credential().fingerprint == before
    monkeypatch.setattr(Client, "post_again", real)
    assert run(one).acts == 1
    monkeypatch.setattr(Client, "post_again", down)
    waiting.append(None)
    clock.offset += timedelta(hours=7)
    assert run(one).waits == [5]


def test_a_clock_that_is_wrong_does_not_fill_the_log(alice: tuple[Home, Profile]):
    """Hours ahead of the signer's, every new certificate looks as if it were due again: that is said, and waited with."""
    clock = MovableClock(offset=timedelta(minutes=50))
    one = keeper(alice, clock, lifetime=timedelta(hours=1), chance=lambda: 0.5)
    watching = run(one, 3)
    assert watching.waits == [5, 10, 20]
    assert all("compare this machine's clock" in line for line in watching.lines)


def test_a_session_at_its_end_is_used_to_its_end(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path):
    """The last certificate is said to be it, or that there is none; nothing more is asked; then a login is asked for."""
    with facility(tmp_path_factory.mktemp("last")) as place:
        place.settings_file.write_text(place.settings_file.read_text() + '\n[limits]\nsession = "2h"\n')
        place.enroll("alice", "files:read:/alice/")
        with place.serving():
            homes = [log_in(place, "alice", tmp_path / name, lifetime=7200) for name in ("one", "late")]
            clock = place.clock
            clock.offset = timedelta(minutes=100)
            one = keeper(homes[0], clock)
            line = one.turn().line
            assert line is not None
            assert line.endswith("it is the last one"), line
            assert run(one, 2).lines == []
            clock.offset = timedelta(hours=1, minutes=59, seconds=20)
            late = keeper(homes[1], clock)
            line = late.turn().line
            assert line is not None
            assert line.startswith("not renewed, and will not be"), line
            assert run(late).lines == []
            clock.offset = timedelta(hours=2, minutes=1)
            for ended in (one, late):
                with pytest.raises(LoginRequired) as caught:
                    ended.turn()
                assert caught.value.hint == f"certauth login {place.url}"


def test_what_is_refused_ends_it(alice: tuple[Home, Profile], tmp_path: Path):
    """A stopped agent is not kept: its certificate is withdrawn."""
    wish = AgentWish(name="ended", rights=(("files", READ),), services=("files",), networks=(), lifetime=timedelta(days=1))
    agents.create(alice[1], wish, tmp_path / "job", ca=None, clock=system_clock)
    home = Home(tmp_path / "job")
    agent = (home, home.active())
    agents.stop(alice[1], "ended", reason="done", ca=None, clock=system_clock)
    with pytest.raises(LoginRequired) as caught:
        run(keeper(agent, MovableClock(offset=timedelta(hours=7))))
    assert caught.value.code == "certificate-revoked"
    agent[1].forget()
    with pytest.raises(Refused) as refused:
        run(keeper(agent, MovableClock()))
    assert refused.value.code == "principal-disabled"


def test_an_agent_without_a_certificate_gets_one(alice: tuple[Home, Profile], tmp_path: Path):
    """And goes on; a person has to log in."""
    wish = AgentWish(name="lost", rights=(("files", READ),), services=("files",), networks=(), lifetime=timedelta(days=1))
    agents.create(alice[1], wish, tmp_path / "job", ca=None, clock=system_clock)
    home = Home(tmp_path / "job")
    agent = (home, home.active())
    agent[1].forget()
    assert run(keeper(agent, MovableClock())).acts == 1
    assert agent[1].credential(now=system_clock())
    alice[1].forget()
    with pytest.raises(LoginRequired):
        run(keeper(alice, MovableClock()))

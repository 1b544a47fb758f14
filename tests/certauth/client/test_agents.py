"""Agents from their owner's side, with a real signer: what is made and kept, and what must not be believed."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from certauth.audit import record
from certauth.client import agents, tokens
from certauth.client.agents import AgentRecord, AgentWish, agent_key
from certauth.client.profile import Home, Profile
from certauth.clock import system_clock
from certauth.errors import (
    AnswerError,
    LogError,
    LoginRequired,
    Refused,
    RequestError,
    StoreError,
    UnavailableError,
    UsageError,
)
from certauth.keys import Algorithm, generate, save_private
from certauth.names import Principal
from certauth.requests import Right
from signer.service import Service
from tests.signer.client_home import log_in
from tests.signer.kit import DOMAIN, Site, facility
from tests.simulator.hostile_signer import HostileSigner

READ = ("files", Right.make("read", "/alice/run7/"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A facility with two people."""
    with facility(tmp_path_factory.mktemp("site")) as made:
        made.enroll("alice", "files:read,write:/alice/", "mail:send:/")
        made.enroll("bob", "files:read:/bob/")
        yield made


@pytest.fixture(scope="module")
def service(site: Site) -> Iterator[Service]:
    """The running service."""
    with site.serving() as running:
        yield running


@pytest.fixture
def owner(site: Site, service: Service, tmp_path: Path) -> tuple[Home, Profile]:
    """Alice, logged in."""
    return log_in(site, "alice", tmp_path / "alice")


def wish(name: str, **changes: Any) -> AgentWish:
    """For fourteen days of reading."""
    usual: dict[str, Any] = {
        "rights": (READ,),
        "services": ("files",),
        "networks": (),
        "lifetime": timedelta(days=14),
    }
    return AgentWish(name=name, **(usual | changes))


def make(owner: tuple[Home, Profile], directory: Path, name: str, **changes: Any) -> agents.Created:
    """An agent."""
    return agents.create(owner[1], wish(name, **changes), directory, ca=None, clock=system_clock)


def test_an_agents_directory_is_all_it_needs(owner: tuple[Home, Profile], tmp_path: Path):
    """It holds a key, a certificate and how to go on, for nobody else's eyes; tokens are minted there as by a person."""
    made = make(owner, tmp_path / "job", "complete")
    assert made.record.principal == f"spiffe://{DOMAIN}/agent/alice.complete"
    assert made.rights == (("files", "read", "/alice/run7/"),)
    assert made.clamped is None
    assert str(made.login.credential.principal) == made.record.principal
    assert agents.ends(made.record) > system_clock() + timedelta(days=13)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "job").rglob("*")}
    assert stat.S_IMODE((tmp_path / "job").stat().st_mode) == 0o700
    assert all(mode & 0o077 == 0 for mode in modes.values()), modes
    assert AgentRecord.read(tmp_path / "job") == made.record
    profile = Home(tmp_path / "job").active()
    minted = tokens.mint(
        profile, audience="files", rights=None, lifetime=None, delegations=1, name="t", ca=None, clock=system_clock
    )
    assert minted.token.user == made.record.principal
    assert agent_key(made.record, Home(tmp_path / "job")).public_key != made.login.credential.key.public_key


def test_a_persons_home_is_no_agents(owner: tuple[Home, Profile]):
    """There is no record in it."""
    assert AgentRecord.read(owner[0].directory) is None


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"principal":"x"}', "not json"])
def test_a_damaged_record_is_not_used(tmp_path: Path, text: str):
    """Nor taken for a person's home."""
    path = tmp_path / "agent.json"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(StoreError) as caught:
        AgentRecord.read(tmp_path)
    assert caught.value.code == "agent-damaged"


def test_a_record_with_a_hostile_domain_is_not_used(owner: tuple[Home, Profile], tmp_path: Path):
    """The domain is the name of a directory."""
    make(owner, tmp_path / "job", "hostile-domain")
    path = tmp_path / "job" / "agent.json"
    path.write_text(path.read_text().replace(f'"domain":"{DOMAIN}"', '"domain":"../../etc"'))
    with pytest.raises(StoreError):
        AgentRecord.read(tmp_path / "job")


def test_what_is_refused_leaves_no_key(owner: tuple[Home, Profile], tmp_path: Path):
    """Somebody who is refused an agent has no directory that looks like one."""
    for changes, code in (
        ({"rights": (("files", Right.make("read", "/bob/")),)}, "right-not-held"),
        ({"rights": None, "services": ("nowhere",)}, "right-not-held"),
        ({"lifetime": timedelta(seconds=1)}, "lifetime-invalid"),
        ({"networks": ("192.0.2.1/24",)}, "agent-networks"),
    ):
        with pytest.raises(Refused) as caught:
            make(owner, tmp_path / "job", "refused", **changes)
        assert caught.value.code == code
        assert not (tmp_path / "job").exists()


def test_a_directory_in_use_is_left_alone(owner: tuple[Home, Profile], tmp_path: Path):
    """Nothing is overwritten, and a link leads nowhere."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("x")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("full", "file", "link"):
        with pytest.raises(UsageError) as caught:
            make(owner, tmp_path / name, "nowhere")
        assert caught.value.code == "agent-directory"
    assert (tmp_path / "full" / "precious").read_text() == "x"
    (tmp_path / "empty").mkdir(mode=0o755)
    make(owner, tmp_path / "empty", "empty")
    assert stat.S_IMODE((tmp_path / "empty").stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["../x", "a/b", ".x", "", "A"])
def test_a_name_is_one_plain_word(owner: tuple[Home, Profile], tmp_path: Path, name: str):
    """Here already: it becomes the name of a directory."""
    with pytest.raises(RequestError) as caught:
        make(owner, tmp_path / "job", name)
    assert caught.value.code == "bad-name"
    assert not (tmp_path / "job").exists()


def test_everything_is_what_the_owner_holds(owner: tuple[Home, Profile], tmp_path: Path):
    """At all services, or at those named."""
    assert {one[0] for one in make(owner, tmp_path / "a", "everything", rights=None, services=()).rights} == {"files", "mail"}
    assert {one[0] for one in make(owner, tmp_path / "b", "mails", rights=None, services=("mail",)).rights} == {"mail"}


def test_a_longer_life_than_allowed_is_cut(owner: tuple[Home, Profile], tmp_path: Path):
    """And said."""
    made = make(owner, tmp_path / "job", "long", lifetime=timedelta(days=900), networks=("127.0.0.0/8",))
    assert made.clamped is not None
    assert made.clamped["granted"] == 30 * 86_400


def test_what_is_enrolled_and_has_no_certificate_goes_on_later(owner: tuple[Home, Profile], tmp_path: Path):
    """The directory stays, and the hint says how to go on; from here no certificate is given to it."""
    with pytest.raises(Refused) as caught:
        make(owner, tmp_path / "job", "away", networks=("192.0.2.0/24",))
    assert caught.value.code == "address-not-allowed"
    assert f"CERTAUTH_HOME={tmp_path / 'job'}" in str(caught.value.hint)
    assert AgentRecord.read(tmp_path / "job") is not None


def test_list_and_stop(site: Site, owner: tuple[Home, Profile], tmp_path: Path):
    """The owner sees it, nobody else stops it, and stopping it twice is stopping it once."""
    made = make(owner, tmp_path / "job", "listed")
    _, bob = log_in(site, "bob", tmp_path / "bob")
    found = {one["name"]: one for one in agents.listing(owner[1], ca=None, clock=system_clock)}
    assert (found["listed"]["state"], found["listed"]["principal"]) == ("active", made.record.principal)
    assert agents.listing(bob, ca=None, clock=system_clock) == []
    with pytest.raises(Refused) as caught:
        agents.stop(bob, "listed", reason="mine", ca=None, clock=system_clock)
    assert caught.value.code == "agent-unknown"
    assert agents.stop(owner[1], "listed", reason="done", ca=None, clock=system_clock) is True
    assert agents.stop(owner[1], "listed", reason="done", ca=None, clock=system_clock) is False
    profile = Home(tmp_path / "job").active()
    with pytest.raises(LoginRequired) as dead:
        tokens.mint(profile, audience="files", rights=None, lifetime=None, delegations=1, name="t", ca=None, clock=system_clock)
    assert dead.value.code == "certificate-revoked"


# --- lies ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hostile(signer: HostileSigner, log_me_in: Any) -> tuple[HostileSigner, Profile]:
    """Somebody logged in at a signer that can lie."""
    return signer, log_me_in().profile


AGENTS = "/v1/agents"


def answered(signer: HostileSigner, path: str, answer: Any) -> None:
    """What the signer says there; it knows no agents by itself."""
    signer.lies[path] = lambda _: answer


def test_an_answer_without_its_record_makes_no_agent(hostile: tuple[HostileSigner, Profile], tmp_path: Path):
    """The receipt of something else, of another agent, or none."""
    signer, profile = hostile
    other = record.EnrolmentChanged(
        action="agent-create",
        principal=Principal.parse("spiffe://hostile.example/agent/alice.other"),
        by="x",
        why="y",
        commitments=(),
    )
    stopped = record.ServiceStarted(version="0", config="0" * 64)
    for event in (other, stopped):
        receipt = signer.receipt(event).to_dict()
        answered(signer, AGENTS, {"expires_at": "2030-01-01T00:00:00Z", "receipt": receipt})
        with pytest.raises(AnswerError) as caught:
            agents.create(profile, wish("job"), tmp_path / "job", ca=None, clock=system_clock)
        assert caught.value.code == "wrong-receipt"
        assert not (tmp_path / "job").exists()
        answered(signer, f"{AGENTS}/job/stop", {"state": "stopped", "receipt": receipt})
        with pytest.raises(AnswerError):
            agents.stop(profile, "job", reason="x", ca=None, clock=system_clock)
    answered(signer, AGENTS, {"expires_at": "2030-01-01T00:00:00Z"})
    with pytest.raises(LogError):
        agents.create(profile, wish("job"), tmp_path / "job", ca=None, clock=system_clock)


@pytest.mark.parametrize("answer", [{}, {"agents": {}}, {"agents": [{"name": 1}]}, {"agents": [{"name": "x"}]}])
def test_a_list_that_is_none_is_refused(hostile: tuple[HostileSigner, Profile], answer: Any):
    """Rather than shown as if there were no agents."""
    signer, profile = hostile
    answered(signer, AGENTS, answer)
    with pytest.raises(AnswerError) as caught:
        agents.listing(profile, ca=None, clock=system_clock)
    assert caught.value.code == "bad-answer"


def test_a_stop_that_is_not_confirmed_is_none(hostile: tuple[HostileSigner, Profile]):
    """The owner must not believe that it is over."""
    signer, profile = hostile
    answered(signer, f"{AGENTS}/job/stop", {"state": "active"})
    with pytest.raises(AnswerError) as caught:
        agents.stop(profile, "job", reason="x", ca=None, clock=system_clock)
    assert caught.value.code == "wrong-receipt"


def test_an_owner_who_is_not_logged_in_asks_nobody(owner: tuple[Home, Profile], tmp_path: Path):
    """And nothing is written."""
    owner[1].forget()
    with pytest.raises(LoginRequired):
        make(owner, tmp_path / "job", "nobodys")
    assert not (tmp_path / "job").exists()


def test_another_key_is_not_the_agents(owner: tuple[Home, Profile], tmp_path: Path):
    """Who replaces the enrolled key proves nothing."""
    made = make(owner, tmp_path / "job", "robbed")
    home = Home(tmp_path / "job")
    save_private(tmp_path / "job" / "agent.key", generate(Algorithm.P256), passphrase=None)
    with pytest.raises(Refused) as caught:
        agents.prove(made.record, home, ca=None, lifetime=None, clock=system_clock, into=Home(tmp_path / "other"))
    assert caught.value.code == "unknown-key"


def test_a_signer_that_is_down_leaves_no_key(owner: tuple[Home, Profile], tmp_path: Path):
    """The outcome is unknown; the key is gone, so whatever became of it, nobody can use it."""
    record = owner[1].signer()
    path = owner[1].directory / "signer.json"
    path.write_text(path.read_text().replace(record.url, "https://127.0.0.1:1"))
    with pytest.raises(UnavailableError):
        make(owner, tmp_path / "job", "unreached")
    assert not (tmp_path / "job").exists()

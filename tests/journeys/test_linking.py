"""A person with accounts at two providers becomes one person: the real program, the real signer, providers that are not ours.

Each way of logging in links as well. Beside each stands what must not link: a proof for no key, somebody else's login, a
session that is not there.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from certauth import keys
from certauth.client.profile import Home
from certauth.clock import system_clock
from certauth.keys import Algorithm
from signer.log_reader import open_offline
from tests.journeys.kit import verify_database
from tests.journeys.login_place import AUDIENCE, Login, Place, dpop_key, place, run
from tests.journeys.server import serving
from tests.signer.kit import Identity, make_csr
from tests.simulator import node_provider as node

pytestmark = pytest.mark.xdist_group("real login flows")

TYPE_CODE = r"type this code:  (\S+?)(?:\\n|\s)"


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The facility, served by a process of its own; no rule gives anybody a name."""
    with place(tmp_path_factory.mktemp("place")) as made:
        settings = made.site.settings_file
        text, count = re.subn(r'subject = "user/.*\n', "", settings.read_text())
        assert count == 3
        settings.write_text(text)
        with serving(made.site):
            yield made


def browser(at: Place, user: str) -> tuple[str, ...]:
    """The options with which ``user`` logs in at campus, in a browser that opens here."""
    command = f"{sys.executable} -m tests.simulator.openid_provider --user {user} --ca-file {at.campus.ca_file} --browse"
    return ("--issuer", "campus", "--browser-command", command)


def log_in(at: Place, home: Path, user: str) -> str:
    """A login at campus; who it is."""
    with Login(at, home, *browser(at, user)) as login:
        return str(login.ends()["principal"])


def mediated(at: Place, home: Path, user: str, *words: object) -> dict[str, object]:
    """A login at hpc through the signer's pages."""
    with Login(at, home, "--issuer", "hpc", "--mediated", *words) as login:
        at.finish(login.says(TYPE_CODE), user, at="hpc")
        return login.ends()


def device(at: Place, home: Path, user: str, *words: object) -> dict[str, object]:
    """A login at hpc's device page."""
    with Login(at, home, "--issuer", "hpc", "--device", *words) as login:
        said = login.says(r"(https://\S+?(?:\\n|\s)+and type this code:  [A-Z-]+)")
        node.approve_device(at.hpc, user, said.split("\\n")[0].split()[0], said.split()[-1])
        return login.ends()


def acts(at: Place) -> list[dict[str, object]]:
    """Every change of an enrolment in the log."""
    with open_offline(at.site.settings.database_path) as reader:
        entries = [json.loads(entry.body) for entry in reader.entries()]
    return [entry["enrolment"] for entry in entries if entry["kind"] == "enrolment.change"]


def test_through_the_signers_pages(at: Place, tmp_path: Path) -> None:
    """Linked, the second login gives the same principal on another machine; nothing stored here has changed."""
    who = log_in(at, tmp_path / "laptop", "alice")
    before = run(tmp_path / "laptop", "whoami")
    done = mediated(at, tmp_path / "laptop", "alice", "--link")
    assert done == {"domain": before["domain"], "signer": at.url, "principal": who, "issuer": "hpc", "linked": True}
    assert run(tmp_path / "laptop", "whoami") == before
    assert mediated(at, tmp_path / "cluster", "alice")["principal"] == who
    linked = [act for act in acts(at) if act["action"] == "link" and act["principal"] == who]
    assert [act["by"] for act in linked] == [who]
    verify_database(at.site)
    # A login that leads to somebody leads there for good: neither again to oneself nor to anybody else.
    with Login(at, tmp_path / "laptop", "--link", "--issuer", "hpc", "--mediated") as login:
        at.finish(login.says(TYPE_CODE), "alice", at="hpc")
        again = login.ends(3)
    assert (again["code"], bool(again["hint"])) == ("already-linked", True)
    log_in(at, tmp_path / "mallory", "bob")
    with Login(at, tmp_path / "mallory", "--link", "--issuer", "hpc", "--mediated") as login:
        at.finish(login.says(TYPE_CODE), "alice", at="hpc")
        taken = login.ends(3)
    assert (taken["code"], bool(taken["hint"])) == ("login-taken", True)


def test_with_the_device_grant(at: Place, tmp_path: Path) -> None:
    """The access token that the provider signs is for the key of the certificate that is there (DPoP)."""
    who = log_in(at, tmp_path / "laptop", "bob")
    assert device(at, tmp_path / "laptop", "bob", "--link")["linked"] is True
    assert device(at, tmp_path / "cluster", "bob")["principal"] == who


def test_a_token_that_is_bound_to_no_key_links_nothing(at: Place, tmp_path: Path) -> None:
    """Where such tokens are good for a certificate, they still make nobody's login somebody else's: anybody may hold one."""
    log_in(at, tmp_path / "mallory", "bob")
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text(node.log_in(at.opaque, "alice", resource=AUDIENCE)["access_token"])
    with Login(at, tmp_path / "mallory", "--link", "--issuer", "opaque", "--token", token) as login:
        refused = login.ends(3)
    assert (refused["code"], bool(refused["hint"])) == ("key-not-bound", True)


def test_a_proof_for_another_key_links_nothing(at: Place, tmp_path: Path) -> None:
    """Mallory got hold of an access token of Alice's that is bound to a key of hers."""
    log_in(at, tmp_path / "mallory", "bob")
    credential = Home(tmp_path / "mallory").active().credential(now=system_clock())
    mallory = Identity(key=credential.key, chain=list(credential.chain))
    before, (_, prover) = acts(at), dpop_key()
    stolen = node.device_login(at.hpc, "alice", dpop=prover, resource=AUDIENCE)["access_token"]
    proof = {"type": "access_token", "token": stolen}
    with at.site.client(mallory) as client:
        answer = client.post("/v1/links", json={"csr": make_csr(mallory.key), "proof": proof})
        assert (answer.status_code, answer.json()["code"]) == (401, "key-not-bound"), answer.text
        other = client.post("/v1/links", json={"csr": make_csr(keys.generate(Algorithm.P256)), "proof": proof})
        assert (other.status_code, other.json()["code"]) == (400, "key-mismatch"), other.text
    assert acts(at) == before


def test_without_a_session_there_is_nothing_to_link_to(at: Place, tmp_path: Path) -> None:
    """Exit status 4 and the command to run; no browser was opened for nothing."""
    with Login(at, tmp_path, "--link", *browser(at, "alice")) as login:
        error = login.ends(4)
    assert (error["code"], error["hint"]) == ("not-logged-in", f"certauth login {at.url}")
    log_in(at, tmp_path, "alice")
    run(tmp_path, "logout")
    with Login(at, tmp_path, "--link", *browser(at, "alice")) as login:
        error = login.ends(4)
    assert (error["code"], error["hint"]) == ("not-logged-in", f"certauth login {at.url}")

"""``certauth token mint``, and what all commands about tokens share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.certauth.cli.conftest import Run
from tests.certauth.cli.holders import answer_of
from tests.simulator.hostile_signer import HostileSigner, problem


def test_mint_says_what_was_granted(signer: HostileSigner, run: Run, home: Path):
    """A minted token is stored under the service's name or the one given; its text is not printed."""
    done = run("token", "mint", "data", "--read", "/a/", "--write", "/a/b", "--right", "delete:/c", "--json", "--name", "x")
    assert done.status == 0
    assert done.data["rights"] == [["data", "read", "/a/"], ["data", "write", "/a/b"], ["data", "delete", "/c"]]
    stored = Path(str(done.data["stored"]))
    assert stored.read_text().strip() not in done.text
    signer.lies["/v1/tokens"] = lambda answer: answer | {"clamped": {"requested": 28800, "granted": 3600, "by": "cap"}}
    said = run("token", "mint", "data", "--delegations", "0").text
    assert "8 h asked, 1 h granted" in said
    assert "delegable  no" in said
    signer.lies["/v1/tokens"] = lambda answer: answer | {"clamped": {"cut": True}}
    assert "the signer cut the lifetime" in run("token", "mint", "data").text
    assert str(home) in said


def test_mint_asks_for_a_chain_of_delegations_and_says_if_it_is_shorter(signer: HostileSigner, run: Run, home: Path):
    """--delegations is sent, and a signer that grants fewer is not passed over in silence."""
    said = run("token", "mint", "data", "--delegations", "3").text
    assert json.loads(signer.seen[-1][3])["delegations"] == 3
    assert "can be handed on once, not 3 times" in said
    assert "delegable  yes\n" in said
    signer.lies["/v1/tokens"] = lambda _: answer_of(signer, home, delegation_depth=3)
    assert "delegable  yes, 3 times, one holder to the next\n" in run("token", "mint", "data", "--delegations", "3").text
    signer.lies["/v1/tokens"] = lambda _: answer_of(signer, home, delegate_key=None)
    assert "it can be handed on never, not 2 times" in run("token", "mint", "data", "--delegations", "2").text
    signer.lies.clear()
    assert run("token", "mint", "data", "--delegations", "5").status == 2
    assert run("token", "mint", "data", "--json").data["delegations"] == 1


def test_mint_refuses_what_cannot_be(signer: HostileSigner, run: Run, stranger: Run):
    """Bad paths, names and a signer's no have their codes and statuses."""
    assert run("token", "mint", "data", "--read", "relative").status == 2
    assert run("token", "mint", "data", "--read", "/a/../b").status == 2
    assert run("token", "mint", "data", "--right", "nocolon").status == 2
    assert run("token", "mint", "data", "--for", "1 hour").status == 2
    assert stranger("token", "mint", "data").status == 4
    seen = len(signer.seen)
    for name in ("../key.pem", "a/b", "..", "-"):
        assert run("token", "mint", "data", "--name", name).status == 2, name
    assert len(signer.seen) == seen, "a name that cannot be stored is noticed before a token is made"
    signer.lies["/v1/tokens"] = lambda _: problem(403, "right-not-held", "no")
    assert run("token", "mint", "data").status == 3


def test_a_token_is_found_where_wlcg_tools_look(run: Run, home: Path):
    """Without a name the environment's token is used; without one there either, the user is told."""
    assert run("token", "inspect").status == 2
    stored = home / "hostile.example" / "tokens" / "data"
    assert run("token", "inspect", BEARER_TOKEN_FILE=str(stored)).status == 0
    assert run("token", "verify", BEARER_TOKEN=stored.read_text()).status == 0


@pytest.mark.parametrize("verb", ["inspect", "verify", "attenuate", "seal", "request", "get-token", "revoke"])
def test_a_token_in_the_arguments_is_refused(run: Run, home: Path, verb: str):
    """A token pasted onto the command line is not used and not repeated."""
    text = (home / "hostile.example" / "tokens" / "data").read_text().strip()
    done = run("token", verb, text)
    assert (done.status, "token-in-arguments" in done.err, text[:30] in done.err) == (2, True, False)


def test_commands_that_work_offline_load_no_network(home: Path, tmp_path: Path):
    """Narrowing and reading a token waits for neither the HTTP library nor the parts that log in."""
    program = (
        "import sys; from certauth.cli import root\n"
        "try: root.main(sys.argv[1:])\n"
        "except SystemExit as done: status = done.code\n"
        "print(status, [name for name in ('httpx2', 'jwt', 'certauth.client.login', 'uvicorn') if name in sys.modules])"
    )
    environment = {**os.environ, "CERTAUTH_HOME": str(home)}
    for words in (("attenuate", "data", "--for", "5m", "--as", "x"), ("inspect", "data"), ("seal", "data"), ("list",)):
        done = subprocess.run(
            [sys.executable, "-c", program, "token", *words], env=environment, capture_output=True, text=True, check=False
        )
        assert done.stdout.splitlines()[-1] == "0 []", (words, done.stdout, done.stderr)

"""``certauth signer issuer explain`` where there is a database: it ends in what a request would get, and changes nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from certauth import keys
from certauth.keys import Algorithm
from signer.cli.issuer import explain
from tests.signer.kit import DOMAIN, Site, facility, run_cli

GRANT = '[[grant]]\ngroup = "beamline"\nservice = "beam"\noperations = ["read"]\npath = "/run/"\n'


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A facility that knows alice, bob, who is disabled, and from where carol may ask."""
    with facility(tmp_path_factory.mktemp("explain")) as made:
        made.settings_file.write_text(f"{made.settings_file.read_text()}\n{GRANT}")
        made.enroll("alice", "files:read,write:/alice/", group="beamline")
        made.enroll("bob")
        run_cli("user", "disable", "bob", "--reason", "a test", "--settings", made.settings_file)
        yield made


def said(site: Site, token: str, *more: object, expect: int = 0, settings: Path | None = None) -> tuple[dict[str, Any], str]:
    """The explanation as data and as text."""
    arguments = ["--token", "-", "--settings", str(settings or site.settings_file), *map(str, more)]
    shown = CliRunner().invoke(explain, arguments, input=token)
    assert shown.exit_code == expect, shown.output
    found = CliRunner().invoke(explain, [*arguments, "--json"], input=token)
    assert found.exit_code == expect, found.output
    data: dict[str, Any] = json.loads(found.stdout)
    return data, shown.stdout


def token_of(site: Site, subject: str, **claims: object) -> str:
    """An ID token bound to some key."""
    return site.id_token(subject, nonce="of-some-key", **claims)


def test_it_ends_in_what_they_would_get(site: Site) -> None:
    """Name, lifetime and rights, those of groups included, in one line and as data."""
    data, text = said(site, token_of(site, "alice"))
    rights = "beam:read:/run/, files:read:/alice/, files:write:/alice/"
    assert text.splitlines()[-1] == f"would get: spiffe://{DOMAIN}/user/alice, for 8 h, assurance 2, {rights}"
    assert data["outcome"] == {
        "granted": True,
        "code": None,
        "principal": f"spiffe://{DOMAIN}/user/alice",
        "lifetime": 8 * 3600,
        "assurance": 2,
        "rights": rights.split(", "),
        "newcomer": False,
    }
    assert (data["admitted"], data["code"]) == (True, None)


@pytest.mark.parametrize(("subject", "code"), [("bob", "principal-disabled"), ("mallory", "not-enrolled")])
def test_it_does_not_stop_at_the_rules(site: Site, subject: str, code: str) -> None:
    """Who passes them may still be refused, and the hint is for the administrator."""
    data, text = said(site, token_of(site, subject), expect=3)
    assert (data["admitted"], data["code"], data["outcome"]["granted"]) == (True, code, False)
    lines = text.splitlines()
    assert lines[-2].startswith(f"would be refused: {code}: ")
    assert lines[-1].startswith("hint: ")


def test_it_says_what_happens_and_happens_what_it_says(site: Site) -> None:
    """The same token, explained, used, and explained again: only its use has used it up."""
    key = keys.generate(Algorithm.P256)
    body = site.body("alice", key)
    token = body["proof"]["token"]
    for _ in range(2):
        assert said(site, token)[0]["outcome"]["granted"]
    with site.serving(), site.client() as client:
        assert client.post("/v1/certificates", json=body).status_code == 201
        again = client.post("/v1/certificates", json={**body, "request_id": "another-one"}).json()
        data, text = said(site, token, expect=3)
    assert data["code"] == again["code"] == "replayed"
    assert "would be refused: replayed: this proof of identity was used before" in text


def test_a_proof_that_is_over_by_the_time_of_the_log(tmp_path: Path) -> None:
    """The log was written by a clock that was ahead. Its time does not go back, and it is the one that counts."""
    with facility(tmp_path) as site:
        site.enroll("alice")
        assert said(site, token_of(site, "alice"))[0]["outcome"]["granted"]
        site.clock.offset = timedelta(hours=2)
        with site.serving():
            site.clock.offset = timedelta()
        data, text = said(site, token_of(site, "alice"), expect=3)
    assert data["code"] == "proof-expired"
    assert text.splitlines()[-1].startswith("hint: ")


def test_what_would_come_with_the_request_can_be_named(site: Site, tmp_path: Path) -> None:
    """An address, and an invitation from a file; trying one out does not use it up."""
    run_cli(
        *("user", "enroll", "carol", "--subject", "carol", "--reason", "a test", "--settings", site.settings_file),
    )
    settings = tmp_path / "invite.toml"
    text = site.settings_file.read_text().replace("[[issuer]]\n", '[[issuer]]\nenrolment = "invite"\n')
    settings.write_text(f'state = "{site.directory}"\n{text}')
    code = tmp_path / "code"
    run_cli("user", "invite", "--name", "dora", "--output", code, "--reason", "a test", "--settings", site.settings_file)
    token = token_of(site, "dora")
    data, shown = said(site, token, expect=3, settings=settings)
    assert (data["code"], "--invite" in shown) == ("invite-needed", True)
    for _ in range(2):
        data, shown = said(site, token, "--invite", code, settings=settings)
        assert (data["outcome"]["principal"], data["outcome"]["newcomer"]) == (f"spiffe://{DOMAIN}/user/dora", True)
        assert "enrolled by this very login" in shown
    assert code.read_text().strip() not in shown
    code.write_text("another-code-than-was-made\n")
    assert said(site, token, "--invite", code, expect=3, settings=settings)[0]["code"] == "invite-invalid"
    assert CliRunner().invoke(explain, ["--token", "-", "--settings", str(settings), "--address", "here"]).exit_code == 2
    said(site, token_of(site, "alice"), "--address", "192.0.2.7")


def test_a_reason_that_only_the_facility_hears(site: Site, tmp_path: Path) -> None:
    """A rule that would make an administrator of a login: the reason stands before the refusal that everybody gets."""
    settings = tmp_path / "open.toml"
    rule = '\n[[issuer.rule]]\nname = "all"\nwhen.everyone = true\nsubject = "user/{claim:/uid}"\n'
    text = re.sub(
        r"^admins = .*$", f'admins = ["spiffe://{DOMAIN}/user/root"]', site.settings_file.read_text(), flags=re.MULTILINE
    )
    text = text.replace(f"\n{GRANT}", rule).replace("[[issuer]]\n", '[[issuer]]\nenrolment = "open"\n')
    settings.write_text(f'state = "{site.directory}"\n{text}')
    data, shown = said(site, token_of(site, "eve", uid="root"), expect=3, settings=settings)
    assert (data["admitted"], data["code"]) == (True, "not-admitted")
    assert "because the rule 'all' would make an administrator" in shown
    assert said(site, token_of(site, "eve", uid="eve"), settings=settings)[0]["outcome"]["newcomer"]


def test_a_database_that_is_not_ours_is_an_error(site: Site, tmp_path: Path) -> None:
    """It is not explained away: exit status 1 and the store's own code."""
    settings = tmp_path / "foreign.toml"
    text = site.settings_file.read_text().replace(f'"{DOMAIN}"', '"other.test"')
    settings.write_text(f'state = "{site.directory}"\n{text}')
    done = CliRunner().invoke(explain, ["--token", "-", "--settings", str(settings), "--json"], input=token_of(site, "alice"))
    assert (done.exit_code, "store-foreign" in done.stderr) == (1, True)


def test_a_running_signer_keeps_the_rules_it_began_with(tmp_path: Path) -> None:
    """A change of the file counts after a restart; what is explained meanwhile is what a restarted signer would do."""
    with facility(tmp_path) as site:
        site.enroll("alice")
        key = keys.generate(Algorithm.P256)
        with site.serving(), site.client() as client:
            rule = '\n[[issuer.rule]]\nname = "staff"\nwhen.all = [{claim = "/groups", any = ["staff"]}]\n'
            site.settings_file.write_text(site.settings_file.read_text() + rule)
            assert said(site, token_of(site, "alice"), expect=3)[0]["code"] == "not-admitted"
            assert client.post("/v1/certificates", json=site.body("alice", key)).status_code == 201
        with site.serving(), site.client() as client:
            assert client.post("/v1/certificates", json=site.body("alice", key)).json()["code"] == "not-admitted"
            assert client.post("/v1/certificates", json=site.body("alice", key, groups=["staff"])).status_code == 201

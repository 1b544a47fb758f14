"""The admin's issuer commands: look at a provider, add it, list, try out, and explain a token that never touches argv."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from signer.cli.issuer import _id_from, add, check, explain, list_
from signer.cli.issuer import test as try_out
from tests.signer.test_explaining import KEY, claims_for
from tests.signer.test_jwks import made_once
from tests.simulator.hostile_provider import HostileProvider, hostile_provider, jwks
from tests.simulator.node_provider import CLIENT_ID, log_in, node_provider

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = """\
trust_domain = "als.example"  # ours
public_url = "https://signer.als.example"
"""


@pytest.fixture
def provider() -> Iterator[HostileProvider]:
    """A provider with a code flow."""
    with hostile_provider() as running:
        running.jwks = jwks(KEY)
        running.more = {
            "authorization_endpoint": f"{running.issuer}/auth",
            "token_endpoint": f"{running.issuer}/token",
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
        }
        yield running


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """A settings file without issuers."""
    path = tmp_path / "signer.toml"
    path.write_text(SETTINGS)
    return path


def run(command: click.Command, *arguments: object, expect: int = 0, stdin: str | bytes | None = None) -> Result:
    """Run a command; its exit status is as expected."""
    why = ("--reason", "a test") if command is add else ()
    done = CliRunner().invoke(command, [*map(str, arguments), *why], input=stdin)
    assert done.exit_code == expect, done.output
    return done


def said(command: click.Command, *arguments: object, expect: int = 0, stdin: str | bytes | None = None) -> dict[str, Any]:
    """What a command says with ``--json``."""
    answer: dict[str, Any] = json.loads(run(command, *arguments, "--json", expect=expect, stdin=stdin).stdout)
    return answer


def refusal(command: click.Command, *arguments: object, expect: int) -> dict[str, Any]:
    """The error of a command with ``--json``."""
    done = run(command, *arguments, "--json", expect=expect)
    error: dict[str, Any] = json.loads(done.stderr.strip().splitlines()[-1])["error"]
    return error


def added(provider: HostileProvider, settings: Path, *more: object) -> dict[str, Any]:
    """A provider in the settings, under the name ``lab``."""
    options = ("--id", "lab", "--client-id", "us", "--allow-loopback-http", "--settings", settings)
    return said(add, provider.issuer, *options, *more)


# --- check ----------------------------------------------------------------------------------------------------------


def test_check_prints_settings_that_can_be_used(provider: HostileProvider, settings: Path) -> None:
    """The table is printed ready for signer.toml; the provider is not changed, nor is any file."""
    options = ("--allow-loopback-http", "--client-id", "us")
    found = said(check, provider.issuer, *options)
    assert (found["url"], found["usable"]) == (provider.issuer, True)
    assert {"level", "topic", "text"} == set(found["findings"][0])
    settings.write_text(SETTINGS + found["table"])
    assert [row["url"] for row in said(list_, "--offline", "--settings", settings)["issuers"]] == [provider.issuer]
    text = run(check, provider.issuer, *options).stdout
    assert "[[issuer]]" in text
    assert "PKCE with S256" in text


def test_check_fails_for_what_cannot_be_used(provider: HostileProvider) -> None:
    """Exit status 1, the findings say why, and there is no table."""
    provider.mode = "down"
    found = said(check, provider.issuer, "--allow-loopback-http", expect=1)
    assert (found["usable"], found["table"]) == (False, None)
    assert "cannot be used like this" in run(check, provider.issuer, "--allow-loopback-http", expect=1).stdout
    assert refusal(check, "http://idp.example", expect=1)["code"] == "issuer-invalid"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://idp.campus.example", "idp-campus"),
        ("https://localhost", "localhost"),
        ("https://127.0.0.1:8443", "idp"),
        ("https://token.actions.githubusercontent.com/x", "token-actions-githubusercontent"),
        ("https://" + "a" * 60 + ".example", "a" * 32),
        ("nonsense", "idp"),
    ],
)
def test_a_name_is_made_from_the_host(url: str, name: str) -> None:
    """Something an admin can keep or change."""
    assert _id_from(url) == name


def test_what_a_provider_says_cannot_steer_the_terminal(provider: HostileProvider) -> None:
    """An escape sequence in its words is printed as what it is."""
    provider.claimed_issuer = "https://evil\x1b[2J.example"
    text = run(check, provider.issuer, "--allow-loopback-http", expect=1).stdout
    assert "\x1b" not in text
    assert r"\x1b[2J" in text


# --- add ------------------------------------------------------------------------------------------------------------


def test_add_looks_first_and_keeps_what_is_written(provider: HostileProvider, settings: Path) -> None:
    """The table follows the old text; algorithms are those of its keys."""
    done = added(provider, settings, "--enrolment", "open", "--assurance", 1)
    assert (done["id"], done["written"]) == ("lab", True)
    text = settings.read_text()
    assert text == f"{SETTINGS}\n{done['table']}"
    assert 'algorithms = ["ES256"]' in text
    [row] = said(list_, "--settings", settings)["issuers"]
    assert (row["state"], row["keys"], row["enrolment"], row["assurance"]) == ("fresh", 1, "open", 1)


def test_add_for_people(provider: HostileProvider, settings: Path) -> None:
    """Warnings first, then the table, then what to do next."""
    provider.more["code_challenge_methods_supported"] = []
    options = ("--id", "lab", "--client-id", "us", "--allow-loopback-http", "--settings", settings)
    text = run(add, provider.issuer, *options).stdout
    assert text.startswith("WARNING")
    assert "restart the signer" in text
    done = run(add, provider.issuer, *options, expect=1)
    assert "configured already" in done.stderr


def test_add_dry_run_writes_nothing(provider: HostileProvider, settings: Path) -> None:
    """It validates and prints, and that is all."""
    assert added(provider, settings, "--dry-run")["written"] is False
    assert settings.read_text() == SETTINGS
    text = run(
        add, provider.issuer, "--id", "lab", "--client-id", "us", "--allow-loopback-http", "--dry-run", "--settings", settings
    )
    assert "was not changed" in text.stdout


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        (("--kind", "access_token"), 1, "settings-invalid"),
        (("--binding", "none", "--assurance", "2"), 1, "settings-invalid"),
        (("--introspection",), 1, "settings-invalid"),
        (("--assurance", "4"), 2, "usage"),
        (("--ca-file", "/nowhere"), 2, "usage"),
        (("--proxy", "socks5://x"), 1, "proxy-invalid"),
    ],
)
def test_add_refuses_what_could_not_be_safe(
    provider: HostileProvider, settings: Path, options: tuple[str, ...], status: int, code: str
) -> None:
    """Before anything is written; most of it before the provider is asked."""
    base = (provider.issuer, "--id", "lab", "--client-id", "us", "--allow-loopback-http", "--settings", settings)
    assert refusal(add, *base, *options, expect=status)["code"] == code
    assert settings.read_text() == SETTINGS
    assert not provider.fetches


def test_add_refuses_duplicates(provider: HostileProvider, settings: Path) -> None:
    """The same URL or the same name a second time."""
    added(provider, settings)
    before = settings.read_text()
    base = ("--client-id", "us", "--allow-loopback-http", "--offline", "--settings", settings)
    assert refusal(add, provider.issuer, "--id", "other", *base, expect=1)["code"] == "issuer-duplicate"
    assert refusal(add, "https://idp.example", "--id", "lab", *base, expect=1)["code"] == "issuer-duplicate"
    assert settings.read_text() == before


def test_add_refuses_a_provider_that_cannot_be_used(provider: HostileProvider, settings: Path) -> None:
    """Unless told not to look."""
    provider.mode = "down"
    base = (provider.issuer, "--id", "lab", "--client-id", "us", "--allow-loopback-http", "--settings", settings)
    assert refusal(add, *base, expect=1)["code"] == "issuer-unusable"
    assert settings.read_text() == SETTINGS
    assert said(add, *base, "--offline")["written"]


def test_add_never_trusts_another_host_unasked(provider: HostileProvider, settings: Path) -> None:
    """Keys elsewhere are an admin's decision, taken by naming the host."""
    with hostile_provider() as elsewhere:
        elsewhere.jwks = provider.jwks
        provider.jwks_uri = f"{elsewhere.issuer}/jwks"
        host = elsewhere.issuer.removeprefix("http://")
        base = (provider.issuer, "--id", "lab", "--client-id", "us", "--allow-loopback-http", "--settings", settings)
        error = refusal(add, *base, expect=1)
        assert (error["code"], f"--allowed-host {host}" in error["hint"]) == ("issuer-hosts", True)
        assert settings.read_text() == SETTINGS
        assert said(add, *base, "--allowed-host", host)["written"]
        assert said(try_out, "lab", "--settings", settings)["works"]


def test_add_keys_in_a_file(provider: HostileProvider, settings: Path, tmp_path: Path) -> None:
    """Then nobody is asked; the file is named from the root."""
    file = tmp_path / "keys.json"
    file.write_bytes(provider.jwks)
    base = ("--id", "cluster", "--client-id", "us", "--kind", "workload", "--binding", "audience", "--settings", settings)
    said(add, "https://cluster.example", "--jwks-file", file, *base)
    assert f'jwks_file = "{file}"' in settings.read_text()
    [row] = said(list_, "--settings", settings)["issuers"]
    assert (row["kinds"], row["state"]) == (["workload"], "fresh")
    assert said(try_out, "cluster", "--settings", settings)["works"]


# --- list and test --------------------------------------------------------------------------------------------------


def test_list_shows_each_provider_and_its_state(provider: HostileProvider, settings: Path) -> None:
    """One that is down is shown as that, and stops nobody from being listed."""
    assert run(list_, "--settings", settings).stdout == "No identity provider is configured.\n"
    with hostile_provider() as down:
        down.mode = "down"
        added(provider, settings)
        options = ("--id", "broken", "--client-id", "us", "--allow-loopback-http", "--offline", "--settings", settings)
        run(add, down.issuer, *options)
        rows = {row["id"]: row for row in said(list_, "--settings", settings)["issuers"]}
        text = run(list_, "--settings", settings).stdout
    assert [rows[name]["state"] for name in ("lab", "broken")] == ["fresh", "none"]
    assert rows["broken"]["failure"] == "it answered 503"
    assert "broken: it answered 503" in text
    asked = dict(provider.fetches)
    assert {row["state"] for row in said(list_, "--offline", "--settings", settings)["issuers"]} == {"not asked"}
    assert provider.fetches == asked


def test_test_says_what_works(provider: HostileProvider, settings: Path) -> None:
    """Exit status 1 as soon as something does not."""
    added(provider, settings)
    assert said(try_out, "lab", "--settings", settings)["works"]
    assert "ok       keys" in run(try_out, "lab", "--settings", settings).stdout
    provider.jwks = jwks(made_once("EdDSA", "b"))
    found = said(try_out, "lab", "--settings", settings, expect=1)
    assert "algorithms" in [each["topic"] for each in found["findings"] if each["level"] == "failure"]
    error = refusal(try_out, "nobody", "--settings", settings, expect=2)
    assert (error["code"], error["hint"]) == ("issuer-unknown", "configured: lab")


# --- explain --------------------------------------------------------------------------------------------------------


def explaining(settings: Path, token: str, *more: object, expect: int = 0) -> dict[str, Any]:
    """The explanation of a token on standard input."""
    return said(explain, "--token", "-", "--settings", settings, *more, expect=expect, stdin=token)


def test_explain_goes_check_by_check_and_rule_by_rule(provider: HostileProvider, settings: Path) -> None:
    """Who it is, what the rules make of it, and that no more can be known here; claims only when asked for."""
    added(provider, settings, "--enrolment", "invite")
    rule = 'name = "staff"\nwhen = { all = [ { claim = "/affiliation", equals = "staff" } ] }\n'
    rule += 'groups = ["staff"]\nmax_lifetime = "2h"\n'
    rule += 'rights = [ { service = "data", operations = ["read"], path = "/a/" } ]\n'
    settings.write_text(f"{settings.read_text()}\n[[issuer.rule]]\n{rule}")
    token = KEY.sign(claims_for(provider, affiliation="staff", secret_claim="of alice"))
    found = explaining(settings, f"{token}\n")
    assert found["admitted"]
    assert [check["code"] for check in found["checks"]] == [None] * 9
    assert (found["identity"]["subject"], found["identity"]["binding"]) == ("alice", "nonce")
    assert (found["decision"]["rule"], found["decision"]["groups"]) == ("staff", ["staff"])
    assert found["decision"]["max_lifetime"] == 7200
    assert found["decision"]["rights"] == [{"service": "data", "operation": "read", "path": "/a/"}]
    assert "claims" not in found
    text = run(explain, "--token", "-", "--settings", settings, stdin=token).stdout
    assert "admitted by 'staff'" in text
    assert text.splitlines()[-1].startswith("not known: ")
    assert found["outcome"] == {"granted": None, "code": None}
    assert "of alice" not in text
    assert token.rpartition(".")[2] not in text
    assert explaining(settings, token, "--claims")["claims"]["secret_claim"] == "of alice"
    assert "of alice" in run(explain, "--token", "-", "--claims", "--settings", settings, stdin=token).stdout
    student = KEY.sign(claims_for(provider, affiliation="student"))
    refused = explaining(settings, student, expect=3)
    assert (refused["admitted"], refused["code"]) == (False, "not-admitted")
    assert "staff" in refused["decision"]["reason"]


@pytest.mark.parametrize(
    ("claims", "code", "status"),
    [
        ({"exp": 1_700_000_300, "iat": 1_700_000_000}, "proof-expired", 3),
        ({"aud": "somebody else"}, "wrong-audience", 3),
        ({"nonce": ...}, "key-not-bound", 3),
        ({"iss": "https://elsewhere.example"}, "unknown-issuer", 3),
    ],
)
def test_explain_says_which_check_refuses(
    provider: HostileProvider, settings: Path, claims: dict[str, object], code: str, status: int
) -> None:
    """With the code that the caller gets, and a hint."""
    added(provider, settings)
    token = KEY.sign(claims_for(provider, **claims))
    found = explaining(settings, token, expect=status)
    assert (found["admitted"], found["code"], found["checks"][-1]["code"]) == (False, code, code)
    text = run(explain, "--token", "-", "--settings", settings, stdin=token, expect=status).stdout
    assert f"would be refused: {code}: " in text
    assert "hint: " in text


def test_explain_when_the_provider_is_down(provider: HostileProvider, settings: Path) -> None:
    """Exit status 5: nobody knows."""
    added(provider, settings)
    provider.mode = "down"
    assert explaining(settings, KEY.sign(claims_for(provider)), expect=5)["code"] == "issuer-unavailable"


def test_a_token_on_the_command_line_is_refused(settings: Path) -> None:
    """Everybody on the machine could read it there; it is not repeated in the error."""
    error = refusal(explain, "--token", "eyJhbGciOi.secret.token", "--settings", settings, expect=2)
    assert error["code"] == "token-in-arguments"
    assert "secret" not in json.dumps(error)


@pytest.mark.parametrize("stdin", [b"", b"\xff\xfe", b"x" * 100_000, b"a.b.c", b"....", b"\x00"])
def test_what_is_no_token_is_refused(provider: HostileProvider, settings: Path, stdin: bytes) -> None:
    """Nothing, bytes, far too much: a refusal, never a traceback."""
    added(provider, settings)
    done = run(explain, "--token", "-", "--settings", settings, "--json", stdin=stdin, expect=3)
    assert json.loads(done.stdout)["code"] in {"proof-malformed", "proof-too-large"}


def test_a_token_pasted_at_a_terminal(settings: Path) -> None:
    """Somebody who runs the command by hand is told what it waits for; JSON readers too."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, b"no-token\n\x04")
        command = [sys.executable, "-c", "from signer.cli.issuer import explain; explain()", "--token", "-"]
        command += ["--settings", str(settings), "--json"]
        done = subprocess.run(command, stdin=theirs, capture_output=True, text=True, cwd=ROOT, check=False, timeout=60)
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 3, done.stderr
    first = next(line for line in done.stderr.splitlines() if line.startswith("{"))
    assert "paste the token" in json.loads(first)["progress"]
    assert json.loads(done.stdout)["code"] == "proof-malformed"


def test_explain_an_opaque_token(provider: HostileProvider, settings: Path, tmp_path: Path) -> None:
    """The only provider that can be asked is asked; or the one that is named."""
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    secret.write_text("secret")
    provider.more["introspection_endpoint"] = f"{provider.issuer}/introspect"
    added(
        provider, settings, "--introspection", "--client-secret-file", secret, "--kind", "access_token", "--binding", "none",
        "--assurance", 1, "--access-token-audience", "https://signer.als.example",
    )  # fmt: skip
    claims = claims_for(provider, nonce=..., aud="https://signer.als.example")
    provider.says = {**claims, "active": True, "client_id": "us", "token_type": "Bearer"}
    for more in ((), ("--issuer", "lab")):
        assert explaining(settings, "opaque", *more)["identity"]["subject"] == "alice"
    provider.says = {"active": False}
    assert explaining(settings, "opaque", expect=3)["code"]


def test_a_real_token_explained_by_a_process_of_its_own(tmp_path: Path, settings: Path) -> None:
    """From a real provider's login to the decision, through standard input; the token is in nothing that is printed."""
    with node_provider(tmp_path / "op") as op:
        options = ("--id", "op", "--client-id", CLIENT_ID, "--ca-file", op.ca_file, "--settings", settings)
        run(add, op.issuer, *options)
        token = log_in(op, "alice", nonce="of-some-key")["id_token"]
        code = "from signer.cli.issuer import explain; explain()"
        command = [sys.executable, "-c", code, "--token", "-", "--settings", str(settings), "--json"]
        done = subprocess.run(command, input=token, capture_output=True, text=True, cwd=ROOT, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["admitted"], found["identity"]["subject"]) == (True, "alice")
    assert token.rpartition(".")[2] not in done.stdout + done.stderr

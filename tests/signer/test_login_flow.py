"""A whole mediated login, headless, through real HTTP and TLS, at real OpenID providers that nobody here wrote."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from certauth.identity import Issuer
from signer.jwks import IssuerSource
from signer.login_provider import Provider
from tests.signer.login_kit import QUICK, Person, Program, Site, at_oidc_provider, idpyoidc, log_in_at, login_site
from tests.simulator.node_provider import account


@contextmanager
def at_idpyoidc(directory: Path) -> Iterator[tuple[Site, Path]]:
    """A signer that is a public client of idpyoidc; the provider's CA."""
    with ExitStack() as running:

        def configure(url: str) -> tuple[list[Provider], list[IssuerSource]]:
            real = running.enter_context(idpyoidc(directory / "idp", redirect_uri=f"{url}/login/callback"))
            issuer = Issuer(id="campus", url=real.issuer, audience=real.client_id, scopes=("openid", "profile", "email"))
            return [Provider(issuer=issuer)], [IssuerSource(url=real.issuer, ca_file=real.ca_file)]

        yield running.enter_context(login_site(directory, configure, limits=QUICK)), directory / "idp" / "tls" / "ca.crt"


def whole_login(site: Site, ca_file: Path) -> Program:
    """Everything a person and their program do."""
    program, person = Program(site), Person(site)
    assert program.answer.status_code == 201, program.answer.text
    assert program.state().json()["state"] == "pending"
    url = person.to_provider(program.code)
    assert program.code not in url
    redirect = urlsplit(log_in_at(url, "alice", ca_file))
    assert f"{redirect.scheme}://{redirect.netloc}" == site.url
    finished = person.come_back(dict(parse_qsl(redirect.query)), redirect.path)
    assert finished.status_code == 200, finished.text
    assert "Go back to your terminal" in finished.text
    assert program.state().json()["state"] == "ready"
    return program


def test_idpyoidc(tmp_path: Path) -> None:
    """A public client. The result is a mediated identity, the same each time, for the one key."""
    with at_idpyoidc(tmp_path) as (site, ca_file):
        program = whole_login(site, ca_file)
        who = program.claim()
        assert (who["issuer_id"], who["binding"], who["mediated"], who["assurance"]) == ("campus", "nonce", True, 2)
        assert who["email"] == "alice@demo.example"
        assert program.claim() == who
        other = Program(site)
        program.csr = other.csr
        assert program.claim() == {"code": "key-not-bound"}


@pytest.mark.parametrize("confidential", [True, False], ids=["confidential", "public"])
def test_oidc_provider(tmp_path: Path, confidential: bool) -> None:
    """A client with a secret that needs form-encoding, and one without. This provider names itself (RFC 9207)."""
    with at_oidc_provider(tmp_path, confidential=confidential) as (site, ca_file):
        who = whole_login(site, ca_file).claim()
        assert (who["issuer_id"], who["subject"], who["email"]) == ("hpc", "alice", "alice@demo.example")


def test_a_callback_of_its_own(tmp_path: Path) -> None:
    """A provider whose answers come to their own address."""
    with at_oidc_provider(tmp_path, own_callback=True) as (site, ca_file):
        assert whole_login(site, ca_file).claim()["subject"] == "alice"


def test_a_no_at_the_provider(tmp_path: Path) -> None:
    """Who refuses at the provider's own page has refused: page and program say so."""
    with at_oidc_provider(tmp_path, accounts={"alice": account("alice", refuses=True)}) as (site, ca_file):
        program, person = Program(site), Person(site)
        redirect = urlsplit(log_in_at(person.to_provider(program.code), "alice", ca_file))
        page = person.come_back(dict(parse_qsl(redirect.query)))
        assert page.status_code == 403
        assert "the user said no" in page.text
        told = program.state()
        assert (told.status_code, told.json()["code"]) == (403, "login-denied")
        assert "provider-denied" in told.json()["detail"]


def test_a_wrong_client_secret(tmp_path: Path) -> None:
    """The page and the program say that the provider refused the signer, and neither shows the secret."""
    with at_oidc_provider(tmp_path) as (site, ca_file):
        (tmp_path / "client-secret").write_text("another-secret-altogether")
        program, person = Program(site), Person(site)
        redirect = urlsplit(log_in_at(person.to_provider(program.code), "alice", ca_file))
        page = person.come_back(dict(parse_qsl(redirect.query)))
        assert page.status_code == 401
        assert "invalid_client" in page.text
        told = program.state()
        assert (told.status_code, told.json()["code"]) == (403, "login-failed")
        assert "exchange-refused" in told.json()["detail"]
        assert "another-secret" not in page.text + told.text


def test_how_long_it_takes(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """The wall time of a login without the person's own: recorded, not judged."""
    with at_oidc_provider(tmp_path) as (site, ca_file):
        whole_login(site, ca_file)
        begun = time.perf_counter()
        for _ in range(5):
            whole_login(site, ca_file)
        seconds = (time.perf_counter() - begun) / 5
        record_property("seconds_per_login", seconds)
        print(f"{seconds * 1000:.0f} ms per mediated login at oidc-provider")

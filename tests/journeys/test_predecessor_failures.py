"""What went wrong in the program whose idea this one takes up, attacked here: a real signer, a real door, real TLS.

Each test performs the attack that worked there and first shows, where it could be doubted, that the honest request works.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import shlex
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from certauth import certificates, keys
from certauth.client.authorization import Browser
from certauth.client.login import Wishes
from certauth.client.login import log_in as client_log_in
from certauth.client.profile import Home
from certauth.clock import system_clock, whole_seconds
from certauth.errors import CertauthError
from certauth.issuance import CertificateGrant
from certauth.keys import Algorithm
from certauth.names import Kind, Principal, TrustDomain
from certauth.profiles import BACKDATE, USER
from policy.testing import Facility
from signer.cli import group
from tests.demo.stage import CERTAUTH, ROOT
from tests.journeys.kit import HOST, SECONDS, Door, add_issuer, context_for, door, impostor, mint, second_provider, until
from tests.policy.live import ask
from tests.signer.kit import DOMAIN, Identity, Site, facility, make_csr, run_cli
from tests.simulator.hostile_signer import hostile_signer, visit
from tests.simulator.openid_provider import Provider, running_provider

PARTNER = "partner.example"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything of this module."""
    return tmp_path_factory.mktemp("facility")


@pytest.fixture(scope="module")
def idp(place: Path) -> Iterator[Provider]:
    """A provider that is not ours, for logging in with the program."""
    with running_provider(place / "idp", users=("alice",)) as running:
        yield running


@pytest.fixture(scope="module")
def site(place: Path, idp: Provider) -> Iterator[Site]:
    """A facility with three providers: its own, a partner's, and the one the program logs in at."""
    with facility(place) as made:
        add_issuer(made, "real", idp.issuer, idp.client_id, idp.ca_file)
        made.enroll("alice", "files:read,write:/alice/", "files:read:/live/", issuer=made.provider.issuer)
        made.enroll("mallory", "files:read,write:/mallory/", issuer=made.provider.issuer)
        run_cli(
            *("user", "enroll", "alice.real", "--subject", idp.subject_of("alice"), "--issuer", idp.issuer),
            *("--right", "files:read:/alice/", "--reason", "a test", "--settings", made.settings_file),
        )
        yield made


@pytest.fixture(scope="module")
def partner(site: Site, place: Path) -> Iterator[Site]:
    """The same facility as people of the partner's provider see it."""
    with second_provider(site, place / "partner-idp") as made:
        yield made


@pytest.fixture(scope="module")
def signer(site: Site, partner: Site) -> Iterator[None]:
    """The signer, serving."""
    with site.serving():
        yield


@pytest.fixture(scope="module")
def stranger() -> Facility:
    """Another facility, which the door trusts for its own people only."""
    return Facility(PARTNER)


@pytest.fixture(scope="module")
def gate(site: Site, signer: None, place: Path, stranger: Facility) -> Iterator[Door]:
    """The door in front of the app; its TLS lets in everybody's certificates, so that what refuses is the door itself."""
    (place / "partner.json").write_bytes(stranger.bundle().to_json())
    others = f'[[domain]]\nname = "{PARTNER}"\nbundle = "{place / "partner.json"}"\nfeed = "none"\n'
    unknown = certificates.dump_chain([NOBODY.root, NOBODY.issuing])
    with door(site, place / "service", others=others, more_roots=unknown) as running:
        yield running


NOBODY = Facility("nobody.example")
"""A facility that no door here trusts."""


@pytest.fixture(scope="module")
def alice(site: Site, signer: None) -> Identity:
    """Alice of the facility's own provider, logged in."""
    return site.log_in("alice")


@pytest.fixture(scope="module")
def mallory(site: Site, signer: None) -> Identity:
    """A person with a certificate and bad intentions."""
    return site.log_in("mallory")


def denied(answer: Any, code: str, status: int) -> None:
    """The door's own refusal, with this code."""
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def shown_by(stranger: Facility, directory: Path, *, principal: Principal, site: Site) -> ssl.SSLContext:
    """A client with a certificate that ``stranger``'s authority made out to ``principal``."""
    key, now = keys.generate(Algorithm.P256), whole_seconds(system_clock())
    grant = CertificateGrant(
        principal=principal,
        profile=USER,
        public_key=key.public_key,
        spki=keys.spki(key.public_key),
        not_before=now - BACKDATE,
        not_after=now + timedelta(hours=1),
        assurance=3,
        issuer_id="forged",
        ignored=(),
        clamped=None,
        rule="forged",
    )
    serial = certificates.random_serial(os.urandom(20))
    leaf = certificates.make_leaf(grant=grant, issuer=stranger.issuing, issuer_key=stranger.issuing_key, serial=serial)
    context = ssl.create_default_context(cafile=str(site.root))
    (directory / "forged.pem").write_bytes(certificates.dump_chain([leaf, stranger.issuing]))
    keys.save_private(directory / "forged.key", key, passphrase=None)
    context.load_cert_chain(directory / "forged.pem", directory / "forged.key")
    return context


# --- whose name is it ------------------------------------------------------------------------------------------------


def test_same_subject_of_another_provider_is_another_person(site: Site, partner: Site, gate: Door, alice: Identity) -> None:
    """Both providers know an "alice". The second one is nobody until enrolled, then somebody else, without alice's rights."""
    key = keys.generate(Algorithm.P256)
    with site.client() as client:
        answer = client.post("/v1/certificates", json=partner.body("alice", key))
    assert (answer.status_code, answer.json()["code"]) == (403, "not-enrolled")
    run_cli(
        *("user", "enroll", "alice.partner", "--subject", "alice", "--issuer", partner.provider.issuer),
        *("--right", "files:read:/partner/", "--reason", "a test", "--settings", site.settings_file),
    )
    other = partner.log_in("alice")
    mine, hers = (str(certificates.principal_of(one.chain[0])) for one in (alice, other))
    assert (mine, hers) == (f"spiffe://{DOMAIN}/user/alice", f"spiffe://{DOMAIN}/user/alice.partner")
    with gate.client(context_for(site, other), mint(site, other)) as client:
        denied(client.get("/files/alice/run1"), "right-not-held", 403)
    with gate.client(context_for(site, other), mint(site, alice)) as client:
        denied(client.get("/files/alice/run1"), "token-binding", 401)


def test_one_provider_cannot_speak_for_another(site: Site, partner: Site, alice: Identity) -> None:
    """The partner signs a token in the name of alice's provider, even under its key id: nothing is granted."""
    partner.provider_key.kid, own = site.provider_key.kid, partner.provider_key.kid
    try:
        body = partner.body("alice", keys.generate(Algorithm.P256), iss=site.provider.issuer)
    finally:
        partner.provider_key.kid = own
    with site.client() as client:
        answer = client.post("/v1/certificates", json=body)
    assert answer.status_code in (401, 503)
    assert answer.json()["code"] in {"bad-signature", "unknown-key", "issuer-unavailable"}


def test_another_facilitys_authority_cannot_make_one_of_our_people(
    site: Site, gate: Door, stranger: Facility, tmp_path: Path
) -> None:
    """A trusted partner's authority makes out a certificate to alice of this facility: TLS lets it in, the door does not."""
    hers = shown_by(stranger, tmp_path, principal=Principal.make(TrustDomain(PARTNER), Kind.USER, "alice"), site=site)
    with gate.client(hers) as client:
        answer = client.get("/me")
        assert answer.json()["identity"] == f"spiffe://{PARTNER}/user/alice", "the partner's own people are known"
    forged = shown_by(stranger, tmp_path, principal=Principal.make(TrustDomain(DOMAIN), Kind.USER, "alice"), site=site)
    with gate.client(forged) as client:
        denied(client.get("/me"), "chain-invalid", 401)


def test_a_partners_token_cannot_name_one_of_our_people(site: Site, gate: Door, stranger: Facility, alice: Identity) -> None:
    """A trusted partner mints a token for alice of this facility, bound to her very certificate: refused."""

    class _Alice:
        principal = Principal.make(TrustDomain(DOMAIN), Kind.USER, "alice")
        fingerprint = alice.fingerprint
        key = alice.key

    for token in (
        stranger.token(_Alice(), "files", rights=["read /alice/"]),  # type: ignore[arg-type]  # somebody else's person
        _in_the_name_of(DOMAIN, stranger).token(_Alice(), "files", rights=["read /alice/"]),  # type: ignore[arg-type]
    ):
        with gate.client(context_for(site, alice), token) as client:
            answer = client.get("/files/alice/run1")
        assert answer.status_code == 401
        assert answer.json()["code"] in {"token-user", "token-issuer"}


def _in_the_name_of(domain: str, stranger: Facility) -> Facility:
    """The stranger's token key, in a token that calls itself ours."""
    liar = Facility(domain)
    liar.token_key = stranger.token_key
    return liar


def test_client_certificate_of_an_unknown_domain_is_refused(site: Site, gate: Door, tmp_path: Path) -> None:
    """Whether TLS lets it in (a root too many) or not, a certificate of a domain without an entry opens nothing."""
    principal = Principal.make(TrustDomain("nobody.example"), Kind.USER, "alice")
    with gate.client(shown_by(NOBODY, tmp_path, principal=principal, site=site)) as client:
        denied(client.get("/me"), "domain-unknown", 401)
    before = len(gate.failures)
    another = Facility("elsewhere.example")
    context = shown_by(another, tmp_path, principal=Principal.make(another.domain, Kind.USER, "eve"), site=site)
    connection = http.client.HTTPSConnection(HOST, gate.port, context=context, timeout=SECONDS)
    with pytest.raises((ssl.SSLError, OSError)):
        ask(connection, "GET", "/me")
    connection.close()
    until(lambda: len(gate.failures) > before)
    assert until(lambda: [line for line in gate.records() if line["event"] == "handshake"])[-1]["outcome"] == "deny"


# --- what a token is worth ---------------------------------------------------------------------------------------------


def test_stolen_token_is_refused(site: Site, gate: Door, alice: Identity, mallory: Identity) -> None:
    """Alice's token works for alice; in mallory's hands, who has a certificate of her own, and in nobody's, it does not."""
    token = mint(site, alice)
    for context, code in ((alice, None), (mallory, "token-binding"), (None, "certificate-required")):
        with gate.client(context_for(site, context), token) as client:
            answer = client.get("/files/alice/run1")
            if code is None:
                assert (answer.status_code, answer.json()["identity"]) == (200, f"spiffe://{DOMAIN}/user/alice")
            else:
                denied(answer, code, 401)
    assert gate.reached.count("/files/alice/run1") == 1, "the app was called for the one permitted request only"


def test_token_of_one_with_certificate_of_the_other(site: Site, gate: Door, alice: Identity, mallory: Identity) -> None:
    """Both ways round, on kept connections, and still after each used their own: the pair is looked at on each request."""
    tokens = {"alice": mint(site, alice), "mallory": mint(site, mallory)}
    people = {"alice": alice, "mallory": mallory}
    for _ in range(2):
        for holder, identity in people.items():
            with gate.client(context_for(site, identity)) as client:
                for name, token in tokens.items():
                    answer = client.get(f"/files/{name}/x", headers={"authorization": f"Bearer {token}"})
                    assert answer.status_code == (200 if name == holder else 401), (holder, name, answer.text)


def test_token_of_a_former_login_dies_with_its_certificate(site: Site, gate: Door, alice: Identity) -> None:
    """The same person with a new certificate: yesterday's token is bound to yesterday's key."""
    again = site.log_in("alice")
    with gate.client(context_for(site, again), mint(site, alice)) as client:
        denied(client.get("/files/alice/run1"), "token-binding", 401)


def test_self_chosen_lifetime_is_clamped(site: Site, signer: None, alice: Identity) -> None:
    """A month is cut to a day for a certificate and to the certificate's end for a token; nan and 1e6 are no lifetimes."""
    body = site.body("alice", keys.generate(Algorithm.P256))
    with site.client() as client:
        answer = client.post("/v1/certificates", json=body | {"lifetime": 30 * 86400})
        leaf = certificates.load_chain(answer.json()["certificate_chain"].encode())[0]
        assert leaf.not_valid_after_utc - system_clock() <= timedelta(days=1)
        assert answer.json()["clamped"]["requested"] == 30 * 86400
        for lifetime in ("NaN", "Infinity", "1e12", "1e6", "-1", '"nan"'):
            text = json.dumps(site.body("alice", keys.generate(Algorithm.P256)))[:-1] + f', "lifetime": {lifetime}}}'
            answer = client.post("/v1/certificates", content=text.encode())
            assert (answer.status_code, answer.json()["code"]) == (400, "body-malformed")
    with site.client(alice) as client:
        answer = client.post("/v1/tokens", json={"audience": "files", "lifetime": 30 * 86400})
        assert answer.json()["clamped"]["granted"] <= 12 * 3600
        assert answer.json()["expires_at"] <= alice.chain[0].not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ")


def test_oversized_token_is_refused_and_the_door_lives_on(site: Site, gate: Door, alice: Identity) -> None:
    """Ten times the size by the verifier, a hundred times by the parser in front of it; the next request is served."""
    context = context_for(site, alice)
    with gate.client(context) as client:
        denied(client.get("/files/x", headers={"authorization": "Bearer " + "A" * 40_000}), "token-too-large", 401)
    for size in (200_000, 3_000_000):
        answer = gate.raw(
            context,
            b"GET /files/x HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer " + b"A" * size + b"\r\n\r\n",
        )
        assert not answer.startswith(b"HTTP/1.1 2")
    with gate.client(context, mint(site, alice)) as client:
        assert client.get("/files/alice/still-here").status_code == 200


@pytest.mark.parametrize("line", [b"a: b\r\n" * 200_000, b"a: " + b"b" * 1_200_000], ids=["many", "long"])
def test_head_without_an_end_is_cut_off(site: Site, gate: Door, line: bytes) -> None:
    """Anybody can send header lines for ever, before there is a request to decide on: the door ends it, not the memory."""
    with (
        socket.create_connection((HOST, gate.port), timeout=SECONDS) as plain,
        context_for(site, None).wrap_socket(plain, server_hostname=HOST) as tls,
    ):
        try:
            tls.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n" + line)
            answer = tls.recv(64)
        except TimeoutError:
            raise AssertionError("the door is still listening") from None
        except OSError:
            answer = b""
    assert answer == b"" or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))


# --- certificates are for clients --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shown(site: Site, alice: Identity) -> tuple[Path, Path]:
    """Alice's chain and key as files."""
    context_for(site, alice)
    stem = site.directory / f"shown-{alice.fingerprint[:12]}"
    return stem.with_suffix(".pem"), stem.with_suffix(".key")


def test_client_certificate_is_no_server_certificate(site: Site, gate: Door, shown: tuple[Path, Path]) -> None:
    """Alice serves with her own certificate. A client that trusts the facility and checks no host name still refuses her."""
    careless = ssl.create_default_context(cafile=str(site.root))
    careless.check_hostname = False
    with impostor(*shown) as fake:
        connection = http.client.HTTPSConnection(HOST, fake.port, context=careless, timeout=SECONDS)
        with pytest.raises(ssl.SSLCertVerificationError) as refused:
            connection.request("GET", "/")
        assert refused.value.verify_code == 26, "X509_V_ERR_INVALID_PURPOSE"
        connection.close()
        assert fake.heard == []
    with impostor(gate.directory / "chain.pem", gate.directory / "key.pem") as real:
        connection = http.client.HTTPSConnection(HOST, real.port, context=careless, timeout=SECONDS)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200, "the control: a service's certificate is accepted by the same client"
        connection.close()


def test_openssl_says_the_same(site: Site, gate: Door, shown: tuple[Path, Path]) -> None:
    """``openssl verify`` and ``openssl s_client``: good for clients, refused as a server; a service's is good as a server."""

    def verify(chain: Path, purpose: str) -> bool:
        command = ["openssl", "verify", "-CAfile", site.root, "-untrusted", chain, "-purpose", purpose, chain]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def handshake(chain: Path, key: Path) -> tuple[int, str]:
        with impostor(chain, key) as fake:
            command = ["openssl", "s_client", "-connect", f"{HOST}:{fake.port}", "-CAfile", site.root]
            command += ["-verify_return_error", "-purpose", "sslserver"]
            done = subprocess.run(command, input="GET /\r\n", capture_output=True, text=True, timeout=120, check=False)
            return done.returncode, done.stdout + done.stderr

    service = gate.directory / "chain.pem"
    assert [verify(shown[0], "sslclient"), verify(shown[0], "sslserver"), verify(service, "sslserver")] == [True, False, True]
    status, said = handshake(*shown)
    assert status != 0
    assert "unsuitable certificate purpose" in said
    # Not the exit status: it also tells of how the connection ended, which is a race between the two sides.
    assert "Verify return code: 0 (ok)" in handshake(service, gate.directory / "key.pem")[1]


def test_csr_cannot_ask_for_a_server(site: Site, signer: None) -> None:
    """A request for serverAuth, the signer's host name and an authority's rights leads to the same plain client certificate."""
    key = keys.generate(Algorithm.P256)
    names = [x509.DNSName(HOST), x509.UniformResourceIdentifier("spiffe://x/user/y")]
    wished = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(x509.ExtendedKeyUsage([x509.OID_SERVER_AUTH]), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key.private_key, keys.hash_for(Algorithm.P256))
        .public_bytes(Encoding.PEM)
        .decode()
    )
    with site.client() as client:
        answer = client.post("/v1/certificates", json=site.body("alice", key, csr=wished))
    assert answer.status_code == 201, answer.text
    assert {"EKU:serverAuth", "CA:true", f"DNS:{HOST}"} <= set(answer.json()["ignored"])
    leaf = certificates.load_chain(answer.json()["certificate_chain"].encode())[0]
    assert list(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [x509.OID_CLIENT_AUTH]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert [str(certificates.principal_of(leaf))] == [f"spiffe://{DOMAIN}/user/alice"]


# --- what is seen and recorded ------------------------------------------------------------------------------------------


def test_request_without_any_usual_header_is_recorded(site: Site, gate: Door, alice: Identity) -> None:
    """No Accept, no User-Agent, not even a keep-alive: the action happens, and its record is there with who did it."""
    token = mint(site, alice)
    request = f"GET /files/alice/bare HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\r\n"
    answer = gate.raw(context_for(site, alice), request.encode())
    assert answer.startswith(b"HTTP/1.1 200")
    assert gate.reached.count("/files/alice/bare") == 1
    record = next(line for line in gate.records() if line.get("path") == "/files/alice/bare")
    assert (record["outcome"], record["principal"]) == ("permit", f"spiffe://{DOMAIN}/user/alice")
    assert record["certificate"] == alice.fingerprint


def test_denied_request_without_any_usual_header_is_recorded_too(site: Site, gate: Door, mallory: Identity) -> None:
    """What was refused is in the log with its reason, also under HTTP/1.0 and with a method nobody knows."""
    context = context_for(site, mallory)
    gate.raw(context, b"GET /files/alice/denied HTTP/1.0\r\n\r\n")
    gate.raw(context, b"BREW /files/alice/denied HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    found = [line["code"] for line in gate.records() if line.get("path") == "/files/alice/denied"]
    assert found[0] == "token-required"
    assert "/files/alice/denied" not in gate.reached


def test_websocket_sees_the_identity(site: Site, gate: Door, alice: Identity, mallory: Identity) -> None:
    """The app behind a WebSocket knows who is connected; with somebody else's certificate there is no connection."""
    token = mint(site, alice)
    url = f"wss://{HOST}:{gate.port}/live/live/now"
    header = {"Authorization": f"Bearer {token}"}
    with connect(url, ssl=context_for(site, alice), additional_headers=header, proxy=None) as opened:
        told = json.loads(opened.recv(timeout=SECONDS))
    assert told == {"identity": f"spiffe://{DOMAIN}/user/alice", "principal": f"spiffe://{DOMAIN}/user/alice"}
    for context in (mallory, None):
        with (
            pytest.raises(InvalidStatus) as refused,
            connect(url, ssl=context_for(site, context), additional_headers=header, proxy=None),
        ):
            pass
        assert refused.value.response.status_code in (401, 403)
    outcomes = [line["code"] for line in gate.records() if line.get("kind") == "websocket"]
    assert outcomes == ["permitted", "token-binding", "certificate-required"]


def test_certificate_that_expires_on_a_kept_connection(site: Site, gate: Door, alice: Identity) -> None:
    """Connections outlive certificates: the next request on the same connection is refused, and so is every later one."""
    connection = http.client.HTTPSConnection(HOST, gate.port, context=context_for(site, alice), timeout=SECONDS)
    token = mint(site, alice)

    def ask(path: str) -> tuple[int, Any]:
        connection.request("GET", path, headers={"authorization": f"Bearer {token}"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())

    try:
        assert ask("/files/alice/kept")[0] == 200
        before = connection.sock
        gate.clock.ahead = alice.chain[0].not_valid_after_utc - system_clock()
        for path in ("/files/alice/kept", "/me"):
            status, problem = ask(path)
            assert (status, problem["code"]) == (401, "certificate-expired")
        assert connection.sock is before, "it is the same connection, still open"
    finally:
        gate.clock.ahead = timedelta(0)
        connection.close()


# --- names from outside ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/files/../me", "/files/%2e%2e/me", "/files/..%2fme", "/files//etc", "/files/./x", "/files/a\\..\\b", "/files/x%00"],
)
def test_path_with_two_readings_never_reaches_the_app(site: Site, gate: Door, alice: Identity, path: str) -> None:
    """Raw bytes on the wire, as no client library would send them."""
    before = len(gate.reached)
    token = mint(site, alice)
    request = f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\r\n"
    answer = gate.raw(context_for(site, alice), request.encode())
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 403")), answer[:80]
    assert len(gate.reached) == before


CLIMBING = ["../evil", "..", "/etc/cron.d/evil", "a/b", "a..b", "evil\x00", ".ssh"]


@pytest.mark.parametrize("name", CLIMBING)
def test_climbing_names_are_refused_by_every_admin_command(site: Site, signer: None, tmp_path: Path, name: str) -> None:
    """Users, services, providers, trust domains and rights: a name that could leave its place is none, and nothing is made."""
    if "\x00" not in name:  # no program can be given a NUL
        settings = ("--settings", site.settings_file, "--reason", "x", "--issuer", site.provider.issuer)
        for command in (
            ("user", "enroll", name, "--subject", "evil", *settings),
            ("service", "certificate", name, "--host", HOST, "--directory", tmp_path / "made", *settings[:4]),
            ("user", "enroll", "ok", "--subject", "x", "--right", f"files:read:/a/{name}/../b", *settings),
            ("init", "--directory", tmp_path / "new", "--trust-domain", name, "--public-url", "https://x.example"),
        ):
            done = CliRunner().invoke(group, [*map(str, command), "--json"])
            assert done.exit_code in (1, 2), command
            code = json.loads(done.stderr.strip().splitlines()[-1])["error"]["code"]
            assert code in {"bad-name", "bad-path", "settings-invalid"}, command
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "host", ["bad host", "", "*.als.example", "..", "x\ny", "m\u00fcnchen.example", "a" * 300, "-x.example"]
)
def test_no_certificate_for_what_is_no_host(site: Site, signer: None, tmp_path: Path, host: str) -> None:
    """Empty, spaced, climbing, foreign and wildcard names of hosts are refused, and not even a key is made."""
    command = ("service", "certificate", "files", "--host", host, "--directory", tmp_path / "made")
    given = ("--reason", "a test", "--settings", site.settings_file)
    assert run_cli(*command, *given, expect=2)["error"]["code"] == "bad-name"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", CLIMBING)
def test_climbing_names_are_refused_over_the_wire(site: Site, signer: None, alice: Identity, name: str) -> None:
    """Audiences, paths, request ids and revocation values with a climb in them are bad requests, not file names."""
    with site.client(alice) as client:
        for path, body in (
            ("/v1/tokens", {"audience": name}),
            ("/v1/tokens", {"audience": "files", "rights": [{"operation": "read", "path": f"/alice/../{name}"}]}),
            ("/v1/tokens", {"audience": "files", "request_id": name.ljust(8, "/")}),
            ("/v1/revocations", {"kind": "jti", "value": name, "reason": "x"}),
        ):
            answer = client.post(path, json=body)
            assert answer.status_code in (400, 403), (path, body, answer.text)
            assert answer.json()["code"] in {"bad-name", "bad-path", "body-malformed", "not-yours"}


@pytest.mark.parametrize(
    "lie",
    [
        ("/.well-known/certauth", lambda answer: answer | {"trust_domain": "../../escaped"}),
        ("/.well-known/certauth", lambda answer: answer | {"trust_domain": "/escaped"}),
        (
            "/.well-known/certauth",
            lambda answer: answer | {"issuers": [answer["issuers"][0] | {"id": "../../escaped"}]},
        ),
        ("/.well-known/certauth", lambda answer: answer | {"endpoints": {"certificates": "file:///escaped", "tokens": "/t"}}),
        ("/v1/certificates", lambda answer: answer | {"principal": "spiffe://../../user/escaped"}),
        ("/v1/certificates", lambda answer: answer | {"request_id": "../../escaped", "serial": "../../escaped"}),
    ],
)
def test_a_facility_cannot_write_outside_its_users_directory(tmp_path: Path, lie: tuple[str, Callable[[Any], Any]]) -> None:
    """A hostile facility answers a login with names that climb: whatever becomes of the login, no file appears elsewhere."""
    (tmp_path / "signer").mkdir()
    (tmp_path / "home").mkdir()
    with hostile_signer(tmp_path / "signer") as hostile:
        hostile.lies[lie[0]] = lie[1]
        before = {path for path in tmp_path.rglob("*") if "home" not in path.parts}

        def tell(text: str) -> None:
            for word in text.split():
                if "/idp/authorize?" in word:
                    visit(word)

        wishes = Wishes(ca=hostile.ca_file.read_bytes(), browser=Browser(enabled=False, timeout=SECONDS))
        with contextlib.suppress(CertauthError):
            client_log_in(Home(tmp_path / "home"), hostile.url, wishes, clock=system_clock, tell=tell)
    after = {path for path in tmp_path.rglob("*") if "home" not in path.parts}
    assert after == before
    assert not [path for path in (tmp_path / "home").rglob("*") if "escaped" in path.name]
    assert not Path("/escaped").exists()


# --- what a login leaves behind ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(site: Site, signer: None, idp: Provider, place: Path) -> Path:
    """Alice's home after a login with the program itself, under the most careless umask there is."""
    browser = place / "browser"
    words = [sys.executable, "-m", "tests.simulator.openid_provider", "--user", "alice", "--ca-file", str(idp.ca_file)]
    browser.write_text(f'#!/bin/sh\ncd {shlex.quote(str(ROOT))} && exec {shlex.join(words)} --browse "$1"\n')
    browser.chmod(0o700)
    arguments = ["login", site.url, "--issuer", "real", "--ca-file", str(site.root), "--ca-file", str(idp.ca_file)]
    for command in ([*arguments, "--browser-command", str(browser)], ["token", "mint", "files"]):
        run_program(place / "home", *command, expect=0)
    return place / "home"


def run_program(home: Path, *arguments: str, expect: int) -> str:
    """The user's program, under umask 0."""
    done = subprocess.run(
        [str(CERTAUTH), *arguments],
        env={**os.environ, "CERTAUTH_HOME": str(home), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=lambda: os.umask(0) and None,
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_every_file_of_a_person_is_private(home: Path, site: Site) -> None:
    """Keys, chains, tokens and receipts are 0600 and directories 0700, whatever the umask; so are the facility's secrets."""
    files = [path for path in home.rglob("*") if path.is_file()]
    assert {"key.pem", "chain.pem", "files"} <= {path.name for path in files}
    for path in home.rglob("*"):
        assert stat.S_IMODE(path.lstat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    secret = [*(site.directory / "keys").iterdir(), *(site.directory / "secrets").iterdir(), site.directory / "tls" / "key.pem"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in secret} == {0o600}
    assert stat.S_IMODE((site.directory / "signer.db").stat().st_mode) == 0o600


def test_readable_key_file_is_not_used(home: Path, gate: Door, site: Site) -> None:
    """A key that others can read is refused by the program, and by the signer for its own keys."""
    key = home / DOMAIN / "key.pem"
    key.chmod(0o644)
    try:
        said = run_program(home, "call", "GET", f"{gate.url}/files/alice/x", "--token", "files", expect=1)
        assert "[key-file-open]" in said
    finally:
        key.chmod(0o600)
    run_program(home, "call", "GET", f"{gate.url}/files/alice/x", "--token", "files", expect=0)


def test_the_program_does_not_hand_its_token_to_an_impostor(home: Path, shown: tuple[Path, Path]) -> None:
    """Mallory's fake service shows a person's certificate: ``certauth call`` ends before it has sent a byte."""
    with impostor(*shown) as fake:
        run_program(home, "call", "GET", f"https://{HOST}:{fake.port}/files/alice/x", "--token", "files", expect=3)
        assert fake.heard == []


def test_proof_of_possession_is_not_optional(site: Site, signer: None, alice: Identity) -> None:
    """Alice's public key in a request signed by mallory: no certificate for a key that its sender does not hold."""
    mallory_key = keys.generate(Algorithm.P256)
    own = x509.load_pem_x509_csr(make_csr(alice.key).encode())
    forged_signature = mallory_key.private_key.sign(own.tbs_certrequest_bytes, ec.ECDSA(hashes.SHA256()))  # type: ignore[call-arg,union-attr]  # a P-256 key, as made
    der = own.public_bytes(Encoding.DER)
    head = der.index(own.signature)
    padded = forged_signature.ljust(len(own.signature), b"\0")[: len(own.signature)]
    forged = der[:head] + padded + der[head + len(own.signature) :]
    pem = "-----BEGIN CERTIFICATE REQUEST-----\n" + base64.encodebytes(forged).decode() + "-----END CERTIFICATE REQUEST-----\n"
    with site.client() as client:
        answer = client.post("/v1/certificates", json=site.body("alice", alice.key, csr=pem))
    assert (answer.status_code, answer.json()["code"]) in ((400, "csr-signature"), (400, "csr-malformed"))


def test_nobody_gets_a_token_anonymously(site: Site, gate: Door) -> None:
    """Enrolment is open to the world, the rest is not: without a certificate there is no token, and no door opens."""
    with site.client() as client:
        answer = client.post("/v1/tokens", json={"audience": "files"})
        assert (answer.status_code, answer.json()["code"]) == (401, "certificate-required")
        assert client.get("/livez").status_code == 200
    with gate.client(context_for(site, None)) as client:
        denied(client.get("/me"), "certificate-required", 401)
        assert client.get("/livez").status_code == 200

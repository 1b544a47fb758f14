"""Every way of logging in, from one end to the other: the real program, the real signer, and providers that are not ours.

Each journey ends in a certificate, and some in a call to a service; beside each stands the theft that it must withstand. The
signer is a process of its own, each ``certauth`` another, and the people have browsers that fill in the providers' own forms.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from cryptography import x509

from certauth import certificates, keys
from certauth.audit import record
from certauth.client.attempt import Method, Situation, Wishes
from certauth.client.jose import public_jwk, sign
from certauth.client.login import log_in
from certauth.client.profile import Home
from certauth.clock import system_clock
from certauth.encoding import b64url
from certauth.identity.binding import BoundKey, jwk_thumbprint
from certauth.keys import Algorithm, SoftwareKey
from signer.codes import make_code
from signer.log_reader import open_offline
from tests.demo.stage import CERTAUTH, ROOT, free_port
from tests.journeys.kit import Door, door, until, verify_database
from tests.journeys.login_place import AUDIENCE, SECONDS, Login, Place, add_issuer, dpop_key, place, run
from tests.journeys.server import serving
from tests.signer.kit import DOMAIN, facility, make_csr
from tests.simulator import mock_provider as careless
from tests.simulator import node_provider as node
from tests.simulator.hostile_provider import ProviderKey, jwks, malleated

MOVER = f"spiffe://{DOMAIN}/service/mover"
TYPE_CODE = r"type this code:  (\S+?)(?:\\n|\s)"


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The facility, served by a process of its own."""
    with place(tmp_path_factory.mktemp("place")) as made:
        keys_of_pods = made.directory / "pods.json"
        keys_of_pods.write_bytes(jwks(POD_KEY))
        machine = 'subject = "agent/mover-pod"'
        rule = f'[[issuer.rule]]\nname = "pods"\nwhen.all = [{{claim = "{POD}", equals = "mover"}}]\n{machine}\n'
        settings = {"kinds": ["workload"], "bindings": ["audience"], "algorithms": ["ES256"], "enrolment": "open"}
        add_issuer(made.site, "cluster", CLUSTER, "certauth", jwks_file=str(keys_of_pods), rules=rule, **settings)
        bearer = made.directory / "bearer"
        bearer.touch(mode=0o600)
        bearer.write_text("of-the-signers-pod")
        guarded = f"{made.ci.issuer}/cluster-2"
        rule = rule.replace("mover-pod", "pod-2")
        settings |= {"bearer_file": str(bearer), "jwks_uri": f"{made.guarded.issuer}/jwks", "ca_file": str(made.guarded_ca)}
        made.guarded.bearer = "of-the-signers-pod"
        made.guarded.jwks = jwks(POD_KEY)
        host = made.guarded.issuer.removeprefix("https://")
        add_issuer(made.site, "cluster-2", guarded, "certauth", rules=rule, allowed_hosts=[host], **settings)
        with serving(made.site):
            yield made


@pytest.fixture(scope="module")
def files(at: Place) -> Iterator[Door]:
    """A service that lets in whoever has a token."""
    with door(at.site, at.directory / "door") as running:
        yield running


def mint_and_call(at: Place, files: Door, home: Path, path: str) -> None:
    """A token for the files, and a request that the service answers."""
    run(home, "token", "mint", "files", "--read", path)
    done = run(home, "call", "GET", f"{files.url}/files{path}x", "--token", "files")
    assert done["status"] == 200
    assert json.loads(str(done["body"]))["path"].endswith(f"{path}x")
    at.said.add(Home(home).active().token("files") or "")


def assurance_of(home: Path) -> int:
    """What the certificate says that the login was worth."""
    return int(run(home, "whoami")["assurance"])


def refused(answer: httpx2.Response, status: int, code: str) -> None:
    """A problem document with a stable code."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def key_pair() -> SoftwareKey:
    """A new key."""
    return keys.generate(Algorithm.P256)


# --- through the signer ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("provider", "user"), [("campus", "alice"), ("hpc", "bob")])
def test_a_login_through_the_signer(at: Place, files: Door, tmp_path: Path, provider: str, user: str) -> None:
    """Over SSH it is the way that is chosen: code, pages, provider, certificate of assurance 2, token, call."""
    ssh = {} if provider == "campus" else {"SSH_CONNECTION": "192.0.2.1 50000 192.0.2.2 22"}
    with Login(at, tmp_path, "--issuer", provider, *([] if ssh else ["--mediated"]), **ssh) as login:
        page = at.finish(login.says(TYPE_CODE), user, at=provider)
        assert "Go back to your terminal" in page
        done = login.ends()
    assert done["principal"] == f"spiffe://{DOMAIN}/user/{provider}-{user}"
    assert assurance_of(tmp_path) == 2
    mint_and_call(at, files, tmp_path, f"/{user}/")
    assert run(tmp_path, "login")["already"] is True


def test_a_mistyped_code_and_a_person_who_says_no(at: Place, tmp_path: Path) -> None:
    """A wrong code finds no login and spoils none; "not me" ends the program with status 3, and nothing is stored."""
    with Login(at, tmp_path, "--issuer", "campus", "--mediated") as login, at.person() as person:
        code = login.says(TYPE_CODE)
        wrong = person.type_code(code[:-1] + ("2" if code[-1] != "2" else "3"))
        assert wrong.status_code == 403
        assert "No login waits for this code" in wrong.text
        shown = person.type_code(code)
        assert shown.status_code == 200
        assert "The login was refused" in person.answer(shown, "no").text
        error = login.ends(3)
    assert error["code"] == "login-denied"
    assert run(tmp_path, "whoami", status=4)["code"] == "not-logged-in"


def test_nobody_types_the_code(at: Place, tmp_path: Path) -> None:
    """The program gives up when its time is over, says so, and leaves nothing behind."""
    with Login(at, tmp_path, "--issuer", "campus", "--mediated", "--timeout", "1s") as login:
        assert login.ends(5)["code"] == "login-timeout"
    assert not list(tmp_path.rglob("*.pem"))


def test_a_login_of_the_signer_is_for_one_key_and_one_certificate(at: Place) -> None:
    """With login and secret in hand: another key is refused, the right one certified, and no second certificate follows."""
    key, secret = key_pair(), secrets.token_urlsafe(32)
    begun = begin(at, key, secret)
    proof = {"type": "login", "login": begun["login"], "secret": secret}
    refused(at.ask(key, proof), 409, "login-pending")
    with at.site.client() as client:
        metrics = client.get("/metrics").text
    assert float(metrics.split("\nsigner_logins_under_way ")[1].split()[0]) >= 1
    refused(at.ask(key, proof | {"secret": secrets.token_urlsafe(32)}), 404, "login-unknown")
    at.finish(str(begun["user_code"]), "alice", at="campus")
    refused(at.ask(key_pair(), proof), 401, "key-not-bound")
    assert str(certificates.principal_of(at.certified(key, proof).chain[0])) == f"spiffe://{DOMAIN}/user/campus-alice"
    refused(at.ask(key, proof), 409, "replayed")


def begin(at: Place, key: SoftwareKey, secret: str) -> dict[str, Any]:
    """``POST /v1/logins``."""
    wish = {"csr": make_csr(key), "issuer": "campus", "host": "h", "secret_sha256": hashlib.sha256(secret.encode()).hexdigest()}
    with at.site.client() as client:
        answer = client.post("/v1/logins", json=wish)
    assert answer.status_code == 201, answer.text
    at.said.add(secret)
    begun: dict[str, Any] = answer.json()
    return begun


# --- access tokens -----------------------------------------------------------------------------------------------------------


def test_the_device_grant_with_dpop(at: Place, files: Door, tmp_path: Path) -> None:
    """The program's own key is in the access token that npm oidc-provider signs; certificate, token, call."""
    with Login(at, tmp_path, "--issuer", "hpc", "--device") as login:
        said = login.says(r"(https://\S+?(?:\\n|\s)+and type this code:  [A-Z-]+)")
        node.approve_device(at.hpc, "alice", said.split("\\n")[0].split()[0], said.split()[-1])
        assert login.ends()["principal"] == f"spiffe://{DOMAIN}/user/hpc-alice"
    assert assurance_of(tmp_path) == 2
    mint_and_call(at, files, tmp_path, "/alice/")


def test_an_access_token_is_worth_nothing_with_another_key(at: Place, tmp_path: Path) -> None:
    """Bound by DPoP: for its key once. Not bound: refused by a signer that takes bound ones only, before it is even sent."""
    key, prover = dpop_key()
    tokens = node.device_login(at.hpc, "bob", dpop=prover, resource=AUDIENCE)
    proof = {"type": "access_token", "token": tokens["access_token"]}
    refused(at.ask(key_pair(), proof), 401, "key-not-bound")
    at.certified(key, proof)
    refused(at.ask(key, proof), 409, "replayed")
    unbound = node.device_login(at.hpc, "bob", resource=AUDIENCE)["access_token"]
    refused(at.ask(key_pair(), {"type": "access_token", "token": unbound}), 401, "key-not-bound")
    refused(at.ask(key_pair(), {"type": "workload", "token": unbound}), 401, "kind-not-allowed")
    token = private_file(tmp_path / "token", unbound)
    with Login(at, tmp_path / "home", "--token", token) as login:
        assert login.ends(2)["code"] == "proof-not-accepted"


def test_an_opaque_token_that_its_issuer_explains(at: Place, tmp_path: Path) -> None:
    """Introspection at npm oidc-provider: unbound, so assurance 1; of use once, and of none once it is revoked."""
    issued = node.log_in(at.opaque, "alice", resource=AUDIENCE)["access_token"]
    assert "." not in issued
    token = private_file(tmp_path / "token", issued)
    with Login(at, tmp_path / "home", "--issuer", "opaque", "--token", token) as login:
        assert login.ends()["principal"] == f"spiffe://{DOMAIN}/user/opaque-alice"
    assert assurance_of(tmp_path / "home") == 1
    proof = {"type": "access_token", "token": issued, "issuer": "opaque"}
    refused(at.ask(key_pair(), proof), 409, "replayed")
    refused(at.ask(key_pair(), proof | {"token": "never-issued-by-anybody"}), 401, "token-inactive")
    revoked = node.log_in(at.opaque, "alice", resource=AUDIENCE)["access_token"]
    with at.opaque.client() as client:
        form = {"token": revoked, "client_id": at.opaque.client_id}
        assert client.post(at.opaque.discovery()["revocation_endpoint"], data=form).status_code == 200
    refused(at.ask(key_pair(), proof | {"token": revoked}), 401, "token-inactive")
    elsewhere = node.log_in(at.opaque, "alice")["access_token"]  # for no audience
    assert at.ask(key_pair(), proof | {"token": elsewhere}).json()["code"] in {"missing-claim", "wrong-audience"}
    refused(at.ask(key_pair(), proof | {"issuer": "hpc"}), 401, "unknown-issuer")
    refused(at.ask(key_pair(), proof | {"issuer": "nowhere"}), 401, "unknown-issuer")


def test_an_opaque_token_that_is_bound_to_a_key(at: Place) -> None:
    """What introspection says of the key counts, even where tokens without one are taken."""
    key, prover = dpop_key()
    issued = node.log_in(at.opaque, "bob", resource=AUDIENCE, dpop=prover)["access_token"]
    proof = {"type": "access_token", "token": issued, "issuer": "opaque"}
    refused(at.ask(key_pair(), proof), 401, "key-not-bound")
    at.certified(key, proof)


def private_file(path: Path, text: str) -> Path:
    """A file that only its owner reads."""
    path.touch(mode=0o600)
    path.write_text(text)
    return path


# --- taking back -------------------------------------------------------------------------------------------------------------


def test_a_derived_token_is_taken_back(at: Place, files: Door, tmp_path: Path) -> None:
    """``token revoke --only-this``: the service refuses the copy that somebody has, and goes on with what it came from."""
    browser = f"{sys.executable} -m tests.simulator.openid_provider --user alice --ca-file {at.campus.ca_file} --browse"
    with Login(at, tmp_path, "--issuer", "campus", "--browser-command", browser) as login:
        login.ends()
    assert assurance_of(tmp_path) == 2
    mint_and_call(at, files, tmp_path, "/alice/")
    run(tmp_path, "token", "attenuate", "files", "--read", "/alice/run1/", "--as", "run1")
    copy = private_file(tmp_path / "copy", Home(tmp_path).active().token("run1") or "")
    asking = ("call", "GET", f"{files.url}/files/alice/run1/x", "--token")
    assert run(tmp_path, *asking, copy)["status"] == 200
    assert run(tmp_path, "token", "revoke", "run1", "--only-this")["kind"] == "block"
    with files.client(context_of(tmp_path, at), copy.read_text()) as client:
        answer = until(lambda: one if (one := client.get("/files/alice/run1/x")).status_code == 401 else None)
    assert answer.json()["code"] == "token-revoked"
    assert run(tmp_path, *asking, "files")["status"] == 200


def context_of(home: Path, at: Place) -> ssl.SSLContext:
    """TLS as the program speaks it, with the stored certificate."""
    context = trusting(at)
    Home(home).active().present(context, now=system_clock())
    return context


# --- jobs and pods -----------------------------------------------------------------------------------------------------------


POD = "/kubernetes.io/serviceaccount/name"
POD_KEY = ProviderKey("ES256", kid="cluster-1")
CLUSTER = "https://kubernetes.default.svc.cluster.local"
ACCOUNT = {"sub": "system:serviceaccount:als:mover", "kubernetes.io": {"serviceaccount": {"name": "mover"}}}


@contextmanager
def platform(at: Place, make: Callable[[str], str]) -> Iterator[str]:
    """The token service of GitHub and of Kubernetes, which sign for whatever audience they are asked; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer({"value": make(parse_qs(urlsplit(self.path).query)["audience"][0])})

        def do_POST(self) -> None:
            wish = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self.answer({"status": {"token": make(wish["spec"]["audiences"][0])}})

        def answer(self, members: object) -> None:
            body = json.dumps(members).encode()
            allowed = self.headers["authorization"] == "Bearer of-the-job" or self.headers["authorization"] == f"Bearer {OWN}"
            self.send_response(200 if allowed else 401)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
            """Silence."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(at.directory / "ci" / "server.crt", at.directory / "ci" / "server.key")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


OWN = POD_KEY.sign({"iss": CLUSTER, **ACCOUNT})


def test_a_job_in_ci(at: Place, files: Door, tmp_path: Path) -> None:
    """Without a terminal, in a job that may ask for tokens, the job is an agent; another key has no use for its token."""
    signed: list[str] = []

    def make(audience: str) -> str:
        signed.append(at.ci_token(audience))
        return signed[-1]

    with platform(at, make) as address:
        job = {"ACTIONS_ID_TOKEN_REQUEST_URL": f"https://{address}/token?v=1", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "of-the-job"}
        with Login(at, tmp_path, "--ca-file", at.directory / "ci" / "ca.crt", "--issuer", "ci", **job) as login:
            assert login.ends()["principal"] == f"spiffe://{DOMAIN}/agent/pipeline"
    mint_and_call(at, files, tmp_path, "/pipeline/")
    (stolen,) = signed
    refused(at.ask(key_pair(), {"type": "workload", "token": stolen}), 401, "key-not-bound")
    refused(at.ask(key_pair(), {"type": "id_token", "token": stolen}), 401, "kind-not-allowed")


def test_a_job_of_somebody_else(at: Place) -> None:
    """The platform vouches for all the world: the rules decide, and nobody is told which."""
    key = key_pair()
    stranger = at.ci_token(at.bound(key).audience(), repository_id="43")
    refused(at.ask(key, {"type": "workload", "token": stranger}), 403, "not-admitted")
    key = key_pair()
    elsewhere = BoundKey(signer_id="https://elsewhere.example", spki=keys.spki(key.public_key)).audience()
    refused(at.ask(key, {"type": "workload", "token": at.ci_token(elsewhere)}), 401, "wrong-audience")
    refused(at.ask(key, {"type": "workload", "token": at.ci_token("certauth")}), 401, "key-not-bound")


@pytest.mark.parametrize(("issuer", "name"), [("cluster", "mover-pod"), ("cluster-2", "pod-2")])
def test_a_pod(at: Place, tmp_path: Path, issuer: str, name: str) -> None:
    """TokenRequest for the key's audience; the cluster's keys from a file, or fetched with the signer's own bearer token."""
    url = CLUSTER if issuer == "cluster" else f"{at.ci.issuer}/cluster-2"

    def make(audience: str) -> str:
        now = int(system_clock().timestamp())
        at.said.add(
            signed := POD_KEY.sign({"iss": url, "aud": [audience], "iat": now, "nbf": now, "exp": now + 600, **ACCOUNT})
        )
        return signed

    with platform(at, make) as address:
        account = tmp_path / "secrets" / "kubernetes.io" / "serviceaccount"
        account.mkdir(parents=True)
        (account / "token").write_text(OWN)
        (account / "ca.crt").write_bytes((at.directory / "ci" / "ca.crt").read_bytes())
        host, _, port = address.partition(":")
        environment = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
        wishes = Wishes(ca=at.roots(), issuer=issuer, method=Method.WORKLOAD)
        situation = Situation(environment=environment, terminal=False, secrets=tmp_path / "secrets")
        home = Home(tmp_path / "home")
        done = log_in(home, at.url, wishes, clock=system_clock, tell=lambda _text: None, situation=situation)
    assert str(done.peer.principal) == f"spiffe://{DOMAIN}/agent/{name}"


# --- services ----------------------------------------------------------------------------------------------------------------


def enrol(at: Place, name: str, *words: object) -> None:
    """What an administrator does for a service, a host or an agent."""
    run(at.directory, *("signer", "service", "enroll", name, *words, "--reason", "a test", "--settings", at.site.settings_file))


def assertion(at: Place, enrolled: SoftwareKey, key: SoftwareKey, **claims: object) -> dict[str, object]:
    """What a service signs with its enrolled key for ``key``, with claims changed."""
    now = int(system_clock().timestamp())
    said: dict[str, object] = {
        "iss": MOVER,
        "sub": MOVER,
        "aud": at.url,
        "jti": secrets.token_hex(8),
        "iat": now,
        "exp": now + 120,
    }
    said |= {"cnf": {"jkt": at.bound(key).thumbprint()}} | claims
    header = {"typ": "JWT", "kid": jwk_thumbprint(public_jwk(enrolled.public_key))}
    return {"type": "client_assertion", "token": sign(header, said, enrolled)}


def test_a_service_with_an_enrolled_key(at: Place, tmp_path: Path) -> None:
    """``private_key_jwt``: a certificate with the hosts of the enrolment; its assertion is for one key, one signer, one use."""
    enrolled = key_pair()
    (tmp_path / "mover.jwk").write_text(json.dumps({**public_jwk(enrolled.public_key), "kid": "as its owner calls it"}))
    hosts = ("--host", "mover.als.example", "--host", "192.0.2.7")
    enrol(at, "mover", "--key", tmp_path / "mover.jwk", *hosts)
    keys.save_private(tmp_path / "mover.pem", enrolled, passphrase=None)
    with Login(at, tmp_path / "home", "--key", tmp_path / "mover.pem", "--principal", MOVER) as login:
        assert login.ends()["principal"] == MOVER
    leaf = Home(tmp_path / "home").active().credential(now=system_clock()).leaf
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {str(name.value) for name in names} == {MOVER, "mover.als.example", "192.0.2.7"}

    key = key_pair()
    proof = assertion(at, enrolled, key)
    refused(at.ask(key_pair(), proof), 401, "key-not-bound")
    at.certified(key, proof)
    refused(at.ask(key, proof), 409, "replayed")
    refused(at.ask(key, proof | {"token": malleated(str(proof["token"]))}), 409, "replayed")
    refused(at.ask(key, assertion(at, enrolled, key, aud="https://elsewhere.example")), 401, "wrong-audience")
    refused(at.ask(key, assertion(at, enrolled, key, aud=[at.url, "https://elsewhere.example"])), 401, "wrong-audience")
    refused(at.ask(key, assertion(at, enrolled, key, cnf=None)), 401, "key-not-bound")
    other = f"spiffe://{DOMAIN}/service/other"
    refused(at.ask(key, assertion(at, enrolled, key, iss=other, sub=other)), 401, "unknown-issuer")
    refused(at.ask(key, assertion(at, key_pair(), key)), 401, "unknown-key")
    stranger = key_pair()
    forged = sign(
        {"typ": "JWT", "kid": jwk_thumbprint(public_jwk(enrolled.public_key))}, {"iss": MOVER, "sub": MOVER}, stranger
    )
    refused(at.ask(key, {"type": "client_assertion", "token": forged}), 401, "bad-signature")


def test_a_machine_with_a_code(at: Place, tmp_path: Path) -> None:
    """A one-time code, once: the second user is refused, whoever it is; what was typed wrong is nobody's."""
    principal, code_file = f"spiffe://{DOMAIN}/host/node7", tmp_path / "code"
    enrol(at, "node7", "--kind", "host", "--host", "node7.als.example", "--code", "--output", code_file)
    code = code_file.read_text().strip()
    refused(at.ask(key_pair(), {"type": "code", "code": make_code(bytes(16))}), 401, "code-invalid")
    with Login(at, tmp_path / "home", "--code", code_file) as login:
        assert login.ends()["principal"] == principal
    refused(at.ask(key_pair(), {"type": "code", "code": code.upper()}), 409, "replayed")


# --- two signers, one database -----------------------------------------------------------------------------------------------


def test_one_proof_at_two_signer_processes_at_once(at: Place) -> None:
    """The same proof, and the same with its other signature, at two processes at once: one certificate, however it is sent."""
    address = f"127.0.0.1:{free_port()}"
    environment = {**os.environ, "SIGNER_LISTEN": address}
    with (at.directory / "second.log").open("wb") as log:
        command = [str(CERTAUTH), "signer", "serve", "--settings", str(at.site.settings_file)]
        second = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log)
    try:
        with httpx2.Client(base_url=f"https://{address}", verify=trusting(at), timeout=SECONDS, trust_env=False) as there:
            wait_for(second, there, at.directory / "second.log")
            with at.site.client() as here, ThreadPoolExecutor(8) as pool:
                for user in ("r10-a", "r10-b", "r10-c"):
                    at.site.enroll(user, issuer=at.site.provider.issuer)
                    body = at.site.body(user, key_pair())
                    proof, gate = body["proof"], threading.Barrier(8)
                    twin = {**body, "proof": {**proof, "token": malleated(proof["token"])}}
                    at.said |= {proof["token"], twin["proof"]["token"]}

                    def ask(client: httpx2.Client, wish: dict[str, Any], gate: threading.Barrier = gate) -> httpx2.Response:
                        gate.wait(SECONDS)
                        return client.post("/v1/certificates", json=wish)

                    wishes = [(client, wish) for client in (here, there) for wish in (body, twin)] * 2
                    answers = list(pool.map(lambda one: ask(*one), wishes))
                    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7, [a.text for a in answers]
                    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"replayed"}
    finally:
        second.terminate()
        second.wait(60)
    verify_database(at.site)


def trusting(at: Place) -> ssl.SSLContext:
    """A client's view of TLS."""
    return ssl.create_default_context(cafile=str(at.site.root))


def wait_for(process: subprocess.Popen[bytes], client: httpx2.Client, log: Path) -> None:
    """Until it answers."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if client.get("/livez").status_code == 200:
                return
        except httpx2.TransportError:
            time.sleep(0.05)
    raise AssertionError(log.read_text()[-3000:])


# --- eight at once -----------------------------------------------------------------------------------------------------------


def test_eight_programs_that_start_together_log_in_once(at: Place, tmp_path: Path) -> None:
    """Eight processes, each with a browser that would log in: one login at the provider, one certificate in the log."""
    ca, log = at.campus.ca_file, at.directory / "campus" / "provider.log"
    before, certified = log.read_text().count("POST /token"), certificates_of(at, "campus-bob")
    browser = f"{sys.executable} -m tests.simulator.openid_provider --user bob --ca-file {ca} --browse"
    running = [Login(at, tmp_path, "--issuer", "campus", "--browser-command", browser) for _ in range(8)]
    try:
        shared = {str(login.ends()["fingerprint"]) for login in running}
    finally:
        for login in running:
            login.__exit__()
    assert len(shared) == 1
    assert log.read_text().count("POST /token") == before + 1
    assert certificates_of(at, "campus-bob") == certified + 1


def certificates_of(at: Place, user: str) -> int:
    """How many certificates the log has for somebody."""
    with open_offline(at.site.directory / "signer.db") as reader:
        found = [record.decode(entry.body) for entry in reader.entries()]
    return sum(one["kind"] == "grant.cert" and f"/user/{user}" in json.dumps(one) for one in found)


# --- a careless provider -----------------------------------------------------------------------------------------------------


def test_a_careless_provider(tmp_path: Path) -> None:
    """Tokens that name no key, or an issuer that is whatever it was called, are refused unless the settings say otherwise."""
    with careless.mock_provider(tmp_path / "careless") as provider, facility(tmp_path) as site:
        add_issuer(site, "careless", provider.issuer, careless.CLIENT_ID, ca_file=str(provider.ca_file), enrolment="open")
        settings = site.settings_file.read_text()

        def ask(base: str | None = None) -> httpx2.Response:
            key, salt = key_pair(), secrets.token_bytes(16)
            nonce = BoundKey(signer_id=site.url, spki=keys.spki(key.public_key), salt=salt).nonce()
            token = careless.mock_log_in(provider, "mallory", nonce=nonce, base=base)["id_token"]
            proof = {"type": "id_token", "token": token, "salt": b64url(salt)}
            with site.client() as client:
                return client.post("/v1/certificates", json={"csr": make_csr(key), "proof": proof})

        with site.serving():
            refused(ask(), 401, "unknown-key")
            refused(ask(provider.other_name), 401, "unknown-issuer")
        site.settings_file.write_text(settings + "single_key = true\n")
        with site.serving():
            assert ask().status_code == 201
            refused(ask(provider.other_name), 401, "unknown-issuer")


# --- what is written down ----------------------------------------------------------------------------------------------------


def test_no_secret_of_any_login_is_written_down(at: Place, files: Door, tmp_path: Path) -> None:
    """Tokens, codes, secrets and cookies of every kind of login, good and refused, are in no log and not in the database."""
    test_a_login_of_the_signer_is_for_one_key_and_one_certificate(at)
    test_an_access_token_is_worth_nothing_with_another_key(at, tmp_path)
    key, secret = key_pair(), secrets.token_urlsafe(24)
    for type_, name in (("code", "code"), ("id_token", "token"), ("access_token", "token"), ("client_assertion", "token")):
        at.ask(key, {"type": type_, name: f"{type_}.{secret}"})
        at.ask(key, {"type": type_, name: secret, secret: secret})
    at.ask(key, {"type": "workload", "token": at.ci_token(at.bound(key).audience())})
    with at.site.client() as client:
        client.get("/login/callback", params={"code": secret, "state": secret})
        client.post(f"/v1/logins/{begin(at, key, secrets.token_urlsafe(32))['login']}", json={"secret": secret})
    with files.client(ssl.create_default_context(cafile=str(at.site.root)), secret) as client:
        client.get("/files/x")
    at.said |= {secret, OWN}
    written = {path: path.read_bytes() for path in at.site.directory.rglob("*") if is_log(path)}
    written |= {path: path.read_bytes() for path in files.directory.glob("decisions*")}
    assert {"serve.log", "signer.db"} <= {path.name for path in written}
    assert b"request.refused" in written[at.site.directory / "serve.log"]
    found = [(path.name, text[:6]) for path, data in written.items() for text in at.said if text and text.encode() in data]
    assert found == []
    # The other way round: what is meant to be there is found in the same way.
    assert any(b"/user/campus-alice" in data for data in written.values())


def is_log(path: Path) -> bool:
    """Whether a signer or a door writes it while it runs: all but the client's secret and what clients keep of their own."""
    return path.is_file() and path.suffix not in {".pem", ".key"} and path.name != "client-secret"

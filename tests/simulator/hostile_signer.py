"""A signer on loopback that can lie. For what a client must refuse; what a signer does is tested with the real one.

It has real keys, makes real certificates, tokens and receipts, and speaks TLS, so each lie is the only thing wrong with an
answer. It also plays the identity provider of its own logins (code flow, device grant), the token services of GitHub and of
Kubernetes, and whatever service a certificate may be shown to. It verifies no proof: ``proofs`` is what it was sent.

    with hostile_signer(directory) as signer:
        signer.lies["/v1/certificates"] = lambda answer: answer | {"receipt": other}
        signer.offers = {"flows": ["code", "mediated", "device"]}       what its only issuer is said to do
        signer.seen, signer.peers, signer.proofs ...

    python -m tests.simulator.hostile_signer URL        be the browser: visit the authorization address and follow it back
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import json
import secrets
import ssl
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from certauth.audit import record
from certauth.audit.checkpoint import Checkpoint, VerifierKey, sign
from certauth.audit.receipt import Receipt
from certauth.audit.tree import Frontier, extend, inclusion_proof, leaf_hash
from certauth.bundles import TokenRoot, TrustBundle
from certauth.certificates import dump_chain, fingerprint, make_intermediate, make_leaf, make_root, make_service, random_serial
from certauth.clock import rfc3339
from certauth.encoding import b64url
from certauth.issuance import CertificateGrant
from certauth.keys import Algorithm, SoftwareKey, generate, key_id, save_private
from certauth.names import Kind, Principal, TrustDomain
from certauth.profiles import USER
from certauth.requests import parse_csr
from certauth.tokens import Right, TokenSpec, block_ids, mint, to_text

DOMAIN = TrustDomain.parse("hostile.example")
Answer = Any
Lie = Callable[[Answer], Answer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """An answer that is not JSON, or has another status, or is sent in many pieces."""

    status: int = 200
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    pieces: tuple[bytes, ...] = (b"",)
    repeat: int = 1
    hang_up: str = ""


def problem(status: int, code: str, detail: str, **more: object) -> Raw:
    """A problem document."""
    body = {"type": "about:blank", "title": code, "status": status, "code": code, "detail": detail} | more
    return Raw(status=status, content_type="application/problem+json", pieces=(json.dumps(body).encode(),))


class HostileSigner:
    """The facility's keys, its log, and the lies to tell; see the module."""

    def __init__(self, directory: Path) -> None:
        now = datetime.now(UTC)
        self.root_key, self.issuing_key = generate(Algorithm.P256), generate(Algorithm.P256)
        self.token_key, self.log_key, self.feed_key = (generate(Algorithm.ED25519) for _ in range(3))
        self.root = make_root(domain=DOMAIN, key=self.root_key, serial=_serial(), now=now)
        self.issuing = make_intermediate(
            domain=DOMAIN,
            public_key=self.issuing_key.public_key,
            issuer=self.root,
            issuer_key=self.root_key,
            serial=_serial(),
            now=now,
        )
        self.origin = f"{DOMAIN}/log"
        self.leaves: list[bytes] = []
        self.lies: dict[str, Lie] = {}
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.peers: list[str | None] = []
        self.proofs: list[dict[str, Any]] = []
        self.offers: dict[str, Any] = {}
        self.logins: dict[str, dict[str, Any]] = {}
        self.devices: dict[str, dict[str, Any]] = {}
        self.subject_uri = f"spiffe://{DOMAIN}/user/alice"
        self.lifetime = timedelta(hours=8)
        self.directory = directory
        self.url = ""
        self.ca_file = directory / "facility-ca.pem"
        self.ca_file.write_bytes(dump_chain([self.root]))

    def tls(self) -> ssl.SSLContext:
        """A context that shows a certificate of the facility and asks for the client's."""
        key = generate(Algorithm.P256)
        now = datetime.now(UTC)
        certificate = make_service(
            principal=Principal.make(DOMAIN, Kind.SERVICE, "signer"),
            public_key=key.public_key,
            dns_names=["localhost"],
            ip_addresses=[ipaddress.IPv4Address("127.0.0.1")],
            issuer=self.issuing,
            issuer_key=self.issuing_key,
            serial=_serial(),
            not_before=now - timedelta(minutes=1),
            not_after=now + timedelta(days=1),
        )
        save_private(self.directory / "server.key", key, passphrase=None)
        (self.directory / "server.crt").write_bytes(dump_chain([certificate, self.issuing]))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.directory / "server.crt", self.directory / "server.key")
        context.load_verify_locations(self.ca_file)
        context.verify_mode = ssl.CERT_OPTIONAL
        return context

    # --- honest answers ----------------------------------------------------------------------------------------------

    def metadata(self) -> Answer:
        return {
            "signer": self.url,
            "trust_domain": str(DOMAIN),
            "version": "0",
            "endpoints": {"certificates": f"{self.url}/v1/certificates", "tokens": "/v1/tokens", "logins": "/v1/logins"},
            "issuers": [self.issuer() | self.offers],
        }

    def issuer(self) -> Answer:
        return {"id": "campus", "url": f"{self.url}/idp", "client_id": "cli", "scopes": ["openid"], "binding": "nonce"}

    def begin_login(self, body: Answer) -> Answer:
        login = secrets.token_urlsafe(16)
        code = "-".join("".join(secrets.choice("BCDFGHJKLMNPQRSTVWXZ") for _ in range(4)) for _ in range(2))
        self.logins[login] = body | {"user_code": code, "state": "pending"}
        page = f"{self.url}/login"
        return {"login": login, "user_code": code, "verification_uri": page, "expires_in": 600, "interval": 1}

    def login_state(self, login: str, body: Answer) -> Answer:
        known = self.logins.get(login)
        if known is None or hashlib.sha256(body["secret"].encode()).hexdigest() != known["secret_sha256"]:
            return problem(404, "login-unknown", "there is no such login")
        return {"state": known["state"], "interval": 1}

    def finish_logins(self) -> Answer:
        """Somebody visits the page of a login: the simulated user types every code there is."""
        for known in (*self.logins.values(), *self.devices.values()):
            known["state"] = "ready"
        return Raw(content_type="text/html", pieces=(b"<p>go back to your terminal</p>",))

    def begin_device(self, form: dict[str, str]) -> Answer:
        code = secrets.token_urlsafe(16)
        self.devices[code] = form | {"state": "pending"}
        return {
            "device_code": code,
            "user_code": "WDJB-MJHT",
            "verification_uri": f"{self.url}/idp/device",
            "expires_in": 600,
            "interval": 1,
        }

    def device_tokens(self, form: dict[str, str], dpop: str | None) -> Answer:
        known = self.devices.get(form["device_code"])
        if known is None or known["state"] != "ready":
            return Raw(status=400, pieces=(b'{"error":"authorization_pending"}',))
        kind = "Bearer" if dpop is None else "DPoP"
        return {"access_token": "an.access.token", "id_token": "an.id.token", "token_type": kind, "expires_in": 600}

    def workload_token(self, issuer: str, audience: list[str], subject: str) -> str:
        """A token of a platform; nobody here verifies its signature."""
        claims = {"iss": issuer, "aud": audience, "sub": subject}
        return ".".join(b64url(json.dumps(part).encode()) for part in ({"alg": "RS256"}, claims, "signature"))

    def bundle(self, *, sequence: int = 1, domain: TrustDomain = DOMAIN, signer_url: str | None = None) -> TrustBundle:
        token_key = self.token_key.public_key
        return TrustBundle(
            domain=domain,
            sequence=sequence,
            issued_at=datetime.now(UTC).replace(microsecond=0),
            refresh_hint=300,
            x509_roots=(self.root,),
            x509_issuers=(self.issuing,),
            token_roots=(TokenRoot(kid=key_id(token_key), key=token_key),),  # type: ignore[arg-type]  # an Ed25519 key, as made
            log_vkey=str(VerifierKey.make(self.origin, self.log_key.public_key)),
            feed_key=self.feed_key.public_key,  # type: ignore[arg-type]  # likewise
            signer_url=signer_url or self.url,
            feed_url=f"{self.url}/v1/revocations",
        )

    def discovery(self) -> Answer:
        return {
            "issuer": f"{self.url}/idp",
            "authorization_endpoint": f"{self.url}/idp/authorize",
            "token_endpoint": f"{self.url}/idp/token",
            "device_authorization_endpoint": f"{self.url}/idp/device_authorization",
            "authorization_response_iss_parameter_supported": True,
        }

    def leaf(self, public_key: Any, *, principal: str | None = None, key: SoftwareKey | None = None) -> x509.Certificate:
        now = datetime.now(UTC).replace(microsecond=0)
        grant = CertificateGrant(
            principal=Principal.parse(principal or self.subject_uri),
            profile=USER,
            public_key=public_key,
            spki=b"",
            not_before=now - timedelta(seconds=60),
            not_after=now + self.lifetime,
            assurance=2,
            issuer_id="campus",
            ignored=(),
            clamped=None,
            rule="hostile",
        )
        return make_leaf(grant=grant, issuer=self.issuing, issuer_key=key or self.issuing_key, serial=_serial())

    def certificate(self, body: Answer, **lies: Any) -> Answer:
        request = parse_csr(body["csr"])
        self.proofs.append(body["proof"])
        leaf = self.leaf(request.public_key, **lies)
        return {
            "certificate_chain": dump_chain([leaf, self.issuing]).decode(),
            "principal": self.subject_uri,
            "serial": f"{leaf.serial_number:x}",
            "not_before": rfc3339(leaf.not_valid_before_utc),
            "not_after": rfc3339(leaf.not_valid_after_utc),
            "ignored": list(request.asked),
            "clamped": None,
            "receipt": self.receipt(self.certificate_event(leaf, request.spki)).to_dict(),
            "request_id": body["request_id"],
        }

    def certificate_event(self, leaf: x509.Certificate, spki: bytes) -> record.CertificateGranted:
        return record.CertificateGranted(
            principal=Principal.parse(self.subject_uri),
            issuer=f"{self.url}/idp",
            subject=record.commit("sub", "alice", salt=bytes(16)),
            assurance=2,
            proof="id_token",
            binding="nonce",
            proof_digest=hashlib.sha256(b"proof").hexdigest(),
            rule="hostile",
            clamp=None,
            ignored=(),
            serial=leaf.serial_number,
            certificate=fingerprint(leaf),
            spki=hashlib.sha256(spki).hexdigest(),
            not_before=leaf.not_valid_before_utc,
            not_after=leaf.not_valid_after_utc,
            profile="user",
        )

    def token(self, body: Answer, peer: x509.Certificate, *, user: str | None = None, key: SoftwareKey | None = None) -> Answer:
        now = datetime.now(UTC).replace(microsecond=0)
        public_key = peer.public_key()
        rights = [(right["operation"], right["path"]) for right in body.get("rights") or [{"operation": "read", "path": "/"}]]
        spec = TokenSpec(
            issuer=f"spiffe://{DOMAIN}",
            jti=secrets.token_hex(16),
            user=user or self.subject_uri,
            issued_at=now,
            not_before=now - timedelta(seconds=60),
            expires_at=now + timedelta(seconds=body.get("lifetime") or 3600),
            audience=(body["audience"],),
            rights=tuple(Right(body["audience"], *right) for right in rights),
            assurance=2,
            peer_fingerprint=fingerprint(peer),
            delegate_key=public_key if body["delegations"] and isinstance(public_key, EllipticCurvePublicKey) else None,
        )
        token = mint(spec, key or self.token_key)
        event = self.token_event(spec, token)
        return {
            "token": to_text(token),
            "jti": spec.jti,
            "expires_at": rfc3339(spec.expires_at),
            "rights": [{"operation": operation, "path": path} for operation, path in rights],
            "clamped": None,
            "receipt": self.receipt(event).to_dict(),
            "request_id": body["request_id"],
        }

    def token_event(self, spec: TokenSpec, token: bytes) -> record.TokenGranted:
        return record.TokenGranted(
            principal=Principal.parse(self.subject_uri),
            peer=spec.peer_fingerprint,
            rule="hostile",
            clamp=None,
            jti=spec.jti,
            kid=key_id(self.token_key.public_key),
            audience=spec.audience,
            rights=tuple(tuple(right) for right in spec.rights),  # type: ignore[misc]  # three members each
            expires_at=spec.expires_at,
            block=block_ids(token)[0],
            token=hashlib.sha256(token).hexdigest(),
            form="biscuit",
            delegations=spec.delegation_depth if spec.delegate_key is not None else 0,
        )

    def receipt(self, event: record.Event, *, key: SoftwareKey | None = None) -> Receipt:
        """Log the event and prove it."""
        entry = record.encode(
            event,
            origin=self.origin,
            request_id=secrets.token_hex(8),
            at=datetime.now(UTC),
            source=record.Source(replica="r1", version="0", config="0" * 64),
        )
        self.leaves.append(leaf_hash(entry))
        size = len(self.leaves)
        extension = extend(Frontier(), self.leaves)
        note = sign(Checkpoint(self.origin, size, extension.frontier.root()), key=key or self.log_key)
        return Receipt(entry=entry, index=size - 1, proof=inclusion_proof(size - 1, size, extension.read), note=note)


def _serial() -> int:
    return random_serial(secrets.token_bytes(20))


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        self._serve(self._body())

    def do_PUT(self) -> None:
        self._serve(self._body())

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def _serve(self, body: bytes) -> None:
        signer = self.server.signer
        parts = urlsplit(self.path)
        signer.seen.append((self.command, self.path, dict(self.headers.items()), body))
        der = self.connection.getpeercert(binary_form=True)  # type: ignore[attr-defined]  # a TLS socket
        peer = x509.load_der_x509_certificate(der) if der else None
        signer.peers.append(fingerprint(peer) if peer else None)
        answer: Answer = Raw(status=404, content_type="text/plain", pieces=(b"nothing here",))
        match parts.path:
            case "/.well-known/certauth":
                answer = signer.metadata()
            case "/.well-known/certauth/bundle":
                answer = Raw(pieces=(signer.bundle().to_json(),))
            case "/idp/.well-known/openid-configuration":
                answer = signer.discovery()
            case "/idp/authorize":
                answer = self._authorize(parse_qs(parts.query))
            case "/idp/token" if b"device_code" in body:
                answer = signer.device_tokens(dict(parse_qsl(body.decode())), self.headers.get("dpop"))
            case "/idp/token":
                answer = {"id_token": "an.id.token", "token_type": "Bearer", "access_token": "x"}
            case "/idp/device_authorization":
                answer = signer.begin_device(dict(parse_qsl(body.decode())))
            case "/idp/device" | "/login":
                answer = signer.finish_logins()
            case "/v1/logins":
                answer = signer.begin_login(json.loads(body))
            case path if path.startswith("/v1/logins/"):
                answer = signer.login_state(path.removeprefix("/v1/logins/"), json.loads(body))
            case "/actions/token" if self.headers.get("authorization") == "Bearer of-the-job":
                audience = parse_qs(parts.query)["audience"]
                answer = {"value": signer.workload_token(f"{signer.url}/idp", audience, "repo:als/run:ref:refs/heads/main")}
            case "/api/v1/namespaces/beam/serviceaccounts/mover/token":
                audience = json.loads(body)["spec"]["audiences"]
                token = signer.workload_token(f"{signer.url}/idp", audience, "system:serviceaccount:beam:mover")
                answer = {"kind": "TokenRequest", "status": {"token": token}}
            case "/v1/certificates":
                answer = signer.certificate(json.loads(body))
            case "/v1/tokens" if peer is not None:
                answer = signer.token(json.loads(body), peer)
            case "/data/hello":
                answer = Raw(content_type="text/plain", pieces=(b"hello\n",))
        if lie := signer.lies.get(parts.path):
            answer = lie(answer)
        self._send(answer if isinstance(answer, Raw) else Raw(pieces=(json.dumps(answer).encode(),)))

    def _authorize(self, query: dict[str, list[str]]) -> Raw:
        back = {"code": "the-code", "state": query["state"][0], "iss": f"{self.server.signer.url}/idp"}
        return Raw(status=302, headers={"location": f"{query['redirect_uri'][0]}?{urlencode(back)}"})

    def _send(self, answer: Raw) -> None:
        if answer.hang_up == "before":
            self.close_connection = True
            return
        self.send_response(answer.status)
        self.send_header("content-type", answer.content_type)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(answer.repeat * sum(map(len, answer.pieces))))
        self.end_headers()
        with contextlib.suppress(OSError):  # a client that has had enough
            for _ in range(answer.repeat):
                for piece in answer.pieces:
                    self.wfile.write(piece)
                    if answer.hang_up == "midway":
                        self.close_connection = True
                        return

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class names it so
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, signer: HostileSigner) -> None:
        self.signer = signer
        self._context = signer.tls()
        super().__init__(("127.0.0.1", 0), _Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        with contextlib.suppress(OSError):
            request.settimeout(20)
            with self._context.wrap_socket(request, server_side=True) as secured:
                super().finish_request(secured, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that refused us is what the tests are about."""


@contextlib.contextmanager
def hostile_signer(directory: Path) -> Iterator[HostileSigner]:
    """Serve on a free port of 127.0.0.1 while the block runs."""
    signer = HostileSigner(directory)
    with _Server(signer) as server:
        signer.url = f"https://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield signer
        finally:
            server.shutdown()
            thread.join()


def visit(url: str) -> None:
    """Be the browser of somebody whom the provider already knows: follow the redirect back to 127.0.0.1.

    TLS is not verified: the simulator is what is being visited.
    """
    context = ssl._create_unverified_context()
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=20) as response:
        response.read()


if __name__ == "__main__":
    visit(sys.argv[1])

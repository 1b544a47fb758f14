"""Attacks in a row, each of which must be refused with its own code. Made for ``python -O``, which removes every ``assert``.

    python -O -m tests.journeys.attacks

Exit status 1 names the attacks that got through; 2 says that the interpreter was not optimising. No ``assert`` is used here.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from certauth.audit.verify import StoredEntry, verify_log
from certauth.bundles import verify_peer
from certauth.errors import CertauthError
from certauth.files import read_private
from certauth.identity import BoundKey, Issuer, KeySet, read_proof, verify_id_token
from certauth.keys import Algorithm, generate
from certauth.names import Principal, TrustDomain, label
from certauth.requests import canonical_path, parse_csr
from certauth.revocation import RevocationKind
from certauth.tokens import from_text, to_text
from certauth.tokens.blocks import Block
from certauth.tokens.codec import decode, encode
from certauth.tokens.datalog import Predicate
from certauth.tokens.signing import append
from policy.decision import Deny, Permit
from policy.testing import Facility, Peer
from tests.faults.kit import VKEY
from tests.faults.kit import Facility as Place
from tests.faults.kit import certificate as submission
from tests.policy.door import Door, HandClock
from tests.signer.kit import make_csr
from tests.simulator.hostile_provider import ProviderKey, jwks

through: list[str] = []


def refused(name: str, code: str, attack: Callable[[], object]) -> None:
    """The attack raises an error of ours with this code, or comes to a denial with it."""
    try:
        result = attack()
    except CertauthError as error:
        result = error.code
    if isinstance(result, Permit) or result != code:
        through.append(f"{name}: {result if isinstance(result, str) else 'not refused'} instead of {code}")


def permitted(name: str, code: str) -> None:
    """The control: what is right still works, so that the refusals mean something."""
    if code != "permit":
        through.append(f"{name}: refused with {code}")


def proofs() -> None:
    """A login that is not ours, not now, not signed, or not for this key."""
    now = datetime.now(UTC)
    mine, hers = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    provider = ProviderKey("ES256")
    salt, signer = os.urandom(16), "https://signer.example:8443"

    def bound(private: ec.EllipticCurvePrivateKey) -> BoundKey:
        spki = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return BoundKey(signer_id=signer, spki=spki, salt=salt)

    issuer = Issuer(id="idp", url="https://idp.example", audience="signer", algorithms=frozenset({"ES256"}))
    seconds = int(now.timestamp())
    claims = {"iss": issuer.url, "sub": "alice", "aud": "signer", "iat": seconds, "exp": seconds + 600}
    claims["nonce"] = bound(mine).nonce()
    keys = KeySet.parse(jwks(provider))

    def check(token: str, *, wanted: BoundKey) -> str:
        verify_id_token(read_proof(token), issuer=issuer, keys=keys, key=wanted, now=now)
        return "permit"

    permitted("a good proof", check(provider.sign(claims), wanted=bound(mine)))
    for name, code, changes in (
        ("proof for another client", "wrong-audience", {"aud": "other"}),
        ("proof of another issuer", "unknown-issuer", {"iss": "https://evil.example"}),
        ("proof after its end", "proof-expired", {"iat": seconds - 9000, "exp": seconds - 8000}),
        ("proof of the future", "proof-not-yet-valid", {"iat": seconds + 9000, "exp": seconds + 9600}),
        ("proof without a nonce", "key-not-bound", {"nonce": ""}),
    ):
        refused(name, code, lambda changes=changes: check(provider.sign(claims | changes), wanted=bound(mine)))  # type: ignore[misc]
    refused("proof for another key", "key-not-bound", lambda: check(provider.sign(claims), wanted=bound(hers)))
    forged = ProviderKey("ES256").sign(claims)
    refused("proof signed by somebody else", "bad-signature", lambda: check(forged, wanted=bound(mine)))


def requests() -> None:
    """A certification request for somebody else's key, and names that climb."""
    one, other = generate(Algorithm.P256), generate(Algorithm.P256)
    pem = make_csr(one)
    parse_csr(pem)
    der = x509.load_pem_x509_csr(pem.encode()).public_bytes(Encoding.DER)
    spki = [key.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for key in (one, other)]
    refused("request for a key its sender does not hold", "csr-signature", lambda: parse_csr(der.replace(*spki)))
    refused("huge request", "csr-too-large", lambda: parse_csr(b"A" * 20_000))
    for name in ("../evil", "a/../b", "..", "/etc/passwd", ""):
        refused(f"label {name!r}", "bad-name", lambda name=name: label(name, "a name"))  # type: ignore[misc]
        refused(f"domain {name!r}", "bad-name", lambda name=name: TrustDomain.parse(name))  # type: ignore[misc]
        uri = f"spiffe://als.example/user/{name}"
        refused(f"principal {name!r}", "bad-name", lambda uri=uri: Principal.parse(uri))  # type: ignore[misc]
    refused("path that climbs", "bad-path", lambda: canonical_path("/a/../b"))


def door() -> None:
    """Certificates and tokens that are stolen, foreign, expired, revoked, or for something else."""
    clock = HandClock()
    facility, foreign = Facility("als.example", clock=clock), Facility("evil.example", clock=clock)
    alice, mallory = facility.peer("alice"), facility.peer("mallory")
    gate = Door(facility.trust(), clock)
    token = facility.token(alice, "data", rights=["read /files/a/"])
    permitted("alice herself", gate.code("GET /files/a/1", alice, token))

    def ask(what: str, peer: Peer | None, shown: str | None) -> Callable[[], str]:
        return lambda: gate.code(what, peer, shown)

    namesake = Facility("als.example", clock=clock).peer("alice")
    forged = foreign.token(alice, "data", rights=["read /"])
    elsewhere = facility.token(alice, "other", rights=["read /files/a/"])
    for name, code, attack in (
        ("stolen token", "token-binding", ask("GET /files/a/1", mallory, token)),
        ("no certificate", "certificate-required", ask("GET /files/a/1", None, token)),
        ("no token", "token-required", ask("GET /files/a/1", alice, None)),
        ("another path", "right-not-held", ask("GET /files/b/1", alice, token)),
        ("another operation", "right-not-held", ask("PUT /files/a/1", alice, token)),
        ("another service's token", "token-audience", ask("GET /files/a/1", alice, elsewhere)),
        ("no route", "no-route", ask("GET /nowhere", alice, token)),
        ("unknown domain", "domain-unknown", ask("GET /me", foreign.peer("alice"), None)),
        (
            "same domain, other authority",
            "chain-invalid",
            ask("GET /me", namesake, None),
        ),
        (
            "token of another key",
            "token-unknown-key",
            ask("GET /files/a/1", alice, forged),
        ),
        ("huge token", "token-too-large", ask("GET /files/a/1", alice, "A" * 50_000)),
    ):
        refused(name, code, attack)
    facts = Block(version=3, facts=(Predicate("right", ("data", "read", "/")),))
    widened = to_text(encode(append(decode(from_text(token)), facts, entropy=os.urandom)))
    refused("rights that a holder gave themselves", "lint-fact", ask("GET /files/b/1", alice, widened))
    refused(
        "service certificate as a person", "chain-malformed", lambda: verify_peer([], gate.trust.state.entries, now=clock())
    )
    facility.revoke(RevocationKind.CERTIFICATE, mallory.fingerprint)
    refused("revoked certificate", "certificate-revoked", ask("GET /me", mallory, None))
    clock.forward(hours=2)
    refused("expired token", "token-expired", ask("GET /files/a/1", alice, token))
    clock.forward(hours=9)
    refused("expired certificate", "certificate-expired", ask("GET /me", alice, None))
    decision = gate.ask("GET /nowhere")
    try:
        truth = bool(decision)
    except TypeError:
        return
    through.append(f"a decision has the truth value {truth}; {isinstance(decision, Deny)}")


def record() -> None:
    """A proof used twice, an altered log, and a key file that everybody can read."""
    with tempfile.TemporaryDirectory() as directory:
        place = Place(Path(directory))
        with place.running() as (store, ledger):
            first = ledger.record(submission(1))
            again = submission(2, proof="proof 1")
            refused("proof used twice", "replayed", lambda: ledger.record(again))
            with store.log() as reader:
                entries, note = list(reader.entries()), reader.checkpoint() or ""
        if first.index != 0:
            through.append("the log did not begin at 0")
        verify_log(entries, note, VKEY)
        altered = entries[0].body.replace(b'"v":1', b'"v":2')
        forged = [StoredEntry(index=0, body=altered, leaf=entries[0].leaf, chain=entries[0].chain)]
        refused("altered log", "log-entry-altered", lambda: verify_log(forged, note, VKEY))
        rehashed = hashlib.sha256(b"\0" + altered).digest()
        forged = [StoredEntry(index=0, body=altered, leaf=rehashed, chain=entries[0].chain)]
        refused("altered log, hashed again", "log-chain-broken", lambda: verify_log(forged, note, VKEY))
        secret = Path(directory) / "key.pem"
        secret.write_bytes(b"secret")
        secret.chmod(0o644)
        refused("key file that others can read", "key-file-open", lambda: read_private(secret))


def main() -> int:
    """Every attack; 0 if none got through."""
    if not sys.flags.optimize:
        print("run this with python -O", file=sys.stderr)
        return 2
    for attack in (proofs, requests, door, record):
        attack()
    print(*through, sep="\n", file=sys.stderr)
    return 1 if through else 0


if __name__ == "__main__":
    sys.exit(main())

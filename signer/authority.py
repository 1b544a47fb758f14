"""The facility's keys and certificates on disk: made once by ``certauth signer init``, loaded by ``serve``.

    <state>/keys/{root,issuing,token,log,feed,jwt}.pem   encrypted PKCS#8, mode 0600; ``root`` is needed again only to renew
                                                      ``issuing`` and should be moved off the machine
    <state>/keys/{token,jwt}-<kid>.pem                later keys of these two uses (``signer.key_files``)
    <state>/certificates/{root,issuing}.pem
    <state>/secrets/passphrase                        of the keys; better handed over by systemd's LoadCredential
    <state>/bundle.json                               the trust bundle, for doors on this machine (``signer.key_ring``)
    <state>/tls/{chain,key}.pem                       what this signer shows to its clients, renewed by itself

One key, one purpose: X.509, tokens, log, feed and JWTs are never signed by the same key. Those that sign tokens change while
the service runs; they are not loaded here but by ``signer.key_ring``.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from certauth import certificates, keys
from certauth.audit.checkpoint import VerifierKey
from certauth.bundles import KeyState, TokenRoot, TrustBundle
from certauth.errors import ConfigError, KeyMaterialError
from certauth.files import PRIVATE, PUBLIC, make_private_directory, read_private, write_atomic
from certauth.keys import Algorithm, SoftwareKey
from certauth.names import TrustDomain
from signer.key_files import KeyFiles
from signer.settings import Settings

ROOT_LIFETIME = timedelta(days=3650)
ISSUING_LIFETIME = timedelta(days=730)
_PURPOSES: Mapping[str, Algorithm] = {
    "root": Algorithm.P256,
    "issuing": Algorithm.P256,
    "token": Algorithm.ED25519,
    "log": Algorithm.ED25519,
    "feed": Algorithm.ED25519,
    "jwt": Algorithm.P256,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """What the running service signs with and never changes. The root key is not among it, nor are the keys for tokens."""

    domain: TrustDomain
    root: x509.Certificate
    issuing: x509.Certificate
    issuing_key: SoftwareKey
    log_key: SoftwareKey
    feed_key: SoftwareKey
    bundle: TrustBundle
    """As it was found; its token keys may have changed since, see ``KeyRing``."""
    bundle_file: Path
    key_files: KeyFiles
    origin: str

    @property
    def token_issuer(self) -> str:
        """Who its tokens say minted them; a door compares it with the domain whose bundle holds the key."""
        return f"spiffe://{self.domain}"


def log_origin(domain: TrustDomain) -> str:
    """The name of the facility's log in checkpoints and entries (C2SP tlog-checkpoint: schema-less URL)."""
    return f"{domain}/certauth/log"


def random_serial() -> int:
    """A certificate serial from the operating system's randomness."""
    return certificates.random_serial(secrets.token_bytes(20))


def create(settings: Settings, *, now: datetime) -> Authority:
    """Make keys, root, issuing certificate and bundle. The caller has seen to it that there are none yet."""
    state = make_private_directory(settings.state)
    key_directory = make_private_directory(state / "keys")
    passphrase = _new_passphrase(settings)
    made = {purpose: keys.generate(algorithm) for purpose, algorithm in _PURPOSES.items()}
    for purpose, key in made.items():
        keys.save_private(key_directory / f"{purpose}.pem", key, passphrase=passphrase)
    root = certificates.make_root(
        domain=settings.domain, key=made["root"], serial=random_serial(), now=now, lifetime=ROOT_LIFETIME
    )
    issuing = certificates.make_intermediate(
        domain=settings.domain,
        public_key=made["issuing"].public_key,
        issuer=root,
        issuer_key=made["root"],
        serial=random_serial(),
        now=now,
        lifetime=ISSUING_LIFETIME,
    )
    directory = make_private_directory(state / "certificates")
    for name, certificate in (("root", root), ("issuing", issuing)):
        write_atomic(directory / f"{name}.pem", certificates.dump_chain([certificate]), mode=PUBLIC)
    bundle = _bundle(settings, root=root, issuing=issuing, made=made, now=now)
    write_atomic(state / "bundle.json", bundle.to_json(), mode=PUBLIC)
    return load(settings, environment={}, allow_example_keys=False)


def _new_passphrase(settings: Settings) -> bytes:
    path = settings.passphrase_file or make_private_directory(settings.state / "secrets") / "passphrase"
    if path.exists():
        return read_private(path).strip()
    passphrase = secrets.token_urlsafe(32).encode()
    write_atomic(path, passphrase + b"\n", mode=PRIVATE)
    return passphrase


def _bundle(
    settings: Settings,
    *,
    root: x509.Certificate,
    issuing: x509.Certificate,
    made: Mapping[str, SoftwareKey],
    now: datetime,
) -> TrustBundle:
    token_key, log_key, feed_key = (_ed25519(made[purpose].public_key) for purpose in ("token", "log", "feed"))
    return TrustBundle(
        domain=settings.domain,
        sequence=1,
        issued_at=now,
        refresh_hint=300,
        x509_roots=(root,),
        x509_issuers=(issuing,),
        token_roots=(TokenRoot(kid=keys.key_id(token_key), key=token_key, state=KeyState.ACTIVE),),
        log_vkey=str(VerifierKey.make(log_origin(settings.domain), log_key)),
        feed_key=feed_key,
        signer_url=settings.public_url,
        feed_url=f"{settings.public_url}/v1/revocations",
    )


def _ed25519(public: object) -> Ed25519PublicKey:
    if not isinstance(public, Ed25519PublicKey):
        raise KeyMaterialError("bad-key", "this purpose needs an Ed25519 key", hint="use a key of the kind that is named")
    return public


def load(settings: Settings, *, environment: Mapping[str, str], allow_example_keys: bool) -> Authority:
    """Load what ``create`` made; raise if a key is missing, unreadable, an example, or not the one its certificate names.

    ``environment`` is asked again for the passphrase whenever a key for tokens is loaded.
    """
    state = settings.state
    passphrase = read_passphrase(settings, environment)
    loaded = {
        purpose: keys.load_private(
            state / "keys" / f"{purpose}.pem", passphrase=passphrase, allow_example_keys=allow_example_keys
        )
        for purpose in ("issuing", "log", "feed")
    }
    root, issuing = (_certificate(state / "certificates" / f"{name}.pem") for name in ("root", "issuing"))
    bundle_file = state / "bundle.json"
    authority = Authority(
        domain=settings.domain,
        root=root,
        issuing=issuing,
        issuing_key=loaded["issuing"],
        log_key=loaded["log"],
        feed_key=loaded["feed"],
        bundle=TrustBundle.parse(_read(bundle_file), allow_example_keys=allow_example_keys),
        bundle_file=bundle_file,
        key_files=KeyFiles(
            directory=state / "keys",
            passphrase=partial(read_passphrase, settings, environment),
            allow_example_keys=allow_example_keys,
        ),
        origin=log_origin(settings.domain),
    )
    _agree(authority, settings)
    return authority


def _agree(authority: Authority, settings: Settings) -> None:
    """Keys, certificates, bundle and settings must tell one story, or relying parties would refuse what we issue."""
    bundle = authority.bundle
    log_vkey = VerifierKey.parse(bundle.log_vkey)
    story = {
        "the bundle's trust domain": (bundle.domain, settings.domain),
        "the bundle's signer URL": (bundle.signer_url, settings.public_url),
        "the issuing key": (keys.fingerprint(authority.issuing_key.public_key), _spki_of(authority.issuing)),
        "the log key": (keys.fingerprint(authority.log_key.public_key), keys.fingerprint(log_vkey.public_key)),
        "the feed key": (keys.fingerprint(authority.feed_key.public_key), keys.fingerprint(bundle.feed_key)),
    }
    wrong = [what for what, (one, other) in story.items() if one != other]
    if wrong:
        raise ConfigError(
            "authority-mismatch",
            f"{', '.join(wrong)} does not agree with the rest of {settings.state}",
            hint="restore keys, certificates and bundle from one backup",
        )


def _spki_of(certificate: x509.Certificate) -> str:
    return keys.fingerprint(certificate.public_key())  # type: ignore[arg-type]  # the union here is wider than what we issue


def issuing_certificate(settings: Settings) -> x509.Certificate:
    """The certificate that leaves are issued under, without its key; ``ConfigError`` (``not-initialised``) if there is none."""
    return _certificate(settings.state / "certificates" / "issuing.pem")


def read_passphrase(settings: Settings, environment: Mapping[str, str]) -> bytes:
    """The keys' passphrase from the configured file, the service manager's credentials, or the state directory."""
    credentials = environment.get("CREDENTIALS_DIRECTORY")
    handed_over = Path(credentials) / "passphrase" if credentials else None
    path = settings.passphrase_file or (
        handed_over if handed_over and handed_over.exists() else settings.state / "secrets" / "passphrase"
    )
    return read_private(path).strip()


def _certificate(path: Path) -> x509.Certificate:
    return certificates.load_chain(_read(path))[0]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            "not-initialised", f"cannot read {path}: {os.strerror(error.errno or 0)}", hint="run 'certauth signer init' first"
        ) from error

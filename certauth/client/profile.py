"""Where a user's credentials are kept: one directory per trust domain, everything in it private, replaced whole or not at all.

    <home>/active                 the trust domain of the last login
    <home>/<trust domain>/
        key.pem  chain.pem        the private key and its certificate, leaf first
        bundle.json  signer.json  whom to trust there, and where the signer is
        ca.pem                    further roots for TLS, if the login named any
        receipts/<id>.json        proof that each grant is in the facility's log
        tokens/<name>             one token each, as text: usable as BEARER_TOKEN_FILE

``<home>`` is ``$CERTAUTH_HOME``, else ``certauth`` under the user's XDG state directory. Files are 0600 and directories 0700.
One lock file per trust domain is held for every write and for every read of more than one file, so a parallel process sees
the old pair of key and certificate or the new one.
"""

from __future__ import annotations

import contextlib
import shutil
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path

import platformdirs
from cryptography import x509

from certauth.audit.receipt import Receipt
from certauth.bundles import TrustBundle
from certauth.certificates import dump_chain, fingerprint, load_chain, principal_of
from certauth.encoding import canonical_json, strict_json
from certauth.errors import CertauthError, LoginRequired, StoreError, UsageError
from certauth.files import PRIVATE, lock, make_private_directory, read_private, write_atomic
from certauth.keys import SoftwareKey, load_private, save_private
from certauth.keys import fingerprint as key_fingerprint
from certauth.names import Principal, TrustDomain, label

_LOCK_SECONDS = 10.0
_ANY_SIGNER = "https://<your facility's signer>"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerRecord:
    """What a login learnt about its signer; ``certificates`` and ``tokens`` are URLs on the signer's own origin.

    ``issuer`` is the id of the identity provider, empty if the login needed none.
    """

    url: str
    domain: str
    issuer: str
    certificates: str
    tokens: str
    system_roots: bool
    example_keys: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A private key and the certificate chain that belongs to it, leaf first."""

    key: SoftwareKey
    chain: tuple[x509.Certificate, ...]

    @property
    def leaf(self) -> x509.Certificate:
        return self.chain[0]

    @property
    def principal(self) -> Principal:
        return principal_of(self.leaf)

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.leaf)


class Profile:
    """The stored credentials of one trust domain."""

    def __init__(self, directory: Path, domain: TrustDomain) -> None:
        self.directory = directory
        self.domain = domain

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold this profile's lock; raise ``StoreError`` (``locked``) if another process keeps it for ten seconds."""
        make_private_directory(self.directory)
        with lock(self.directory / ".lock", timeout=_LOCK_SECONDS):
            yield

    @property
    def login_command(self) -> str:
        """The command that renews this profile's credential."""
        try:
            return f"certauth login {self.signer().url}"
        except CertauthError:
            return f"certauth login {_ANY_SIGNER}"

    # --- the certificate ---------------------------------------------------------------------------------------------

    def store_login(
        self,
        credential: Credential,
        *,
        signer: SignerRecord,
        bundle: bytes,
        extra_roots: bytes | None,
        receipt: Receipt,
    ) -> int:
        """Replace everything a login establishes; return how many tokens were bound to the previous certificate and deleted."""
        with self.locked():
            tokens = self._names("tokens")
            shutil.rmtree(self.directory / "tokens", ignore_errors=True)
            self._write("bundle.json", bundle)
            self._write("signer.json", canonical_json(asdict(signer)))
            if extra_roots is None:
                (self.directory / "ca.pem").unlink(missing_ok=True)
            else:
                self._write("ca.pem", extra_roots)
            save_private(self.directory / "key.pem", credential.key, passphrase=None)
            self._write("chain.pem", dump_chain(list(credential.chain)))
            self._write(f"receipts/certificate-{credential.fingerprint[:16]}.json", receipt.to_json())
            return len(tokens)

    def credential(self, *, now: datetime) -> Credential:
        """The key and a certificate that is still valid; ``LoginRequired`` naming the command otherwise."""
        credential = self.stored_credential()
        if now >= credential.leaf.not_valid_after_utc:
            raise LoginRequired(
                "certificate-expired", f"your certificate for {self.domain} has run out", hint=self.login_command
            )
        return credential

    def stored_credential(self) -> Credential:
        """The key and certificate, valid or not; ``LoginRequired`` if there is none or the two do not belong together."""
        with self.locked():
            return self._credential()

    def _credential(self) -> Credential:
        if not (self.directory / "chain.pem").exists():
            raise LoginRequired("not-logged-in", f"there is no certificate for {self.domain}", hint=self.login_command)
        key = load_private(self.directory / "key.pem", passphrase=None, allow_example_keys=self.signer().example_keys)
        chain = tuple(load_chain(read_private(self.directory / "chain.pem")))
        if key_fingerprint(key.public_key) != key_fingerprint(chain[0].public_key()):  # type: ignore[arg-type]  # wider union
            raise LoginRequired(
                "credential-damaged", f"the key for {self.domain} does not belong to its certificate", hint=self.login_command
            )
        return Credential(key=key, chain=chain)

    def present(self, context: ssl.SSLContext, *, now: datetime) -> Credential:
        """Let ``context`` show this certificate to servers; the same errors as ``credential``."""
        self.credential(now=now)
        with self.locked():
            credential = self._credential()
            context.load_cert_chain(self.directory / "chain.pem", self.directory / "key.pem")
        return credential

    def forget(self) -> int:
        """Delete key, certificate and tokens, and return how many tokens there were; receipts, trust and signer stay."""
        with self.locked():
            tokens = self._names("tokens")
            shutil.rmtree(self.directory / "tokens", ignore_errors=True)
            for name in ("key.pem", "chain.pem"):
                (self.directory / name).unlink(missing_ok=True)
            return len(tokens)

    # --- whom to trust -----------------------------------------------------------------------------------------------

    def signer(self) -> SignerRecord:
        """What the last login learnt; ``LoginRequired`` if there was none."""
        path = self.directory / "signer.json"
        if not path.exists():
            raise LoginRequired(
                "not-logged-in", f"there was no login to {self.domain} yet", hint=f"certauth login {_ANY_SIGNER}"
            )
        try:
            members = strict_json(read_private(path))
            if not isinstance(members, dict) or set(members) != {field.name for field in fields(SignerRecord)}:
                raise ValueError("other members than a login writes")
            return SignerRecord(**members)
        except ValueError as error:
            raise StoreError(
                "profile-damaged", f"{path} is damaged", hint=f"delete it and log in to {self.domain} again"
            ) from error

    def bundle(self) -> TrustBundle:
        """The trust bundle the last login verified against."""
        signer = self.signer()
        return TrustBundle.parse(read_private(self.directory / "bundle.json"), allow_example_keys=signer.example_keys)

    def extra_roots(self) -> bytes | None:
        """Further TLS roots (PEM) that the login named, if any."""
        path = self.directory / "ca.pem"
        return read_private(path) if path.exists() else None

    # --- tokens and receipts -----------------------------------------------------------------------------------------

    def store_token(self, name: str, text: str, *, jti: str | None = None, receipt: Receipt | None = None) -> Path:
        """Keep a token under ``name``, and its receipt under its ``jti``; return the token's path."""
        label(name, "the name of a token")
        with self.locked():
            if receipt is not None and jti is not None:
                self._write(f"receipts/token-{label(jti, 'a token id')}.json", receipt.to_json())
            return self._write(f"tokens/{name}", text.encode() + b"\n")

    def token(self, name: str) -> str | None:
        """The text of the token stored under ``name``; ``None`` if there is none."""
        path = self.directory / "tokens" / label(name, "the name of a token")
        return read_private(path).decode("ascii", "replace").strip() if path.is_file() else None

    def token_path(self, name: str) -> Path:
        return self.directory / "tokens" / label(name, "the name of a token")

    def token_names(self) -> list[str]:
        """The names of the stored tokens."""
        with self.locked():
            return self._names("tokens")

    def _names(self, kind: str) -> list[str]:
        directory = self.directory / kind
        # A file whose name begins with a dot is a write that did not finish.
        return sorted(path.name for path in directory.iterdir() if not path.name.startswith(".")) if directory.is_dir() else []

    def _write(self, name: str, data: bytes) -> Path:
        path = self.directory / name
        make_private_directory(path.parent)
        write_atomic(path, data, mode=PRIVATE)
        return path


class Home:
    """All profiles of one user."""

    def __init__(self, directory: Path, *, chosen: str | None = None) -> None:
        self.directory = directory
        self._chosen = chosen

    @classmethod
    def find(cls, environment: Mapping[str, str], *, chosen: str | None = None) -> Home:
        """The home of ``$CERTAUTH_HOME`` or the XDG rules; ``chosen`` or ``$CERTAUTH_PROFILE`` names the profile to use."""
        named = environment.get("CERTAUTH_HOME")
        directory = Path(named) if named else platformdirs.user_state_path("certauth", appauthor=False)
        return cls(directory.absolute(), chosen=chosen or environment.get("CERTAUTH_PROFILE") or None)

    def profile(self, domain: TrustDomain) -> Profile:
        """The profile of a trust domain, whether or not anything is stored in it."""
        return Profile(self.directory / domain.name, domain)

    def profiles(self) -> list[Profile]:
        """Every profile into which there was a login."""
        if not self.directory.is_dir():
            return []
        names = sorted(path.parent.name for path in self.directory.glob("*/signer.json"))
        return [self.profile(TrustDomain.parse(name)) for name in names]

    def by_signer(self, url: str) -> Profile | None:
        """The profile that was made by a login to this signer."""
        return next((profile for profile in self.profiles() if profile.signer().url == url), None)

    def activate(self, profile: Profile) -> None:
        """Make ``profile`` the one that commands use by default."""
        write_atomic(make_private_directory(self.directory) / "active", f"{profile.domain}\n".encode(), mode=PRIVATE)

    def active(self) -> Profile:
        """The profile that was chosen, else that of the last login; ``LoginRequired`` if there was no login at all."""
        if self._chosen is not None:
            profile = self.profile(TrustDomain.parse(self._chosen))
            if not profile.directory.is_dir():
                known = ", ".join(str(one.domain) for one in self.profiles()) or "none"
                raise UsageError("unknown-profile", f"there is no profile {self._chosen!r}", hint=f"known profiles: {known}")
            return profile
        path = self.directory / "active"
        if not path.exists():
            raise LoginRequired("not-logged-in", "you are not logged in anywhere", hint=f"certauth login {_ANY_SIGNER}")
        return self.profile(TrustDomain.parse(read_private(path).decode("ascii", "replace").strip()))

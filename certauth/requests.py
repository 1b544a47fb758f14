"""What a user asks for: a certificate for a key (PKCS#10), or a token. A wish, never a decision.

A certification request contributes one thing to a certificate: its public key, whose possession its signature proves. Every
name, usage or extension in it is read only to be reported back as ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from certauth import keys
from certauth.errors import RequestError
from certauth.names import label

MAX_CSR = 16 * 1024
"""Bytes of a certification request; a real one has a few hundred."""
MAX_PATH = 512
"""Characters of a right's path."""
MAX_RIGHTS = 64
"""Rights one token request may name."""
_MAX_ASKED = 32
_MAX_SHOWN = 160
_RSA_BITS = (2048, 4096)

_ARMOUR = b"-----BEGIN "
_EKU_NAMES = {
    ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth",
    ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth",
    ExtendedKeyUsageOID.CODE_SIGNING: "codeSigning",
    ExtendedKeyUsageOID.EMAIL_PROTECTION: "emailProtection",
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE: "anyExtendedKeyUsage",
}
_PARSE_ERRORS = (
    ValueError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    CryptographyDeprecationWarning,  # what a later release of the library refuses, where warnings are errors
)
# '%', '?' and '#' would be written by somebody who thinks in URLs, '*' by somebody who thinks in globs, '\' by somebody who
# hopes that a server does: here each would be an ordinary character and mean less than its author believed.
_MISLEADING = frozenset("%?#*\\")


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificationRequest:
    """A request whose signature was verified: the key, and what its author wished for."""

    public_key: keys.PublicKey
    spki: bytes
    """DER SubjectPublicKeyInfo of ``public_key``: what an identity proof is bound to."""
    der: bytes
    asked: tuple[str, ...]
    """Every name, usage and extension in the request, as ``CN=bob``, ``DNS:evil.example``, ``EKU:serverAuth``. A wish only."""


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """One operation on one path: ``/data/x`` is that path exactly, ``/data/`` everything below it."""

    operation: str
    path: str

    @classmethod
    def make(cls, operation: str, path: str) -> Right:
        """Raise ``RequestError`` (``bad-name``, ``bad-path``) unless both are canonical."""
        return cls(label(operation, "an operation"), canonical_path(path))

    def covers(self, other: Right) -> bool:
        """Whether holding ``self`` is holding ``other``. Only a subtree covers more than itself."""
        return self.operation == other.operation and path_covers(self.path, other.path)


def canonical_path(path: str) -> str:
    """Return ``path`` if it has exactly one reading: absolute, no empty or dot segments, printable, not URL-encoded.

    Raises ``RequestError`` (``bad-path``).
    """
    segments = path.split("/")
    inner = segments[1:-1] if path.endswith("/") else segments[1:]
    if (
        not path.startswith("/")
        or len(path) > MAX_PATH
        or not path.isprintable()
        or not _MISLEADING.isdisjoint(path)
        or any(segment in {"", ".", ".."} for segment in inner)
    ):
        raise RequestError(
            "bad-path",
            f"{shown(path)!r} is not a canonical path",
            hint="absolute, decoded, no empty or dot segments, no globs; a trailing slash means everything below",
        )
    return path


def path_covers(holder: str, wish: str) -> bool:
    """Whether the path or subtree ``holder`` contains the path or subtree ``wish``; both canonical."""
    return wish.startswith(holder) if holder.endswith("/") else wish == holder


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """What the caller would like a token to say. It can only narrow what the enrolment holds."""

    audience: str
    """The service the token is for."""
    rights: tuple[Right, ...] | None = None
    """``None`` asks for everything the caller may do at that service."""
    lifetime: timedelta | None = None
    """``None`` asks for the default."""
    delegations: int = 1
    """How often in a row it may be handed over, each time by the key of its holder; 0: never."""

    @classmethod
    def make(
        cls,
        *,
        audience: str,
        rights: Iterable[Right] | None = None,
        lifetime: timedelta | None = None,
        delegations: int = 1,
    ) -> TokenRequest:
        """Raise ``RequestError`` (``bad-name``, ``too-many-rights``, ``no-rights``) for what cannot be a request."""
        wished = None if rights is None else tuple(dict.fromkeys(rights))
        if wished is not None and len(wished) > MAX_RIGHTS:
            raise RequestError(
                "too-many-rights",
                f"a token request names at most {MAX_RIGHTS} rights",
                hint="ask for a whole subtree: a path that ends in /",
            )
        if wished == ():
            raise RequestError("no-rights", "the request names no right", hint="leave rights out to ask for all of them")
        return cls(audience=label(audience, "a service"), rights=wished, lifetime=lifetime, delegations=delegations)


def parse_csr(unverified_csr: bytes | str, *, allow_example_keys: bool = False) -> CertificationRequest:
    """Read exactly one PKCS#10 request, PEM or DER, and verify that its author holds the key (RFC 2986 §3).

    Raises ``RequestError``: ``csr-too-large``, ``csr-malformed``, ``csr-weak-key``, ``csr-signature``;
    ``KeyMaterialError`` (``example-key``).
    """
    # 1. Size, before anything is parsed.
    data = unverified_csr.encode("utf-8", "surrogatepass") if isinstance(unverified_csr, str) else unverified_csr
    if len(data) > MAX_CSR:
        raise RequestError(
            "csr-too-large",
            f"a certification request has at most {MAX_CSR} bytes",
            hint="ask for no names or extensions: the signer decides them",
        )
    try:
        # 2. One request, completely understood, extensions included.
        csr = _read_one(data)
        asked = tuple(_asked(csr))
        public = csr.public_key()
        # 3. A key that our path validator accepts in a chain.
        key = _acceptable(public)
        # 4. Proof of possession. Without it anybody could have a certificate made for somebody else's key.
        hash_algorithm = csr.signature_hash_algorithm
        if not isinstance(hash_algorithm, hashes.SHA256 | hashes.SHA384 | hashes.SHA512) or not csr.is_signature_valid:
            raise RequestError(
                "csr-signature",
                "the request is not signed by the key it names",
                hint="sign it with the private half of its key, and with SHA-256, SHA-384 or SHA-512",
            )
        der = csr.public_bytes(serialization.Encoding.DER)
    except _PARSE_ERRORS as error:
        raise _malformed() from error
    # 5. A certificate for a published key would be everybody's.
    keys.refuse_example(key, allow_example_keys=allow_example_keys)
    return CertificationRequest(public_key=key, spki=keys.spki(key), der=der, asked=asked)


def _malformed() -> RequestError:
    return RequestError(
        "csr-malformed", "this is not one PKCS#10 certification request", hint="send one request, as PEM or DER"
    )


def _read_one(data: bytes) -> x509.CertificateSigningRequest:
    match data.count(_ARMOUR):
        case 0:
            return x509.load_der_x509_csr(data)
        case 1:
            return x509.load_pem_x509_csr(data)
        case _:
            raise _malformed()


def _acceptable(public: object) -> keys.PublicKey:
    match public:
        case ec.EllipticCurvePublicKey(curve=ec.SECP256R1() | ec.SECP384R1()):
            return public
        case rsa.RSAPublicKey() if _RSA_BITS[0] <= public.key_size <= _RSA_BITS[1]:
            if public.public_numbers().e >= 65537:
                return public
    raise RequestError(
        "csr-weak-key",
        "certificates are made for P-256, P-384 and RSA keys of 2048 to 4096 bits",
        hint="P-256 is the default, the fastest, and the only kind whose holder can delegate tokens",
    )


def _asked(csr: x509.CertificateSigningRequest) -> Iterator[str]:
    """The wishes in a request, bounded in number and length: they are reported back and recorded."""
    wishes = list(_wishes(csr))
    yield from (shown(wish) for wish in wishes[:_MAX_ASKED])
    if len(wishes) > _MAX_ASKED:
        yield f"and {len(wishes) - _MAX_ASKED} more"


def _wishes(csr: x509.CertificateSigningRequest) -> Iterator[str]:
    for attribute in csr.subject:
        value = attribute.value
        yield f"{attribute.rfc4514_attribute_name}={value if isinstance(value, str) else value.hex()}"
    for extension in csr.extensions:
        match extension.value:
            case x509.SubjectAlternativeName() as names:
                yield from (general_name(name) for name in names)
            case x509.ExtendedKeyUsage() as usages:
                yield from (f"EKU:{_EKU_NAMES.get(usage, usage.dotted_string)}" for usage in usages)
            case x509.BasicConstraints(ca=True):
                yield "CA:true"
            case _ if extension.oid not in {ExtensionOID.KEY_USAGE, ExtensionOID.BASIC_CONSTRAINTS}:
                yield f"extension:{extension.oid.dotted_string}"
            case _:
                pass  # key usage, and "not a CA": every request tool writes them and nobody wishes anything by it


def general_name(name: x509.GeneralName) -> str:
    """A GeneralName as text that says its form: ``DNS:``, ``URI:``, ``IP:``, ``email:``, ``DN:``, ``other:``."""
    match name:
        case x509.DNSName():
            return f"DNS:{name.value}"
        case x509.UniformResourceIdentifier():
            return f"URI:{name.value}"
        case x509.IPAddress():
            return f"IP:{name.value}"
        case x509.RFC822Name():
            return f"email:{name.value}"
        case x509.DirectoryName():
            return f"DN:{name.value.rfc4514_string()}"
        case _:
            return f"other:{type(name).__name__}"


def shown(text: str) -> str:
    """Untrusted ``text`` made safe to print and record: printable ASCII, at most 160 characters."""
    safe = "".join(c if " " <= c <= "~" and c != "\\" else ascii(c)[1:-1] for c in text[:_MAX_SHOWN])
    return safe if len(safe) <= _MAX_SHOWN else safe[: _MAX_SHOWN - 3] + "..."

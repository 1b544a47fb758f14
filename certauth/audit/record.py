"""Records: one frozen type per event, and the exact bytes that stand for it in the log.

A record's bytes are made once, here, as restricted canonical JSON (RFC 8785); from then on they are stored, hashed and served
verbatim and never written anew. Neither index nor predecessor is inside: the tree and the chain fix both, so the bytes can be
made before the log is locked.

Personal data are not in the log but *committed to* there, salted (as SD-JWT does, RFC 9901): the clear value and its salt, the
*disclosure*, live in a table from which they can be erased while every proof goes on verifying.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Protocol

from certauth.audit.commitments import SALT_BYTES, Commitment, Disclosed, commit, open_commitment
from certauth.audit.schema import KINDS
from certauth.encoding import canonical_json, strict_json
from certauth.errors import LogError
from certauth.names import Principal

__all__ = [
    "MAX_ENTRY",
    "SALT_BYTES",
    "CertificateGranted",
    "Clamped",
    "Commitment",
    "CredentialRevoked",
    "Denied",
    "Disclosed",
    "EnrolmentChanged",
    "Event",
    "IssuerAdded",
    "KeyAdded",
    "KeyChanged",
    "ServiceStarted",
    "Source",
    "TokenGranted",
    "commit",
    "decode",
    "encode",
    "open_commitment",
]

MAX_ENTRY = 65_535
"""Bytes of an entry: C2SP tlog-tiles gives its length 16 bits."""
_MAX_IGNORED = 32
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clamped(Protocol):
    """A wish that was granted in part: ``certauth.issuance.Clamp`` has this form."""

    @property
    def what(self) -> str: ...
    @property
    def requested(self) -> timedelta: ...
    @property
    def granted(self) -> timedelta: ...
    @property
    def by(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Which running program wrote a record: replica name, version, SHA-256 (hex) of its effective configuration."""

    replica: str
    version: str
    config: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateGranted:
    """A certificate was made. Hashes are SHA-256 in hex: ``certificate`` of the DER, ``proof_digest`` of the signing input.

    ``why`` is the reason that an administrator gave who made it.
    """

    kind: ClassVar[str] = "grant.cert"
    principal: Principal
    issuer: str
    subject: Commitment
    assurance: int
    proof: str
    binding: str
    proof_digest: str
    rule: str
    clamp: Clamped | None
    ignored: tuple[str, ...]
    serial: int
    certificate: str
    spki: str
    not_before: datetime
    not_after: datetime
    profile: str
    why: str | None = None

    @property
    def commitments(self) -> tuple[Commitment, ...]:
        return (self.subject,)

    def sections(self) -> dict[str, object]:
        return {
            "actor": {
                "principal": str(self.principal),
                "iss": self.issuer,
                "sub_c": self.subject.digest,
                "assurance": self.assurance,
            },
            "proof": {"kind": self.proof, "binding": self.binding, "digest": self.proof_digest},
            "decision": _present(rule=self.rule, ignored=_visible(self.ignored), clamp=_clamp(self.clamp), why=self.why),
            "grant": {
                "profile": self.profile,
                "serial": f"{self.serial:x}",
                "cert": self.certificate,
                "spki": self.spki,
                "nbf": _seconds(self.not_before),
                "exp": _seconds(self.not_after),
            },
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenGranted:
    """A token was minted for the holder of the certificate ``peer``; ``rights`` are (service, operation, path).

    ``form`` is ``biscuit``, which has a ``block``, or ``jwt``; ``token`` is the SHA-256 of its bytes.
    """

    kind: ClassVar[str] = "grant.token"
    commitments: ClassVar[tuple[Commitment, ...]] = ()
    principal: Principal
    peer: str
    rule: str
    clamp: Clamped | None
    jti: str
    kid: str
    audience: tuple[str, ...]
    rights: tuple[tuple[str, str, str], ...]
    expires_at: datetime
    form: str
    block: str | None
    token: str
    delegations: int

    def sections(self) -> dict[str, object]:
        return {
            "actor": {"principal": str(self.principal), "peer": self.peer},
            "decision": _present(rule=self.rule, clamp=_clamp(self.clamp)),
            "grant": _present(
                jti=self.jti,
                kid=self.kid,
                aud=list(self.audience),
                rights=[list(right) for right in self.rights],
                exp=_seconds(self.expires_at),
                form=self.form,
                block=self.block,
                token=self.token,
                delegations=self.delegations,
            ),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """A request was refused with ``code``; of the actor, what was *verified* before the refusal and no more.

    ``rule``, ``proof``, ``binding`` and ``proof_digest`` are as in ``CertificateGranted``; no ``rule``: none took the login.
    """

    kind: ClassVar[str] = "grant.deny"
    operation: str
    code: str
    principal: Principal | None = None
    issuer: str | None = None
    subject: Commitment | None = None
    peer: str | None = None
    proof: str | None = None
    binding: str | None = None
    proof_digest: str | None = None
    rule: str | None = None

    @property
    def commitments(self) -> tuple[Commitment, ...]:
        return (self.subject,) if self.subject else ()

    def sections(self) -> dict[str, object]:
        return {
            "actor": _present(
                principal=str(self.principal) if self.principal else None,
                iss=self.issuer,
                sub_c=self.subject.digest if self.subject else None,
                peer=self.peer,
            ),
            "decision": _present(operation=self.operation, code=self.code, rule=self.rule),
            "proof": _present(kind=self.proof, binding=self.binding, digest=self.proof_digest),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialRevoked:
    """A credential was withdrawn by ``by``; ``credential``, ``value`` and ``before`` as in ``certauth.revocation``."""

    kind: ClassVar[str] = "revoke"
    commitments: ClassVar[tuple[Commitment, ...]] = ()
    credential: str
    value: str
    reason: str
    by: str
    before: int | None = None

    def sections(self) -> dict[str, object]:
        members = _present(kind=self.credential, value=self.value, reason=self.reason, by=self.by, before=self.before)
        return {"revoke": members}


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentChanged:
    """What a principal may have was changed; the terms themselves are committed to."""

    kind: ClassVar[str] = "enrolment.change"
    action: str
    principal: Principal
    by: str
    why: str
    commitments: tuple[Commitment, ...]

    def sections(self) -> dict[str, object]:
        return {
            "enrolment": {
                "action": self.action,
                "principal": str(self.principal),
                "by": self.by,
                "why": self.why,
                "terms_c": [commitment.digest for commitment in self.commitments],
            }
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStarted:
    """The signer began to serve, with this version and configuration (SHA-256 in hex)."""

    kind: ClassVar[str] = "service.start"
    commitments: ClassVar[tuple[Commitment, ...]] = ()
    version: str
    config: str

    def sections(self) -> dict[str, object]:
        return {"service": {"ver": self.version, "cfg": self.config}}


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerAdded:
    """The identity provider ``url`` was written into the settings under the name ``issuer_id``."""

    kind: ClassVar[str] = "issuer.add"
    commitments: ClassVar[tuple[Commitment, ...]] = ()
    issuer_id: str
    url: str
    by: str
    why: str

    def sections(self) -> dict[str, object]:
        return {"issuer": {"id": self.issuer_id, "url": self.url, "by": self.by, "why": self.why}}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyAdded:
    """A key came into use, e.g. ``use="token"``; ``kid`` and ``spki`` as ``keys.key_id`` and ``keys.fingerprint`` give them."""

    kind: ClassVar[str] = "key.add"
    commitments: ClassVar[tuple[Commitment, ...]] = ()
    use: str
    kid: str
    spki: str
    by: str
    why: str | None = None

    def sections(self) -> dict[str, object]:
        return {"key": _present(use=self.use, kid=self.kid, spki=self.spki, by=self.by, why=self.why)}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChanged:
    """Keys of one use came into another state, all of them in one act: ``changes`` are pairs of key id and new state."""

    kind: ClassVar[str] = "key.state"
    commitments: ClassVar[tuple[Commitment, ...]] = ()
    use: str
    changes: tuple[tuple[str, str], ...]
    by: str
    why: str

    def sections(self) -> dict[str, object]:
        changes = [{"kid": kid, "state": state} for kid, state in self.changes]
        return {"key": {"use": self.use, "changes": changes, "by": self.by, "why": self.why}}


Event = (
    CertificateGranted
    | TokenGranted
    | Denied
    | CredentialRevoked
    | EnrolmentChanged
    | ServiceStarted
    | IssuerAdded
    | KeyAdded
    | KeyChanged
)


def encode(event: Event, *, origin: str, request_id: str, at: datetime, source: Source) -> bytes:
    """The bytes of a record; raise ``LogError``: ``record-malformed`` if a member is not as specified, ``record-too-large``."""
    body = {
        "v": 1,
        "kind": event.kind,
        "log": origin,
        "rid": request_id,
        "ts": _since_epoch(at) // timedelta(microseconds=1),
        "src": {"replica": source.replica, "ver": source.version, "cfg": source.config},
        **event.sections(),
    }
    if fault := KINDS[event.kind](body):
        raise LogError(
            "record-malformed",
            f"a {event.kind} record cannot be written; expected in {fault}",
            hint="take the entry as the log holds it",
        )
    entry = canonical_json(body)
    if len(entry) > MAX_ENTRY:
        raise LogError(
            "record-too-large",
            f"a record has at most {MAX_ENTRY} bytes, this one {len(entry)}",
            hint="shorten what is to be recorded",
        )
    return entry


def decode(unverified_entry: bytes) -> dict[str, object]:
    """The members of a record; raise ``LogError``: ``record-malformed``, ``record-unknown`` for a kind of another version.

    Only bytes that ``encode`` could have written pass: same members, same types, same spelling.
    """
    if len(unverified_entry) > MAX_ENTRY:
        raise LogError("record-malformed", f"a record has at most {MAX_ENTRY} bytes", hint="take the entry as the log holds it")
    try:
        body = strict_json(unverified_entry)
    except ValueError as error:
        raise LogError("record-malformed", "the entry is not JSON", hint="take the entry as the log holds it") from error
    if not isinstance(body, dict):
        raise LogError("record-malformed", "the entry is not a JSON object", hint="take the entry as the log holds it")
    kind = body.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise LogError(
            "record-unknown",
            "the entry is of a kind this version does not know",
            hint="verify it with a newer version of certauth",
        )
    if fault := KINDS[kind](body):
        raise LogError(
            "record-malformed",
            f"the {kind} record is not as specified; expected in {fault}",
            hint="take the entry as the log holds it",
        )
    if canonical_json(body) != unverified_entry:
        raise LogError(
            "record-malformed", "the record's JSON is not in its canonical form", hint="take the entry as the log holds it"
        )
    return body


def _present(**members: object) -> dict[str, object]:
    """The members that have a value; the log has no nulls."""
    return {name: value for name, value in members.items() if value is not None}


def _clamp(clamp: Clamped | None) -> Mapping[str, object] | None:
    if clamp is None:
        return None
    second = timedelta(seconds=1)
    return {"what": clamp.what, "asked": clamp.requested // second, "got": clamp.granted // second, "by": clamp.by}


def _visible(names: tuple[str, ...]) -> list[str]:
    """Names a stranger put into a certification request, made harmless: printable, short, and not too many of them."""
    shown = [(name if name.isprintable() else ascii(name)[1:-1])[:256] or "(empty)" for name in names[:_MAX_IGNORED]]
    return [*shown, f"({len(names) - _MAX_IGNORED} more)"] if len(names) > _MAX_IGNORED else shown


def _seconds(moment: datetime) -> int:
    return _since_epoch(moment) // timedelta(seconds=1)


def _since_epoch(moment: datetime) -> timedelta:
    if moment.tzinfo is None:
        raise LogError("record-malformed", "a time without a zone cannot be recorded", hint="give it a time with a zone")
    return moment - _EPOCH

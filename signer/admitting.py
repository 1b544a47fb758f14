"""From a verified identity to an enrolment: who, of those the facility knows, it is that has just proved who they are.

1. Machines that prove themselves (assertion, code) are enrolled by an administrator, and nothing is mapped.
2. A login passes the admission rules of its issuer: not admitted there, it leads nowhere, enrolled or not.
3. Whoever is enrolled under the login keeps the name of the enrolment, whatever the rules would call them now.
4. A stranger becomes somebody by an invitation, or as the issuer's mode has it: ``open`` by the login alone, ``approve`` after
   an administrator said yes. In modes ``enrolled`` and ``invite`` there is no other way.

What is found decides nothing yet (``certauth.issuance`` does); what is new - a newcomer, an application, a code used - comes
back as rows, to be recorded together with the grant or the refusal.

No rule makes an administrator: a name that the settings list under ``admins`` is given by an administrator's act alone. A
rule's ``hosts`` and ``local_username`` are shown by ``certauth signer issuer explain`` and used nowhere here: which hosts a
machine may be called, its enrolment says, and this signer keeps no local accounts that could collide.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, assert_never

import structlog

from certauth.enrolment import EnrolledRight, Enrolment, Login, Terms
from certauth.errors import RequestError
from certauth.identity import Issuer, ProofKind, VerifiedIdentity
from certauth.identity.mapping import Admission, NotAdmitted, Rule, admit
from certauth.issuance import Refusal
from certauth.names import Kind, Principal, TrustDomain
from signer.codes import digest_of, same_address, unusable
from signer.rows import ApplicationRow, ApplicationState, Change, CodeRow, CodeUsed, EnrolmentRow, Purpose, StoreRow
from signer.standing import owned
from signer.store import Store

MAX_WAITING: Final = 1000
"""Applications that may wait for an administrator; who comes then is told to come again."""

_NO_TERMS = Terms()

log = structlog.get_logger("signer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """The enrolment an identity leads to (``None``: nobody's), what the rules make of it, and what is to be recorded.

    With ``refusal`` nothing is granted, and ``rows`` are recorded with the refusal; ``why`` is for the facility's eyes only.
    ``rule`` is what the log calls the rule that took the login or turned it away; ``None``: no rule takes it.
    """

    enrolment: Enrolment | None = None
    terms: Terms = _NO_TERMS
    rows: tuple[StoreRow, ...] = ()
    newcomer: bool = False
    refusal: Refusal | None = None
    why: str = ""
    rule: str | None = _NO_TERMS.rule


class Admitting:
    """Looks people up, and applies each issuer's rules and mode of enrolment."""

    def __init__(
        self,
        *,
        issuers: Mapping[str, Issuer],
        rules: Mapping[str, Sequence[Rule]],
        store: Store,
        domain: TrustDomain,
        admins: Collection[str],
    ) -> None:
        """``issuers`` are by URL, ``rules`` by the id of their issuer; ``admins`` are the principals that no login becomes."""
        self._issuers = issuers
        self._rules = rules
        self._store = store
        self._domain = domain
        self._admins = admins

    def admit(self, identity: VerifiedIdentity, *, invite: str | None, at: datetime) -> Admitted:
        """Whom ``identity`` leads to; what the outside is not told is in the log. Raises as ``consider`` does."""
        found = self.consider(identity, invite=invite, at=at)
        if found.why:
            log.info("login.not-admitted", issuer=identity.issuer_id, reason=found.why, proof=identity.proof_digest.hex())
        return found

    def consider(self, identity: VerifiedIdentity, *, invite: str | None, at: datetime) -> Admitted:
        """The same, and nobody hears of it. Raises ``StoreError`` if it cannot be looked up."""
        enrolment = self._enrolment(identity)
        # 1
        if identity.kind is ProofKind.CODE and enrolment is not None:
            used = CodeUsed(digest=identity.proof_digest.hex(), by=str(enrolment.principal), at=at)
            return Admitted(enrolment=enrolment, rows=(used,))
        if identity.kind in {ProofKind.CODE, ProofKind.CLIENT_ASSERTION}:
            return Admitted(enrolment=enrolment)
        # 2
        admission = admit(self._rules.get(identity.issuer_id, ()), identity)
        match admission:
            case NotAdmitted(reason, _, rule):
                return replace(_not_admitted(reason), rule=rule)
            case Admission():
                terms = _terms(admission)
            case _:
                assert_never(admission)
        # 3
        if enrolment is not None:
            return Admitted(enrolment=enrolment, terms=terms, rule=terms.rule)
        # 4
        return replace(self._stranger(identity, admission, terms, invite=invite, at=at), rule=terms.rule)

    def _stranger(
        self, identity: VerifiedIdentity, admission: Admission, terms: Terms, *, invite: str | None, at: datetime
    ) -> Admitted:
        if invite is not None:
            return self._invited(identity, admission, terms, invite=invite, at=at)
        match self._issuers[identity.issuer].enrolment:
            case "open":
                return self._newcomer(identity, admission, terms, by=f"open enrolment of {identity.issuer_id}", at=at)
            case "approve":
                return self._applying(identity, admission, at=at)
            case "invite":
                return Admitted(refusal=_INVITE_NEEDED)
            case _:
                return Admitted(terms=terms)

    def _enrolment(self, identity: VerifiedIdentity) -> Enrolment | None:
        """The enrolment under a login; an agent's is no better than its owner's."""
        enrolment = self._store.enrolment(issuer=identity.issuer, subject=identity.subject)
        return None if enrolment is None else owned(enrolment, self._store)

    def _newcomer(
        self,
        identity: VerifiedIdentity,
        admission: Admission,
        terms: Terms,
        *,
        by: str,
        at: datetime,
        principal: Principal | None = None,
        given: Terms = _NO_TERMS,
    ) -> Admitted:
        """Somebody enrolled by this login, for what was ``given``; what the rules say holds for the login, not for ever."""
        who = principal or self._principal(identity, admission)
        if isinstance(who, Admitted):
            return who
        if self._store.enrolled_principal(who) is not None:
            return Admitted(refusal=_name_taken(who))
        enrolment = Enrolment(
            principal=who,
            logins=(Login(identity.issuer, identity.subject),),
            groups=given.groups,
            roles=given.roles,
            projects=given.projects,
            rights=given.rights,
            assurance=3 if given.assurance is None else given.assurance,
            max_lifetime=given.max_lifetime,
        )
        display = admission.display or identity.name or identity.email or ""
        row = EnrolmentRow(enrolment=enrolment, display=display, by=by, at=at, change=Change.NEW)
        return Admitted(enrolment=enrolment, terms=terms, rows=(row,), newcomer=True)

    def _invited(
        self, identity: VerifiedIdentity, admission: Admission, terms: Terms, *, invite: str, at: datetime
    ) -> Admitted:
        found = self._store.code(digest_of(invite))
        if (
            identity.kind is ProofKind.WORKLOAD  # whoever is invited is a person
            or found is None
            or unusable(found, Purpose.INVITE, now=at)
            or not _is_meant(found.row, identity)
        ):
            return Admitted(refusal=_INVITE_INVALID)
        code = found.row
        by = f"invitation by {code.by}"
        admitted = self._newcomer(identity, admission, terms, by=by, at=at, principal=code.principal, given=code.terms)
        if admitted.enrolment is None:
            return admitted
        who = admitted.enrolment.principal
        earlier = self._store.application(Login(identity.issuer, identity.subject))
        used = CodeUsed(digest=code.digest, by=str(who), at=at)
        return replace(admitted, rows=(*admitted.rows, used, *settled(earlier, by=by, at=at)))

    def _applying(self, identity: VerifiedIdentity, admission: Admission, *, at: datetime) -> Admitted:
        """The first login is remembered and waits; the next ones learn how it stands."""
        login = Login(identity.issuer, identity.subject)
        earlier = self._store.application(login)
        if earlier is not None and earlier.state is ApplicationState.DENIED:
            return Admitted(refusal=_DENIED)
        name = self._principal(identity, admission)
        if isinstance(name, Admitted):
            return name
        if earlier is None and len(self._store.applications(ApplicationState.WAITING, limit=MAX_WAITING)) == MAX_WAITING:
            return Admitted(refusal=_TOO_MANY_WAITING)
        application = ApplicationRow(
            login=login,
            name=str(name),
            display=admission.display or identity.name or "",
            email=identity.email or "",
            state=ApplicationState.WAITING,
            asked_at=at if earlier is None else earlier.asked_at,
        )
        return Admitted(refusal=_PENDING, rows=() if earlier == application else (application,))

    def _principal(self, identity: VerifiedIdentity, admission: Admission) -> Principal | Admitted:
        """What a stranger will be called: as the rule says, else a name of our own making that says nothing."""
        machine = identity.kind is ProofKind.WORKLOAD
        subject = admission.subject or f"{Kind.AGENT if machine else Kind.USER}/{own_name(identity)}"
        kind, _, id_ = subject.partition("/")
        if (kind == Kind.USER) is machine:
            return _not_admitted(f"the rule {admission.rule!r} would make a {kind} of this kind of proof")
        try:
            principal = Principal.make(self._domain, Kind(kind), id_)
        except (RequestError, ValueError):
            return _not_admitted(f"the rule {admission.rule!r} makes a name that cannot be one")
        if str(principal) in self._admins:
            return _not_admitted(f"the rule {admission.rule!r} would make an administrator")
        return principal


_NOT_ADMITTED = Refusal(
    "not-admitted",
    "the rules of this facility do not admit this login",
    "its administrator can see why in the signer's log, or with: certauth signer issuer explain",
)
_INVITE_NEEDED = Refusal(
    "invite-needed",
    "this facility enrols whom it has invited",
    "ask its administrator for an invitation and log in with: certauth login --invite FILE",
)
_INVITE_INVALID = Refusal(
    "invite-invalid",
    "this invitation does not exist, was used, has run out, or is for another login",
    "ask whoever invited you for a new one, and log in at the provider and with the address that it is meant for",
)
_PENDING = Refusal(
    "approval-pending", "you have asked to be enrolled; an administrator has to approve it", "log in again once they have"
)
_DENIED = Refusal(
    "approval-denied", "an administrator has declined to enrol you", "ask the facility's administrator for the reason"
)
_TOO_MANY_WAITING = Refusal(
    "approval-queue-full",
    "too many people wait to be enrolled here",
    "log in again later, or tell the facility's administrator",
)


def _not_admitted(why: str) -> Admitted:
    """The same refusal for every reason: which rule wants which claim is the facility's own."""
    return Admitted(refusal=_NOT_ADMITTED, why=why)


def settled(earlier: ApplicationRow | None, *, by: str, at: datetime) -> tuple[ApplicationRow, ...]:
    """What becomes of the application of somebody who is enrolled, in whatever way and name: nobody waits for it any more."""
    if earlier is None:
        return ()
    return (replace(earlier, state=ApplicationState.APPROVED, decided_at=at, decided_by=by),)


def _name_taken(principal: Principal) -> Refusal:
    return Refusal(
        "name-taken",
        f"{principal} is somebody else already",
        "log in as the one who is enrolled, or have this login enrolled under another name",
    )


def own_name(identity: VerifiedIdentity) -> str:
    """A name that is nobody else's and tells nothing about its bearer."""
    material = hashlib.sha256(f"{identity.issuer}\x00{identity.subject}".encode()).digest()[:15]
    return "u" + base64.b32encode(material).decode("ascii").lower()


def _terms(admission: Admission) -> Terms:
    return Terms(
        rule=admission.rule,
        groups=admission.groups,
        roles=admission.roles,
        projects=admission.projects,
        rights=tuple(EnrolledRight(right.service, right.operation, right.path) for right in admission.rights),
        assurance=admission.assurance,
        max_lifetime=admission.max_lifetime,
    )


def _is_meant(code: CodeRow, identity: VerifiedIdentity) -> bool:
    """Whether an invitation is for this login: at the provider it names, with the verified address it names."""
    return code.issuer in {None, identity.issuer} and (code.email is None or same_address(code.email, identity.email or ""))

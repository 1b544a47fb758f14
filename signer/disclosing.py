"""Personal data outside the log: what an administrator's act commits to, and how to find again what tells of a person.

What an act decided is one commitment named ``terms``; a login that was granted or refused something is one named ``sub``, next
to the issuer in its entry. The disclosures of both can be erased, and the log goes on verifying.
"""

from __future__ import annotations

from collections.abc import Collection

from certauth.audit import record
from certauth.encoding import Json
from certauth.enrolment import Login
from certauth.errors import LogError
from certauth.names import Kind, Principal, TrustDomain


def commit_terms(members: dict[str, Json], *, salt: bytes) -> record.Commitment:
    """A commitment to what an act decided; ``salt`` is 16 fresh random bytes."""
    return record.commit("terms", members, salt=salt)


def login_members(logins: Collection[Login]) -> list[Json]:
    """Logins as ``terms`` spell them under ``logins``, and ``logins_told`` reads them."""
    return [{"issuer": login.issuer, "subject": login.subject} for login in logins]


def invited(domain: TrustDomain, digest: str) -> Principal:
    """As whom the log knows somebody who is invited and not named yet: by the beginning of their code's digest."""
    return Principal.make(domain, Kind.USER, f"_invited-{digest[:16]}")


def logins_told(*, digest: str, disclosure: str, entry: bytes) -> frozenset[Login]:
    """The logins of which the disclosure of ``digest`` tells, to which ``entry`` commits."""
    try:
        found = record.open_commitment(digest, disclosure)
    except LogError:  # it discloses nothing; a reader of the log sees as much
        return frozenset()
    match found:
        case record.Disclosed("sub", str(subject)):
            issuer = _issuer_in(entry)
            return frozenset([Login(issuer, subject)]) if isinstance(issuer, str) else frozenset()
        case record.Disclosed("terms", {"logins": list(told)}):
            return frozenset(
                Login(one["issuer"], one["subject"])
                for one in told
                if isinstance(one, dict) and isinstance(one.get("issuer"), str) and isinstance(one.get("subject"), str)
            )
        case _:
            return frozenset()


def tells_of(logins: Collection[Login], *, digest: str, disclosure: str, entry: bytes) -> bool:
    """Whether the disclosure of ``digest``, to which ``entry`` commits, tells one of these logins.

    The same subject at another issuer is somebody else, whose data stay.
    """
    return not logins_told(digest=digest, disclosure=disclosure, entry=entry).isdisjoint(logins)


def _issuer_in(entry: bytes) -> object:
    match record.decode(entry):
        case {"actor": {"iss": issuer}}:
            return issuer
        case _:
            return None

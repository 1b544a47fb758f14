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
    """Logins as ``terms`` spell them under ``logins``, and ``tells_of`` reads them."""
    return [{"issuer": login.issuer, "subject": login.subject} for login in logins]


def invited(domain: TrustDomain, digest: str) -> Principal:
    """As whom the log knows somebody who is invited and not named yet: by the beginning of their code's digest."""
    return Principal.make(domain, Kind.USER, f"_invited-{digest[:16]}")


def tells_of(logins: Collection[Login], *, digest: str, disclosure: str, entry: bytes) -> bool:
    """Whether the disclosure of ``digest``, to which ``entry`` commits, tells one of these logins.

    The same subject at another issuer is somebody else, whose data stay.
    """
    try:
        found = record.open_commitment(digest, disclosure)
    except LogError:  # it discloses nothing; a reader of the log sees as much
        return False
    match found:
        case record.Disclosed("sub", str(subject)):
            return any(subject == login.subject and _issuer_in(entry) == login.issuer for login in logins)
        case record.Disclosed("terms", {"logins": list(told)}):
            return any(one in told for one in login_members(logins))
        case _:
            return False


def _issuer_in(entry: bytes) -> object:
    match record.decode(entry):
        case {"actor": {"iss": issuer}}:
            return issuer
        case _:
            return None

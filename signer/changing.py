"""An administrator's act: one submission with what changes, who changed it and why. Nothing changes in another way."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable

from certauth.audit import record
from certauth.clock import rfc3339
from certauth.encoding import Json, canonical_json
from certauth.enrolment import EnrolledRight, Enrolment, Terms
from certauth.names import Principal
from signer.disclosing import commit_terms, login_members
from signer.ledger import Submission
from signer.rows import StoreRow


def change(
    *,
    action: str,
    principal: Principal,
    by: str,
    why: str,
    rows: tuple[StoreRow, ...],
    terms: dict[str, Json] | None = None,
    entropy: Callable[[int], bytes] = secrets.token_bytes,
) -> Submission:
    """The act ``action`` upon ``principal``, by whom and why; ``terms`` are what it decides.

    Terms are personal data: the log commits to them, and the database holds them until they are erased. ``action``, ``by`` and
    ``why`` are in the log for ever, so ``why`` is the place for a ticket number and not for somebody's story.
    """
    commitments = () if terms is None else (commit_terms(terms, salt=entropy(record.SALT_BYTES)),)
    event = record.EnrolmentChanged(action=action, principal=principal, by=by, why=why, commitments=commitments)
    digest = hashlib.sha256(canonical_json([action, str(principal), why, terms])).digest()
    return Submission(request_id=f"{action}-{entropy(12).hex()}", digest=digest, event=event, rows=rows)


def facts(enrolment: Enrolment, display: str) -> dict[str, Json]:
    """An enrolment as JSON: what ``--json`` prints, and what the log commits to."""
    first = enrolment.logins[0] if enrolment.logins else None
    return {
        "principal": str(enrolment.principal),
        "issuer": first.issuer if first else None,
        "subject": first.subject if first else None,
        "logins": login_members(enrolment.logins),
        "display": display,
        "disabled": enrolment.disabled,
        "groups": list(enrolment.groups),
        "roles": list(enrolment.roles),
        "projects": list(enrolment.projects),
        "rights": [right_members(right) for right in enrolment.rights],
        "assurance": enrolment.assurance,
        "max_lifetime": None if enrolment.max_lifetime is None else int(enrolment.max_lifetime.total_seconds()),
        "owner": None if enrolment.owner is None else str(enrolment.owner),
        "expires_at": None if enrolment.expires_at is None else rfc3339(enrolment.expires_at),
        "networks": [str(network) for network in enrolment.networks],
        "hosts": list(enrolment.hosts),
    }


def right_members(right: EnrolledRight) -> Json:
    """A right as JSON."""
    return {"service": right.service, "operation": right.operation, "path": right.path}


def given(terms: Terms) -> dict[str, Json]:
    """What a newcomer will be enrolled for, as JSON."""
    return {
        "groups": list(terms.groups),
        "roles": list(terms.roles),
        "projects": list(terms.projects),
        "rights": [right_members(right) for right in terms.rights],
        "assurance": 3 if terms.assurance is None else terms.assurance,
        "max_lifetime": None if terms.max_lifetime is None else int(terms.max_lifetime.total_seconds()),
    }

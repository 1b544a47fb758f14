"""Linking a second login: a person who has a certificate proves, for its key, that a login at another provider is theirs too.

1. There must be a person's certificate from a login of a few minutes ago: nobody is sent to a provider in vain.
2. The proof is obtained as for a login (``certauth.client.flows``), bound to the key of that certificate and to no new one.
3. Request and proof are sent over a connection that shows the certificate.
4. The answer is believed if its receipt proves that the facility recorded the link to this very person.

Nothing that is stored here changes: the certificate stays, and the second login is of use from the next login on.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from certauth.audit import receipt as receipts
from certauth.audit.checkpoint import VerifierKey
from certauth.audit.receipt import Receipt
from certauth.bundles import TrustBundle
from certauth.client.attempt import Attempt, Method, Situation, Wishes
from certauth.client.flows import prove
from certauth.client.http import Client, text_member, trust
from certauth.client.login import certification_request, here, signer_trust
from certauth.client.metadata import fetch_bundle, fetch_metadata
from certauth.client.profile import Credential, Profile
from certauth.client.waiting import Screen, Stopwatch
from certauth.clock import Clock
from certauth.errors import AnswerError, LoginRequired, Refused, UsageError
from certauth.identity import SALT_BYTES
from certauth.identity.binding import BoundKey
from certauth.keys import spki
from certauth.names import Kind
from certauth.profiles import BACKDATE

RECENT: Final = timedelta(minutes=15)
"""How long after a login another one can be linked to it; the signer has the last word on this."""
METHODS: Final = frozenset({Method.BROWSER, Method.MEDIATED, Method.DEVICE, Method.PASTE, Method.TOKEN})
"""The ways of logging in that a person has; the others are those of machines."""

_NOT_RECENT = "login-not-recent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Linked:
    """A login that leads to ``credential``'s principal from now on; ``issuer`` is the id of its provider."""

    profile: Profile
    credential: Credential
    issuer: str


def link_login(
    profile: Profile,
    wishes: Wishes,
    *,
    clock: Clock,
    screen: Screen,
    situation: Situation | None = None,
    stopwatch: Stopwatch | None = None,
) -> Linked:
    """Prove a login in the way that ``wishes`` name or the situation suggests, and link it to the profile's person.

    Raises ``LoginRequired`` (the codes of ``Profile.credential``, ``login-not-recent``), ``UsageError`` (``not-a-person``, and
    those of each way), ``Refused`` (``login-taken``, ``already-linked`` and others), ``UnavailableError``, ``AnswerError`` or
    ``LogError``. If the answer was lost, asking again says ``already-linked``.
    """
    credential = profile.credential(now=clock())
    _check_session(profile, credential, clock)
    if wishes.method is not None and wishes.method not in METHODS:
        raise UsageError(
            "not-a-person", f"--{wishes.method} proves a machine, and a person's login is linked", hint="certauth login --help"
        )
    signer, context = profile.signer(), signer_trust(profile, ca=wishes.ca)
    credential = profile.present(context, now=clock())
    ca = wishes.ca if wishes.ca is not None else profile.extra_roots()
    with Client(context) as client:
        # 2
        metadata = fetch_metadata(client, signer.url)
        bundle, _ = fetch_bundle(
            client, metadata, previous=profile.bundle(), allow_example_keys=signer.example_keys or wishes.allow_example_keys
        )
        url, salt = metadata.endpoint("links"), secrets.token_bytes(SALT_BYTES)
        attempt = Attempt(
            metadata=metadata,
            wishes=wishes,
            situation=replace(situation or here(), terminal=True),  # a person's login, also where a platform vouches for jobs
            key=credential.key,
            csr=certification_request(credential.key),
            bound=BoundKey(signer_id=signer.url, spki=spki(credential.key.public_key), salt=salt),
            salt=salt,
            signer=client,
            others=lambda: Client(trust(roots=ca, system=True)),
            clock=clock,
            screen=screen,
            stopwatch=stopwatch or Stopwatch(),
            link=credential.principal,
        )
        proven = prove(attempt)
        # 3
        request = {"csr": attempt.csr, "proof": dict(proven.proof), "request_id": uuid.uuid4().hex}
        try:
            answer = client.post_again(url, lambda: request)
        except Refused as error:
            if error.code == _NOT_RECENT:
                raise _not_recent(profile) from error
            raise
    # 4
    _check(answer, credential, bundle, signer.url)
    return Linked(profile=profile, credential=credential, issuer=proven.issuer)


def _check_session(profile: Profile, credential: Credential, clock: Clock) -> None:
    """Refuse what the signer would refuse after the user had logged in at the second provider."""
    principal = credential.principal
    if principal.kind is not Kind.USER:
        raise UsageError(
            "not-a-person",
            f"{principal} is no person, and only a person links a login",
            hint="certauth status shows who you are",
        )
    # A renewed certificate is younger than its login; that one the signer finds out.
    if clock() - (credential.leaf.not_valid_before_utc + BACKDATE) > RECENT:
        raise _not_recent(profile)


def _not_recent(profile: Profile) -> LoginRequired:
    return LoginRequired(
        _NOT_RECENT,
        f"a login is linked within {int(RECENT.total_seconds()) // 60} minutes of your own, and yours is longer ago",
        hint=f"{profile.login_command} --force, with the login you have; then at once again: certauth login --link",
    )


def _check(answer: Mapping[str, object], credential: Credential, bundle: TrustBundle, url: str) -> None:
    """The receipt holds under the facility's log key, and is for a link to this person."""
    principal = str(credential.principal)
    receipt = Receipt.from_dict(answer.get("receipt"))
    recorded = receipts.check(receipt, VerifierKey.parse(bundle.log_vkey)).record.get("enrolment")
    act = (recorded.get("action"), recorded.get("principal"), recorded.get("by")) if isinstance(recorded, dict) else None
    if act != ("link", principal, principal) or text_member(answer, "principal", url) != principal:
        raise AnswerError(
            "wrong-receipt",
            f"{url} answered with the receipt of something else",
            hint="tell those who run the signer: it did not prove that your login was linked to you",
        )

"""Logging in: from nothing to a stored certificate that was checked before it was believed.

1. Fetch the signer's metadata and trust bundle; refuse them unless they fit the address dialled and what is stored.
2. Make a key, and a certification request that asks for no names.
3. Obtain a proof of identity that is bound to key and signer, in the way that suits (``certauth.client.flows``).
4. Send request and proof to the signer, with a request id, so that a lost answer can be asked for again.
5. Check the answer: it certifies this key, leads to the facility's root, names this facility, and its receipt proves that the
   facility's log holds this very certificate. A certificate that is not in the log is not used.
6. Store everything in one locked step.
"""

from __future__ import annotations

import os
import platform
import secrets
import ssl
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from certauth.audit import receipt as receipts
from certauth.audit.checkpoint import VerifierKey
from certauth.audit.receipt import Receipt
from certauth.bundles import TrustBundle, TrustEntry, VerifiedPeer, verify_peer
from certauth.certificates import dump_chain, load_chain, provenance_of
from certauth.client.attempt import Attempt, Situation, Wishes
from certauth.client.browser import can_open, is_remote
from certauth.client.flows import prove
from certauth.client.http import Client, text_member, trust
from certauth.client.lock import login_lock
from certauth.client.metadata import Metadata, fetch_bundle, fetch_metadata
from certauth.client.profile import Credential, Home, Profile, SignerRecord
from certauth.client.waiting import Screen, Stopwatch
from certauth.clock import Clock
from certauth.errors import AnswerError, CertauthError
from certauth.identity import SALT_BYTES
from certauth.identity.binding import BoundKey
from certauth.keys import Algorithm, SoftwareKey, generate, spki

__all__ = ["AlreadyLoggedIn", "LoggedIn", "Wishes", "check_answer", "granted", "here", "log_in", "log_in_once", "signer_trust"]

_CHAIN_LIMIT = 64 * 1024
_HOST_LIMIT = 64
_REPORT = "tell those who run the signer: nothing of this answer was stored"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedIn:
    """A finished login. ``ignored`` are names the request carried in vain, ``clamped`` is how a wish was cut."""

    profile: Profile
    credential: Credential
    peer: VerifiedPeer
    ignored: tuple[str, ...]
    clamped: Mapping[str, object] | None
    forgotten_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AlreadyLoggedIn:
    """Nothing had to be done: a good certificate is stored, perhaps one that another process was just given."""

    profile: Profile
    credential: Credential


def here() -> Situation:
    """The situation of this process."""
    return Situation(
        environment=dict(os.environ),
        terminal=sys.stdin is not None and sys.stdin.isatty(),
        window=can_open(os.environ),
        remote=is_remote(os.environ),
        host=_printable_host(platform.node()),
    )


def _printable_host(name: str) -> str:
    return "".join(c for c in name if c.isascii() and c.isprintable() and c != " ")[:_HOST_LIMIT] or "unknown"


def log_in_once(
    home: Home,
    url: str,
    wishes: Wishes,
    *,
    force: bool,
    clock: Clock,
    screen: Screen,
    situation: Situation,
    stopwatch: Stopwatch | None = None,
) -> LoggedIn | AlreadyLoggedIn:
    """``log_in`` unless the stored certificate is still good; of several processes that log in at once, one does.

    The others wait for it, at most as long as a login may take, and share what it was given, even if ``force``. If it gives
    up or dies, the next one takes over. Raises the errors of ``log_in`` and of ``login_lock``.
    """
    stopwatch = stopwatch or Stopwatch()
    before = still_good(home.by_signer(url), wishes, clock())
    if before is not None and not force:
        return before
    with login_lock(home.directory, url, seconds=wishes.browser.timeout, screen=screen, stopwatch=stopwatch):
        now = still_good(home.by_signer(url), wishes, clock())
        known = None if before is None else before.credential.fingerprint
        if now is not None and (not force or now.credential.fingerprint != known):
            return now
        return log_in(
            home,
            url,
            wishes,
            clock=clock,
            tell=screen.tell,
            screen=screen,
            situation=situation,
            stopwatch=stopwatch,
        )


def still_good(profile: Profile | None, wishes: Wishes, now: datetime) -> AlreadyLoggedIn | None:
    """The stored credential, if more than half of its life is left and it is what was asked for.

    That is: of the principal that was named, if any, and from a login at the identity provider that was named, if any.
    """
    if profile is None:
        return None
    try:
        credential = profile.credential(now=now)
        stated = provenance_of(credential.leaf)
    except CertauthError:
        return None
    if wishes.issuer is not None and (stated is None or stated[1] != wishes.issuer):
        return None
    start, end = credential.leaf.not_valid_before_utc, credential.leaf.not_valid_after_utc
    if wishes.principal not in {None, credential.principal} or end - now <= (end - start) / 2:
        return None
    return AlreadyLoggedIn(profile=profile, credential=credential)


def log_in(
    home: Home,
    url: str,
    wishes: Wishes,
    *,
    clock: Clock,
    tell: Callable[[str], None],
    screen: Screen | None = None,
    situation: Situation | None = None,
    stopwatch: Stopwatch | None = None,
) -> LoggedIn:
    """Log in at the signer at ``url`` (an origin); raises the errors of its steps and stores nothing unless all succeed.

    ``tell`` shows a text to the user; a ``screen`` can do more. Without a ``situation`` it is that of this process.
    """
    known = home.by_signer(url)
    ca = wishes.ca if wishes.ca is not None or known is None else known.extra_roots()
    with Client(signer_trust(known, ca=wishes.ca)) as client:
        # 1
        metadata = fetch_metadata(client, url)
        profile = _profile_of(home, metadata, known, wishes)
        bundle, bundle_bytes = fetch_bundle(
            client,
            metadata,
            previous=None if known is None else known.bundle(),
            allow_example_keys=wishes.allow_example_keys,
        )
        # 2
        key, salt = generate(Algorithm.P256), secrets.token_bytes(SALT_BYTES)
        attempt = Attempt(
            metadata=metadata,
            wishes=wishes,
            situation=situation or here(),
            key=key,
            csr=certification_request(key),
            bound=BoundKey(signer_id=url, spki=spki(key.public_key), salt=salt),
            salt=salt,
            signer=client,
            others=lambda: Client(trust(roots=ca, system=True)),
            clock=clock,
            screen=screen or Screen(tell=tell),
            stopwatch=stopwatch or Stopwatch(),
        )
        # 3
        proven = prove(attempt)
        # 4
        request: dict[str, object] = {"csr": attempt.csr, "proof": dict(proven.proof), "request_id": uuid.uuid4().hex}
        if wishes.lifetime is not None:
            request["lifetime"] = int(wishes.lifetime.total_seconds())
        if wishes.invite is not None:
            request["invite"] = wishes.invite
        answer = client.post_again(metadata.certificates, lambda: request)
    # 5
    credential, peer, receipt = check_answer(answer, key=key, bundle=bundle, url=url, clock=clock)
    # 6
    forgotten = profile.store_login(
        credential,
        signer=_record(metadata, proven.issuer, system_roots=ca is None, example_keys=wishes.allow_example_keys),
        bundle=bundle_bytes,
        extra_roots=ca,
        receipt=receipt,
    )
    home.activate(profile)
    ignored, clamped = answer.get("ignored"), answer.get("clamped")
    return LoggedIn(
        profile=profile,
        credential=credential,
        peer=peer,
        ignored=tuple(str(name) for name in ignored) if isinstance(ignored, list) else (),
        clamped=clamped if isinstance(clamped, dict) else None,
        forgotten_tokens=forgotten,
    )


def signer_trust(known: Profile | None, *, ca: bytes | None = None) -> ssl.SSLContext:
    """Whom to accept as a signer: at first contact the CA named by the user, else the system's; later also the stored roots."""
    if known is None:
        return trust(roots=ca, system=ca is None)
    stored = known.extra_roots()
    roots = dump_chain(list(known.bundle().x509_roots)) + (stored or b"") + (ca or b"")
    return trust(roots=roots, system=known.signer().system_roots)


def _profile_of(home: Home, metadata: Metadata, known: Profile | None, wishes: Wishes) -> Profile:
    """The profile to fill. One trust domain has one signer here: another one that claims its name is refused."""
    profile = home.profile(metadata.domain)
    if wishes.domain not in {None, metadata.domain}:
        raise AnswerError(
            "wrong-signer",
            f"{metadata.signer} is the signer of {metadata.domain}, not of {wishes.domain}",
            hint="compare address and trust domain with what the facility published",
        )
    taken = next((one for one in home.profiles() if one.domain == metadata.domain), None)
    if (known is not None and known.domain != metadata.domain) or (taken is not None and taken.signer().url != metadata.signer):
        raise AnswerError(
            "wrong-signer",
            f"{metadata.signer} claims to be of {metadata.domain}, which contradicts an earlier login",
            hint=f"if the facility moved, delete {profile.directory} and log in again",
        )
    return profile


def certification_request(key: SoftwareKey) -> str:
    """A certification request for ``key`` in PEM, with an empty subject: the signer decides the names."""
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key.private_key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode("ascii")


def check_answer(
    answer: Mapping[str, object], *, key: SoftwareKey, bundle: TrustBundle, url: str, clock: Clock
) -> tuple[Credential, VerifiedPeer, Receipt]:
    """Establish that the answer to a certification request is what was asked for.

    1. the chain leads to a root of ``bundle`` and names this facility (``ChainError``);
    2. its leaf certifies our key (``AnswerError`` ``wrong-key``);
    3. the receipt holds under the facility's log key (``LogError``) and is for this certificate (``wrong-receipt``).
    """
    pem = text_member(answer, "certificate_chain", url, limit=_CHAIN_LIMIT)
    chain = tuple(load_chain(pem.encode()))
    # 1
    entries = {bundle.domain: TrustEntry(bundle=bundle)}
    der = [certificate.public_bytes(serialization.Encoding.DER) for certificate in chain]
    peer = verify_peer(der, entries, now=clock())
    # 2
    if peer.spki != spki(key.public_key):
        raise AnswerError("wrong-key", f"{url} answered with a certificate for another key", hint=_REPORT)
    # 3
    receipt = Receipt.from_dict(answer.get("receipt"))
    grant = granted(receipt, bundle, url=url)
    if grant.get("cert") != peer.fingerprint:
        raise AnswerError("wrong-receipt", f"{url} answered with the receipt of another certificate", hint=_REPORT)
    return Credential(key=key, chain=chain), peer, receipt


def granted(receipt: Receipt, bundle: TrustBundle, *, url: str) -> Mapping[str, object]:
    """The ``grant`` of a receipt's entry, once the receipt was checked; ``LogError`` if it does not hold.

    ``AnswerError`` (``wrong-receipt``) if the entry grants nothing. The caller compares a hash of what was granted; each kind
    of record has its own member for it, so a record of another kind cannot match.
    """
    grant = receipts.check(receipt, VerifierKey.parse(bundle.log_vkey)).record.get("grant")
    if not isinstance(grant, dict):
        raise AnswerError("wrong-receipt", f"{url} answered with the receipt of something else", hint=_REPORT)
    return grant


def _record(metadata: Metadata, issuer: str, *, system_roots: bool, example_keys: bool) -> SignerRecord:
    return SignerRecord(
        url=metadata.signer,
        domain=str(metadata.domain),
        issuer=issuer,
        certificates=metadata.certificates,
        tokens=metadata.tokens,
        system_roots=system_roots,
        example_keys=example_keys,
    )

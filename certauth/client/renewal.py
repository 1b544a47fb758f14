"""A certificate is replaced before it ends, and with it the tokens that are bound to it. Nobody need be there.

The signer gives a new certificate for the old one, as long as the login (a person's) or the enrolment (an agent's) lasts. An
agent whose certificate has run out, because a machine was down, say, proves itself again with the key it was enrolled with.

A renewal keeps the key: so ``key.pem`` and ``chain.pem``, of which one is replaced by one rename, belong together at every
moment, also for programs that know nothing of our locks. A token names the certificate it works with, so the tokens minted for
the old one are minted again, with the same wishes; what was derived from them, or handed over to the old certificate, ends.

Everything new is made and checked in a directory of its own first. Until all of it is there, nothing that worked is touched.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from certauth.client import tokens
from certauth.client.agents import AgentRecord, prove
from certauth.client.http import Client
from certauth.client.login import certification_request, check_answer, signer_trust
from certauth.client.metadata import fetch_bundle, fetch_metadata
from certauth.client.profile import Credential, Home, Profile
from certauth.client.wishes import TokenWish, keep_wishes, read_wishes
from certauth.clock import Clock
from certauth.errors import AnswerError, CertauthError, LoginRequired, Refused, RequestError, StoreError, UsageError
from certauth.files import lock, make_private_directory
from certauth.tokens import describe

_STAGE = ".renewal"
_SESSION_OVER = frozenset({"session-ended"})


@contextlib.contextmanager
def renewal_lock(profile: Profile) -> Iterator[None]:
    """One at a time renews a profile; ``UsageError`` (``renewal-running``) if another process is at it."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock(make_private_directory(profile.directory) / ".renewal.lock", timeout=0))
        except StoreError as error:
            if error.code != "locked":
                raise
            raise UsageError(
                "renewal-running",
                f"another process is renewing the certificate for {profile.domain}",
                hint="let it: one 'certauth renew --daemon' for each home is enough",
            ) from error
        yield


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """A token that could not be kept: under which name, and the code of why."""

    name: str
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed:
    """What a renewal came to. ``gained`` is how much later the new certificate ends."""

    credential: Credential
    gained: timedelta
    tokens: tuple[str, ...]
    lost: tuple[Lost, ...]


def renew(
    home: Home,
    profile: Profile,
    agent: AgentRecord | None,
    *,
    lifetime: timedelta | None,
    ca: bytes | None,
    clock: Clock,
) -> Renewed:
    """Replace the certificate of ``profile`` and the tokens minted for it; hold ``renewal_lock`` meanwhile.

    Raises ``LoginRequired`` (``session-ended``, or the codes of ``Profile.credential``) if a person must log in, ``Refused``,
    ``UnavailableError``, ``StoreError``, and the errors of checking what the signer answers. Nothing has changed then.
    """
    old = _stored(profile)
    now = clock()
    wishes = [] if old is None else read_wishes(profile, old.fingerprint, now=now)
    stage = profile.directory / _STAGE
    _discard(stage)
    try:
        fresh = Home(make_private_directory(stage)).profile(profile.domain)
        if agent is not None and (old is None or now >= old.leaf.not_valid_after_utc):
            prove(agent, home, ca=ca, lifetime=lifetime, clock=clock, into=Home(stage))
        else:
            _ask(profile, fresh, lifetime=lifetime, ca=ca, clock=clock)
        made, lost = _mint(fresh, wishes, ca=ca, clock=clock)
        credential = fresh.stored_credential()
        dead = () if old is None else _bound_to(profile, old.fingerprint, now)
        gone = [name for name in dead if name not in made]
        keep_wishes(fresh, [wish.minted(jti) for wish in wishes if (jti := made.get(wish.name)) is not None])
        same = old is not None and old.key.public_key == credential.key.public_key
        _install(fresh, profile, forget=gone, key=not same)
        if agent is not None:
            home.activate(profile)  # it is the only one there, and may be the first
    finally:
        _discard(stage)
    known = {one.name for one in lost}
    ended = [Lost(name=name, code="not-minted-here") for name in gone if name not in known]
    return Renewed(
        credential=credential,
        gained=credential.leaf.not_valid_after_utc - (now if old is None else old.leaf.not_valid_after_utc),
        tokens=tuple(made),
        lost=(*lost, *ended),
    )


def mint_again(
    profile: Profile, names: Iterable[str], *, ca: bytes | None, clock: Clock
) -> tuple[tuple[str, ...], tuple[Lost, ...]]:
    """Replace the tokens stored under ``names`` by newer ones for the same certificate, with the same wishes.

    Returns the names of those replaced, and of those that were refused; these stay, until they end. Raises as ``tokens.mint``
    does if it is not about one token.
    """
    credential, wanted = profile.credential(now=clock()), set(names)
    known = read_wishes(profile, credential.fingerprint, now=clock())
    made, lost = _mint(profile, [wish for wish in known if wish.name in wanted], ca=ca, clock=clock)
    keep_wishes(profile, [wish.minted(made.get(wish.name, wish.jti)) for wish in known])
    return tuple(made), lost


def _stored(profile: Profile) -> Credential | None:
    """What there is to renew, in time or not; an agent may have nothing yet."""
    try:
        return profile.stored_credential()
    except LoginRequired:
        return None


def _ask(profile: Profile, fresh: Profile, *, lifetime: timedelta | None, ca: bytes | None, clock: Clock) -> None:
    """Obtain the next certificate for the key of the present one, and the bundle of today, into ``fresh``."""
    signer, context = profile.signer(), signer_trust(profile, ca=ca)
    old = profile.present(context, now=clock())
    request: dict[str, object] = {"csr": certification_request(old.key), "request_id": uuid.uuid4().hex}
    if lifetime is not None:
        request["lifetime"] = int(lifetime.total_seconds())
    with Client(context) as client:
        metadata = fetch_metadata(client, signer.url)
        if metadata.domain != profile.domain:
            raise AnswerError(
                "wrong-signer",
                f"{signer.url} is the signer of {metadata.domain} now",
                hint="ask those who run it, and log in again",
            )
        bundle, exact = fetch_bundle(client, metadata, previous=profile.bundle(), allow_example_keys=signer.example_keys)
        try:
            answer = client.post_again(metadata.endpoint("renewals"), lambda: request)
        except Refused as error:
            if error.code in _SESSION_OVER:
                raise LoginRequired(error.code, error.message, hint=profile.login_command) from error
            raise
    credential, peer, receipt = check_answer(answer, key=old.key, bundle=bundle, url=signer.url, clock=clock)
    if peer.principal != old.principal:
        raise AnswerError(
            "wrong-name",
            f"{signer.url} answered with a certificate for somebody else",
            hint="nothing was stored; tell those who run the signer",
        )
    fresh.store_login(credential, signer=signer, bundle=exact, extra_roots=profile.extra_roots(), receipt=receipt)


def _mint(
    profile: Profile, wishes: Iterable[TokenWish], *, ca: bytes | None, clock: Clock
) -> tuple[dict[str, str], tuple[Lost, ...]]:
    """Mint each wish into ``profile``: the ids of those that were granted, by name, and those that were refused.

    A refusal is about one token: what was lost of somebody's rights must not cost them the others. Anything else is raised.
    """
    made: dict[str, str] = {}
    lost: list[Lost] = []
    for wish in wishes:
        try:
            minted = tokens.mint(
                profile,
                audience=wish.audience,
                rights=wish.rights,
                lifetime=timedelta(seconds=wish.lifetime),
                delegations=wish.delegations,
                name=wish.name,
                ca=ca,
                clock=clock,
            )
        except (Refused, RequestError) as error:
            lost.append(Lost(name=wish.name, code=error.code))
        else:
            made[wish.name] = minted.token.jti
    return made, tuple(lost)


def _bound_to(profile: Profile, holder: str, now: datetime) -> tuple[str, ...]:
    """The stored tokens that work with this certificate alone. What is damaged or in other hands is not ours to end."""
    return tuple(name for name in profile.token_names() if _holder(profile, name, now) == holder)


def _holder(profile: Profile, name: str, now: datetime) -> str | None:
    try:
        facts = describe(profile.token(name) or "", now=now)
    except CertauthError:
        return None
    handed = facts["delegated_to"]
    return str(handed[-1] if isinstance(handed, list) and handed else facts["peer_fingerprint"])


def _install(fresh: Profile, profile: Profile, *, forget: Iterable[str], key: bool) -> None:
    """Put what was made into place, each file by one rename, under the profile's lock. Then what has ended is deleted."""
    with profile.locked():
        for kind in ("receipts", "tokens"):
            make_private_directory(profile.directory / kind)
        try:
            for name in ("bundle.json", "signer.json", "renewal.json", "ca.pem"):
                _move(fresh.directory / name, profile.directory / name)
            for path in sorted((fresh.directory / "receipts").glob("[!.]*")):
                _move(path, profile.directory / "receipts" / path.name)
            if key:
                _move(fresh.directory / "key.pem", profile.directory / "key.pem")
            _move(fresh.directory / "chain.pem", profile.directory / "chain.pem")
            for path in sorted((fresh.directory / "tokens").glob("[!.]*")):
                _move(path, profile.directory / "tokens" / path.name)
            for name in forget:
                profile.token_path(name).unlink(missing_ok=True)
            for directory in (profile.directory, profile.directory / "receipts", profile.directory / "tokens"):
                _sync(directory)
        except OSError as error:
            hint = "make room there, or make it yours; the certificate that is there goes on until it ends"
            raise StoreError("cannot-write", f"cannot write to {profile.directory}: {error.strerror}", hint=hint) from error


def _move(path: Path, to: Path) -> None:
    if path.exists():
        path.replace(to)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _discard(stage: Path) -> None:
    """What an earlier renewal left when it was killed, and what this one does not need any more."""
    shutil.rmtree(stage, ignore_errors=True)

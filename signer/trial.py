"""Trying out a configured identity provider: everything that its settings promise, done once, now."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

from certauth.clock import Clock
from certauth.errors import CertauthError, UnavailableError
from certauth.files import read_private
from signer.discovery import Discovery, check_host
from signer.introspection import Introspection
from signer.jwks import KeySource, Pace
from signer.probe import Finding, Level
from signer.providers import introspection_sources, key_sources, offers_mediated_login
from signer.settings import IssuerSettings, Settings


async def trial(settings: Settings, issuer: IssuerSettings, *, clock: Clock, pace: Pace | None = None) -> tuple[Finding, ...]:
    """What works and what does not of ``issuer``. Nothing is raised for what is wrong with the provider or its settings."""
    alone = settings.model_copy(update={"issuer": (issuer,)})
    try:
        key_source = KeySource(key_sources(alone), pace=pace)
    except CertauthError as error:
        return (Finding(Level.FAILURE, error.code, error.message),)
    try:
        introspection = Introspection(introspection_sources(alone), key_source=key_source, clock=clock)
        return tuple([finding async for finding in _everything(issuer, key_source, introspection)])
    finally:
        await key_source.aclose()


async def _everything(settings: IssuerSettings, key_source: KeySource, introspection: Introspection) -> AsyncIterator[Finding]:
    async for finding in _keys(settings, key_source):
        yield finding
    if settings.client_secret_file is not None:
        try:
            read_private(settings.client_secret_file)
            yield Finding(Level.GOOD, "client-secret", f"{settings.client_secret_file} can be read, by us alone")
        except CertauthError as error:
            yield Finding(Level.FAILURE, "client-secret", f"{error.message}; {error.hint or 'see the settings reference'}")
    try:
        discovery = await key_source.discovery(settings.url)
    except UnavailableError as error:
        if error.code == "no-discovery":
            yield Finding(Level.NOTE, "logins", f"nobody can log in there through this signer: {error.message}")
        else:
            yield Finding(Level.FAILURE, "discovery", error.message)
        return
    for finding in _logins(settings, discovery):
        yield finding
    if settings.introspection:
        yield await _introspection(settings, introspection)


async def _keys(settings: IssuerSettings, key_source: KeySource) -> AsyncIterator[Finding]:
    await key_source.warm()
    [status] = key_source.status()
    for reason in status.ignored:
        yield Finding(Level.WARNING, "ignored-key", reason)
    if status.state == "none":
        yield Finding(Level.FAILURE, "keys", status.failure or "there are none")
        return
    keys = await key_source.keys(settings.url, None)
    fitting = {name for key in (*keys.by_kid.values(), *keys.without_kid) for name in key.algorithms}
    usable = sorted(fitting & set(settings.algorithms))
    where = settings.jwks_file or settings.jwks_uri or "the key set it names"
    if usable:
        yield Finding(Level.GOOD, "keys", f"{status.keys} usable, from {where}, for {', '.join(usable)}")
    else:
        text = f"its keys are for {', '.join(sorted(fitting))}; algorithms allows none of these"
        yield Finding(Level.FAILURE, "algorithms", text)
    if keys.without_kid and not settings.single_key:
        yield Finding(Level.WARNING, "key-ids", "it has keys without an id; without single_key = true they verify nothing")


def _logins(settings: IssuerSettings, discovery: Discovery) -> list[Finding]:
    """Whether what is needed for each way to log in is there, and where the signer may go."""
    found = []
    if "id_token" in settings.kinds:
        code = discovery.authorization_endpoint and discovery.token_endpoint
        good = Finding(Level.GOOD, "code", "it has what the code flow needs")
        found.append(good if code else Finding(Level.FAILURE, "code", "people cannot log in: it has no code flow"))
        if offers_mediated_login(settings) and discovery.token_endpoint is not None:
            found.append(_host(settings, discovery.token_endpoint, "token endpoint"))
    if settings.device:
        complete = discovery.device_authorization_endpoint and discovery.dpop_algorithms
        good = Finding(Level.GOOD, "device", "it has a device flow and DPoP")
        found.append(good if complete else Finding(Level.FAILURE, "device", "device = true, but it lacks device flow or DPoP"))
    return found


def _host(settings: IssuerSettings, url: str, what: str) -> Finding:
    try:
        check_host(url, what, issuer=settings.url, listed=settings.allowed_hosts)
    except UnavailableError as error:
        return Finding(Level.FAILURE, "hosts", f"{error.message}; {error.hint}")
    return Finding(Level.GOOD, "hosts", f"its {what} is where the signer may go")


async def _introspection(settings: IssuerSettings, introspection: Introspection) -> Finding:
    """Ask about a token that cannot exist: the answer tells whether our client id and secret are right."""
    try:
        answer = await introspection.introspect(settings.url, f"certauth-test-{secrets.token_urlsafe(16)}")
    except CertauthError as error:
        return Finding(Level.FAILURE, "introspection", error.message)
    finally:
        await introspection.aclose()
    if answer["active"]:
        return Finding(Level.FAILURE, "introspection", "it calls a made-up token active: do not use it")
    return Finding(Level.GOOD, "introspection", "it answers, and takes our client id and secret")

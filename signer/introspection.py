"""Asking a provider about an opaque access token (RFC 7662), because nothing in such a token can be verified here.

1. A token is asked about once at a time: whoever else brings it meanwhile waits for that answer.
2. An answer is kept for 30 seconds, an active one never past its ``exp``; at most 1024, by the token's digest. The token itself
   is not kept.
3. At most 16 questions are under way at one provider, and none for 5 seconds after it could not be reached: the rest is told to
   come back, so that a slow provider, or a flood of made-up tokens, holds up nobody else.
4. An answer that is late, too large, no JSON object, or without a boolean ``active`` is no answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.parse import quote_plus

from certauth.clock import Clock
from certauth.encoding import strict_json
from certauth.errors import CertauthError, ProofError, UnavailableError
from certauth.files import read_private
from signer.discovery import Discovery, check_host
from signer.jwks import KeySource
from signer.outbound import Answer

_KEEP: Final = 30.0
_MAX_KEPT: Final = 1024
_MAX_UNDER_WAY: Final = 16
_COOLDOWN: Final = 5.0
_MAX_TOKEN: Final = 16 * 1024
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750 §2.1
_BASIC, _POST = "client_secret_basic", "client_secret_post"
_HINT: Final = "'certauth signer issuer test' shows what is wrong"


@dataclass(frozen=True, slots=True, kw_only=True)
class IntrospectionSource:
    """A provider that may be asked, and as whom: the facility's client there, with its secret in a private file.

    The secret is sent to the provider's own host, or to one of ``hosts`` (``host`` or ``host:port``), whatever discovery says.
    """

    url: str
    client_id: str
    secret_file: Path
    hosts: frozenset[str] = frozenset()


class Introspection:
    """Asks providers about tokens; lives in the event loop of ``key_source``, whose discovery and way to them it uses."""

    def __init__(
        self,
        sources: Iterable[IntrospectionSource],
        *,
        key_source: KeySource,
        clock: Clock,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._providers = {source.url: _Provider(source, key_source, clock, ticks) for source in sources}

    async def introspect(self, issuer_url: str, token: str) -> Mapping[str, object]:
        """What the provider says about ``token``: the members of its answer, of which ``active`` is a boolean.

        Raises ``ProofError`` (``unknown-issuer``: not to be asked; ``proof-too-large``; ``proof-malformed``) or
        ``UnavailableError`` (``issuer-unavailable``, with ``retry_after`` seconds).
        """
        provider = self._providers.get(issuer_url)
        if provider is None:
            raise ProofError(
                "unknown-issuer",
                "no identity provider is configured that could be asked about this token",
                hint="send an ID token, or an access token that is a JWT",
            )
        if len(token) > _MAX_TOKEN:
            raise ProofError(
                "proof-too-large", f"an access token has at most {_MAX_TOKEN} characters", hint="send the token, nothing else"
            )
        if not _TOKEN.fullmatch(token):
            raise ProofError(
                "proof-malformed",
                "the access token has characters that none has (RFC 6750)",
                hint="send the token, nothing else",
            )
        return await provider.introspect(token)

    async def aclose(self) -> None:
        """End questions under way."""
        await asyncio.gather(*(provider.aclose() for provider in self._providers.values()))


class _Provider:
    """Questions to one provider. Times are of ``ticks``; the token is known only to the question about it."""

    def __init__(self, source: IntrospectionSource, key_source: KeySource, clock: Clock, ticks: Callable[[], float]) -> None:
        self._source, self._key_source, self._clock, self._ticks = source, key_source, clock, ticks
        self._kept: OrderedDict[bytes, tuple[float, Mapping[str, object]]] = OrderedDict()
        self._under_way: dict[bytes, asyncio.Task[Mapping[str, object]]] = {}
        self._not_before = -math.inf

    async def introspect(self, token: str) -> Mapping[str, object]:
        digest = hashlib.sha256(token.encode()).digest()
        until, answer = self._kept.get(digest, (-math.inf, {}))
        if self._ticks() < until:
            return answer
        question = self._under_way.get(digest)
        if question is None:
            if self._ticks() < self._not_before:
                raise _unavailable("it could not be reached a moment ago", self._not_before - self._ticks())
            if len(self._under_way) >= _MAX_UNDER_WAY:
                raise _unavailable("it is being asked too much at once", 1)
            question = asyncio.get_running_loop().create_task(self._ask(token, digest))
            question.add_done_callback(_look_at)
            self._under_way[digest] = question
        # The shield: one impatient client must not end the question for the others who brought the same token.
        return await asyncio.shield(question)

    async def aclose(self) -> None:
        questions = [*self._under_way.values()]
        for question in questions:
            question.cancel()
        await asyncio.gather(*questions, return_exceptions=True)

    async def _ask(self, token: str, digest: bytes) -> Mapping[str, object]:
        try:
            answer = _read(await self._exchange(token))
            self._keep(digest, answer)
            return answer
        finally:
            del self._under_way[digest]

    async def _exchange(self, token: str) -> Answer:
        discovery = await self._key_source.discovery(self._source.url)
        if discovery.introspection_endpoint is None:
            raise _unavailable("its discovery document names no introspection endpoint", _COOLDOWN)
        form, basic = self._credentials(discovery)
        form |= {"token": token, "token_type_hint": "access_token"}
        endpoint, source = discovery.introspection_endpoint, self._source
        try:
            # A discovery document that sends our secret elsewhere is not followed.
            check_host(endpoint, "introspection endpoint", issuer=source.url, listed=source.hosts)
            return await self._key_source.outbound(source.url).post(endpoint, form, basic=basic)
        except UnavailableError as error:
            self._not_before = self._ticks() + _COOLDOWN
            raise _unavailable(error.message, _COOLDOWN) from error

    def _credentials(self, discovery: Discovery) -> tuple[dict[str, str], tuple[str, str] | None]:
        """The client's secret, read anew so that it can be replaced, in the form that the provider takes."""
        methods = discovery.introspection_auth_methods or discovery.token_auth_methods
        try:
            secret = read_private(self._source.secret_file).decode("utf-8").strip()
        except (CertauthError, UnicodeDecodeError) as error:
            raise _unavailable("the file with our secret there cannot be used", _COOLDOWN) from error
        if _BASIC in methods:
            return {}, (quote_plus(self._source.client_id), quote_plus(secret))  # encoded first: RFC 6749 §2.3.1
        if _POST in methods:
            return {"client_id": self._source.client_id, "client_secret": secret}, None
        raise _unavailable("it takes no client secret", _COOLDOWN)

    def _keep(self, digest: bytes, answer: Mapping[str, object]) -> None:
        seconds, now, expires = _KEEP, self._clock().timestamp(), answer.get("exp")
        if isinstance(expires, int | float):
            if expires <= now:
                return
            if expires < now + _KEEP:  # compared before it is subtracted: JSON has integers that no float can hold
                seconds = expires - now
        self._kept[digest] = (self._ticks() + seconds, answer)
        self._kept.move_to_end(digest)
        if len(self._kept) > _MAX_KEPT:
            self._kept.popitem(last=False)


def _look_at(question: asyncio.Task[Mapping[str, object]]) -> None:
    """Take the outcome out of a question that nobody waits for any more, or the event loop complains that nobody did."""
    if not question.cancelled():
        question.exception()


def _read(answer: Answer) -> Mapping[str, object]:
    if answer.status in {401, 403}:
        raise _unavailable(f"it does not accept our client id and secret ({answer.status})", _COOLDOWN)
    if answer.status != 200 or answer.content_type != "application/json":
        raise _unavailable(f"it answered {answer.status}, not with a token's state", _COOLDOWN)
    try:
        document = strict_json(answer.body)
    except ValueError as error:
        raise _unavailable("its answer is not strict JSON", _COOLDOWN) from error
    match document:
        case dict(members) if isinstance(members.get("active"), bool):
            return MappingProxyType(members)
        case _:
            raise _unavailable("its answer does not say whether the token is active", _COOLDOWN)


def _unavailable(reason: str, seconds: float) -> UnavailableError:
    return UnavailableError(
        "issuer-unavailable",
        f"the identity provider cannot be asked about the token: {reason}",
        hint=_HINT,
        retry_after=max(1, math.ceil(seconds)),
    )

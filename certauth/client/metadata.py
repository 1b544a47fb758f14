"""What a signer says about itself, and its facility's trust bundle: fetched, and refused unless it fits the address dialled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urljoin

from certauth.bundles import TrustBundle
from certauth.client.http import Client, json_object, origin, origin_of, problem, text_member
from certauth.encoding import Json
from certauth.errors import AnswerError, CertauthError, UsageError
from certauth.names import TrustDomain, label

METADATA_PATH = "/.well-known/certauth"
BUNDLE_PATH = "/.well-known/certauth/bundle"
_REPORT = "tell those who run the signer: a client does not accept this"


_BINDINGS = frozenset({"nonce", "audience", "dpop", "cnf", "none"})
_FURTHER = ("logins", "renewals", "links", "agents", "login_page", "token", "introspect", "revoke", "jwks")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginIssuer:
    """An identity provider that this signer believes: what proofs it makes, how they are bound, how users log in there.

    ``flows`` are among ``code``, ``mediated`` and ``device``. ``access_token_audience`` is what access tokens must be for.
    """

    id: str
    url: str
    client_id: str
    scopes: tuple[str, ...]
    bindings: frozenset[str] = frozenset({"nonce"})
    kinds: frozenset[str] = frozenset({"id_token"})
    flows: frozenset[str] = frozenset({"code"})
    access_token_audience: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """A signer's description of itself; its URLs are on the signer's own origin."""

    signer: str
    domain: TrustDomain
    certificates: str
    tokens: str
    issuers: tuple[LoginIssuer, ...]
    further: Mapping[str, str] = field(default_factory=dict)

    def issuer(self, wanted: str | None, suits: Callable[[LoginIssuer], bool] = lambda _: True) -> LoginIssuer:
        """The issuer with this id, else the only one that ``suits``, else the only one there is.

        Raises ``UsageError``: ``unknown-issuer``, ``several-issuers``. Whoever needs it to suit checks that of the answer.
        """
        known = ", ".join(issuer.id for issuer in self.issuers)
        if wanted is not None:
            for issuer in self.issuers:
                if issuer.id == wanted:
                    return issuer
            raise UsageError("unknown-issuer", f"this signer knows no issuer {wanted!r}", hint=f"it knows: {known}")
        suitable = [issuer for issuer in self.issuers if suits(issuer)] or list(self.issuers)
        if len(suitable) != 1:
            known = ", ".join(issuer.id for issuer in suitable)
            raise UsageError(
                "several-issuers", "this signer accepts several identity providers", hint=f"add --issuer, one of: {known}"
            )
        return suitable[0]

    def endpoint(self, name: str) -> str:
        """The URL of a further endpoint; ``UsageError`` (``flow-not-offered``) if this signer has none."""
        if name not in self.further:
            raise UsageError(
                "flow-not-offered",
                f"the signer at {self.signer} has no endpoint for {name}",
                hint="use another way, or ask its admins",
            )
        return self.further[name]


def fetch_metadata(client: Client, url: str) -> Metadata:
    """The description of the signer at ``url``, an origin.

    Raises ``AnswerError``: ``wrong-signer`` if it calls itself otherwise. A proof is bound to the address the user dialled;
    a signer that makes a client use another name could collect proofs that work there.
    """
    members = client.json("GET", url + METADATA_PATH)
    signer = text_member(members, "signer", url)
    try:
        same = origin(signer) == url
    except CertauthError:
        same = False
    if not same:
        raise AnswerError(
            "wrong-signer", f"the server at {url} calls itself {signer[:120]}", hint="use the address your facility published"
        )
    try:
        domain = TrustDomain.parse(text_member(members, "trust_domain", url))
    except CertauthError as error:
        raise AnswerError("bad-answer", f"{url} names no valid trust domain", hint=_REPORT) from error
    endpoints = members.get("endpoints")
    issuers = members.get("issuers")
    if not isinstance(endpoints, dict) or not isinstance(issuers, list) or not issuers:
        raise AnswerError("bad-answer", f"{url} names no endpoints or no identity provider", hint=_REPORT)
    return Metadata(
        signer=url,
        domain=domain,
        certificates=_endpoint(endpoints, "certificates", url),
        tokens=_endpoint(endpoints, "tokens", url),
        issuers=tuple(_issuer(issuer, url) for issuer in issuers),
        further={name: _endpoint(endpoints, name, url) for name in _FURTHER if name in endpoints},
    )


def _endpoint(endpoints: Mapping[str, object], name: str, url: str) -> str:
    endpoint = urljoin(url + "/", text_member(endpoints, name, url))
    try:
        same = origin_of(endpoint) == url
    except CertauthError:
        same = False
    if not same:
        raise AnswerError("wrong-signer", f"{url} wants its requests for {name} sent to another server", hint=_REPORT)
    return endpoint


def _issuer(value: Json, url: str) -> LoginIssuer:
    if not isinstance(value, dict):
        raise AnswerError("bad-answer", f"{url} describes an identity provider in no form known here", hint=_REPORT)
    bindings = frozenset(_texts(value, "bindings", [str(value.get("binding", "nonce"))], url))
    if not bindings & _BINDINGS:
        raise AnswerError(
            "unknown-binding",
            f"{url} wants a way of binding proofs that this version does not know",
            hint="install a newer one",
        )
    issuer = text_member(value, "url", url)
    try:
        origin_of(issuer)
        id_ = label(text_member(value, "id", url), "the id of an issuer")
    except CertauthError as error:
        raise AnswerError(
            "bad-answer", f"{url} names an identity provider without a safe id and an https address", hint=_REPORT
        ) from error
    audience = value.get("access_token_audience")
    return LoginIssuer(
        id=id_,
        url=issuer,
        client_id=text_member(value, "client_id", url),
        scopes=tuple(_texts(value, "scopes", ["openid"], url)),
        bindings=bindings,
        kinds=frozenset(_texts(value, "kinds", ["id_token"], url)),
        flows=frozenset(_texts(value, "flows", ["code"], url)),
        access_token_audience=None if audience is None else text_member(value, "access_token_audience", url),
    )


def _texts(value: Mapping[str, Json], name: str, default: list[str], url: str) -> list[str]:
    """A list of texts; ``AnswerError`` (``bad-answer``) for anything else."""
    texts = value.get(name, default)
    if not isinstance(texts, list):
        raise AnswerError("bad-answer", f"{url} names no usable {name}", hint=_REPORT)
    found = [text for text in texts if isinstance(text, str)]
    if len(found) != len(texts):
        raise AnswerError("bad-answer", f"{url} names no usable {name}", hint=_REPORT)
    return found


def fetch_bundle(
    client: Client, metadata: Metadata, *, previous: TrustBundle | None, allow_example_keys: bool
) -> tuple[TrustBundle, bytes]:
    """The facility's trust bundle and its exact bytes.

    Raises ``AnswerError``: ``wrong-bundle`` if it is another facility's or names another signer, ``bundle-rollback`` if it is
    older than ``previous``; ``ConfigError`` if malformed; ``KeyMaterialError`` for example keys.
    """
    answer = client.send("GET", metadata.signer + BUNDLE_PATH)
    if answer.status != 200:
        raise problem(answer, metadata.signer)
    json_object(answer.body, metadata.signer)
    bundle = TrustBundle.parse(answer.body, allow_example_keys=allow_example_keys)
    if bundle.domain != metadata.domain or origin(bundle.signer_url) != metadata.signer:
        raise AnswerError(
            "wrong-bundle", f"{metadata.signer} serves the trust bundle of another facility or signer", hint=_REPORT
        )
    if previous is not None and bundle.sequence < previous.sequence:
        raise AnswerError(
            "bundle-rollback", f"{metadata.signer} serves an older trust bundle than at your last login", hint=_REPORT
        )
    return bundle, answer.body

"""A program without a user: the platform it runs on says who it is, in a token made for this key at this signer.

GitHub Actions and Kubernetes both make a token for an audience that the caller chooses; ours is the signer and the hash of the
key to be certified, so the token is worth nothing with another key. Where a pod may not ask for tokens, or the facility takes
unbound ones, the token that the pod specification put at ``<secrets>/certauth/token`` is used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from certauth.client.attempt import Attempt, Proven, Situation
from certauth.client.http import Client, text_member, trust
from certauth.client.metadata import LoginIssuer, Metadata
from certauth.encoding import from_b64url, strict_json
from certauth.errors import AnswerError, Refused, UsageError

GITHUB = "https://token.actions.githubusercontent.com"
_ACCOUNT = "kubernetes.io/serviceaccount"
_PROJECTED = "certauth/token"
_SECONDS = 600
_LIMIT = 16_384
_SUBJECT = re.compile(r"system:serviceaccount:([a-z0-9][a-z0-9.-]{0,252}):([a-z0-9][a-z0-9.-]{0,252})")


class Platform(Protocol):
    """Where a workload's token comes from."""

    @property
    def name(self) -> str:
        """For people."""
        ...

    @property
    def issuer(self) -> str | None:
        """The ``iss`` its tokens will have, if that is known beforehand."""
        ...

    def token(self, audience: str, *, bound: bool, others: Client) -> str:
        """A token for ``audience``, which names the key if ``bound``."""
        ...


def find(situation: Situation) -> Platform | None:
    """The platform this runs on, if it is one that vouches for programs."""
    environment = situation.environment
    url, bearer = environment.get("ACTIONS_ID_TOKEN_REQUEST_URL"), environment.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
    if url and bearer:
        return GitHubActions(url, bearer)
    if environment.get("KUBERNETES_SERVICE_HOST"):
        return Kubernetes(environment, situation.secrets)
    return None


def workload(attempt: Attempt) -> Proven:
    """The platform's token for this key; ``UsageError`` (``no-workload-identity``) where no platform is found.

    Raises ``Refused`` (``workload-refused``) if the platform makes none, and the errors of HTTP.
    """
    platform = find(attempt.situation)
    if platform is None:
        raise UsageError(
            "no-workload-identity",
            "this runs neither in GitHub Actions with permission for ID tokens nor in Kubernetes",
            hint="in GitHub Actions give the job 'permissions: id-token: write'; elsewhere use --token, --key or --code",
        )
    issuer = _issuer(attempt.metadata, attempt.wishes.issuer, platform)
    bound = "audience" in issuer.bindings
    attempt.screen.tell(f"Asking {platform.name} who this program is.")
    with attempt.others() as client:
        token = platform.token(attempt.bound.audience() if bound else issuer.client_id, bound=bound, others=client)
    return Proven(proof={"type": "workload", "token": token}, issuer=issuer.id)


def _issuer(metadata: Metadata, wanted: str | None, platform: Platform) -> LoginIssuer:
    usable = [issuer for issuer in metadata.issuers if "workload" in issuer.kinds]
    if wanted is None and platform.issuer is not None:
        for issuer in usable:
            if issuer.url == platform.issuer:
                return issuer
    return metadata.issuer(wanted, lambda issuer: "workload" in issuer.kinds)


class GitHubActions:
    """The token service of a job with ``permissions: id-token: write``."""

    name = "GitHub Actions"
    issuer = GITHUB

    def __init__(self, url: str, bearer: str) -> None:
        self._url = url
        self._bearer = bearer

    def token(self, audience: str, *, bound: bool, others: Client) -> str:
        if not bound:  # it takes any audience, so a signer could have itself given a token that is good elsewhere
            raise Refused(
                "workload-refused",
                "this signer wants a token of GitHub Actions that is bound to no key",
                hint="the facility's administrator has to allow the binding 'audience' for this issuer",
            )
        separator = "&" if "?" in self._url else "?"
        try:
            answer = others.json("GET", f"{self._url}{separator}audience={quote(audience, safe='')}", bearer=self._bearer)
        except Refused as error:
            raise _no_token(self.name, "give the job 'permissions: id-token: write'") from error
        return text_member(answer, "value", self._url, limit=_LIMIT)


class Kubernetes:
    """The API server's TokenRequest, asked with the pod's own token, or the token that the pod specification projects."""

    name = "Kubernetes"

    def __init__(self, environment: Mapping[str, str], secrets: Path) -> None:
        self._environment = environment
        self._account = secrets / _ACCOUNT
        self._projected = secrets / _PROJECTED

    @property
    def issuer(self) -> str | None:
        for path in (self._projected, self._account / "token"):
            issuer = _claims(_text(path)).get("iss")
            if isinstance(issuer, str):
                return issuer
        return None

    def token(self, audience: str, *, bound: bool, others: Client) -> str:  # noqa: ARG002  the API server has its own CA
        if not bound:
            if projected := _text(self._projected):
                return projected
            raise _no_token(self.name, f"mount a service account token for audience {audience!r} at {self._projected}")
        own = _text(self._account / "token")
        match = _SUBJECT.fullmatch(str(_claims(own).get("sub")))
        if own is None or match is None:
            raise _no_token(self.name, "let the pod mount its service account token")
        address = self._environment["KUBERNETES_SERVICE_HOST"]
        port = (
            self._environment.get("KUBERNETES_SERVICE_PORT_HTTPS") or self._environment.get("KUBERNETES_SERVICE_PORT") or "443"
        )
        host = f"[{address}]" if ":" in address else address
        url = f"https://{host}:{port}/api/v1/namespaces/{match[1]}/serviceaccounts/{match[2]}/token"
        wish = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [audience], "expirationSeconds": _SECONDS},
        }
        roots = _text(self._account / "ca.crt")
        with Client(trust(roots=roots.encode() if roots else None, system=roots is None)) as client:
            try:
                answer = client.json("POST", url, value=wish, bearer=own)
            except Refused as error:
                raise _no_token(
                    self.name, f"allow {match[2]} to 'create' on 'serviceaccounts/token' for itself in {match[1]}"
                ) from error
        status = answer.get("status")
        if not isinstance(status, dict):
            raise AnswerError("bad-answer", "the Kubernetes API server answered without a token", hint="see its log")
        return text_member(status, "token", url, limit=_LIMIT)


def _no_token(platform: str, hint: str) -> Refused:
    return Refused("workload-refused", f"{platform} gives this program no token", hint=hint)


def _text(path: Path) -> str | None:
    """A mounted file; ``None`` if there is none. Kubernetes mounts them through links, readable as the pod wishes."""
    try:
        with path.open("rb") as file:
            return file.read(1024 * 1024).decode("ascii", "replace").strip() or None
    except OSError:
        return None


def _claims(token: str | None) -> Mapping[str, object]:
    """The claims of a token that we hold ourselves, unverified: they only choose whom to ask. Empty if it has none."""
    try:
        claims = strict_json(from_b64url((token or "").split(".")[1]))
    except (ValueError, IndexError):
        return {}
    return claims if isinstance(claims, dict) else {}

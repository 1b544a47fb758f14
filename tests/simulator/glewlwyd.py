"""A real OpenID provider on loopback: Debian's ``glewlwyd``, written in C, with its own TLS and a throwaway database.

It is strange where the others are not: redirects must be registered to the letter, port included; ``auth_time`` is 0 in ID
tokens of the code flow, ``scope`` a list in them; ``sub`` is random; a refresh brings no ID token; access tokens are for the
scope (``aud: openid``) unless a ``resource`` is named; a client's assertion must be for exactly the token endpoint.

    with glewlwyd_provider(tmp_path) as provider:                     skips the test where the package is missing
        tokens = log_in(provider, "alice", nonce=nonce)               code + PKCE: ["id_token"], ["access_token"] …
        tokens = log_in(provider, "alice", resource=AUDIENCE, dpop=DpopKey())
        tokens = device_login(provider, "alice", resource=AUDIENCE, dpop=DpopKey())
        provider.register(public_client(redirect_uris=[...]))         while it runs
    python -m tests.simulator.glewlwyd --user alice --ca-file FILE URL     what alice's browser would do, at either page

Everything is set up over its REST API. Its pages are programs (JavaScript) that call the same API, as ``sign_in`` does here.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import secrets
import sqlite3
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from certauth.encoding import b64url
from tests.demo.stage import free_port
from tests.simulator.certificates import ServerFiles, write_server_files
from tests.simulator.node_provider import DEVICE_GRANT, DpopKey, password_of

CLIENT_ID: Final = "certauth-cli"
REDIRECT: Final = "https://client.example/callback"
AUDIENCE: Final = "https://signer.example"
KEY_ID: Final = "glewlwyd-1"
_PROGRAM: Final = Path("/usr/bin/glewlwyd")
_MODULES: Final = Path("/usr/lib/glewlwyd")
_SCHEMA: Final = Path("/usr/share/dbconfig-common/data/glewlwyd/install/sqlite3")
_ADMIN: Final = {"username": "admin", "password": "password"}  # what the package's schema makes
_PLUGIN: Final = "oidc"
_READY_SECONDS: Final = 60
_ATTEMPTS: Final = 5
_TOKEN_ERRORS: Final = {400, 401, 403}


def public_client(
    client_id: str = CLIENT_ID, *, redirect_uris: Sequence[str] = (REDIRECT,), **more: object
) -> dict[str, object]:
    """A program on a user's machine: no secret; each redirect is matched to the letter."""
    return {
        "client_id": client_id,
        "name": client_id,
        "confidential": False,
        "enabled": True,
        "redirect_uri": [*redirect_uris],
        "authorization_type": ["code", "refresh_token", "device_authorization"],
        "scope": [],
        **more,
    }


def service_client(client_id: str, public_jwk: Mapping[str, object], **more: object) -> dict[str, object]:
    """A service that proves itself with ``private_key_jwt`` and gets tokens by ``client_credentials``."""
    return {
        "client_id": client_id,
        "name": client_id,
        "confidential": True,
        "enabled": True,
        "token_endpoint_auth_method": ["private_key_jwt"],
        "jwks": {"keys": [dict(public_jwk)]},
        "authorization_type": ["client_credentials"],
        "scope": ["openid"],
        **more,
    }


@dataclass(slots=True, kw_only=True)
class GlewlwydProvider:
    """A provider that is running: where it is, how to trust its TLS, and its administration."""

    issuer: str
    ca_file: Path
    log: Path
    client_id: str = CLIENT_ID
    home: str
    _admin: httpx2.Client = field(repr=False)

    def client(self) -> httpx2.Client:
        """An HTTP client that trusts this provider, with cookies and without redirects."""
        return _client(self.ca_file)

    def discovery(self) -> dict[str, Any]:
        """The discovery document."""
        document: dict[str, Any] = _checked(self._admin.get(f"{self.issuer}/.well-known/openid-configuration")).json()
        return document

    def open(self, name: str, resources: Sequence[str] = (AUDIENCE,)) -> GlewlwydProvider:
        """One more issuer of the same program: the same users and clients, a key of its own."""
        other = replace(self, issuer=f"{self.home}/api/{name}")
        plugin = {"module": "oidc", "name": name, "display_name": name, "order_rank": 0, "readonly": False}
        self._call("POST", "/mod/plugin/", json={**plugin, "parameters": _parameters(other.issuer, resources)})
        return other

    def register(self, client: Mapping[str, object]) -> None:
        """One more client, or other settings of one that is there."""
        path = f"/client/{client['client_id']}"
        known = self._admin.get(f"{self.home}/api{path}").status_code == 200
        self._call("PUT" if known else "POST", path if known else "/client/", json=dict(client))

    def _call(self, method: str, path: str, **more: Any) -> httpx2.Response:
        return _checked(self._admin.request(method, f"{self.home}/api{path}", **more))


@contextlib.contextmanager
def glewlwyd_provider(
    directory: Path,
    *,
    users: Sequence[str] = ("alice", "bob"),
    clients: Sequence[Mapping[str, object]] | None = None,
    resources: Sequence[str] = (AUDIENCE,),
    slash: bool = False,
) -> Iterator[GlewlwydProvider]:
    """Start it, set it up, yield it, end it. Skips the test when the package is missing (``make ci-deps``).

    ``resources`` are the audiences for which it signs access tokens. ``slash`` ends its ``external_url`` with one, which
    gives endpoints that begin with two.
    """
    if not (_PROGRAM.is_file() and _SCHEMA.is_file()):
        pytest.skip("Debian's glewlwyd is not installed: make ci-deps")
    directory.mkdir(parents=True, exist_ok=True)
    files, log = write_server_files(directory / "tls"), directory / "provider.log"
    with _running(directory, files, log, slash=slash) as home, _client(files.ca) as admin:
        _checked(admin.post(f"{home}/api/auth/", json=_ADMIN))
        provider = GlewlwydProvider(issuer=f"{home}/api/{_PLUGIN}", ca_file=files.ca, log=log, home=home, _admin=admin)
        provider.open(_PLUGIN, resources)
        for user in users:
            person = {"username": user, "password": password_of(user), "name": user.capitalize(), "enabled": True}
            provider._call("POST", "/user/", json={**person, "email": f"{user}@demo.example", "scope": ["openid", "g_profile"]})
        for client in [public_client()] if clients is None else clients:
            provider.register(client)
        yield provider


@contextlib.contextmanager
def _running(directory: Path, files: ServerFiles, log: Path, *, slash: bool) -> Iterator[str]:
    """The program on a port that was free; the URL at which it answers."""
    process: subprocess.Popen[bytes] | None = None
    try:
        for _ in range(_ATTEMPTS):
            home = f"https://127.0.0.1:{free_port()}"
            configuration = _configuration(directory, files, home, slash=slash)
            with log.open("ab") as output:
                process = subprocess.Popen(
                    [str(_PROGRAM), "--config-file", str(configuration)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=directory,
                    env={"TZ": "UTC"},
                )
            if _answers(process, home, files.ca):
                break
            process.kill()  # somebody else took the port
            process.wait()
        else:
            raise RuntimeError(f"the provider did not start: {log.read_text(errors='replace')[-2000:]}")
        yield home
    finally:
        if process is not None:
            process.kill()  # its database is the test's
            process.wait()


def _answers(process: subprocess.Popen[bytes], home: str, ca_file: Path) -> bool:
    """Whether it answers before it ends or the time is over. Nobody else can: nobody else has a certificate of this CA."""
    deadline = time.monotonic() + _READY_SECONDS
    with _client(ca_file) as client:
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(httpx2.TransportError):
                return client.get(f"{home}/config").status_code == 200
            time.sleep(0.02)
    return False


def _configuration(directory: Path, files: ServerFiles, home: str, *, slash: bool) -> Path:
    database = directory / "glewlwyd.db"
    database.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.executescript(_SCHEMA.read_text())
    settings: dict[str, object] = {
        "port": urlsplit(home).port,
        "bind_address": "127.0.0.1",
        "external_url": f"{home}/" if slash else home,
        "login_url": "login.html",
        "api_prefix": "api",
        "log_mode": "console",
        "log_level": "WARNING",
        "cookie_domain": "127.0.0.1",
        "cookie_secure": 1,
        "session_key": "SESSION",
        "admin_scope": "g_admin",
        "profile_scope": "g_profile",
        "user_module_path": str(_MODULES / "user"),
        "client_module_path": str(_MODULES / "client"),
        "user_auth_scheme_module_path": str(_MODULES / "scheme"),
        "plugin_module_path": str(_MODULES / "plugin"),
        "use_secure_connection": True,
        "secure_connection_key_file": str(files.key),
        "secure_connection_pem_file": str(files.certificate),
        "hash_algorithm": "SHA512",
    }
    # Strings, integers and booleans are written in libconfig as in JSON.
    lines = [f"{name} = {json.dumps(value)};" for name, value in settings.items()]
    lines.append(f'database = {{ type = "sqlite3"; path = {json.dumps(str(database))}; }};')
    path = directory / "glewlwyd.conf"
    path.write_text("\n".join(lines) + "\n")
    return path


def _parameters(issuer: str, resources: Sequence[str]) -> dict[str, object]:
    """The OpenID plugin: every flow that is used here, DPoP, resources (RFC 8707), ES256, and ``iss`` in answers (RFC 9207)."""
    key = jwt.algorithms.ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()), as_dict=True)
    signing = {name: key[name] for name in ("kty", "crv", "x", "y", "d")} | {"kid": KEY_ID, "alg": "ES256"}
    flows = {
        "allow-non-oidc": True,  # client credentials
        "auth-type-code-enabled": True,
        "auth-type-token-enabled": False,
        "auth-type-id-token-enabled": True,
        "auth-type-password-enabled": False,
        "auth-type-client-enabled": True,
        "auth-type-device-enabled": True,
        "auth-type-refresh-enabled": True,
    }
    claims = {
        "claims": [{"name": "preferred_username", "user-property": "username", "type": "string", "mandatory": True}],
        "name-claim": "mandatory",
        "name-claim-scope": [],
        "email-claim": "mandatory",
        "email-claim-scope": [],
        "scope-claim": "mandatory",
        "scope-claim-scope": [],
        "address-claim": {"type": "no"},
        "allowed-scope": ["openid"],
        "additional-parameters": [{"user-parameter": "username", "token-parameter": "preferred_username"}],
        "scope": [],
    }
    return {
        "iss": issuer,
        "jwks-private": json.dumps({"keys": [signing]}),
        "jwks-show": True,
        "secret-type": "pairwise",
        "access-token-duration": 3600,
        "refresh-token-duration": 3600,
        "code-duration": 60,
        "refresh-token-rolling": True,
        "refresh-token-one-use": "never",
        "pkce-allowed": True,
        "pkce-method-plain-allowed": False,
        "pkce-required": True,
        "pkce-scopes": [],
        "introspection-revocation-allowed": True,
        "introspection-revocation-auth-scope": [],
        "introspection-revocation-allow-target-client": True,
        "device-authorization-expiration": 600,
        "device-authorization-interval": 1,
        "client-jwks-parameter": "jwks",
        "request-parameter-allow": True,
        "request-maximum-exp": 3600,
        "oauth-as-iss-id": True,
        "oauth-dpop-allowed": True,
        "oauth-dpop-iat-duration": 300,
        "resource-allowed": True,
        "resource-scope": {"openid": [*resources]},
        "resource-scope-and-client-property": False,
        **flows,
        **claims,
    }


def _client(ca_file: Path) -> httpx2.Client:
    tls = ssl.create_default_context(cafile=str(ca_file))
    return httpx2.Client(verify=tls, timeout=30, trust_env=False, follow_redirects=False)


def _checked(response: httpx2.Response) -> httpx2.Response:
    if response.status_code != 200:
        raise RuntimeError(f"{response.request.url.path} answered {response.status_code}: {response.text[:600]}")
    return response


# --- a user's browser, without a window -----------------------------------------------------------------------------


def sign_in(ca_file: Path, url: str, user: str) -> str:
    """What ``user`` does at an authorization or device page: log in, let the client have the scope, go on.

    Returns the URL to which the provider sends the browser at last, not visited. Raises ``RuntimeError`` when it refuses
    without sending it anywhere.
    """
    home = f"https://{urlsplit(url).netloc}"
    with _client(ca_file) as http:
        asked = _location(http.get(url))
        page = urlsplit(asked)
        if page.netloc != urlsplit(home).netloc:
            return asked  # an error: it does not even ask who it is
        query = {name: values[0] for name, values in parse_qs(page.query).items()}
        if "client_id" not in query:
            raise RuntimeError(f"the provider refuses: {query.get('prompt')}")
        _checked(http.post(f"{home}/api/auth/", json={"username": user, "password": password_of(user)}))
        _checked(http.put(f"{home}/api/auth/grant/{query['client_id']}", json={"scope": query["scope"]}))
        back = query["callback_url"]
        return _location(http.get(f"{back}{'&' if '?' in back else '?'}g_continue"))


def _location(response: httpx2.Response) -> str:
    if response.status_code != 302:
        raise RuntimeError(f"the provider answered {response.status_code}: {response.text[:600]}")
    return str(response.headers["location"])


def approve_device(ca_file: Path, verification_uri: str, user_code: str, user: str) -> None:
    """What the user does at the verification page: type the code, log in, agree."""
    end = sign_in(ca_file, f"{verification_uri}?{urlencode({'code': user_code})}", user)
    if parse_qs(urlsplit(end).query).get("prompt") != ["deviceComplete"]:
        raise RuntimeError(f"the provider did not accept the code: {end}")


# --- what clients do ------------------------------------------------------------------------------------------------


def token_request(provider: GlewlwydProvider, *, dpop: DpopKey | None = None, **form: str) -> dict[str, Any]:
    """One request of the token endpoint, by a client that has no browser's cookies; the answer, an error included."""
    url = provider.discovery()["token_endpoint"]
    with provider.client() as http:
        response = http.post(url, data=form, headers={} if dpop is None else {"dpop": dpop.proof("POST", url)})
    if response.status_code in _TOKEN_ERRORS and not response.content:
        return {"error": f"status {response.status_code}"}
    answer: dict[str, Any] = response.json()
    return answer


def log_in(
    provider: GlewlwydProvider,
    user: str,
    *,
    client_id: str = CLIENT_ID,
    redirect_uri: str = REDIRECT,
    dpop: DpopKey | None = None,
    scope: str = "openid",
    **parameters: str,
) -> dict[str, Any]:
    """Code flow with PKCE, the client's part and the user's; ``parameters`` (nonce, resource, max_age …) go to the provider.

    Raises ``RuntimeError`` for an error of either endpoint; the token response otherwise.
    """
    verifier, state = secrets.token_urlsafe(32), secrets.token_urlsafe(16)
    query = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": redirect_uri,
        "scope": scope,
        "state": state,
        **_challenge(verifier),
        **parameters,
    }
    arrived = sign_in(provider.ca_file, f"{provider.discovery()['authorization_endpoint']}?{urlencode(query)}", user)
    answer = dict(parse_qsl(urlsplit(arrived).query))
    if answer.get("state") != state or answer.get("iss") != provider.issuer or "code" not in answer:
        raise RuntimeError(f"no code: {answer.get('error')} {answer.get('error_description')}")
    form = {"grant_type": "authorization_code", "code": answer["code"], "code_verifier": verifier}
    form |= {"client_id": client_id, "redirect_uri": redirect_uri}
    return _tokens(token_request(provider, dpop=dpop, **form))


def device_login(
    provider: GlewlwydProvider, user: str, *, dpop: DpopKey | None = None, scope: str = "openid", **parameters: str
) -> dict[str, Any]:
    """The device grant (RFC 8628) with PKCE, the user's part included; the token response, or ``RuntimeError``."""
    verifier = secrets.token_urlsafe(32)
    begin = {"client_id": provider.client_id, "scope": scope, **_challenge(verifier), **parameters}
    with provider.client() as http:
        started = _tokens(http.post(provider.discovery()["device_authorization_endpoint"], data=begin).json())
    approve_device(provider.ca_file, started["verification_uri"], started["user_code"], user)
    form = {"grant_type": DEVICE_GRANT, "device_code": started["device_code"], "code_verifier": verifier}
    return _tokens(token_request(provider, dpop=dpop, client_id=provider.client_id, **form))


def client_credentials(
    provider: GlewlwydProvider,
    client_id: str,
    *,
    sign: Callable[[Mapping[str, object]], str],
    audience: str | None = None,
    **parameters: str,
) -> dict[str, Any]:
    """``client_credentials`` with ``private_key_jwt``: ``sign`` makes a JWS of the assertion's claims (RFC 7523 §2.2).

    The assertion is for the token endpoint, or for ``audience``. Raises ``RuntimeError`` if the provider refuses.
    """
    now = int(time.time())
    claims: dict[str, object] = {"iss": client_id, "sub": client_id, "jti": secrets.token_urlsafe(16)}
    claims |= {"aud": audience or provider.discovery()["token_endpoint"], "iat": now, "exp": now + 60}
    form: dict[str, Any] = {
        "grant_type": "client_credentials",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": sign(claims),
        "scope": "openid",
    }
    return _tokens(token_request(provider, **{**form, **parameters}))


def _challenge(verifier: str) -> dict[str, str]:
    return {"code_challenge": b64url(hashlib.sha256(verifier.encode()).digest()), "code_challenge_method": "S256"}


def _tokens(answer: dict[str, Any]) -> dict[str, Any]:
    if "error" in answer:
        raise RuntimeError(f"the provider answered {answer['error']}: {answer.get('error_description')}")
    return answer


def main() -> None:
    """Be a user's browser once: log in at ``URL``, and visit what the provider sends it to, if that is somebody else's."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulator.glewlwyd", description=main.__doc__)
    parser.add_argument("--user", required=True)
    parser.add_argument("--ca-file", type=Path, required=True, help="the provider's CA")
    parser.add_argument("url")
    arguments = parser.parse_args()
    end = sign_in(arguments.ca_file, arguments.url, arguments.user)
    if urlsplit(end).netloc != urlsplit(arguments.url).netloc:
        with httpx2.Client(timeout=30, trust_env=False) as browser:
            browser.get(end).raise_for_status()


if __name__ == "__main__":
    main()

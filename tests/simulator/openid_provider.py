"""A real OpenID provider on loopback: PyPI ``idpyoidc``, not written by us and never part of the product.

Only the HTTP glue, one login form and the users are ours. It runs in a process of its own, over HTTPS with the certificate
of a throwaway CA, and makes new signing keys at every start. The client is public (no secret): authorization code with PKCE
S256 and a nonce.

    python -m tests.simulator.openid_provider --directory DIR --user alice --user bob      serve; one JSON line when ready
    python -m tests.simulator.openid_provider --browse URL --user alice --ca-file FILE     do what alice's browser would do

In tests: ``with running_provider(directory, users=("alice", "bob")) as provider: log_in(provider, "alice", nonce=...)``.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import html.parser
import json
import os
import secrets
import selectors
import signal
import socketserver
import ssl
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

import httpx2

from tests.simulator.certificates import write_server_files

CLIENT_ID = "certauth-demo"
CALLBACK_PATH = "/callback"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:access_token"
_LOOPBACK = ("127.0.0.1", "localhost")
_READY_SECONDS = 60
_FORM = """<!doctype html><html lang="en"><title>Log in</title><h1>Demo identity provider</h1>
<form action="/{{ action }}" method="post"><input type="hidden" name="token" value="{{ token }}">
<label>User name <input name="username" autofocus></label> <label>Password <input name="password" type="password"></label>
<button>Log in</button></form></html>"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A provider that is running: where it is, how to trust its TLS, and who its users are."""

    issuer: str
    ca_file: Path
    client_id: str
    subjects: Mapping[str, str]

    def subject_of(self, user: str) -> str:
        """The ``sub`` that the provider's tokens carry for ``user``."""
        return self.subjects[user]


def password_of(user: str) -> str:
    """The password of a demo user."""
    return f"{user}-password"


# --- what a browser does --------------------------------------------------------------------------------------------


def sign_in(authorization_url: str, username: str, password: str, ca_file: Path) -> str:
    """Log in at the provider as a browser would; return the redirect to the client's loopback address, not yet visited.

    Raises ``RuntimeError`` when the provider shows an error instead: its text is the message.
    """
    with httpx2.Client(verify=ssl.create_default_context(cafile=str(ca_file)), timeout=20, trust_env=False) as browser:
        response = browser.get(authorization_url)
        for _ in range(8):
            if location := response.headers.get("location"):
                target = urljoin(str(response.url), location)
                if urlsplit(target).scheme == "http":
                    return target
                response = browser.get(target)
            elif response.status_code == 200 and "<form" in response.text:
                form = _read_form(response.text)
                fields = {**form.hidden, "username": username, "password": password}
                response = browser.post(urljoin(str(response.url), form.action), data=fields)
            else:
                raise RuntimeError(f"the provider answered {response.status_code}: {response.text[:300]}")
    raise RuntimeError("the provider keeps redirecting")


def browse(authorization_url: str, username: str, password: str, ca_file: Path) -> None:
    """``sign_in``, then visit the redirect: the client that waits on loopback receives its code."""
    redirect = sign_in(authorization_url, username, password, ca_file)
    with httpx2.Client(timeout=20, trust_env=False) as browser:
        browser.get(redirect)


def log_in(provider: Provider, user: str, *, nonce: str, scope: str = "openid profile email") -> dict[str, str]:
    """The whole code flow with PKCE, as a client and its user go through it; the token response (``id_token``, ...)."""
    verifier = secrets.token_urlsafe(32)
    query = {
        "response_type": "code",
        "client_id": provider.client_id,
        "redirect_uri": "http://127.0.0.1:49152/callback",
        "scope": scope,
        "state": secrets.token_urlsafe(16),
        "nonce": nonce,
        "code_challenge": base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
    }
    tls = ssl.create_default_context(cafile=str(provider.ca_file))
    with httpx2.Client(verify=tls, timeout=20, trust_env=False) as client:
        discovery = client.get(f"{provider.issuer}/.well-known/openid-configuration").json()
        url = f"{discovery['authorization_endpoint']}?{urlencode(query)}"
        redirect = urlsplit(sign_in(url, user, password_of(user), provider.ca_file))
        answer = dict(parse_qsl(redirect.query))
        if answer["state"] != query["state"]:
            raise RuntimeError("the provider returned another state")
        form = {"grant_type": "authorization_code", "code": answer["code"], "code_verifier": verifier}
        form |= {"redirect_uri": query["redirect_uri"], "client_id": provider.client_id}
        tokens: dict[str, str] = client.post(discovery["token_endpoint"], data=form).raise_for_status().json()
        return tokens


def exchange(provider: Provider, access_token: str, *, audience: str) -> str:
    """The provider's own access token for another audience (RFC 8693 §2.1)."""
    form = {"grant_type": EXCHANGE, "client_id": provider.client_id, "audience": audience, "scope": "openid"}
    form |= {"subject_token": access_token, "subject_token_type": ACCESS_TOKEN_TYPE}
    tls = ssl.create_default_context(cafile=str(provider.ca_file))
    with httpx2.Client(verify=tls, timeout=20, trust_env=False) as client:
        return str(client.post(f"{provider.issuer}/token", data=form).raise_for_status().json()["access_token"])


class _Form(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.action = ""
        self.hidden: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.action = values["action"]
        elif tag == "input" and values.get("type") == "hidden":
            self.hidden[values["name"]] = values.get("value", "")


def _read_form(text: str) -> _Form:
    form = _Form()
    form.feed(text)
    return form


# --- running it from a test or the demo -----------------------------------------------------------------------------


@contextlib.contextmanager
def running_provider(
    directory: Path,
    *,
    users: Sequence[str] = ("alice", "bob"),
    client_id: str = CLIENT_ID,
    algorithm: str = "RS256",
    port: int = 0,
) -> Iterator[Provider]:
    """Start the provider in a process of its own, yield it when it answers, and stop it at the end."""
    directory.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.simulator.openid_provider", "--directory", str(directory), "--port", str(port)]
    command += ["--client-id", client_id, "--algorithm", algorithm]
    for user in users:
        command += ["--user", user]
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with (directory / "provider.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, cwd=root, env=environment)
    try:
        ready = json.loads(_first_line(process))
        yield Provider(
            issuer=ready["issuer"], ca_file=Path(ready["ca_file"]), client_id=ready["client_id"], subjects=ready["subjects"]
        )
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _first_line(process: subprocess.Popen[bytes]) -> bytes:
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)  # type: ignore[arg-type]  # stdout is a pipe: see Popen
        if not selector.select(timeout=_READY_SECONDS):
            raise RuntimeError(f"the provider was not ready within {_READY_SECONDS} s; see provider.log")
    line = process.stdout.readline() if process.stdout is not None else b""
    if not line:
        raise RuntimeError("the provider ended at its start; see provider.log")
    return line


# --- the provider's own process -------------------------------------------------------------------------------------


def _configuration(*, issuer: str, directory: Path, users: Sequence[str]) -> dict[str, Any]:
    people = {
        user: {"name": user.capitalize(), "preferred_username": user, "email": f"{user}@demo.example", "email_verified": True}
        for user in users
    }
    passwords = directory / "passwords.json"
    passwords.write_text(json.dumps({user: password_of(user) for user in users}))
    templates = directory / "templates"
    templates.mkdir(exist_ok=True)
    (templates / "login.html").write_text(_FORM)
    secrets = {"key_defs": [{"type": "OCT", "use": ["enc"], "kid": name} for name in ("password", "salt")]}
    cookies = {"key_defs": [{"type": "OCT", "use": [use], "kid": use} for use in ("enc", "sig")]}
    token = {"class": "idpyoidc.server.token.jwt_token.JWTToken", "kwargs": {"lifetime": 3600}}
    return {
        "issuer": issuer,
        "base_url": issuer,
        "httpc_params": {"verify": True, "timeout": 4},
        "template_dir": str(templates),
        "key_conf": {
            "key_defs": [{"type": "RSA", "size": 2048, "use": ["sig"]}, {"type": "EC", "crv": "P-256", "use": ["sig"]}],
            "uri_path": "jwks.json",
        },
        "preference": {"subject_types_supported": ["public"], "grant_types_supported": ["authorization_code", "refresh_token"]},
        "add_ons": {
            "pkce": {
                "function": "idpyoidc.server.oauth2.add_on.pkce.add_support",
                "kwargs": {"essential": True, "code_challenge_methods": {"S256": None}},
            }
        },
        "authentication": {
            "user": {
                "acr": "urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport",
                "class": "idpyoidc.server.user_authn.user.UserPassJinja2",
                "kwargs": {
                    "verify_endpoint": "verify/user",
                    "template": "login.html",
                    "db": {
                        "class": "idpyoidc.server.util.JSONDictDB",
                        "kwargs": {"filename": str(passwords)},
                    },
                },
            }
        },
        "userinfo": {"class": "idpyoidc.server.user_info.UserInfo", "kwargs": {"db": people}},
        "cookie_handler": {
            "class": "idpyoidc.server.cookie_handler.CookieHandler",
            "kwargs": {
                "keys": cookies,
                "name": {"session": "oidc_op", "register": "oidc_op_rp", "session_management": "sman"},
            },
        },
        "session_params": {
            "encrypter": {"kwargs": {"keys": secrets}},
            "sub_func": {
                "public": {"class": "idpyoidc.server.session.manager.PublicID", "kwargs": {"salt": "demo"}},
            },
        },
        "token_handler_args": {
            "jwks_def": {"key_defs": [{"type": "oct", "bytes": "24", "use": ["enc"], "kid": "code"}]},
            "code": {"kwargs": {"lifetime": 600}},
            "token": token,
            "refresh": token,
            "id_token": {
                "class": "idpyoidc.server.token.id_token.IDToken",
                "kwargs": {"lifetime": 600, "add_claims_by_scope": True},
            },
        },
        "endpoint": {
            "provider_info": {
                "path": ".well-known/openid-configuration",
                "class": "idpyoidc.server.oidc.provider_config.ProviderConfiguration",
                "kwargs": {"client_authn_method": None},
            },
            "authorization": {
                "path": "authorization",
                "class": "idpyoidc.server.oidc.authorization.Authorization",
                "kwargs": {
                    "client_authn_method": None,
                    "response_types_supported": ["code"],
                    "response_modes_supported": ["query"],
                },
            },
            "token": {
                "path": "token",
                "class": "idpyoidc.server.oidc.token.Token",
                "kwargs": {"client_authn_method": ["public"]},
            },
            "userinfo": {
                "path": "userinfo",
                "class": "idpyoidc.server.oidc.userinfo.UserInfo",
                "kwargs": {"claim_types_supported": ["normal"], "client_authn_method": ["bearer_header"]},
            },
        },
    }


class _Handler(BaseHTTPRequestHandler):
    """HTTP glue: each request is handed to the endpoint of idpyoidc with the same path."""

    server: _Server

    def do_GET(self) -> None:
        self._guarded(dict(parse_qsl(urlsplit(self.path).query)))

    def do_POST(self) -> None:
        length = min(int(self.headers.get("content-length", 0)), 65536)
        self._guarded(dict(parse_qsl(self.rfile.read(length).decode())))

    def _guarded(self, values: dict[str, str]) -> None:
        try:
            with self.server.one_at_a_time:
                self._dispatch(urlsplit(self.path).path.lstrip("/"), values)
        except Exception as error:  # a provider answers, whatever happened inside it
            self.log_error("%r", error)
            self._send(400, json.dumps({"error": "invalid_request", "error_description": type(error).__name__}))

    def _dispatch(self, path: str, values: dict[str, str]) -> None:
        op = self.server.op
        if path == "jwks.json":
            self._send(200, op.keyjar.export_jwks_as_json())
        elif path == "verify/user" and self.command == "POST":
            self._verify(values)
        elif endpoint := next((e for e in op.endpoint.values() if e.endpoint_path == path), None):
            self._serve(endpoint, values)
        else:
            self._send(404, json.dumps({"error": "not_found"}))

    def _serve(self, endpoint: Any, values: dict[str, str]) -> None:
        if endpoint.name == "authorization":
            self._register_loopback(values)
        http_info = {"headers": {name.lower(): value for name, value in self.headers.items()}, "url": self.path}
        request = endpoint.parse_request(values, http_info=http_info)
        arguments = request if "error" in request else endpoint.process_request(request, http_info=http_info)
        if "error" in arguments:
            self._send(400, arguments.to_json() if hasattr(arguments, "to_json") else json.dumps(arguments))
        elif "http_response" in arguments:
            self._send(200, arguments["http_response"], content_type="text/html")
        else:
            self._respond(endpoint, request, arguments)

    def _verify(self, values: dict[str, str]) -> None:
        """The login form came back: idpyoidc checks the password and continues the authorization request it signed."""
        from idpyoidc.message.oidc import AuthorizationRequest
        from idpyoidc.server.exception import FailedAuthentication

        method = self.server.op.context.authn_broker.get_method_by_id("user")
        try:
            username = method.verify(username=values.get("username", ""), password=values.get("password", ""))
        except FailedAuthentication:
            self._send(401, json.dumps({"error": "access_denied", "error_description": "wrong user name or password"}))
            return
        signed = method.unpack_token(values["token"])
        request = AuthorizationRequest().from_urlencoded(signed["query"])
        endpoint = self.server.op.endpoint["authorization"]
        session = endpoint.create_session(request, username, signed["authn_class_ref"], signed["iat"], method)
        self._respond(endpoint, request, endpoint.authz_part2(request=request, session_id=session))

    def _respond(self, endpoint: Any, request: Any, arguments: Mapping[str, Any]) -> None:
        answer = endpoint.do_response(request=request, **arguments)
        if (answer.get("response_placement") or endpoint.response_placement) == "url":
            self._send(302, "", location=answer["response"], cookies=answer.get("cookie", ()))
        else:
            status = 400 if '"error"' in str(answer["response"])[:12] else 200
            self._send(status, answer["response"])

    def _register_loopback(self, values: dict[str, str]) -> None:
        """RFC 8252 §7.3: any port of a loopback redirect. idpyoidc compares ports, so the one asked for is registered first."""
        parts = urlsplit(values.get("redirect_uri", ""))
        if parts.scheme == "http" and parts.hostname in _LOOPBACK and parts.path == self.server.callback_path:
            registered = self.server.op.context.cdb[self.server.client_id]["redirect_uris"]
            pair: tuple[str, dict[str, str]] = (f"http://{parts.netloc}{parts.path}", {})
            if pair not in registered:
                registered.append(pair)

    def _send(
        self,
        status: int,
        body: str,
        *,
        content_type: str = "application/json",
        location: str | None = None,
        cookies: Sequence[Mapping[str, str]] = (),
    ) -> None:
        data = body.encode()
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(data)))
        self.send_header("cache-control", "no-store")
        if location is not None:
            self.send_header("location", location)
        for cookie in cookies:
            self.send_header("set-cookie", f"{cookie['name']}={cookie['value']}; Secure; HttpOnly; SameSite=Lax; Path=/")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Requests carry codes and tokens; only the path without its query is worth a line."""
        sys.stderr.write(f"{self.command} {urlsplit(self.path).path} {args[1] if format.startswith(chr(34)) else args}\n")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    op: Any
    client_id: str
    callback_path: str

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self.one_at_a_time = threading.Lock()  # idpyoidc was not written for threads
        self._context = context
        super().__init__(("127.0.0.1", port), _Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """The TLS handshake happens in the connection's own thread: a silent peer holds nobody up."""
        request.settimeout(20)
        with contextlib.suppress(OSError), self._context.wrap_socket(request, server_side=True) as secured:
            socketserver.BaseServer.finish_request(self, secured, client_address)


def _serve(arguments: argparse.Namespace) -> None:
    from idpyoidc.server import Server

    directory = Path(arguments.directory).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    files = write_server_files(directory / "tls")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.certificate, files.key)
    users = arguments.user or ["alice"]
    with _Server(arguments.port, context) as server:
        issuer = f"https://127.0.0.1:{server.server_address[1]}"
        op = Server(_configuration(issuer=issuer, directory=directory, users=users), cwd=str(directory))
        op.context.cdb[arguments.client_id] = {
            "client_id": arguments.client_id,
            "redirect_uris": [(uri, {}) for uri in arguments.redirect],
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code", EXCHANGE],
            "token_endpoint_auth_method": "none",
            "client_authn_method": ["public"],
            "allowed_scopes": ["openid", "profile", "email"],
            "subject_type": "public",
            "id_token_signed_response_alg": arguments.algorithm,
            "add_claims": {"by_scope": {"id_token": True}},
            "token_usage_rules": {
                "authorization_code": {"supports_minting": ["access_token", "refresh_token", "id_token"], "max_usage": 1},
                "access_token": {"supports_minting": ["access_token"]},
            },
        }
        server.op, server.client_id, server.callback_path = op, arguments.client_id, CALLBACK_PATH
        subject = op.context.session_manager.sub_func["public"]
        ready = {
            "issuer": issuer,
            "ca_file": str(files.ca),
            "client_id": arguments.client_id,
            "subjects": {user: subject(user, "") for user in users},
        }
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        print(json.dumps(ready), flush=True)
        server.serve_forever()


def main() -> None:
    """Serve, or, with ``--browse``, be a user's browser once."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulator.openid_provider", description=__doc__.splitlines()[0])
    parser.add_argument("--browse", metavar="URL", help="log in at this authorization URL as the first --user, then exit")
    parser.add_argument("--ca-file", type=Path, help="the provider's CA, for --browse")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--directory", help="where its files go")
    parser.add_argument("--client-id", default=CLIENT_ID)
    parser.add_argument("--redirect", action="append", default=[], help="further redirect URIs; loopback ports need none")
    parser.add_argument("--algorithm", default="RS256", choices=("RS256", "ES256"))
    parser.add_argument("--user", action="append")
    arguments = parser.parse_args()
    if arguments.browse:
        user = (arguments.user or ["alice"])[0]
        browse(arguments.browse, user, password_of(user), arguments.ca_file)
    elif arguments.directory:
        warnings.simplefilter("ignore")  # idpyoidc warns that its password form is for tests: it is
        _serve(arguments)
    else:
        parser.error("--directory is needed to serve")


if __name__ == "__main__":
    main()

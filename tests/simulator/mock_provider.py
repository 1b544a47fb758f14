"""The careless OpenID provider, PyPI ``oidc-provider-mock``, on loopback over TLS, in a process of its own.

It is careless in ways that real providers have been: it does not enforce PKCE, its issuer is whatever the Host header says, its
ID tokens name no key, its redirects carry no ``iss`` (RFC 9207), any client id with any secret will do.

    with mock_provider(tmp_path) as provider:
        tokens = mock_log_in(provider, "alice", nonce=nonce)                            its code flow, with PKCE
        tokens = mock_log_in(provider, "alice", nonce=nonce, verifier="another one")    accepted: PKCE is not enforced
        provider.issuer                                                                 https://127.0.0.1:PORT
        provider.other_name                                                             https://localhost:PORT, the same process
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import json
import os
import secrets
import selectors
import signal
import ssl
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx2

from tests.simulator.certificates import write_server_files

CLIENT_ID: Final = "careless"
CLIENT_SECRET: Final = "anything"
REDIRECT: Final = "http://127.0.0.1:49152/callback"
_READY_SECONDS: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class MockProvider:
    """The careless provider, running: by the name it should have, by another that it answers to as well, and its CA."""

    issuer: str
    other_name: str
    ca_file: Path

    def client(self) -> httpx2.Client:
        """An HTTP client that trusts this provider."""
        return httpx2.Client(verify=ssl.create_default_context(cafile=str(self.ca_file)), timeout=30, trust_env=False)


@contextlib.contextmanager
def mock_provider(directory: Path) -> Iterator[MockProvider]:
    """Start it, yield it when it listens, kill it at the end."""
    directory.mkdir(parents=True, exist_ok=True)
    root = Path(__file__).resolve().parents[2]
    log = directory / "provider.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.simulator.mock_provider", str(directory)],
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
        )
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)  # type: ignore[arg-type]  # stdout is a pipe: see Popen
            line = process.stdout.readline() if process.stdout and selector.select(timeout=_READY_SECONDS) else b""
        if not line:
            raise RuntimeError(f"the provider did not start: {log.read_text()[-2000:]}")
        ready = json.loads(line)
        yield MockProvider(issuer=ready["issuer"], other_name=ready["other_name"], ca_file=Path(ready["ca_file"]))
    finally:
        process.kill()
        process.communicate()


def mock_log_in(
    provider: MockProvider, user: str, *, nonce: str, base: str | None = None, verifier: str | None = None
) -> dict[str, Any]:
    """Its code flow; ``base`` talks to it by another name, ``verifier`` redeems the code with another PKCE verifier."""
    base = provider.issuer if base is None else base
    genuine = secrets.token_urlsafe(32)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(genuine.encode()).digest()).rstrip(b"=").decode()
    query = {
        "response_type": "code",
        "client_id": CLIENT_ID,
        "redirect_uri": REDIRECT,
        "scope": "openid profile email",
        "state": secrets.token_urlsafe(16),
        "nonce": nonce,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    with provider.client() as http:
        redirect = http.post(f"{base}/oauth2/authorize?{urlencode(query)}", data={"sub": user}).headers["location"]
        form = {"grant_type": "authorization_code", "code": dict(parse_qsl(urlsplit(redirect).query))["code"]}
        form |= {"redirect_uri": REDIRECT, "code_verifier": genuine if verifier is None else verifier}
        answer = http.post(f"{base}/oauth2/token", data=form, auth=(CLIENT_ID, CLIENT_SECRET)).raise_for_status()
        tokens: dict[str, Any] = answer.json()
        return tokens


def main() -> None:
    """Serve until killed; one JSON line when it listens."""
    warnings.simplefilter("ignore")  # Authlib announces its future at import
    import oidc_provider_mock  # type: ignore[import-untyped]  # it has no types
    import werkzeug.serving

    parser = argparse.ArgumentParser(prog="python -m tests.simulator.mock_provider", description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    files = write_server_files(parser.parse_args().directory / "tls")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(files.certificate, files.key)
    application = oidc_provider_mock.app()
    server = werkzeug.serving.make_server("127.0.0.1", 0, application, threaded=True, ssl_context=tls)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    names = {"issuer": f"https://127.0.0.1:{server.server_port}", "other_name": f"https://localhost:{server.server_port}"}
    print(json.dumps({**names, "ca_file": str(files.ca)}), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()

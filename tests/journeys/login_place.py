"""A facility at which people, jobs, pods and services log in: real providers, the real signer as a process, the real client.

Four providers vouch for its users, each in a way of its own:

    campus   PyPI idpyoidc: a public client; logins in a browser, and through the signer
    hpc      npm oidc-provider: device grant with DPoP, logins through the signer
    opaque   npm oidc-provider: opaque access tokens, about which the signer asks it; whoever has one may use it
    ci       signs what a platform for jobs or pods signs; ``guarded`` tells its keys only to who has its bearer token

``Person`` and ``log_in_at`` (``tests.signer.login_kit``) are their browsers.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import select
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

import httpx2
from cryptography.hazmat.primitives.asymmetric import ec

from certauth import certificates, keys
from certauth.clock import system_clock
from certauth.identity.binding import BoundKey
from certauth.keys import Algorithm, SoftwareKey
from tests.demo.stage import CERTAUTH, ROOT
from tests.signer.kit import Identity, Site, facility, make_csr
from tests.signer.login_kit import CLIENT_ID as CAMPUS_CLIENT
from tests.signer.login_kit import Person, RealProvider, idpyoidc, log_in_at
from tests.simulator.certificates import write_server_files
from tests.simulator.hostile_provider import HostileProvider, ProviderKey, hostile_provider, jwks
from tests.simulator.node_provider import (
    SIGNER_CLIENT_ID,
    SIGNER_SECRET,
    DpopKey,
    NodeProvider,
    confidential_client,
    node_provider,
    public_client,
)

SECONDS = 120
AUDIENCE = "https://signer.example"
MACHINES = """
[[issuer.rule]]
name = "the pipeline"
when.all = [{claim = "/repository_id", equals = "42"}]
subject = "agent/pipeline"
rights = {service = "files", operations = "read", path = "/pipeline/"}
"""


def people(prefix: str, claim: str) -> str:
    """Everybody becomes a user, called after ``prefix`` and ``claim``, with a directory of their own."""
    return (
        '[[issuer.rule]]\nname = "people"\nwhen.everyone = true\n'
        f'subject = "user/{prefix}-{{claim:{claim}}}"\n'
        f'rights = {{service = "files", operations = ["read", "write"], path = "/{{claim:{claim}}}/"}}\n'
    )


def add_issuer(site: Site, name: str, url: str, client_id: str, *, rules: str = "", **more: object) -> None:
    """One more provider in the settings; ``rules`` is TOML. Without rules its logins are enrolled by name."""
    members: dict[str, object] = {"id": name, "url": url, "client_id": client_id, **more}
    table = "".join(f"{key} = {json.dumps(value)}\n" for key, value in members.items())
    with site.settings_file.open("a") as file:
        file.write(f"\n[[issuer]]\n{table}{rules}")


@dataclass(slots=True, kw_only=True)
class Place:
    """The facility, its providers, and what its users do. ``said`` is every secret that was used at it."""

    site: Site
    directory: Path
    campus: RealProvider
    hpc: NodeProvider
    opaque: NodeProvider
    ci: HostileProvider
    guarded: HostileProvider
    guarded_ca: Path
    ci_key: ProviderKey
    said: set[str] = field(default_factory=set)

    @property
    def url(self) -> str:
        return self.site.url

    @property
    def trusted(self) -> tuple[object, ...]:
        """The options that make a client trust everybody here."""
        files = (self.site.root, self.campus.ca_file, self.hpc.ca_file, self.opaque.ca_file)
        return tuple(word for file in files for word in ("--ca-file", file))

    def roots(self) -> bytes:
        """The same for a client in this process."""
        return b"".join(Path(str(file)).read_bytes() for file in self.trusted[1::2])

    def ask(self, key: SoftwareKey, proof: Mapping[str, object], **more: object) -> httpx2.Response:
        """``POST /v1/certificates`` with this proof, for this key."""
        for name in ("token", "code", "secret"):
            if isinstance(secret := proof.get(name), str):
                self.said.add(secret)
        with self.site.client() as client:
            return client.post("/v1/certificates", json={"csr": make_csr(key), "proof": dict(proof), **more})

    def certified(self, key: SoftwareKey, proof: Mapping[str, object]) -> Identity:
        """A certificate for this proof."""
        answer = self.ask(key, proof)
        assert answer.status_code == 201, answer.text
        return Identity(key=key, chain=certificates.load_chain(answer.json()["certificate_chain"].encode()))

    def bound(self, key: SoftwareKey) -> BoundKey:
        """``key`` as proofs for this signer are bound to it."""
        return BoundKey(signer_id=self.url, spki=keys.spki(key.public_key))

    def ci_token(self, audience: str, **claims: object) -> str:
        """What the platform signs for a job."""
        now = int(system_clock().timestamp())
        job: dict[str, object] = {"iss": self.ci.issuer, "sub": "repo:als/pipeline", "aud": audience, "repository_id": "42"}
        job |= {"iat": now, "nbf": now, "exp": now + 300, "jti": secrets.token_hex(8), **claims}
        return self.ci_key.sign({name: value for name, value in job.items() if value is not ...})

    def finish(self, code: str, user: str, *, at: str) -> str:
        """Finish a login that was begun somewhere else, in a browser of ``user``; the last page."""
        ca_file = self.campus.ca_file if at == "campus" else self.hpc.ca_file
        self.said |= {code, code.replace("-", "")}
        with self.person() as person:
            return self._finish(person, code, user, ca_file)

    def _finish(self, person: Person, code: str, user: str, ca_file: Path) -> str:
        redirect = urlsplit(log_in_at(person.to_provider(code), user, ca_file))
        answer = dict(parse_qsl(redirect.query))
        self.said |= {answer["code"], answer["state"]}
        page = person.come_back(answer, redirect.path)
        self.said |= {str(value) for value in person.http.cookies.values()}
        assert page.status_code == 200, page.text
        return page.text

    @contextlib.contextmanager
    def person(self) -> Iterator[Person]:
        """Somebody with an empty browser."""
        person = Person(cast("Any", self.site))  # it asks it for a client only
        with person.http:
            yield person


class Login:
    """``certauth login`` in a process of its own, and what it says while it runs."""

    def __init__(self, place: Place, home: Path, *words: object, **environment: str) -> None:
        command = [CERTAUTH, "login", place.url, *place.trusted, "--json", *words]
        inherited = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "CERTAUTH_HOME": str(home)}
        self._place = place
        self.process = subprocess.Popen(
            [str(word) for word in command],
            env={**inherited, **environment},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __enter__(self) -> Login:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def says(self, pattern: str) -> str:
        """The first group of what it says on standard error."""
        stderr, said, deadline = self.process.stderr, b"", time.monotonic() + SECONDS
        if stderr is None:
            raise AssertionError("it has no standard error")
        while (found := re.search(pattern, said.decode())) is None:
            ready, _, _ = select.select([stderr], [], [], max(0, deadline - time.monotonic()))
            piece = os.read(stderr.fileno(), 65536) if ready else b""
            assert piece, said
            said += piece
        return found[1]

    def ends(self, status: int = 0) -> dict[str, Any]:
        """What it came to: its result, or its error."""
        out, err = self.process.communicate(timeout=SECONDS)
        assert self.process.returncode == status, err
        found: dict[str, Any] = json.loads(out) if status == 0 else json.loads(err.splitlines()[-1])["error"]
        return found


def run(home: Path, *words: object, status: int = 0) -> dict[str, Any]:
    """``certauth … --json``; its result, or its error."""
    done = subprocess.run(
        [str(word) for word in (CERTAUTH, *words, "--json")],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "CERTAUTH_HOME": str(home)},
        cwd=ROOT,
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout) if status == 0 else json.loads(done.stderr.splitlines()[-1])["error"]
    return found


def dpop_key() -> tuple[SoftwareKey, DpopKey]:
    """One key, as ours and as the provider's clients use it."""
    key = keys.generate(Algorithm.P256)
    if not isinstance(key.private_key, ec.EllipticCurvePrivateKey):
        raise TypeError("not a P-256 key")
    return key, DpopKey(key.private_key)


@contextlib.contextmanager
def place(directory: Path) -> Iterator[Place]:
    """The facility, initialised and not yet served."""
    with contextlib.ExitStack() as running:
        site = running.enter_context(facility(directory))
        callback = f"{site.url}/login/callback"
        campus = running.enter_context(
            idpyoidc(directory / "campus", redirect_uri=f"{callback}/campus", users=("alice", "bob"))
        )
        web = public_client(redirect_uris=[callback], application_type="web")
        hpc = running.enter_context(node_provider(directory / "hpc", clients=[web]))
        opaque = running.enter_context(
            node_provider(
                directory / "opaque",
                clients=[public_client(), confidential_client()],
                resources={AUDIENCE: {"format": "opaque"}},
            )
        )
        secret = site.directory / "client-secret"
        secret.touch(mode=0o600)
        secret.write_text(SIGNER_SECRET)
        tls = write_server_files(directory / "ci")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.certificate, tls.key)
        guarded = running.enter_context(hostile_provider(tls=context))
        ci, ci_key = running.enter_context(hostile_provider(tls=context)), ProviderKey("ES256")
        ci.jwks = jwks(ci_key)
        add_issuer(
            site,
            "campus",
            campus.issuer,
            CAMPUS_CLIENT,
            enrolment="open",
            ca_file=str(campus.ca_file),
            own_callback=True,
            scopes=["openid", "profile", "email"],
            rules=people("campus", "/preferred_username"),
        )
        add_issuer(
            site,
            "hpc",
            hpc.issuer,
            hpc.client_id,
            enrolment="open",
            ca_file=str(hpc.ca_file),
            kinds=["id_token", "access_token"],
            bindings=["nonce", "dpop"],
            access_token_audience=AUDIENCE,
            device=True,
            rules=people("hpc", "/sub"),
        )
        add_issuer(
            site,
            "opaque",
            opaque.issuer,
            SIGNER_CLIENT_ID,
            enrolment="open",
            ca_file=str(opaque.ca_file),
            client_secret_file=str(secret),
            kinds=["access_token"],
            bindings=["dpop", "none"],
            assurance=1,
            access_token_audience=AUDIENCE,
            authorized_parties=[opaque.client_id],
            introspection=True,
            rules=people("opaque", "/sub"),
        )
        add_issuer(
            site,
            "ci",
            ci.issuer,
            "certauth",
            enrolment="open",
            ca_file=str(tls.ca),
            kinds=["workload"],
            bindings=["audience"],
            rules=MACHINES,
        )
        yield Place(
            site=site,
            directory=directory,
            campus=campus,
            hpc=hpc,
            opaque=opaque,
            ci=ci,
            guarded=guarded,
            guarded_ca=tls.ca,
            ci_key=ci_key,
            said={SIGNER_SECRET},
        )

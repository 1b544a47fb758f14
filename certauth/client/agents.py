"""Agents from their owner's side: made with a key and a directory of their own, listed, stopped.

An agent's directory is a whole ``CERTAUTH_HOME``: whoever runs the job with it needs nothing of the owner's.

    <directory>/agent.json   who it is, whose, at which signer, until when
    <directory>/agent.key    the key it was enrolled with: it proves itself with it when it has no valid certificate
    <directory>/agent-ca.pem further roots for TLS, if its owner needed any
    <directory>/…            key, certificate and tokens, as for a person (``certauth.client.profile``)
"""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import quote

from certauth.audit import receipt as receipts
from certauth.audit.checkpoint import VerifierKey
from certauth.audit.receipt import Receipt
from certauth.client.attempt import Method, Situation, Wishes
from certauth.client.http import Client, text_member
from certauth.client.login import LoggedIn, certification_request, log_in, signer_trust
from certauth.client.profile import Home, Profile
from certauth.clock import Clock
from certauth.encoding import canonical_json, strict_json
from certauth.errors import AnswerError, CertauthError, StoreError, UsageError
from certauth.files import PRIVATE, make_private_directory, read_private, write_atomic
from certauth.keys import Algorithm, SoftwareKey, generate, load_private, save_private
from certauth.names import Kind, Principal, TrustDomain, label
from certauth.requests import Right

_AGENTS = "/v1/agents"
_RECORD, _KEY, _ROOTS = "agent.json", "agent.key", "agent-ca.pem"
_MAX_LISTED = 1000
_TELL = "whether it was done is not proved; tell those who run the signer"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRecord:
    """What an agent's directory says of it; ``expires_at`` is RFC 3339 text."""

    principal: str
    owner: str
    signer: str
    domain: str
    expires_at: str
    example_keys: bool

    @classmethod
    def read(cls, directory: Path) -> AgentRecord | None:
        """The agent whose directory this is; ``None`` if it is a person's. ``StoreError`` (``agent-damaged``)."""
        path = directory / _RECORD
        if not path.exists():
            return None
        try:
            members = strict_json(read_private(path))
            if not isinstance(members, dict) or set(members) != {field.name for field in fields(cls)}:
                raise ValueError("other members than creating an agent writes")
            record = cls(**members)
            Principal.parse(record.principal)
            TrustDomain.parse(record.domain)
        except (ValueError, TypeError, CertauthError) as error:
            raise StoreError("agent-damaged", f"{path} is damaged", hint="have its owner make another agent") from error
        return record

    def profile(self, home: Home) -> Profile:
        """The agent's own profile in its home."""
        return home.profile(TrustDomain(self.domain))


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentWish:
    """What an agent shall be given. ``rights`` are (service, right); ``None``: everything, at ``services``; none: at all."""

    name: str
    rights: tuple[tuple[str, Right], ...] | None
    services: tuple[str, ...]
    networks: tuple[str, ...]
    lifetime: timedelta

    def members(self) -> dict[str, object]:
        """The same as the signer reads it."""
        wish: dict[str, object] = {"name": self.name, "lifetime": int(self.lifetime.total_seconds())}
        if self.networks:
            wish["networks"] = list(self.networks)
        if self.rights is None:
            return wish | {"everything_at": list(self.services) or ["*"]}
        return wish | {
            "rights": [{"service": service, "operation": right.operation, "path": right.path} for service, right in self.rights]
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """An agent that is enrolled, and its directory. ``clamped`` is how the wish for its life was cut."""

    record: AgentRecord
    directory: Path
    rights: tuple[tuple[str, str, str], ...]
    clamped: Mapping[str, object] | None
    login: LoggedIn


def default_directory(home: Home, profile: Profile, name: str) -> Path:
    """Where an agent is kept unless its owner says otherwise."""
    return home.directory / ".agents" / profile.domain.name / name


def create(profile: Profile, wish: AgentWish, directory: Path, *, ca: bytes | None, clock: Clock) -> Created:
    """Enrol an agent of the profile's owner, and fill ``directory``, which must not hold anything yet.

    Raises ``UsageError`` (``agent-directory``), ``LoginRequired``, ``Refused`` and the errors of ``log_in``. If the agent was
    enrolled and only its certificate could not be had, its directory stays, and ``certauth renew`` there goes on.
    """
    owner, signer = profile.credential(now=clock()).principal, profile.signer()
    principal = Principal.make(profile.domain, Kind.AGENT, f"{owner.id}.{label(wish.name, 'the name of an agent')}")
    if directory.is_symlink() or (directory.exists() and (not directory.is_dir() or any(directory.iterdir()))):
        raise UsageError("agent-directory", f"{directory} is in use", hint="name another one with --output")
    key = generate(Algorithm.P256)
    make_private_directory(directory).chmod(0o700)
    try:
        save_private(directory / _KEY, key, passphrase=None)
        request = wish.members() | {"csr": certification_request(key), "request_id": uuid.uuid4().hex}
        answer = _post(profile, signer.url + _AGENTS, request, ca=ca, clock=clock)
        _check(answer, "agent-create", principal, profile, signer.url)
        record = AgentRecord(
            principal=str(principal),
            owner=str(owner),
            signer=signer.url,
            domain=profile.domain.name,
            expires_at=text_member(answer, "expires_at", signer.url),
            example_keys=signer.example_keys,
        )
        if roots := _joined(profile.extra_roots(), ca):
            write_atomic(directory / _ROOTS, roots, mode=PRIVATE)
        write_atomic(directory / _RECORD, canonical_json(asdict(record)), mode=PRIVATE)
    except BaseException:
        # Nobody uses the key then, whatever became of the request; an agent without it can be stopped and does nothing.
        with contextlib.suppress(OSError):
            shutil.rmtree(directory)
        raise
    try:
        login = prove(record, Home(directory), ca=None, lifetime=None, clock=clock)
    except CertauthError as error:
        error.hint = f"{wish.name} is enrolled; for its certificate: CERTAUTH_HOME={directory} certauth renew"
        raise
    clamped = answer.get("clamped")
    return Created(
        record=record,
        directory=directory,
        rights=rights_of(answer),
        clamped=clamped if isinstance(clamped, dict) else None,
        login=login,
    )


def prove(
    record: AgentRecord, home: Home, *, ca: bytes | None, lifetime: timedelta | None, clock: Clock, into: Home | None = None
) -> LoggedIn:
    """Let the agent whose home this is prove itself with its enrolled key, and store its new certificate.

    It is stored in ``into`` if that is given. Raises as ``log_in`` does.
    """
    stored = home.directory / _ROOTS
    return log_in(
        into or home,
        record.signer,
        Wishes(
            method=Method.KEY,
            key=agent_key(record, home),
            principal=Principal.parse(record.principal),
            domain=TrustDomain(record.domain),
            ca=_joined(read_private(stored) if stored.exists() else None, ca),
            lifetime=lifetime,
            allow_example_keys=record.example_keys,
        ),
        clock=clock,
        tell=_silent,
        situation=Situation(terminal=False),
    )


def agent_key(record: AgentRecord, home: Home) -> SoftwareKey:
    """The key with which the agent was enrolled."""
    return load_private(home.directory / _KEY, passphrase=None, allow_example_keys=record.example_keys)


def listing(profile: Profile, *, ca: bytes | None, clock: Clock) -> list[dict[str, object]]:
    """The agents of the profile's owner, as the signer tells of them."""
    url = profile.signer().url
    context = signer_trust(profile, ca=ca)
    profile.present(context, now=clock())
    with Client(context) as client:
        answer = client.json("GET", url + _AGENTS)
    found = answer.get("agents")
    if not isinstance(found, list) or len(found) > _MAX_LISTED:
        raise AnswerError("bad-answer", f"{url} did not answer with a list of agents", hint="tell those who run the signer")
    agents = [dict(one) for one in found if isinstance(one, dict)]
    for one in agents:
        text_member(one, "name", url), text_member(one, "state", url)
    return agents


def stop(profile: Profile, name: str, *, reason: str, ca: bytes | None, clock: Clock) -> bool:
    """End an agent of the profile's owner; ``False`` if it had been stopped before.

    Raises ``Refused`` (``agent-unknown``), ``LoginRequired``, ``UnavailableError``, and if the answer does not prove that this
    was recorded, ``LogError`` or ``AnswerError`` (``wrong-receipt``).
    """
    signer, owner = profile.signer(), profile.credential(now=clock()).principal
    url = f"{signer.url}{_AGENTS}/{quote(name, safe='')}/stop"
    answer = _post(profile, url, {"reason": reason, "request_id": uuid.uuid4().hex}, ca=ca, clock=clock)
    if "receipt" not in answer:
        if text_member(answer, "state", signer.url) != "stopped":
            raise AnswerError("wrong-receipt", f"{signer.url} did not say that the agent was stopped", hint=_TELL)
        return False
    _check(answer, "agent-stop", Principal.make(profile.domain, Kind.AGENT, f"{owner.id}.{name}"), profile, signer.url)
    return True


def _check(answer: Mapping[str, object], action: str, principal: Principal, profile: Profile, url: str) -> None:
    """The receipt holds under the facility's log key, and is for this act upon this agent."""
    receipt = Receipt.from_dict(answer.get("receipt"))
    recorded = receipts.check(receipt, VerifierKey.parse(profile.bundle().log_vkey)).record.get("enrolment")
    if not isinstance(recorded, dict) or (recorded.get("action"), recorded.get("principal")) != (action, str(principal)):
        raise AnswerError("wrong-receipt", f"{url} answered with the receipt of something else", hint=_TELL)


def rights_of(answer: Mapping[str, object]) -> tuple[tuple[str, str, str], ...]:
    """The rights in an answer, for showing: (service, operation, path)."""
    rights = answer.get("rights")
    found = [one for one in rights if isinstance(one, dict)] if isinstance(rights, Sequence) else []
    return tuple((str(one.get("service")), str(one.get("operation")), str(one.get("path"))) for one in found)


def ends(record: AgentRecord) -> datetime:
    """When the agent itself ends."""
    return datetime.fromisoformat(record.expires_at)


def _post(profile: Profile, url: str, value: Mapping[str, object], *, ca: bytes | None, clock: Clock) -> dict[str, object]:
    context = signer_trust(profile, ca=ca)
    profile.present(context, now=clock())
    with Client(context) as client:
        return client.post_again(url, lambda: value)


def _joined(*pems: bytes | None) -> bytes | None:
    return b"\n".join(pem for pem in pems if pem) or None


def _silent(_text: str) -> None:
    """An agent has nobody to tell."""

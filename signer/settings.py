"""The facility's settings: one documented, frozen tree, read from ``signer.toml`` and ``SIGNER_…`` variables.

Unknown keys and unknown ``SIGNER_…`` variables are refused by name: a misspelt safety setting must not be a missing one.
Secrets are never values here, only paths of files. Relative paths are relative to the settings file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from certauth.clock import parse_duration
from certauth.enrolment import EnrolledRight, Entitlement
from certauth.errors import CertauthError, ConfigError
from certauth.identity import Binding, Issuer, ProofKind
from certauth.identity.mapping import Rule, check_rules
from certauth.names import TrustDomain, label
from certauth.requests import Right
from signer.admission import RuleSettings

PREFIX = "SIGNER_"


def _duration(value: object) -> object:
    if isinstance(value, str):
        try:
            return parse_duration(value)
        except CertauthError as error:
            raise ValueError(f"{error.message}; {error.hint}") from error
    return value


Duration = Annotated[timedelta, BeforeValidator(_duration)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class IssuerSettings(_Section):
    """An identity provider whose ID tokens prove who a person is."""

    id: str = Field(description="A short name for logs and certificates, e.g. `campus`.")
    url: str = Field(description="The issuer, exactly as its tokens spell it (`iss`); https, no trailing-slash repair.")
    client_id: str = Field(description="The client id registered for this signer alone; tokens must name it as audience.")
    public_client_id: str | None = Field(
        default=None,
        min_length=1,
        description="A second client, without a secret, for users' programs, where `client_id` has one. Then what programs "
        "bring must be for this one and bound to a key, and only what the signer fetches itself is for `client_id`.",
    )
    algorithms: tuple[Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"], ...] = Field(
        default=("RS256", "ES256"), description="Signature algorithms accepted from this issuer."
    )
    scopes: tuple[str, ...] = Field(default=("openid",), description="Scopes the client asks for when a user logs in.")
    ca_file: Path | None = Field(default=None, description="PEM roots for this issuer's TLS; the system's by default.")
    allowed_hosts: tuple[str, ...] = Field(default=(), description="Other hosts its `jwks_uri` may name.")
    max_age: Duration = Field(default=timedelta(minutes=10), description="An ID token older than this proves nothing.")
    skew: Duration = Field(default=timedelta(seconds=60), description="How far the two clocks may differ.")
    max_authentication_age: Duration | None = Field(
        default=None, description="A login longer ago than this is refused; the token must then say when it was."
    )
    authorized_parties: tuple[str, ...] = Field(default=(), description="Other clients of the issuer whose `azp` is accepted.")
    single_key: bool = Field(default=False, description="Accept tokens without `kid` while the issuer has exactly one key.")
    assurance: int = Field(default=2, ge=1, le=3, description="Assurance of people this issuer vouches for, 1 to 3.")
    kinds: tuple[Literal["id_token", "access_token", "workload"], ...] = Field(
        default=("id_token",), description="What counts as a proof: ID tokens, access tokens, workload tokens (CI, Kubernetes)."
    )
    bindings: tuple[Literal["nonce", "audience", "dpop", "cnf", "none"], ...] = Field(
        default=("nonce",),
        description="How a proof must be bound to the key. `none`: whoever has a token may use it; only with `assurance = 1`.",
    )
    access_token_audience: str | None = Field(
        default=None, description="The resource that access tokens must name as audience; needed for `access_token`."
    )
    untyped_access_tokens: bool = Field(
        default=False, description="Accept access tokens whose header does not say that they are some, as many issuers make."
    )
    email_verified: Literal["required", "trusted"] = Field(
        default="required",
        description="`trusted`: the issuer's e-mail addresses are verified although its tokens do not say so.",
    )
    enrolment: Literal["enrolled", "open", "invite", "approve"] = Field(
        default="enrolled",
        description="`enrolled`: people an admin has enrolled. `invite`: also whoever has an invitation. "
        "`approve`: whoever asks waits for an admin. `open`: everyone its rules admit.",
    )
    max_lifetime: Duration | None = Field(default=None, description="Cap on certificates issued from its proofs.")
    rule: tuple[RuleSettings, ...] = Field(
        default=(), description="Admission rules, one `[[issuer.rule]]` table each; the first that matches decides."
    )
    client_secret_file: Path | None = Field(
        default=None, description="File with the client's secret there, for mediated login and introspection."
    )
    mediated: bool = Field(default=True, description="Let people log in through this signer, from machines without a browser.")
    mediated_same_address: bool = Field(
        default=False, description="A mediated login from another address than the program's is worth assurance 1 only."
    )
    own_callback: bool = Field(
        default=False,
        description="Mediated logins come back to `/login/callback/<id>`; needed where several issuers do not name themselves.",
    )
    device: bool = Field(default=False, description="Tell clients that the issuer has a device flow with DPoP.")
    userinfo: bool = Field(default=False, description="In a mediated login, also ask the issuer's userinfo endpoint.")
    introspection: bool = Field(default=False, description="Verify opaque access tokens at the issuer (RFC 7662).")
    jwks_file: Path | None = Field(default=None, description="The issuer's keys in a file; nothing is fetched then.")
    jwks_uri: str | None = Field(default=None, description="Where its keys are, for an issuer without a discovery document.")
    bearer_file: Path | None = Field(default=None, description="File with the bearer token for fetching keys (Kubernetes).")
    proxy: str | None = Field(default=None, description="HTTP proxy through which the issuer is reached.")
    allow_loopback_http: bool = Field(default=False, description="Accept `http://` on this machine, for trying things out.")

    @field_validator("id")
    @classmethod
    def _safe_id(cls, value: str) -> str:
        try:
            return label(value, "the id of an issuer")
        except CertauthError as error:
            raise ValueError(error.message) from error

    @field_validator("url")
    @classmethod
    def _https(cls, value: str) -> str:
        if urlsplit(value).scheme not in {"https", "http"} or not urlsplit(value).hostname:
            raise ValueError("an issuer is an https URL")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> IssuerSettings:
        if urlsplit(self.url).scheme == "http" and not self.allow_loopback_http:
            raise ValueError("an issuer is an https URL")
        if "access_token" in self.kinds and self.access_token_audience is None:
            raise ValueError("access_token needs access_token_audience: a token for any audience is nobody's proof")
        if self.introspection and self.client_secret_file is None:
            raise ValueError("introspection needs client_secret_file")
        self._check_public_client()
        try:
            self.issuer()
            self.own_client()
        except CertauthError as error:
            raise ValueError(error.message) from error
        return self

    def _check_public_client(self) -> None:
        """Two clients of one provider, of which neither's tokens can be taken for the other's."""
        if self.public_client_id is None:
            return
        if self.public_client_id == self.client_id:
            raise ValueError("public_client_id is another client than client_id, or is left out")
        if not {"id_token", "access_token"} & set(self.kinds):
            raise ValueError("public_client_id is for logins of people, and kinds has none")
        if "none" in self.bindings:
            raise ValueError("tokens of a public client are taken only if they are bound to a key: leave none out of bindings")

    @property
    def program_client_id(self) -> str:
        """The client that users' programs are."""
        return self.public_client_id or self.client_id

    def issuer(self) -> Issuer:
        """The same, as the verifier of what users' programs bring wants it."""
        return self._as_client(self.program_client_id)

    def own_client(self) -> Issuer:
        """The same, as the verifier of what the signer fetched itself wants it, where it led people there."""
        return self._as_client(self.client_id)

    def _as_client(self, client_id: str) -> Issuer:
        return Issuer(
            id=self.id,
            url=self.url,
            audience=client_id,
            algorithms=frozenset(self.algorithms),
            max_age=self.max_age,
            skew=self.skew,
            max_authentication_age=self.max_authentication_age,
            authorized_parties=frozenset(self.authorized_parties),
            single_key=self.single_key,
            assurance=self.assurance,
            enrolment=self.enrolment,
            max_certificate_lifetime=self.max_lifetime,
            scopes=self.scopes,
            kinds=frozenset(ProofKind(kind) for kind in self.kinds),
            bindings=frozenset(Binding(binding) for binding in self.bindings),
            access_token_audience=self.access_token_audience,
            untyped_access_tokens=self.untyped_access_tokens,
            email_verified=self.email_verified,
            allow_loopback_http=self.allow_loopback_http,
        )

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The admission rules, as the decision wants them."""
        return tuple(rule.rule() for rule in self.rule)


_FILES = ("ca_file", "client_secret_file", "jwks_file", "bearer_file")


class Limits(_Section):
    """Caps that no request, rule or enrolment can lift."""

    certificate_lifetime: Duration = Field(default=timedelta(hours=24), description="Longest user certificate.")
    token_lifetime: Duration = Field(
        default=timedelta(hours=12),
        le=timedelta(hours=24),
        description="Longest token, at most 24 h: that long the withdrawal of a certificate is remembered after its end.",
    )
    jwt_lifetime: Duration = Field(
        default=timedelta(hours=1), description="Longest token in JWT form, which nothing but its end takes back everywhere."
    )
    session: Duration = Field(
        default=timedelta(hours=24), description="How long after a login a person's certificate can be renewed without another."
    )
    agent_lifetime: Duration = Field(default=timedelta(days=30), description="How long a person's agent may work at most.")
    agents: int = Field(default=20, ge=0, description="How many living agents a person may have.")
    body_bytes: int = Field(default=65_536, ge=1024, le=1_048_576, description="Largest request body.")
    requests_per_minute: int = Field(
        default=600, ge=1, description="Requests an address may make without a certificate, or a principal with one."
    )
    free_disk_bytes: int = Field(default=64 * 1024 * 1024, ge=0, description="Below this much free disk, readiness turns red.")


class GrantSettings(_Section):
    """What everybody in a group, with a role, or working for a project may do."""

    group: str | None = Field(default=None, description="The group it is given to.")
    role: str | None = Field(default=None, description="Or the role.")
    project: str | None = Field(default=None, description="Or the project.")
    service: str = Field(description="The service at which it holds.")
    operations: tuple[str, ...] = Field(min_length=1, description="What may be done, e.g. `read`.")
    path: str = Field(description="Where: a path, or everything below it if it ends in `/`.")

    @model_validator(mode="after")
    def _one_holder(self) -> GrantSettings:
        if sum(holder is not None for holder in (self.group, self.role, self.project)) != 1:
            raise ValueError("a grant is given to one group, or one role, or one project")
        try:
            self.entitlements()
        except CertauthError as error:
            raise ValueError(error.message) from error
        return self

    def entitlements(self) -> tuple[Entitlement, ...]:
        """The same, as the decision wants them, one for each operation."""
        rights = [Right.make(operation, self.path) for operation in self.operations]
        service = label(self.service, "a service")
        holder: Literal["group", "role", "project"] = "group" if self.group else "role" if self.role else "project"
        return tuple(
            Entitlement(
                holder=holder,
                name=self.group or self.role or self.project or "",
                right=EnrolledRight(service, right.operation, right.path),
            )
            for right in rights
        )


class Settings(_Section):
    """Everything `certauth signer serve` needs to know."""

    trust_domain: str = Field(description="The facility's name, e.g. `als.example`; part of every principal.")
    public_url: str = Field(
        description="Where clients reach this signer: `https://host[:port]`, no path. Proofs are bound to it."
    )
    listen: str = Field(default="127.0.0.1:8443", description="Address and port to serve on.")
    state: Path = Field(default=Path(), description="Directory of keys, certificates, database and decision log.")
    database: Path = Field(default=Path("signer.db"), description="SQLite database file, relative to `state`.")
    passphrase_file: Path | None = Field(
        default=None,
        description="File with the passphrase of the private keys; default: `$CREDENTIALS_DIRECTORY/passphrase`, "
        "else `secrets/passphrase` under `state`.",
    )
    metrics: Literal["off", "loopback", "all"] = Field(
        default="loopback", description="Who may read `/metrics`: nobody, programs on this machine, or everybody."
    )
    log_format: Literal["json", "console"] = Field(default="json", description="Form of the program's own log on stderr.")
    feed_lifetime: Duration = Field(default=timedelta(minutes=10), description="How long a revocation feed counts as fresh.")
    admins: tuple[str, ...] = Field(default=(), description="Principals that may revoke other people's credentials.")
    jwt_services: tuple[str, ...] = Field(
        default=(),
        description="Services for which tokens are also made as JWTs. Such a service must compare `cnf` with the certificate.",
    )
    limits: Limits = Field(default=Limits())
    issuer: tuple[IssuerSettings, ...] = Field(default=(), description="Identity providers, one `[[issuer]]` table each.")
    grant: tuple[GrantSettings, ...] = Field(
        default=(), description="What groups, roles and projects may do, one `[[grant]]` table each."
    )

    @field_validator("trust_domain")
    @classmethod
    def _domain(cls, value: str) -> str:
        try:
            return TrustDomain.parse(value).name
        except CertauthError as error:
            raise ValueError(error.message) from error

    @field_validator("public_url")
    @classmethod
    def _origin(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme != "https" or not parts.hostname or value != f"https://{parts.netloc}" or "@" in parts.netloc:
            raise ValueError("public_url is https://host[:port] and nothing more")
        return value

    @field_validator("listen")
    @classmethod
    def _address(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65535:
            raise ValueError("listen is host:port")
        return value

    @model_validator(mode="after")
    def _distinct_issuers(self) -> Settings:
        for what, values in (("id", [i.id for i in self.issuer]), ("url", [i.url for i in self.issuer])):
            if len(set(values)) != len(values):
                raise ValueError(f"two issuers share one {what}")
        try:
            check_rules({issuer.id: issuer.rules for issuer in self.issuer})
        except CertauthError as error:
            raise ValueError(f"{error.message}; {error.hint}") from error
        return self

    @property
    def domain(self) -> TrustDomain:
        return TrustDomain(self.trust_domain)

    @property
    def database_path(self) -> Path:
        return self.state / self.database


def load(path: Path, environment: Mapping[str, str]) -> Settings:
    """Read ``path`` and overlay ``SIGNER_…``; raise ``ConfigError`` that names every wrong key, never its value."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            "settings-unreadable",
            f"cannot read {path}: {error.strerror}",
            hint="make one with 'certauth signer init', or name it with --settings",
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            "settings-malformed", f"{path} is not UTF-8", hint="correct the file as the settings reference shows"
        ) from error
    return parse(text, path, environment)


def parse(text: str, path: Path, environment: Mapping[str, str]) -> Settings:
    """The same for the text of a file at ``path``, which need not exist yet."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            "settings-malformed", f"{path} is not TOML: {error}", hint="correct the file as the settings reference shows"
        ) from error
    return _validate(document | _from_environment(environment), path)


def _from_environment(environment: Mapping[str, str]) -> dict[str, object]:
    scalars = {name for name in Settings.model_fields if name not in {"limits", "issuer", "grant", "admins", "jwt_services"}}
    given = {name: value for name, value in environment.items() if name.startswith(PREFIX)}
    unknown = sorted(name for name in given if name.removeprefix(PREFIX).lower() not in scalars)
    if unknown:
        raise ConfigError(
            "unknown-variable",
            f"unknown environment variable {', '.join(unknown)}",
            hint="variables are SIGNER_ and the upper-case name of a top-level setting",
        )
    return {name.removeprefix(PREFIX).lower(): value for name, value in given.items()}


def _validate(document: Mapping[str, object], path: Path) -> Settings:
    try:
        settings = Settings.model_validate(document)
    except ValidationError as error:
        problems = "; ".join(_problem(detail["loc"], detail["type"], detail["msg"]) for detail in error.errors())
        raise ConfigError("settings-invalid", f"{path}: {problems}", hint="see the settings reference") from None
    return _anchored(settings, path.parent.resolve())


def _anchored(settings: Settings, directory: Path) -> Settings:
    """The same settings with every relative path made absolute."""
    issuers = tuple(
        issuer.model_copy(update={name: directory / path for name in _FILES if (path := getattr(issuer, name)) is not None})
        for issuer in settings.issuer
    )
    passphrase = directory / settings.passphrase_file if settings.passphrase_file else None
    return settings.model_copy(update={"state": directory / settings.state, "issuer": issuers, "passphrase_file": passphrase})


def _problem(location: tuple[int | str, ...], kind: str, message: str) -> str:
    where = ".".join(map(str, location)) or "the document"
    return f"unknown key {where}" if kind == "extra_forbidden" else f"{where}: {message}"

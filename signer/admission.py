"""``[[issuer.rule]]``: how an administrator writes an admission rule in ``signer.toml``.

These models know the shape of the document; what a rule means, and what it may not say, is ``certauth.identity.mapping``. What
is wrong is said with the name of the rule and the member, so that it can be found in a long file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Annotated, Final, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator

from certauth.clock import parse_duration
from certauth.errors import ConfigError, UsageError
from certauth.identity.mapping import (
    MAX_VALUES,
    AssuranceTable,
    CapabilitySource,
    Condition,
    EntitlementSource,
    FixedName,
    Glob,
    NamesFromClaim,
    Operator,
    Outputs,
    Pointer,
    RightTemplate,
    Rule,
    ScopeSource,
    Template,
    Use,
    When,
)

S = TypeVar("S")
T = TypeVar("T")

_CLAIM: Final = "JSON pointer to a claim, e.g. `/groups`."
_OPTIONAL: Final = "A missing claim means none; otherwise it refuses the login."
_PREFIX: Final = "What stands before every name from the claim; the issuer's id and a colon by default."
_NAMESPACE: Final = "The namespace that counts, e.g. `urn:geant:lab.example`."
_AUTHORITY: Final = "The authority that counts, as it stands behind the `#`."


def _listed(value: object) -> object:
    """One entry where a list may stand."""
    return value if isinstance(value, list | tuple) else [value]


def _as_name(value: object) -> object:
    """``groups = ["staff", {claim = …}]``: a text is the name itself."""
    return {"name": value} if isinstance(value, str) else value


def _as_level(value: object) -> object:
    """``assurance = 2``: the same for everybody."""
    return {"level": value} if isinstance(value, int) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(_listed), Field(strict=False)]
Table = dict[str, Texts]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class ConditionSettings(_Table):
    """One condition: a claim and exactly one comparison."""

    claim: str = Field(description=_CLAIM)
    equals: object = Field(default=None, description="The claim has one value, and it is this text, number or boolean.")
    any: Annotated[tuple[object, ...], Field(strict=False)] | None = Field(
        default=None, description="One of its values is one of these."
    )
    all: Annotated[tuple[object, ...], Field(strict=False)] | None = Field(
        default=None, description="Each of these is one of its values."
    )
    match: Texts | None = Field(default=None, description="One of its values matches one of these patterns.")
    present: Literal[True] | None = Field(default=None, description="It has a value.")
    absent: Literal[True] | None = Field(default=None, description="It has none.")

    def condition(self) -> Condition:
        """The same, as the rules want it; raises ``ConfigError`` (``rule-invalid``)."""
        given = [operator for operator in Operator if getattr(self, operator) is not None]
        if len(given) != 1:
            raise ConfigError(
                "rule-invalid",
                f"the condition on {self.claim[:80]} has {len(given)} comparisons",
                hint=f"exactly one of {', '.join(Operator)}; two comparisons are two conditions",
            )
        operator, operands = given[0], getattr(self, given[0])
        if operator is Operator.EQUALS:
            operands = (operands,)
        elif operator in {Operator.PRESENT, Operator.ABSENT}:
            operands = ()
        return Condition(Pointer.parse(self.claim), operator, operands)


Conditions = Annotated[tuple[ConditionSettings, ...], Field(strict=False, min_length=1)]
# The values of ``certauth.identity.ProofKind`` and ``Binding`` that a login can have.
Kind = Literal["id_token", "access_token", "workload"]
Binding = Literal["nonce", "audience", "dpop", "cnf", "none"]


class WhenSettings(_Table):
    """Whom the rule takes: every line that is given must hold."""

    everyone: Literal[True] | None = Field(default=None, description="Everybody the issuer vouches for; then nothing else.")
    kinds: Annotated[tuple[Kind, ...], Field(strict=False, min_length=1)] = Field(
        default=(), description="Kinds of proof: `id_token`, `access_token`, `workload`."
    )
    bindings: Annotated[tuple[Binding, ...], Field(strict=False, min_length=1)] = Field(
        default=(), description="How the proof is bound to the key: `nonce`, `audience`, `dpop`, `cnf`, `none`."
    )
    all: Conditions = Field(default=(), description="Conditions that all hold.")
    any: Conditions = Field(default=(), description="Conditions of which one holds.")
    none: Conditions = Field(default=(), description="Conditions that all fail; a missing claim is no failure.")

    def when(self) -> When:
        """The same, as the rules want it; raises ``ConfigError`` (``rule-invalid``)."""
        return When(
            everyone=self.everyone or False,
            kinds=frozenset(self.kinds),
            bindings=frozenset(self.bindings),
            all=_each("all", self.all, ConditionSettings.condition),
            any=_each("any", self.any, ConditionSettings.condition),
            none=_each("none", self.none, ConditionSettings.condition),
        )


class NamesSettings(_Table):
    """Names of groups, roles or projects: one of the administrator's own, or those in a claim."""

    name: str | None = Field(default=None, description="A name for everybody the rule takes; a text by itself is the same.")
    claim: str | None = Field(default=None, description=_CLAIM)
    match: Texts = Field(default=(), description="Patterns; values that match none are left out.")
    prefix: str | None = Field(default=None, description=_PREFIX)
    optional: bool = Field(default=False, description=_OPTIONAL)

    def source(self) -> FixedName | NamesFromClaim:
        """The same, as the rules want it; raises ``ConfigError`` (``rule-invalid``)."""
        if self.name is not None and self.model_fields_set == {"name"}:
            return FixedName(self.name)
        if self.claim is None or self.name is not None:
            raise ConfigError(
                "rule-invalid",
                "it is neither a name nor a claim",
                hint="write 'staff', or {claim = '/groups'}",
            )
        return NamesFromClaim(
            claim=Pointer.parse(self.claim),
            match=tuple(map(Glob, self.match)),
            prefix=self.prefix,
            optional=self.optional,
        )


class EntitlementSettings(_Table):
    """Group memberships written as URNs (AARC-G069)."""

    claim: str = Field(description=_CLAIM)
    namespace: str | None = Field(default=None, description=_NAMESPACE)
    authority: str | None = Field(default=None, description=_AUTHORITY)
    prefix: str | None = Field(default=None, description=_PREFIX)
    optional: bool = Field(default=False, description=_OPTIONAL)

    def source(self) -> EntitlementSource:
        """The same, as the rules want it; raises ``ConfigError`` (``rule-invalid``)."""
        return EntitlementSource(
            claim=Pointer.parse(self.claim),
            namespace=self.namespace,
            authority=self.authority,
            prefix=self.prefix,
            optional=self.optional,
        )


class RightSettings(_Table):
    """A right for everybody the rule takes."""

    service: str = Field(description="The service, as its tokens name it.")
    operations: Texts = Field(description="What may be done there, e.g. `read`.")
    path: str = Field(description="A path, a subtree if it ends in `/`; a claim in braces is one segment or part of one.")

    def source(self) -> RightTemplate:
        """The same, as the rules want it; raises ``ConfigError`` (``rule-invalid``)."""
        return RightTemplate(service=self.service, operations=self.operations, path=Template.parse(self.path))


class CapabilitySettings(_Table):
    """Rights from resource capabilities written as URNs (AARC-G027)."""

    claim: str = Field(description=_CLAIM)
    namespace: str | None = Field(default=None, description=_NAMESPACE)
    authority: str | None = Field(default=None, description=_AUTHORITY)
    resource: str = Field(description="The resource, with its parents: what stands between `:res:` and `:act:`.")
    actions: Annotated[Table, Field(strict=False)] = Field(description="What each action stands for: `{submit = ['write']}`.")
    service: str = Field(description="The service, as its tokens name it.")
    path: str = Field(description="A path, a subtree if it ends in `/`.")
    optional: bool = Field(default=False, description=_OPTIONAL)

    def source(self) -> CapabilitySource:
        """The same, as the rules want it; raises ``ConfigError`` (``rule-invalid``)."""
        return CapabilitySource(
            claim=Pointer.parse(self.claim),
            namespace=self.namespace,
            authority=self.authority,
            resource=self.resource,
            actions=self.actions,
            service=self.service,
            path=self.path,
            optional=self.optional,
        )


class ScopeSettings(_Table):
    """Rights from scopes with paths (WLCG, SciTokens)."""

    claim: str = Field(default="/scope", description=_CLAIM)
    service: str = Field(description="The service, as its tokens name it.")
    base: str = Field(description="Where the paths of the scopes begin at that service; ends in `/`.")
    operations: Annotated[Table, Field(strict=False)] = Field(
        description="What each scope stands for: `{'storage.read' = ['read']}`."
    )
    optional: bool = Field(default=False, description=_OPTIONAL)

    def source(self) -> ScopeSource:
        """The same, as the rules want it; raises ``ConfigError`` (``rule-invalid``)."""
        return ScopeSource(
            claim=Pointer.parse(self.claim),
            operations=self.operations,
            service=self.service,
            base=self.base,
            optional=self.optional,
        )


class AssuranceSettings(_Table):
    """The assurance of a login: one level, or one for each value of a claim."""

    level: int | None = Field(default=None, description="For everybody the rule takes; a number by itself is the same.")
    claim: str | None = Field(default=None, description=_CLAIM)
    levels: dict[str, int] = Field(default={}, description="The level of each value; the highest counts.")
    otherwise: int | None = Field(default=None, description="The level of other values, and without the claim.")

    def assurance(self) -> int | AssuranceTable:
        """The same, as the rules want it; raises ``ConfigError`` (``rule-invalid``)."""
        if self.level is not None and self.model_fields_set == {"level"}:
            return self.level
        if self.claim is None or self.level is not None:
            raise ConfigError(
                "rule-invalid", "it is neither a level nor a table", hint="write 2, or {claim = '/acr', levels = {silver = 2}}"
            )
        return AssuranceTable(claim=Pointer.parse(self.claim), levels=self.levels, otherwise=self.otherwise)


_Names = Annotated[
    tuple[Annotated[NamesSettings, BeforeValidator(_as_name)], ...], BeforeValidator(_listed), Field(strict=False)
]


class RuleSettings(_Table):
    """Whom a rule takes, and who they become. The first rule that takes a login decides."""

    name: str = Field(description="How the log, refusals and explanations call the rule; one of its own within the issuer.")
    when: WhenSettings = Field(description="Whom it takes.")
    subject: str | None = Field(
        default=None, description="The principal: `user/{sub|hash}`, `user/{claim:/uid}`, `agent/…`; default: the enrolment's."
    )
    groups: _Names = Field(default=(), description="Groups: names, and names from claims.")
    roles: _Names = Field(default=(), description="Roles, likewise.")
    projects: _Names = Field(default=(), description="Projects, likewise.")
    entitlements: Annotated[tuple[EntitlementSettings, ...], BeforeValidator(_listed), Field(strict=False)] = Field(
        default=(), description="Groups and roles from AARC-G069 entitlements."
    )
    rights: Annotated[tuple[RightSettings, ...], BeforeValidator(_listed), Field(strict=False)] = Field(
        default=(), description="Rights."
    )
    capabilities: Annotated[tuple[CapabilitySettings, ...], BeforeValidator(_listed), Field(strict=False)] = Field(
        default=(), description="Rights from AARC-G027 capabilities."
    )
    scopes: Annotated[tuple[ScopeSettings, ...], BeforeValidator(_listed), Field(strict=False)] = Field(
        default=(), description="Rights from WLCG scopes."
    )
    assurance: Annotated[AssuranceSettings, BeforeValidator(_as_level)] | None = Field(
        default=None, description="Assurance, 0 to 3; what the proof and the issuer are worth is the ceiling."
    )
    max_lifetime: str | None = Field(default=None, description="Cap on certificates, e.g. `12h`.")
    hosts: Texts = Field(
        default=(), description="Hosts they may use, e.g. `*.hpc.lab.example`. Shown by `explain`; nothing enforces it yet."
    )
    local_username: str | None = Field(
        default=None, description="Account on those hosts. Shown by `explain`; nothing uses it yet."
    )
    display: str | None = Field(default=None, description="Name for people: `{claim:/name}`.")
    max_values: int = Field(default=MAX_VALUES, description="Values read of one claim; more refuse the login.")

    @model_validator(mode="wrap")
    @classmethod
    def _named(cls, value: object, handler: ModelWrapValidatorHandler[RuleSettings]) -> RuleSettings:
        """Everything that is wrong with a rule is said with its name, when the document is read."""
        name = value.get("name") if isinstance(value, Mapping) else None
        try:
            settings = handler(value)
            settings.rule()
        except ValidationError as error:
            raise ValueError(f"rule {str(name)[:80]!r}: {'; '.join(_problems(error))}") from None
        except ConfigError as error:
            raise ValueError(f"{error.message} ({error.hint})") from error
        return settings

    def rule(self) -> Rule:
        """The same, as the decision wants it; raises ``ConfigError`` (``rule-invalid``) with the rule's name and the member."""
        return _member(f"rule {self.name[:80]!r}", self._rule)

    def _rule(self) -> Rule:
        return Rule(
            name=self.name,
            when=_member("when", self.when.when),
            outputs=Outputs(
                subject=self._template("subject"),
                groups=_each("groups", self.groups, NamesSettings.source),
                roles=_each("roles", self.roles, NamesSettings.source),
                projects=_each("projects", self.projects, NamesSettings.source),
                entitlements=_each("entitlements", self.entitlements, EntitlementSettings.source),
                rights=(
                    *_each("rights", self.rights, RightSettings.source),
                    *_each("capabilities", self.capabilities, CapabilitySettings.source),
                    *_each("scopes", self.scopes, ScopeSettings.source),
                ),
                assurance=None if self.assurance is None else _member("assurance", self.assurance.assurance),
                max_lifetime=None if self.max_lifetime is None else _member("max_lifetime", self._lifetime),
                hosts=self.hosts,
                local_username=self._template("local_username"),
                display=self._template("display", Use.DISPLAY),
            ),
            max_values=self.max_values,
        )

    def _template(self, member: Literal["subject", "local_username", "display"], use: Use = Use.NAME) -> Template | None:
        text: str | None = getattr(self, member)
        return None if text is None else _member(member, lambda: Template.parse(text, use))

    def _lifetime(self) -> timedelta:
        try:
            return parse_duration(self.max_lifetime or "")
        except UsageError as error:
            raise ConfigError("rule-invalid", error.message, hint=error.hint) from error


def _each(member: str, tables: Sequence[S], make: Callable[[S], T]) -> tuple[T, ...]:
    return tuple(_member(f"{member}[{place}]", partial(make, table)) for place, table in enumerate(tables, start=1))


def _member(place: str, make: Callable[[], T]) -> T:
    try:
        return make()
    except ConfigError as error:
        raise ConfigError("rule-invalid", f"{place}: {error.message}", hint=error.hint) from error


def _problems(error: ValidationError) -> Iterator[str]:
    for problem in error.errors(include_url=False, include_context=False, include_input=False):
        place = "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in problem["loc"]).lstrip(".")
        unknown = problem["type"] == "extra_forbidden"
        yield f"unknown key {place}" if unknown else f"{place or 'it'}: {problem['msg']}"

"""``certauth signer issuer …``: connect identity providers, see how they are, and why a token would not do."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
import secrets
import sys
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from certauth.audit import record
from certauth.cli.output import Result, Status, command, progress, status_of, table
from certauth.client.given import read_secret
from certauth.clock import system_clock
from certauth.enrolment import Address
from certauth.errors import ConfigError, UsageError
from certauth.identity import MAX_PROOF, ProofKind, registry
from signer import foreseeing, issuer_table
from signer.cli.common import acting, example_keys_option, facility, load_settings, reason_option, settings_option
from signer.cli.explanation import explanation
from signer.cli.people import checked_reason
from signer.explaining import Explaining, TokenReport
from signer.foreseeing import Foresee, Wish
from signer.introspection import Introspection
from signer.issuer_table import IssuerTable
from signer.jwks import KeySource, SourceStatus
from signer.probe import Finding, Level, Report, probe
from signer.providers import introspection_sources, key_sources
from signer.settings import IssuerSettings, Settings
from signer.sources import IssuerSource
from signer.submission import Submission
from signer.trial import trial

_MARKS = {Level.GOOD: "ok", Level.NOTE: "note", Level.WARNING: "WARNING", Level.FAILURE: "FAILED"}
_EXISTING = click.Path(dir_okay=False, exists=True, resolve_path=True, path_type=Path)

ca_option = click.option("--ca-file", type=_EXISTING, help="PEM roots of its TLS; the system's by default.")
proxy_option = click.option("--proxy", help="HTTP proxy through which it is reached, http://host[:port].")
bearer_option = click.option("--bearer-file", type=_EXISTING, help="File with the token for asking it (Kubernetes).")
loopback_option = click.option("--allow-loopback-http", is_flag=True, help="Accept http:// on this machine, for trying out.")
hosts_option = click.option("--allowed-host", "hosts", multiple=True, help="Another host[:port] of its keys and endpoints.")


@command(example="certauth signer issuer check https://idp.example.org")
@click.argument("url")
@click.option("--id", "issuer_id", help="A short name for it; default: made from its host.")
@click.option("--client-id", default="certauth-signer", show_default=True, help="The client id registered there.")
@ca_option
@proxy_option
@bearer_option
@hosts_option
@loopback_option
def check(
    url: str,
    issuer_id: str | None,
    client_id: str,
    ca_file: Path | None,
    proxy: str | None,
    bearer_file: Path | None,
    hosts: tuple[str, ...],
    *,
    allow_loopback_http: bool,
) -> Result:
    """Look at the identity provider URL, and print the settings it needs. Nothing is changed, here or there.

    JSON: url, usable, findings (level, topic, text), table.
    """
    source = IssuerSource(
        url=url,
        ca_file=ca_file,
        proxy=proxy,
        bearer_file=bearer_file,
        jwks_hosts=frozenset(hosts),
        allow_loopback_http=allow_loopback_http,
    )
    report = asyncio.run(probe(source, issuer_id=issuer_id or _id_from(url), client_id=client_id))
    text = report.table.toml() if report.table else None
    data = {"url": url, "usable": report.usable, "findings": _facts(report.findings), "table": text}
    ready = f"For signer.toml:\n\n{text}" if text else "It cannot be used like this."
    status = Status.DONE if report.usable else Status.FAILED
    return Result(data=data, text=f"{_lines(report.findings)}\n\n{ready}", status=status)


@command(
    example="certauth signer issuer add https://idp.example.org --id campus --client-id certauth-signer "
    "--reason 'contract with the campus'"
)
@click.argument("url")
@click.option("--id", "issuer_id", required=True, help="A short name for it, for logs and certificates.")
@click.option("--client-id", required=True, help="The client id registered there for this signer.")
@click.option("--public-client-id", help="Another one, without a secret, for users' programs.")
@click.option("--kind", "kinds", multiple=True, help="A kind of proof it signs: id_token (default), access_token, workload.")
@click.option("--binding", "bindings", multiple=True, help="How a proof is bound: nonce (default), audience, dpop, cnf, none.")
@click.option("--algorithm", "algorithms", multiple=True, help="A signature algorithm; default: those it announces.")
@click.option("--access-token-audience", help="The audience that its access tokens must name.")
@click.option("--enrolment", type=click.Choice(["enrolled", "open", "invite", "approve"]), help="Who may come through it.")
@click.option("--assurance", type=click.IntRange(1, 3), help="What a login there is worth.")
@click.option("--client-secret-file", type=_EXISTING, help="File with the client's secret there.")
@click.option("--jwks-file", type=_EXISTING, help="Its keys in a file; it is never asked then.")
@click.option("--jwks-uri", help="Where its keys are, if it has no discovery document.")
@click.option("--single-key", is_flag=True, help="Accept tokens that name no key, while it has exactly one.")
@click.option("--device", is_flag=True, help="Tell clients that it has a device flow with DPoP.")
@click.option("--introspection", is_flag=True, help="Verify opaque access tokens by asking it.")
@ca_option
@proxy_option
@bearer_option
@hosts_option
@loopback_option
@click.option("--offline", is_flag=True, help="Do not look at it first.")
@click.option("--dry-run", is_flag=True, help="Change nothing; print what would be added.")
@reason_option
@settings_option
@example_keys_option
def add(
    url: str,
    settings_file: Path,
    *,
    hosts: tuple[str, ...],
    reason: str,
    offline: bool,
    dry_run: bool,
    allow_example_keys: bool,
    **given: Any,
) -> Result:
    """Add the identity provider URL to the settings file, after looking at it. What is written there stays.

    The audit log has an entry before the settings are written, unless there is no database yet.

    JSON: id, url, settings, written, recorded, table, findings.
    """
    why = checked_reason(reason)
    wanted = IssuerTable(
        id=given.pop("issuer_id"), url=url, allowed_hosts=hosts, **{name: value for name, value in given.items() if value}
    )
    # First without the provider: what is wrong in any case is said before anybody is asked.
    issuer_table.append(settings_file, wanted, environment=os.environ, write=False)
    found: tuple[Finding, ...] = ()
    if not (offline or wanted.jwks_file or wanted.jwks_uri):
        progress(f"looking at {url}")
        report = _looked_at(wanted)
        found, wanted = report.findings, _completed(wanted, report)
    recorded: list[int] = []

    def record_it() -> None:
        recorded.extend(_recorded(settings_file, wanted, why=why, allow_example_keys=allow_example_keys))

    issuer_table.append(settings_file, wanted, environment=os.environ, write=not dry_run, before_write=record_it)
    text = wanted.toml()
    data = {
        "id": wanted.id,
        "url": url,
        "settings": str(settings_file),
        "written": not dry_run,
        "recorded": bool(recorded),
        "table": text,
        "findings": _facts(found),
    }
    done = f"{settings_file} was not changed." if dry_run else f"Added to {settings_file}; restart the signer to use it."
    warnings = _lines(finding for finding in found if finding.level is Level.WARNING)
    return Result(data=data, text="\n".join(part for part in (warnings, text, done) if part))


@command(name="list", example="certauth signer issuer list")
@click.option("--offline", is_flag=True, help="Do not ask the providers how they are.")
@settings_option
def list_(settings_file: Path, *, offline: bool) -> Result:
    """List the configured identity providers, each with the state of its keys as found now.

    JSON: issuers (id, url, client_id, public_client_id, kinds, bindings, enrolment, assurance, rules, state, keys, failure).
    """
    settings = load_settings(settings_file)
    states = {} if offline else asyncio.run(_states(settings))
    rows = [_row(issuer, states.get(issuer.url)) for issuer in settings.issuer]
    columns = ("id", "url", "kinds", "enrolment", "state")
    shown = table([name.upper() for name in columns], [[_cell(row[name]) for name in columns] for row in rows])
    failures = [f"{row['id']}: {row['failure']}" for row in rows if row["failure"]]
    text = "\n".join([shown, *failures]) if rows else "No identity provider is configured."
    return Result(data={"issuers": rows}, text=text)


@command(example="certauth signer issuer test campus")
@click.argument("issuer_id", metavar="ID")
@settings_option
def test(issuer_id: str, settings_file: Path) -> Result:
    """Try out everything that the settings of the identity provider ID promise: keys, endpoints, secret, introspection.

    JSON: id, url, works, findings (level, topic, text).
    """
    settings = load_settings(settings_file)
    issuer = _chosen(settings, issuer_id)
    findings = asyncio.run(trial(settings, issuer, clock=system_clock))
    works = all(finding.level is not Level.FAILURE for finding in findings)
    data = {"id": issuer.id, "url": issuer.url, "works": works, "findings": _facts(findings)}
    return Result(data=data, text=_lines(findings), status=Status.DONE if works else Status.FAILED)


@command(example="certauth signer issuer explain --token - < token.txt")
@click.option("--token", "source", required=True, metavar="-", help="Read the token from standard input: nothing else.")
@click.option(
    "--kind", type=click.Choice(["id_token", "access_token", "workload"]), help="What it is sent as; default: guessed."
)
@click.option("--issuer", "issuer_id", metavar="ID", help="Whom to ask about a token that is no JWT.")
@click.option("--invite", "invite_source", metavar="FILE", help="As if the invitation in this file came with it.")
@click.option("--address", metavar="IP", help="As if it came from this address.")
@click.option("--claims", "with_claims", is_flag=True, help="Show everything a verified token says.")
@settings_option
def explain(
    source: str,
    kind: str | None,
    issuer_id: str | None,
    invite_source: str | None,
    address: str | None,
    settings_file: Path,
    *,
    with_claims: bool,
) -> Result:
    """Say what a request with this token would get now, and why: each check, each rule, and whom it leads to.

    Nothing is recorded, granted or used up. Whether the token is bound to its bearer's key cannot be seen from here; that check
    is taken as passed. A login through the signer itself is worth assurance 2 at most, which is not seen here either.

    JSON: admitted (by the rules), checks (name, code, text), code, identity, rules, decision, claims, outcome (granted, code,
    message, principal, lifetime in seconds, assurance, rights, newcomer; granted is null where there is no database yet).
    """
    settings = load_settings(settings_file)
    if source != "-":
        raise UsageError(
            "token-in-arguments",
            "a token on the command line can be read by everybody on this machine",
            hint="write --token - and send the token on standard input; consider this one stolen",
        )
    token = _read_token()
    opaque = _chosen(settings, issuer_id).url if issuer_id else _only_introspected(settings)
    wish = Wish(
        invite=None if invite_source is None else read_secret(invite_source, "an invitation", sys.stdin.buffer),
        address=_ip(address),
    )
    with foreseeing.opened(settings) as found:
        foresee = None if found is None else found.certificate
        report = asyncio.run(_explained(settings, token, None if kind is None else ProofKind(kind), opaque, wish, foresee))
    data, text = explanation(report, with_claims=with_claims)
    decided = Status.REFUSED if data["code"] is not None else Status.DONE
    return Result(data=data, text=text, status=decided if report.error is None else status_of(report.error))


# --- what the commands do --------------------------------------------------------------------------------------------


def _looked_at(wanted: IssuerTable) -> Report:
    source = IssuerSource(
        url=wanted.url,
        ca_file=wanted.ca_file,
        jwks_hosts=frozenset(wanted.allowed_hosts),
        bearer_file=wanted.bearer_file,
        proxy=wanted.proxy,
        allow_loopback_http=wanted.allow_loopback_http,
    )
    report = asyncio.run(probe(source, issuer_id=wanted.id, client_id=wanted.client_id))
    if not report.usable:
        reasons = "; ".join(finding.text for finding in report.findings if finding.level is Level.FAILURE)
        raise ConfigError(
            "issuer-unusable",
            f"{wanted.url} cannot be used: {reasons}",
            hint=f"see 'certauth signer issuer check {wanted.url}', or add it with --offline",
        )
    return report


def _completed(wanted: IssuerTable, report: Report) -> IssuerTable:
    """What was asked for, completed by what was found; other hosts of its endpoints are never added unasked."""
    found = report.table
    if found is None:
        return wanted
    missing = sorted(set(found.allowed_hosts) - set(wanted.allowed_hosts))
    if missing:
        raise ConfigError(
            "issuer-hosts",
            f"{wanted.url} has keys or endpoints on {', '.join(missing)}",
            hint=f"if they belong to it, add {' '.join(f'--allowed-host {host}' for host in missing)}",
        )
    return dataclasses.replace(wanted, algorithms=wanted.algorithms or found.algorithms, scopes=wanted.scopes or found.scopes)


def _recorded(settings_file: Path, wanted: IssuerTable, *, why: str, allow_example_keys: bool) -> list[int]:
    """The index of the log's entry on a new provider, once it is durable; none where no facility was made yet."""
    if not load_settings(settings_file).database_path.exists():
        return []
    event = record.IssuerAdded(issuer_id=wanted.id, url=wanted.url, by=acting(), why=why)
    request_id = f"issuer-{secrets.token_hex(12)}"
    with facility(settings_file, allow_example_keys=allow_example_keys) as place:
        return [place.ledger.record(Submission(request_id=request_id, digest=b"issuer", event=event)).index]


async def _states(settings: Settings) -> dict[str, SourceStatus]:
    key_source = KeySource(key_sources(settings))
    try:
        await key_source.warm()
        return {status.url: status for status in key_source.status()}
    finally:
        await key_source.aclose()


async def _explained(
    settings: Settings, token: str, kind: ProofKind | None, opaque_issuer: str | None, wish: Wish, foresee: Foresee | None
) -> TokenReport:
    key_source = KeySource(key_sources(settings))
    introspection = Introspection(introspection_sources(settings), key_source=key_source, clock=system_clock)
    explaining = Explaining(
        signer_id=settings.public_url,
        issuers=registry(issuer.issuer() for issuer in settings.issuer),
        rules={issuer.id: issuer.rules for issuer in settings.issuer},
        key_source=key_source,
        introspection=introspection,
        foresee=foresee,
        own_clients={issuer.url: issuer.client_id for issuer in settings.issuer if issuer.public_client_id is not None},
    )
    try:
        return await explaining.explain(token, kind=kind, opaque_issuer=opaque_issuer, now=system_clock(), wish=wish)
    finally:
        await introspection.aclose()
        await key_source.aclose()


def _read_token() -> str:
    """At most one token's worth of standard input; more than that is told apart by the verifier."""
    if sys.stdin.isatty():
        # A terminal hands over lines of up to 4095 characters.
        progress("paste the token, then press Enter and Ctrl-D; one of over 4000 characters must come from a file")
    data = sys.stdin.buffer.read(MAX_PROOF + 1024)
    return data.decode("utf-8", "replace").strip()


def _ip(text: str | None) -> Address | None:
    if text is None:
        return None
    try:
        return ip_address(text)
    except ValueError as error:
        raise UsageError("bad-address", f"{text[:60]!r} is no IP address", hint="write 192.0.2.7, or 2001:db8::7") from error


def _chosen(settings: Settings, issuer_id: str) -> IssuerSettings:
    for issuer in settings.issuer:
        if issuer.id == issuer_id:
            return issuer
    known = ", ".join(issuer.id for issuer in settings.issuer) or "none"
    raise UsageError("issuer-unknown", f"no identity provider is called {issuer_id!r} here", hint=f"configured: {known}")


def _only_introspected(settings: Settings) -> str | None:
    urls = [issuer.url for issuer in settings.issuer if issuer.introspection]
    return urls[0] if len(urls) == 1 else None


def _id_from(url: str) -> str:
    """A short name from the host, ``idp.campus.example`` gives ``idp-campus``; the admin will choose a better one."""
    host = urlsplit(url).hostname or ""
    words = [word for word in re.split(r"[^a-z0-9]+", host.lower()) if word and not word.isdigit()]
    return "-".join(words[:-1] or words)[:32].strip("-") or "idp"


# --- what they say ---------------------------------------------------------------------------------------------------


def _facts(findings: Iterable[Finding]) -> list[dict[str, str]]:
    return [{"level": str(finding.level), "topic": finding.topic, "text": finding.text} for finding in findings]


def _lines(findings: Iterable[Finding]) -> str:
    return "\n".join(f"{_MARKS[finding.level]:<8} {finding.topic:<15} {finding.text}" for finding in findings)


def _row(issuer: IssuerSettings, status: SourceStatus | None) -> dict[str, object]:
    return {
        "id": issuer.id,
        "url": issuer.url,
        "client_id": issuer.client_id,
        "public_client_id": issuer.public_client_id,
        "kinds": list(issuer.kinds),
        "bindings": list(issuer.bindings),
        "enrolment": issuer.enrolment,
        "assurance": issuer.assurance,
        "rules": len(issuer.rule),
        "state": "not asked" if status is None else status.state,
        "keys": None if status is None else status.keys,
        "failure": None if status is None else status.failure,
    }


def _cell(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)

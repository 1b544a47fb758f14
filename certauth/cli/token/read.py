"""``certauth token inspect`` and ``verify``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path

import click

from certauth.cli import options
from certauth.cli.output import Result, Status, command
from certauth.cli.token.common import read, source_argument
from certauth.client.outlook import Finding, Situation, outlook
from certauth.client.profile import Profile
from certauth.clock import rfc3339, system_clock
from certauth.errors import CertauthError, UsageError
from certauth.tokens.inspect import describe
from certauth.tokens.meaning import Address


@command(
    example="certauth token inspect run7\n"
    "certauth token inspect job.token --with job.crt --service data --operation read --path /data/run7/frame1"
)
@source_argument
@click.option("--service", help="Ask whether it would pass at this service,")
@click.option("--operation", help="for this operation, e.g. read,")
@click.option("--path", help="on this path,")
@click.option("--from", "address", metavar="ADDRESS", help="from this address,")
@click.option("--project", help="for this project,")
@click.option("--body", metavar="FILE|sha256:HEX", help="with this body,")
@click.option(
    "--with", "peer", metavar="CERT|FINGERPRINT", help="in the hands of this certificate; default: the one of your login."
)
@options.profile_option
def inspect(
    *,
    source: str | None,
    service: str | None,
    operation: str | None,
    path: str | None,
    address: str | None,
    project: str | None,
    body: str | None,
    peer: str | None,
    profile_name: str | None,
) -> Result:
    """Say in words who may do what with a token, where, until when, and through whose hands and how narrowed it came.

    Then, what speaks against it now: the time, the certificate at hand, and whatever you ask with the options.
    No signature and no revocation is looked at; 'certauth token verify' verifies.
    Exit status 3 if something was asked and the token would be refused.

    JSON: profile, kid, issuer, user, jti, issued_at, not_before, expires_at, usable_until, audience, assurance, groups, roles,
    projects, rights, peer_fingerprint, delegated_to, delegable, delegation_depth, attestations, sealed, block_ids, narrowings,
    words, checks (a list of block, says, holds, needs; holds is null where it cannot be known), refused (true if one fails).
    """
    profile, now = options.active_if_any(profile_name), system_clock()
    text = read(source, profile)
    situation = Situation(
        now=now,
        peer=options.read_fingerprint(peer) if peer is not None else _own_fingerprint(profile),
        service=service,
        operation=operation,
        path=path,
        address=None if address is None else _address(address),
        project=project,
        body_sha256=None if body is None else options.body_digest(body),
    )
    facts = describe(text, now=now)
    findings = outlook(text, situation)
    refused = any(finding.holds is False for finding in findings)
    asked = any(one is not None for one in (service, operation, path, address, project, body, peer))
    data = {**facts, "checks": [_finding_facts(finding) for finding in findings], "refused": refused}
    lines = [sentences(facts), "", *_outlook_lines(findings, situation, refused=refused)]
    return Result(data=data, text="\n".join(lines), status=Status.REFUSED if refused and asked else Status.DONE)


def _own_fingerprint(profile: Profile | None) -> str | None:
    """The certificate of the login, valid or not; ``None`` without one."""
    try:
        return None if profile is None else profile.stored_credential().fingerprint
    except CertauthError:
        return None


def _address(text: str) -> Address:
    try:
        return ip_address(text)
    except ValueError as error:
        raise UsageError("usage", f"{text[:80]!r} is not an address", hint="e.g. --from 10.1.2.3") from error


def _finding_facts(finding: Finding) -> dict[str, object]:
    return {"block": finding.block, "says": finding.says, "holds": finding.holds, "needs": finding.needs}


def _outlook_lines(findings: tuple[Finding, ...], situation: Situation, *, refused: bool) -> list[str]:
    failing = [finding.says for finding in findings if finding.holds is False]
    unknown = [f"{finding.says} (depends on {finding.needs})" for finding in findings if finding.holds is None]
    hands = "no certificate at hand" if situation.peer is None else f"in the hands of certificate {situation.peer[:16]}…"
    lines = [f"Now, {hands}: it would be refused." if refused else f"Now, {hands}: nothing known speaks against it."]
    lines += [f"  fails    {said}" for said in failing]
    lines += [f"  unknown  {said}" for said in unknown]
    return [*lines, "Not looked at: signatures, revocations, the service's own rules."]


@command(name="verify", example="certauth token verify run7\ncertauth token verify job.token --bundle bundle.json")
@source_argument
@click.option("--bundle", "bundle_file", type=options.READABLE, help="Trust bundle to verify with; default: the profile's.")
@options.example_keys_option
@options.profile_option
def verify(*, source: str | None, bundle_file: Path | None, allow_example_keys: bool, profile_name: str | None) -> Result:
    """Verify a token's signatures and form under a facility's keys, and that it has not run out.

    A service checks more: the request, the certificate in whose hands it is, revocations, and whether it trusts the keys of
    other facilities that vouch in it.
    Exit status 3 if it does not verify.

    JSON: jti, user, audience, rights, expires_at, usable_until, delegable, holder, blocks, attested_by (key ids),
    state ("valid" or "expired"), words.
    """
    # Here, because it takes the Datalog engine, for which inspecting should not wait.
    from certauth.client.stored import verified

    profile = options.active_if_any(profile_name)
    text = read(source, profile)
    if bundle_file is not None:
        bundle = options.read_bundle(bundle_file, allow_example_keys=allow_example_keys)
    elif profile is not None:
        bundle = profile.bundle()
    else:
        raise UsageError("no-bundle", "under whose keys?", hint="log in, or name a trust bundle with --bundle")
    token, now = verified(text, bundle), system_clock()
    facts = describe(text, now=now)
    expired = _end(facts) <= now
    attested_by = [str(one["key"]) for one in _attestations(facts)]
    data = {
        "jti": token.jti,
        "user": token.user,
        "audience": list(token.audience),
        "rights": [list(right) for right in token.rights],
        "expires_at": rfc3339(token.expires_at),
        "usable_until": facts["usable_until"],
        "delegable": token.delegable,
        "holder": token.holder,
        "blocks": list(token.block_ids),
        "attested_by": attested_by,
        "state": "expired" if expired else "valid",
        "words": facts["words"],
    }
    verdict = "it has run out" if expired else f"verified under the keys of {bundle.domain}"
    if attested_by:
        verdict += f"\nwhether to believe key {', '.join(attested_by)} is for each service to say"
    status = Status.REFUSED if expired else Status.DONE
    return Result(data=data, text=f"{sentences(facts)}\n\n{verdict}", status=status)


def _end(facts: Mapping[str, object]) -> datetime:
    return datetime.fromisoformat(str(facts["usable_until"]))


def _attestations(facts: Mapping[str, object]) -> list[Mapping[str, object]]:
    found = facts["attestations"]
    return found if isinstance(found, list) else []


def sentences(facts: Mapping[str, object]) -> str:
    """The sentences of ``describe`` as lines."""
    words = facts["words"]
    return "\n".join(map(str, words)) if isinstance(words, list) else ""

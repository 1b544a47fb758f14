"""``certauth agent``: long-running work that goes on while its owner is away."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

import click

from certauth.cli import options
from certauth.cli.output import Result, command, fields, group, table
from certauth.client import agents
from certauth.client.agents import AgentWish, Created
from certauth.clock import in_words, rfc3339, system_clock
from certauth.errors import UsageError
from certauth.names import label
from certauth.requests import Right

agent = group("agent", help="Hand long-running work a key, a certificate and a part of your rights of its own.")


@command(
    agent,
    example="certauth agent create run7 --service data --read /data/run7/ --for 14d\n"
    "certauth agent create mover --service data --all --for 3d --from 192.0.2.0/24 --output ./mover",
)
@click.argument("name")
@click.option("--service", "services", multiple=True, help="The service at which it may do this; may be repeated.")
@options.rights_options
@click.option("--all", "everything", is_flag=True, help="Everything you may do now, at --service or, without it, anywhere.")
@click.option("--for", "lifetime", type=options.DURATION, required=True, help="How long it lives at most, e.g. 14d.")
@click.option("--from", "networks", metavar="CIDR", multiple=True, help="It gets something from this network only.")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), help="Directory for its key and certificate.")
@options.ca_option
@options.profile_option
def create(
    *,
    name: str,
    services: tuple[str, ...],
    reads: tuple[str, ...],
    writes: tuple[str, ...],
    rights: tuple[str, ...],
    everything: bool,
    lifetime: timedelta,
    networks: tuple[str, ...],
    output: Path | None,
    ca_file: tuple[Path, ...],
    profile_name: str | None,
) -> Result:
    """Make an agent NAME that works for you, with a key of its own, for a time that you set.

    It may do what you name here, as long as you may do it yourself, and renews its own certificates while you are away.
    The directory is all it needs: run the job with CERTAUTH_HOME set to it. Whoever has the directory is the agent.

    Agents can be made within an hour of a login. 'certauth agent stop' ends one at once, everywhere.

    JSON: principal, owner, directory, rights, expires_at, not_after, clamped, environment.
    """
    wanted = [Right.make("read", path) for path in reads] + [Right.make("write", path) for path in writes]
    wanted += [Right.make(*options.split_right(right)) for right in rights]
    if everything is bool(wanted):
        raise UsageError("usage", "say what the agent may do", hint="--read, --write or --right; or --all, for everything")
    if wanted and not services:
        raise UsageError("usage", "at which service may it do this?", hint="add --service")
    profile = options.active(profile_name)
    wish = AgentWish(
        name=label(name, "the name of an agent"),
        rights=None if everything else tuple((service, right) for service in services for right in wanted),
        services=services,
        networks=networks,
        lifetime=lifetime,
    )
    directory = output or agents.default_directory(options.home(profile_name), profile, name)
    made = agents.create(profile, wish, directory.absolute(), ca=options.read_ca(ca_file), clock=system_clock)
    return _made(made)


def _made(made: Created) -> Result:
    record, now = made.record, system_clock()
    end = made.login.credential.leaf.not_valid_after_utc
    data = {
        "principal": record.principal,
        "owner": record.owner,
        "directory": str(made.directory),
        "rights": [list(right) for right in made.rights],
        "expires_at": record.expires_at,
        "not_after": rfc3339(end),
        "clamped": None if made.clamped is None else dict(made.clamped),
        "environment": {"CERTAUTH_HOME": str(made.directory)},
    }
    lines = [
        fields(
            [
                ("agent", record.principal),
                ("may", "; ".join(f"{operation} {path} at {service}" for service, operation, path in made.rights)),
                ("lives until", f"{record.expires_at}, {in_words(agents.ends(record) - now)} left"),
                ("certificate until", rfc3339(end)),
                ("stored in", made.directory),
                ("stop it with", f"certauth agent stop {record.principal.rpartition('.')[2]}"),
            ]
        )
    ]
    if made.clamped is not None:
        lines.append(f"Less than you asked for: {_clamp(made.clamped)}.")
    lines += ["", "For the job:", f"  export CERTAUTH_HOME={made.directory}", "  certauth renew --daemon &"]
    return Result(data=data, text="\n".join(lines))


def _clamp(clamped: Mapping[str, object]) -> str:
    match clamped:
        case {"requested": int(asked), "granted": int(got)}:
            return f"{in_words(timedelta(seconds=asked))} asked, {in_words(timedelta(seconds=got))} granted"
        case _:
            return "the signer cut its life"


@command(agent, name="list", example="certauth agent list")
@options.ca_option
@options.profile_option
def list_(*, ca_file: tuple[Path, ...], profile_name: str | None) -> Result:
    """Show your agents, as the signer knows them: also one that somebody else made in your name.

    JSON: agents (a list of name, principal, state, rights, networks, created_at, expires_at, stopped_at, renewed_at,
    certificate, not_after).
    """
    profile = options.active(profile_name)
    found = agents.listing(profile, ca=options.read_ca(ca_file), clock=system_clock)
    if not found:
        return Result(data={"agents": []}, text="You have no agents.")
    rows = [
        (one["name"], one["state"], _time(one, "expires_at"), _time(one, "renewed_at"), _time(one, "not_after"), _may(one))
        for one in found
    ]
    return Result(
        data={"agents": found}, text=table(("name", "state", "lives until", "renewed", "certificate until", "may"), rows)
    )


def _time(agent: Mapping[str, object], name: str) -> str:
    value = agent.get(name)
    return value if isinstance(value, str) and _is_time(value) else "-"


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _may(agent: Mapping[str, object]) -> str:
    return "; ".join(f"{operation} {path} at {service}" for service, operation, path in agents.rights_of(agent))


@command(agent, example="certauth agent stop run7 --reason 'run 7 is finished'")
@click.argument("name")
@click.option("--reason", default="stopped by its owner", show_default=True, help="Why; it is recorded.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.ca_option
@options.profile_option
def stop(*, name: str, reason: str, yes: bool, ca_file: tuple[Path, ...], profile_name: str | None) -> Result:
    """End an agent of yours for good: it gets nothing more, and services refuse what it has.

    Its name cannot be used again, and its directory is left as it is.

    JSON: name, stopped (false if it had been stopped before).
    """
    profile = options.active(profile_name)
    if not yes and not click.confirm(f"Stop the agent {name} for good?", err=True):
        raise UsageError("not-confirmed", "nothing was stopped", hint="add --yes where nobody can be asked")
    stopped = agents.stop(profile, name, reason=reason, ca=options.read_ca(ca_file), clock=system_clock)
    text = f"Stopped {name}. Services refuse it as soon as they have read the facility's next list of revocations."
    return Result(data={"name": name, "stopped": stopped}, text=text if stopped else f"{name} had been stopped before.")

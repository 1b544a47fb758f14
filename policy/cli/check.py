"""``certauth policy check``."""

from __future__ import annotations

from pathlib import Path

import click

from certauth.cli.output import Result, Status, command
from policy.rehearsal import Outcome, rehearse
from policy.rules import Policy, Route
from policy.trust import Trust


@command(example="certauth policy check policy.toml --trust trust.toml")
@click.argument("document", type=click.Path(path_type=Path), metavar="POLICY", default="policy.toml")
@click.option("--trust", type=click.Path(path_type=Path), help="Check this trust document and the files it names, too.")
@click.option("--insecure-example-keys", "example_keys", is_flag=True, help="Accept keys whose private half is published.")
def check(document: Path, trust: Path | None, *, example_keys: bool) -> Result:
    """Check a policy document and run the tests in it.

    Exits with 1 if a document is wrong, with 3 if a test of it comes out otherwise than it says.

    JSON: policy, service, digest, routes, tests, failed; trust, if one was named.
    """
    policy = Policy.load(document)
    outcomes = rehearse(policy)
    failures = [outcome.failure for outcome in outcomes if outcome.failure is not None]
    data: dict[str, object] = {
        "policy": str(document),
        "service": policy.service,
        "digest": policy.digest,
        "routes": [_route(route) for route in policy.routes],
        "tests": [_test(outcome) for outcome in outcomes],
        "failed": len(failures),
    }
    lines = [f"{document}: {_count(len(policy.routes), 'route')}, {_count(len(outcomes), 'test')}, {len(failures)} failed"]
    for outcome in outcomes:
        if outcome.failure is not None:
            lines += [outcome.failure, outcome.explanation.text]
    if trust is not None:
        loaded = Trust.load(trust, allow_example_keys=example_keys)
        problems = {str(domain): error.message for domain, error in loaded.problems.items()}
        data["trust"] = {"domains": [str(domain) for domain in loaded.state.domains], "problems": problems}
        lines.append(f"{trust}: trusts {', '.join(map(str, loaded.state.domains))}")
        lines += [f"  {domain}: {problem}" for domain, problem in problems.items()]
    return Result(data=data, text="\n".join(lines), status=Status.REFUSED if failures else Status.DONE)


def _route(route: Route) -> dict[str, object]:
    return {
        "number": route.number,
        "path": route.path,
        "methods": ["WEBSOCKET"] if route.websocket else sorted(route.methods),
        "access": str(route.access),
    }


def _test(outcome: Outcome) -> dict[str, object]:
    return {
        "number": outcome.test.number,
        "name": outcome.test.name,
        "expected": outcome.test.expect,
        "got": outcome.got,
        "explanation": outcome.explanation.data,
    }


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"

"""``certauth policy explain``."""

from __future__ import annotations

from pathlib import Path

import click

from certauth.cli.output import Result, command
from policy.explain import explain_record, find_records


@command(example="certauth policy explain 0198f2c4-7b1e-7a31-9c55-0d2f6b1e8a40 --decisions decisions.jsonl")
@click.argument("request_id")
@click.option(
    "--decisions",
    type=click.Path(path_type=Path),
    default="decisions.jsonl",
    show_default=True,
    help="A decision file, or the path of them that policy.toml names.",
)
def explain(request_id: str, decisions: Path) -> Result:
    """Say why a request was permitted or denied: which rule, which check, which value.

    The files are verified first; one that was changed is refused.

    JSON: request, decisions.
    """
    found = [explain_record(record) for record in find_records(decisions, request_id)]
    return Result(
        data={"request": request_id, "decisions": [explanation.data for explanation in found]},
        text="\n".join(explanation.text for explanation in found),
    )

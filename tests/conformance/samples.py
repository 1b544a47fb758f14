"""``python -m tests.conformance.samples DIRECTORY``: every sample of the Biscuit specification, read by the engine and by us.

The directory is ``samples/current`` of a copy of https://github.com/eclipse-biscuit/biscuit: tokens, and ``samples.json`` with
what every implementation has to find in them. Prints a row for each sample, and ends with 1 if any reading differs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from certauth.tokens.datalog import KeyRef
from tests.conformance.agreement import Reading, key_text, read


def main(directory: Path) -> int:
    """0 if the engine, the specification and we agree on every sample."""
    described = json.loads((directory / "samples.json").read_text(encoding="utf-8"))
    root = KeyRef(0, bytes.fromhex(described["root_public_key"]))
    differing = 0
    for sample in described["testcases"]:
        reading = read((directory / sample["filename"]).read_bytes(), root)
        differences = [*reading.differences, *_from_description(reading, sample)]
        differing += bool(differences)
        verdict = "verifies" if reading.accepted else "refused"
        seen = "not read" if reading.token is None else f"{len(reading.token.blocks)} blocks"
        print(f"{sample['filename']:<48} {verdict:<9} {seen:<9} {reading.code:<22} {'; '.join(differences) or 'agreed'}")
    print(f"{len(described['testcases'])} samples, {differing} with differences")
    return int(differing > 0 or not described["testcases"])


def _from_description(reading: Reading, sample: dict[str, Any]) -> Iterator[str]:
    """Where a reading differs from what the specification says about the sample."""
    validations = sample["validations"].values()
    if reading.accepted != all("Format" not in validation["result"].get("Err", {}) for validation in validations):
        yield "the specification says otherwise about its form"
    if not reading.code:
        yield "it follows the profile, which no sample does"
    if reading.token is None:
        return
    if [block["version"] for block in sample["token"]] != [block.version for block in reading.token.contents]:
        yield "versions of Datalog differ from the specification"
    keys = [None if link.external is None else key_text(link.external.key) for link in reading.token.blocks]
    if [block.get("external_key") for block in sample["token"]] != keys:
        yield "keys of third parties differ from the specification"
    ids = [link.signature.hex() for link in reading.token.blocks]
    if reading.accepted and any(validation["revocation_ids"] != ids for validation in validations):
        yield "revocation ids differ from the specification"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

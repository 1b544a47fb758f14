"""``certauth signer user import``: enrolling many people from a file.

The whole file is checked first, against itself and against who is enrolled; a single fault and nobody is. Then each person is
an entry of the log of their own. A run that was cut off is finished by running it again: who is enrolled exactly as the file
says is passed over, and who is enrolled otherwise is a fault, for a file never changes anybody.
"""

from __future__ import annotations

from pathlib import Path

import click

from certauth.cli.output import Result, command, progress
from certauth.enrolment import Enrolment, Login
from certauth.errors import CertauthError
from certauth.names import Kind, Principal
from signer.cli.common import Facility, example_keys_option, facility, reason_option, settings_option
from signer.cli.people import checked_reason, login_of
from signer.cli.people_file import Faults, Line, read
from signer.cli.user import enrol, with_terms

_QUIET = 50
"""People up to which, and after which each, nothing is said."""


@command(name="import", example="certauth signer user import people.csv --reason 'summer school 2026' --dry-run")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--dry-run", is_flag=True, help="Only check; enrol nobody.")
@reason_option
@settings_option
@example_keys_option
def import_(file: Path, reason: str, settings_file: Path, *, dry_run: bool, allow_example_keys: bool) -> Result:
    """Enrol the people in FILE: comma-separated values in UTF-8, the first line naming the columns.

    Needed are name and subject; also known are issuer, display, group, role, project, right, assurance and max_lifetime.
    A cell lists several groups or rights with semicolons in between. Nobody is enrolled if any line is wrong, and nobody who
    is enrolled already is changed. After an interruption, run it again.

    JSON: enrolled, present (names), dry_run.
    """
    checked_reason(reason)
    with facility(settings_file, allow_example_keys=allow_example_keys) as place:
        faults = Faults()
        new, present = _compare(place, read(file, faults), faults)
        faults.check(file)
        for count, (enrolment, display) in enumerate([] if dry_run else new, start=1):
            enrol(place, enrolment, display, reason=reason, action="import")
            if count % _QUIET == 0 and len(new) > _QUIET:
                progress(f"{count} of {len(new)} people enrolled")
    done = [enrolment.principal.id for enrolment, _ in new]
    data = {"enrolled": done, "present": present, "dry_run": dry_run}
    said = "would be enrolled" if dry_run else "enrolled"
    return Result(data=data, text=f"{len(done)} people {said}; {len(present)} were enrolled already.")


def _compare(place: Facility, lines: list[Line], faults: Faults) -> tuple[list[tuple[Enrolment, str]], list[str]]:
    """Who is new, and who is there exactly as the file says."""
    new: list[tuple[Enrolment, str]] = []
    present: list[str] = []
    logins: dict[Login, int] = {}
    for line in lines:
        try:
            principal = Principal.make(place.authority.domain, Kind.USER, line.name)
            login = login_of(place, line.issuer, line.subject)
        except CertauthError as error:
            faults.add(line.number, error.message)
            continue
        # The same provider may be written by its id on one line and by its URL, or not at all, on another.
        if logins.setdefault(login, line.number) != line.number:
            faults.add(line.number, f"the same login as on line {logins[login]}")
        enrolment = with_terms(Enrolment(principal=principal, logins=(login,)), line.terms)
        found = place.store.enrolled_principal(principal)
        if found is None:
            taken = place.store.enrolment(issuer=login.issuer, subject=login.subject)
            if taken is not None:
                faults.add(line.number, f"the login leads to {taken.principal} already")
            new.append((enrolment, line.display))
        elif login in found.enrolment.logins and _same(found.enrolment, enrolment) and found.display == line.display:
            present.append(line.name)
        else:
            faults.add(line.number, f"{line.name} is enrolled already, with another login or other terms")
    return new, present


def _same(present: Enrolment, wanted: Enrolment) -> bool:
    """Whether both say the same, however many logins lead there and whether or not it is disabled just now."""
    return (present.groups, present.roles, present.projects, present.rights, present.assurance, present.max_lifetime) == (
        wanted.groups,
        wanted.roles,
        wanted.projects,
        wanted.rights,
        wanted.assurance,
        wanted.max_lifetime,
    )

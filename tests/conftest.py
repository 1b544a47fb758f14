"""What every test shares: where a real part is missing, say so; where it must not be missing, fail."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says something about the machine, not about the code. The same examples every time: a change is not
# held up by what it did not cause. Others are looked for with ``pytest --hypothesis-profile=explore``.
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("certauth", settings.get_profile("explore"), derandomize=True)
settings.load_profile("certauth")

_skipped: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember what was skipped."""
    if report.skipped and not hasattr(report, "wasxfail"):
        _skipped.append(report.nodeid)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """With CI=true a skip is a failure: a real part that is missing there is a gap nobody would see."""
    if _skipped and os.environ.get("CI") == "true" and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the skips that failed the run."""
    if _skipped and os.environ.get("CI") == "true":
        terminalreporter.write_line(f"skipped with CI=true, which is a failure: {', '.join(sorted(_skipped))}", red=True)

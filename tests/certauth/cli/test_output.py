"""What every command promises: streams, exit status, errors for people and for programs."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from certauth import errors
from certauth.cli import output, root
from certauth.cli.output import Mount, Result, Status, command, group, status_of
from certauth.errors import CertauthError

make = group("make", help="Commands for these tests.")


@command(make, example="make good")
def good() -> Result:
    """Succeed."""
    output.progress("half-way")
    return Result(data={"n": 1, "name": "é\x1b[31m"}, text="one\x1b[31m\tline\nnext")


@command(make, example="make no-match")
def no_match() -> Result:
    """Say something and exit with 3."""
    return Result(data={}, text="no", status=Status.REFUSED)


@command(make, example="make nothing")
def nothing() -> None:
    """Report nothing."""


@command(make, example="make bad")
@click.argument("kind")
def bad(kind: str) -> Result:
    """Fail as asked."""
    raise {
        "hint": errors.Refused("no-entry", "you may not\x1b[2J", hint="ask\x07 nicely", retry_after=7),
        "plain": errors.LogError("log-gap", "an entry is missing"),
        "own": CertauthError("odd", "something odd"),
        "file": FileNotFoundError(2, "No such file or directory", "/nowhere"),
        "system": OSError("it broke"),
        "click": click.ClickException("It went wrong."),
        "abort": click.Abort(),
        "interrupt": KeyboardInterrupt(),
        "bug": ZeroDivisionError(),
    }[kind]


def run(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of the group above."""
    result = CliRunner(env=environment).invoke(make, list(arguments))
    return result.exit_code, result.stdout, result.stderr


def test_every_error_class_has_an_exit_status():
    """No error class of the project is missing from the one table."""
    classes = {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, CertauthError)}
    assert classes - {CertauthError} == set(output.STATUS_OF)


def test_the_numbers_are_the_documented_ones():
    """The exit statuses are part of the interface and do not drift."""
    assert [int(status) for status in Status] == [0, 1, 2, 3, 4, 5, 130]
    assert status_of(errors.LoginRequired("a", "b")) == 4
    assert status_of(errors.UnavailableError("a", "b")) == 5
    assert status_of(errors.TokenError("a", "b")) == 3
    assert status_of(CertauthError("a", "b")) == 1


def test_a_subclass_counts_as_its_parent():
    """A more precise error keeps the status of the class it refines."""

    class DamagedPage(errors.LogError):
        """One page of a log."""

    assert status_of(DamagedPage("a", "b")) == 3


def test_results_go_to_stdout_and_progress_to_stderr():
    """What a pipe receives is the result and nothing else, with control characters made visible."""
    assert run("good") == (0, "one\\x1b[31m\tline\nnext\n", "half-way\n")


def test_json_results_are_one_object_and_progress_is_json_lines():
    """With --json both streams can be parsed, and neither can steer a terminal."""
    status, out, err = run("good", "--json")
    assert (status, json.loads(out), json.loads(err)) == (0, {"n": 1, "name": "é\x1b[31m"}, {"progress": "half-way"})
    assert "\x1b" not in out


def test_a_result_may_carry_its_own_status():
    """A verdict of no is a result on stdout and a status, not an error."""
    assert run("no-match") == (3, "no\n", "")


def test_a_command_may_have_nothing_to_say():
    """A command without a result prints nothing and succeeds."""
    assert run("nothing") == (0, "", "")


def test_errors_have_sentence_code_hint_and_waiting_time():
    """An error reads the same everywhere and cannot smuggle escapes into a terminal."""
    status, out, err = run("bad", "hint")
    assert (status, out) == (3, "")
    assert err.splitlines() == [
        "certauth: error: you may not\\x1b[2J [no-entry]",
        "certauth: hint: ask\\x07 nicely",
        "certauth: hint: try again in 7 s",
    ]


def test_errors_are_json_under_json():
    """With --json an error is one object on stderr, with the exit status in it."""
    status, out, err = run("bad", "hint", "--json")
    assert (status, out) == (3, "")
    assert json.loads(err)["error"] == {
        "code": "no-entry",
        "message": "you may not\x1b[2J",
        "status": 3,
        "hint": "ask\x07 nicely",
        "retry_after": 7,
    }
    assert set(json.loads(run("bad", "plain", "--json")[2])["error"]) == {"code", "message", "status"}


@pytest.mark.parametrize(
    ("kind", "status", "said"),
    [
        ("plain", 3, "certauth: error: an entry is missing [log-gap]\n"),
        ("own", 1, "certauth: error: something odd [odd]\n"),
        ("file", 1, "certauth: error: /nowhere: No such file or directory [system]\n"),
        ("system", 1, "certauth: error: it broke [system]\n"),
        ("click", 1, "certauth: error: it went wrong [failed]\n"),
        ("abort", 130, "certauth: interrupted\n"),
        ("interrupt", 130, "\ncertauth: interrupted\n"),
    ],
)
def test_other_failures_read_the_same(kind: str, status: int, said: str):
    """What the system, click or the user does to a command is reported in the same form."""
    assert run("bad", kind) == (status, "", said)


def test_a_bug_is_not_hidden():
    """An error nobody expected keeps its traceback."""
    assert isinstance(CliRunner().invoke(make, ["bad", "bug"]).exception, ZeroDivisionError)


def test_usage_errors_name_the_help_to_read():
    """A mistyped command line exits with 2, in our form, as JSON too, even though it did not parse."""
    assert run("good", "--frob") == (
        2,
        "",
        "certauth: error: no such option '--frob' [usage]\ncertauth: hint: see 'make good --help'\n",
    )
    status, _, err = run("good", "--frob", "--json")
    assert (status, json.loads(err)["error"]["code"]) == (2, "usage")


def test_a_group_alone_prints_its_help_and_exits_with_two():
    """A noun without a verb is a usage mistake; the help goes to stderr."""
    status, out, err = run()
    assert (status, out) == (2, "")
    assert "no-match" in err


def test_unknown_variables_are_named_and_refused():
    """A misspelt setting is not silently ignored; help still works."""
    status, _, err = run("good", CERTAUTH_HOMER="/x", CERTAUTH_AWAY="1")
    assert status == 1, "as any other setting that is wrong"
    assert "CERTAUTH_AWAY, CERTAUTH_HOMER" in err
    assert "[unknown-variable]" in err
    assert run("good", "--help", CERTAUTH_HOMER="/x")[0] == 0
    assert run("good", CERTAUTH_HOME="/x")[0] == 0


def test_every_command_shows_an_example_in_its_help():
    """Help ends with a command line that can be copied."""
    assert "Example:\n    make no-match\n" in run("no-match", "--help")[1]


def test_colour_only_on_a_terminal_and_never_with_no_color(monkeypatch: pytest.MonkeyPatch):
    """Escapes are written to terminals only, and not if the user asked for none."""

    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b" in output._coloured("error:", Terminal())  # type: ignore[arg-type]  # only isatty is asked
    monkeypatch.setenv("NO_COLOR", "1")
    assert output._coloured("error:", Terminal()) == "error:"  # type: ignore[arg-type]
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert output._coloured("error:", Terminal()) == "error:"  # type: ignore[arg-type]


def test_fields_leave_out_what_is_none_and_align():
    """Facts are aligned; an unknown one takes no line."""
    assert output.fields([("a", 1), ("long", None), ("bcd", "x")]) == "a    1\nbcd  x"
    assert output.fields([]) == ""


def test_tables_align_without_trailing_spaces():
    """Columns are as wide as their widest cell."""
    assert output.table(("name", "n"), [("x", 1), ("longer", "22")]) == "name    n\nx       1\nlonger  22"


def test_a_missing_extra_says_what_to_install():
    """A command whose distribution is missing names it, instead of a traceback."""
    lazy = group("lazy", help="x", mounts={"there": Mount(target="no_such_module.cli:group", help="x", extra="signer")})
    result = CliRunner().invoke(lazy, ["there", "--json"])
    assert result.exit_code == 2
    error = json.loads(result.stderr)["error"]
    assert (error["code"], error["hint"]) == ("not-installed", "pip install 'iri-certauth[signer]'")
    with pytest.raises(errors.UsageError) as caught:
        output.load("no_such_module:x", extra=None)
    assert caught.value.hint == "pip install 'iri-certauth'"


def test_a_mount_must_be_a_command():
    """A wrong import string is a bug and shows itself."""
    with pytest.raises(TypeError):
        Mount(target="json:dumps", help="x").load()


def test_group_help_lists_lazy_and_present_commands_but_not_hidden_ones():
    """The help of a group lists everything without importing anything."""
    mixed = group("mixed", help="x", mounts={"far": Mount(target="no_such_module:x", help="Far away.")})
    command(mixed, example="x")(lambda: None).name = "near"
    mixed.add_command(click.Command("secret", hidden=True))
    mixed.add_command(click.Command("near", help="Close by."))
    out = CliRunner().invoke(mixed, ["--help"]).stdout
    assert "Far away." in out
    assert "Close by." in out
    assert "secret" not in out


def test_standalone_use_by_other_programs():
    """``main`` accepts no arguments too, and then reads those of the process."""
    code = "import sys; sys.argv=['x','--version']; from certauth.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("certauth ")


def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path):
    """``certauth … | head`` ends quietly."""
    code = (
        "from certauth.cli.output import *\n"
        "@command(example='x')\n"
        "def long() -> Result:\n"
        "    '''Say a lot.'''\n"
        "    return Result(data={}, text='line\\n' * 100000)\n"
        "long.main([])\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=30) == 0


def test_ctrl_c_is_one_line_and_130(tmp_path: Path):
    """Ctrl-C leaves no traceback."""
    code = (
        "import signal, time\n"
        "from certauth.cli.output import *\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # whoever started the tests may ignore it
        "@command(example='x')\n"
        "def wait() -> None:\n"
        "    '''Wait.'''\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
        "wait.main([])\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        os.kill(process.pid, signal.SIGINT)
        assert process.stderr.read() == b"\ncertauth: interrupted\n"
        assert process.wait(timeout=30) == 130


def test_every_mounted_command_of_the_user_can_be_loaded():
    """No import string of the user's own commands is stale."""
    for name, mount in root.mounts.items():
        if mount.extra is None:
            assert mount.load().name == name

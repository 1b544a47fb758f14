"""Whether a browser can be opened here, and opening it."""

from __future__ import annotations

import json
import os
import sys
import webbrowser
from collections.abc import Iterator
from pathlib import Path

import pytest

from certauth.client.browser import Browser, can_open, check_alive, ended_once, is_remote, opened
from certauth.errors import Refused, UsageError


class Recorder(webbrowser.BaseBrowser):
    """A browser that remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__("recorder")
        self.opened: list[str] = []

    def open(self, url: str, new: int = 0, autoraise: bool = True) -> bool:
        self.opened.append(url)
        return True


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """The system's browser, for one test."""
    made = Recorder()
    webbrowser.register("recorder", None, made, preferred=True)
    yield made
    webbrowser._tryorder.remove("recorder")  # type: ignore[attr-defined]  # there is no public way to unregister
    webbrowser._browsers.pop("recorder")  # type: ignore[attr-defined]  # likewise


def test_where_a_window_can_be_opened(recorder: Recorder):
    """With a display, and not over SSH."""
    assert can_open({"DISPLAY": ":0"})
    assert can_open({"WAYLAND_DISPLAY": "w"})
    assert not can_open({"DISPLAY": ":0", "SSH_TTY": "/dev/pts/1"})
    assert not can_open({"DISPLAY": ":0", "SSH_CONNECTION": "x"})
    assert can_open({}) == (sys.platform == "darwin")
    assert is_remote({"SSH_TTY": "/dev/pts/1"})
    assert not is_remote({"DISPLAY": ":0", "SSH_TTY": ""})


@pytest.mark.parametrize(("environment", "works"), [({"DISPLAY": ":0"}, False), ({"DISPLAY": ":0", "BROWSER": "w3m"}, True)])
def test_a_browser_of_the_terminal_is_none_unless_it_was_chosen(
    environment: dict[str, str], works: bool, monkeypatch: pytest.MonkeyPatch
):
    """Lynx and w3m would take the terminal over and cannot run a provider's login; the user's own $BROWSER is a choice."""
    monkeypatch.setattr(webbrowser, "_tryorder", ["w3m"])
    monkeypatch.setattr(webbrowser, "_browsers", {"w3m": [None, webbrowser.GenericBrowser("w3m")]})
    assert can_open(environment) is works


def test_without_any_browser(monkeypatch: pytest.MonkeyPatch):
    """A display without a browser opens nothing."""
    monkeypatch.setattr(webbrowser, "_tryorder", [])
    monkeypatch.setattr(webbrowser, "_browsers", {})
    assert not can_open({"DISPLAY": ":0"})


@pytest.mark.parametrize(
    ("browser", "window", "asked"),
    [(Browser(), True, 1), (Browser(), False, 0), (Browser(enabled=False), True, 0)],
)
def test_the_systems_browser_is_asked_only_where_it_can(recorder: Recorder, browser: Browser, window: bool, asked: int):
    """A window is opened where one can be, unless the user does not want it."""
    with opened("https://op.example/", browser, window=window) as process:
        assert process is None
    assert recorder.opened == ["https://op.example/"] * asked


def test_a_command_is_run_with_the_address_and_without_our_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The command gets the address as its last argument, and an environment without bearer tokens."""
    monkeypatch.setenv("BEARER_TOKEN", "the-secret")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "the-secret")
    monkeypatch.setenv("HARMLESS", "yes")
    code = f"import json,os,sys; open({str(tmp_path / 'seen')!r},'w').write(json.dumps([sys.argv[1:],dict(os.environ)]))"
    with opened("https://op.example/", Browser(command=f'{sys.executable} -c "{code}"'), window=False) as process:
        assert process is not None
        process.wait(timeout=60)
        ended = ended_once(process)
        assert (ended(), ended()) == (True, False)
    arguments, environment = json.loads((tmp_path / "seen").read_text())
    assert arguments == ["https://op.example/"]
    assert environment["HARMLESS"] == "yes"
    assert "the-secret" not in json.dumps(environment)
    assert os.environ["BEARER_TOKEN"] == "the-secret"


def test_a_command_that_still_runs_or_is_none_has_not_ended():
    """Nothing ended if nothing was started; a running command is alive, one that failed is not."""
    assert not ended_once(None)()
    check_alive(None)
    with opened("x", Browser(command=f'{sys.executable} -c "input()"'), window=False) as process:
        assert process is not None
        process.wait(timeout=60)
        with pytest.raises(Refused) as caught:
            check_alive(process)
        assert caught.value.code == "browser-failed"


def test_a_command_that_cannot_run():
    """A browser command that is none is a usage mistake."""
    with pytest.raises(UsageError) as caught, opened("x", Browser(command="/no/such/browser"), window=False):
        pass
    assert caught.value.code == "bad-browser-command"

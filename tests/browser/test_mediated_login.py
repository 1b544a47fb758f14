"""Mediated logins in a real Chromium: what its rules about cookies, forms, frames and policies make of our pages.

The signer is ``localhost``, provider and attackers are ``127.0.0.1``: two sites, as far as a browser is concerned.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.common.exceptions import SessionNotCreatedException, WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.expected_conditions import text_to_be_present_in_element
from selenium.webdriver.support.ui import WebDriverWait as Waiting

from tests.signer.login_kit import Forms, Person, Program, Site, at_oidc_provider
from tests.simulator.openid_provider import password_of

Browser = webdriver.Chrome
SECONDS = 60
PHONE = (360, 740)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A signer at ``localhost`` whose provider is oidc-provider at ``127.0.0.1``."""
    with at_oidc_provider(tmp_path_factory.mktemp("mediated"), name="localhost") as (running, _):
        yield running


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory, site: Site) -> Iterator[Browser]:
    """A browser with an empty profile that accepts the tests' certificates; it is gone before the site is."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("chromium or chromedriver is not installed: make ci-deps")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"):
        options.add_argument(f"--{flag}")
    for flag in ("disable-component-update", "disable-sync", "disable-dev-shm-usage", "ignore-certificate-errors"):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    running = started(options, driver)
    running.set_page_load_timeout(SECONDS)
    try:
        yield running
    finally:
        running.quit()


def started(options: webdriver.ChromeOptions, driver: str) -> Browser:
    """A browser. On a busy machine it does not always come up in the time that its driver gives it."""
    for _ in range(2):
        with contextlib.suppress(SessionNotCreatedException):
            return webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))


@pytest.fixture
def browser(chromium: Browser, site: Site) -> Browser:
    """The browser, with nothing left from the test before."""
    chromium.switch_to.default_content()
    chromium.get("about:blank")
    chromium.execute_cdp_cmd("Network.clearBrowserCookies", {})
    complaints(chromium)  # reading is emptying
    return chromium


@contextlib.contextmanager
def foreign_page(text: str) -> Iterator[str]:
    """Somebody else's web site, of one page."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
            """Silence."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()


def wait_for(browser: Browser, text: str) -> None:
    """Until the page says ``text``."""
    said = text_to_be_present_in_element((By.TAG_NAME, "body"), text)
    Waiting(browser, SECONDS, ignored_exceptions=[WebDriverException]).until(said)


def type_code(browser: Browser, site: Site, code: str) -> None:
    """Open the page and type the code, as people do."""
    browser.get(f"{site.url}/login")
    browser.find_element(By.ID, "code").send_keys(code.lower())
    browser.find_element(By.TAG_NAME, "button").click()
    wait_for(browser, "Is this your computer?")


def at_provider(browser: Browser) -> None:
    """Fill in the provider's own form."""
    Waiting(browser, SECONDS).until(lambda at: at.find_elements(By.NAME, "username"))
    browser.find_element(By.NAME, "username").send_keys("alice")
    browser.find_element(By.NAME, "password").send_keys(password_of("alice"))
    browser.find_element(By.TAG_NAME, "button").click()


def complaints(browser: Browser) -> list[str]:
    """What the browser says it did not allow; that there is no icon is no complaint, and the provider's pages are its own."""
    messages = [str(entry["message"]) for entry in browser.get_log("browser")]  # type: ignore[no-untyped-call]
    return [message for message in messages if "Content Security Policy" in message or "script" in message.lower()]


def test_a_login(browser: Browser, site: Site) -> None:
    """Code, confirmation, provider on another site, and back: the cookie comes along, no policy is in the way."""
    program = Program(site, host="login1.cluster.example")
    type_code(browser, site, program.code)
    shown = browser.find_element(By.TAG_NAME, "body").text
    for fact in ("login1.cluster.example", "127.0.0.1", "hpc", "certificate of als.example", "24 hours"):
        assert fact in shown
    browser.find_element(By.CSS_SELECTOR, "button[value=yes]").click()
    at_provider(browser)
    wait_for(browser, "Go back to your terminal")
    assert program.claim()["subject"] == "alice"
    assert complaints(browser) == []
    assert [cookie["name"] for cookie in browser.get_cookies() if program.begun["login"] in cookie["name"]] == []


def test_not_me(browser: Browser, site: Site) -> None:
    """The other button: the program is told, and the provider never asked."""
    program = Program(site)
    type_code(browser, site, program.code)
    browser.find_element(By.CSS_SELECTOR, "button[value=no]").click()
    wait_for(browser, "The login was refused")
    told = program.state().json()
    assert told["code"] == "login-denied"
    assert "not-me" in told["detail"]


def test_the_pages_on_a_telephone(browser: Browser, site: Site, tmp_path: Path) -> None:
    """Nothing is wider than the screen, every control has a name, the language is said, and no script runs."""
    program = Program(site, host="a-very-long-host-name-without-any-place-to-break-it.cluster.exa")
    width, height = PHONE
    metrics = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        browser.get(f"{site.url}/login")
        fits(browser, tmp_path / "code.png")
        type_code(browser, site, program.code)
        fits(browser, tmp_path / "confirm.png")
        for button in browser.find_elements(By.TAG_NAME, "button"):
            assert button.size["height"] >= 44
            assert button.size["width"] > width * 0.8
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert complaints(browser) == []


def fits(browser: Browser, picture: Path) -> None:
    """The page as it is now."""
    measured = browser.execute_script(
        "const e = document.documentElement;"
        "return [e.scrollWidth <= e.clientWidth, e.lang, document.scripts.length,"
        " [...document.querySelectorAll('input[type=text]')].every(i => i.labels.length === 1)]"
    )
    assert measured == [True, "en", 0, True]
    assert browser.save_screenshot(str(picture))


def test_a_foreign_page_cannot_type_the_code(browser: Browser, site: Site) -> None:
    """The attacker's page posts the attacker's code from the victim's browser: it is not shown as the victim's own act."""
    program, attacker = Program(site), Person(site)
    field = Forms(attacker.http.get("/login").text).fields["form"]  # the attacker's own, which fits the attacker's cookie
    browser.get(f"{site.url}/login")  # the victim even has our cookie
    page = f"""<form method="post" action="{site.url}/login"><input name="form" value="{field}">
<input name="code" value="{program.code}"></form><script>document.forms[0].submit()</script>"""
    with foreign_page(page) as url:
        browser.get(url)
        wait_for(browser, "was not sent from this page")
    assert "Is this your computer?" not in browser.page_source
    assert program.state().json()["state"] == "pending"
    assert attacker.type_code(program.code).status_code == 200  # the code is untouched: nobody typed it


def test_a_link_to_the_provider_from_somebody_else(browser: Browser, site: Site) -> None:
    """The attacker confirms and sends the victim on to the provider, where the victim logs in: the login ends at our door."""
    program, attacker = Program(site), Person(site)
    link = attacker.to_provider(program.code)
    browser.get(link)
    at_provider(browser)
    wait_for(browser, "in another browser than the code was typed in")
    told = program.state().json()
    assert told["code"] == "login-failed"
    assert "browser-mismatch" in told["detail"]
    assert "code" in program.claim()
    assert "subject" not in program.claim()


def test_no_page_can_be_framed(browser: Browser, site: Site) -> None:
    """A foreign page shows ours below its own buttons: the browser does not draw it."""
    with foreign_page(f'<iframe src="{site.url}/login"></iframe>') as url:
        browser.get(url)
        refused = Waiting(browser, SECONDS).until(complaints)
        browser.switch_to.frame(0)
        assert browser.find_elements(By.ID, "code") == []
        browser.switch_to.default_content()
    assert any("frame-ancestors" in message for message in refused)

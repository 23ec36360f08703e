"""The example application, driven in a real browser."""

from __future__ import annotations

import shutil
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from tests.e2e.processes import LIMIT_S, Process, until
from tests.servers import free_port

pytestmark = pytest.mark.browser
ROOT = Path(__file__).parents[2]
QUIET = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--window-size=900,900",
)  # fmt: skip


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The application with its own service, as `make example` starts it."""
    port = free_port()
    process = Process("example", ["-m", "examples.webapp", str(port)], tmp_path_factory.mktemp("example"))
    process.start()
    try:
        url = f"http://localhost:{port}"
        until(lambda: answers(url), "the application answers, which it does once its service is usable")
        yield url
    finally:
        process.terminate()  # so that it can end the service that it started
        process.wait()


def answers(url: str) -> bool:
    """Whether the page is there; OSError if nobody listens."""
    with urllib.request.urlopen(url, timeout=LIMIT_S) as response:
        return bool(response.status == 200)


class Browser:
    """One person's browser: a profile with its own cookies."""

    def __init__(self, url: str) -> None:
        chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
        if chromium is None or driver is None:
            raise AssertionError("chromium and chromedriver are needed: run `make browser`")
        options = ChromeOptions()
        options.binary_location = chromium
        for argument in QUIET:
            options.add_argument(argument)
        self.url = url
        self.driver = Chrome(options=options, service=ChromeService(driver))

    def until(self, condition: Callable[[], object]) -> None:
        ignored = (StaleElementReferenceException, NoSuchElementException)
        WebDriverWait(self.driver, LIMIT_S, 0.05, ignored).until(lambda _: condition())

    def text(self, selector: str) -> str:
        return self.driver.find_element(By.CSS_SELECTOR, selector).text

    def visible(self, selector: str) -> bool:
        return self.driver.find_element(By.CSS_SELECTOR, selector).is_displayed()

    def fill(self, selector: str, text: str) -> None:
        field = self.driver.find_element(By.CSS_SELECTOR, selector)
        field.clear()
        field.send_keys(text)

    def click(self, selector: str) -> None:
        self.driver.find_element(By.CSS_SELECTOR, selector).click()

    def sign_in(self, user: str, password: str, device: str) -> None:
        self.driver.get(self.url)
        self.until(lambda: self.visible("#login"))
        for selector, text in (("#user", user), ("#password", password), ("#device", device)):
            self.fill(selector, text)
        self.click("#login button")
        self.until(lambda: self.text("#who") == user)

    def devices(self) -> set[str]:
        return {row.text for row in self.driver.find_elements(By.CSS_SELECTOR, "#devices td:first-child")}

    def signed_out(self) -> None:
        """The next thing that this browser does shows that its session is over."""
        self.click("#reload")
        self.until(lambda: self.visible("#login"))


@pytest.fixture
def browsers(url: str) -> Iterator[Callable[[], Browser]]:
    opened: list[Browser] = []

    def browser() -> Browser:
        opened.append(Browser(url))
        return opened[-1]

    yield browser
    for each in opened:
        each.driver.quit()


def test_devices_password_and_administrator(browsers: Callable[[], Browser]) -> None:
    """Two browsers: one signs the other out by row, by password change, by an administrator, and everywhere."""
    laptop, phone = browsers(), browsers()
    laptop.sign_in("alice", "wonderland", "Laptop")
    phone.sign_in("alice", "wonderland", "Phone")

    # A reload has no access token in memory: the cookie, which scripts cannot read, gets a new one.
    laptop.driver.refresh()
    laptop.until(lambda: laptop.devices() == {"Laptop", "Phone"})
    assert "refresh" not in laptop.driver.execute_script("return document.cookie")
    cookie = next(c for c in all_cookies(laptop) if c["name"] == "refresh")
    kept = {name: cookie[name] for name in ("httpOnly", "secure", "sameSite", "path")}
    assert kept == {"httpOnly": True, "secure": True, "sameSite": "Strict", "path": "/session/"}

    # One row.
    laptop.click("#devices tr button")
    laptop.until(lambda: laptop.devices() == {"Laptop"})
    phone.signed_out()
    phone.until(lambda: "logout" in phone.text("#message"))

    # A new password: this browser stays, the other one goes.
    phone.sign_in("alice", "wonderland", "Phone")
    laptop.fill("#new-password", "looking-glass")
    laptop.click("#change button")
    laptop.until(lambda: "Changed" in laptop.text("#message") and laptop.devices() == {"Laptop"})
    phone.signed_out()

    # An administrator.
    phone.sign_in("root", "toor", "Desk")
    phone.until(lambda: phone.visible("#admin"))
    phone.fill("#victim", "alice")
    phone.click("#admin button")
    phone.until(lambda: phone.text("#message") == "Done.")
    laptop.signed_out()

    # Everywhere.
    laptop.sign_in("alice", "looking-glass", "Laptop")
    laptop.click("#everywhere")
    laptop.until(lambda: laptop.visible("#login"))


def test_signing_out(browsers: Callable[[], Browser]) -> None:
    """It is said when it is so: a reload finds no session, and when it cannot be done, that is said instead."""
    browser = browsers()
    browser.sign_in("bob", "builder", "Laptop")
    browser.driver.execute_script("document.cookie = 'csrf=; path=/; max-age=0; secure'")  # refused: 403
    browser.click("#logout")
    browser.until(lambda: "still signed in" in browser.text("#message"))
    assert browser.visible("#account")
    browser.sign_in("bob", "builder", "Laptop")
    browser.click("#logout")
    browser.until(lambda: browser.text("#message") == "Signed out.")
    browser.driver.refresh()
    browser.until(lambda: browser.visible("#login"))
    assert "refresh" not in {cookie["name"] for cookie in all_cookies(browser)}


def test_another_sites_page_cannot_use_the_cookie(browsers: Callable[[], Browser]) -> None:
    """A request from elsewhere, or without the CSRF header, is refused although the browser has the cookie."""
    browser = browsers()
    browser.sign_in("bob", "builder", "Laptop")
    forged = "return fetch('/session/refresh', {method: 'POST', headers: arguments[0]}).then(r => r.status)"
    assert browser.driver.execute_script(forged, {"x-csrf": "guess"}) == 403
    assert browser.driver.execute_script(forged, {}) == 403
    # `127.0.0.1` is another site than `localhost`: SameSite keeps the cookie away, and Origin gives it away.
    browser.driver.get(browser.url.replace("localhost", "127.0.0.1"))
    options = "{method: 'POST', mode: 'no-cors', credentials: 'include'}"
    elsewhere = f"return fetch('{browser.url}/session/refresh', {options}).then(r => r.type)"
    assert browser.driver.execute_script(elsewhere) == "opaque"
    browser.driver.get(browser.url)
    browser.until(lambda: browser.text("#who") == "bob")


def all_cookies(browser: Browser) -> list[dict[str, object]]:
    """Of every path, which the page's own view of them is not."""
    found: list[dict[str, object]] = browser.driver.execute_cdp_cmd("Network.getAllCookies", {})["cookies"]
    return found

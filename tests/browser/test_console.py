"""The console in a real Chromium, over real HTTP, with a real policy and store behind the API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from platformctl.access.tokens import ENTROPY_BYTES, mint_join_token
from platformctl.hub.api import SatelliteView, ServiceView, TunnelView

pytestmark = pytest.mark.integration

Until = Callable[[Callable[[Chrome], object]], object]
ADMIN_TOKEN = "ct-admin.secret"
VIEWER_TOKEN = "ct-viewer.secret"
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


def by_id(browser: Chrome, name: str) -> WebElement:
    return browser.find_element(By.ID, name)


def click(browser: Chrome, selector: str) -> None:
    browser.find_element(By.CSS_SELECTOR, selector).click()


def text(browser: Chrome, name: str = "panel") -> str:
    return str(browser.execute_script("return document.getElementById(arguments[0]).innerText", name))


def script(browser: Chrome, code: str, *arguments: object) -> object:
    return browser.execute_script(code, *arguments)


def sign_in(browser: Chrome, until: Until, token: str = ADMIN_TOKEN) -> None:
    until(lambda b: by_id(b, "sign-in").is_displayed())
    by_id(browser, "token").send_keys(token, Keys.ENTER)
    until(lambda b: by_id(b, "console").is_displayed() and text(b) and "Loading" not in text(b))


def satellite(name: str, state: Any = "connected", **more: Any) -> SatelliteView:
    return SatelliteView(name, state, 1 if state == "connected" else 0, 1, **more)


def test_the_token_is_in_this_tabs_session_alone(browser: Chrome, until: Until, served: Any) -> None:
    sign_in(browser, until)
    assert text(browser, "who") == "admin"
    assert script(browser, "return Object.values(sessionStorage)") == [ADMIN_TOKEN]
    assert script(browser, "return [Object.values(localStorage), document.cookie]") == [[], ""]
    assert ADMIN_TOKEN not in browser.page_source
    assert by_id(browser, "token").get_property("value") == ""
    assert ADMIN_TOKEN not in browser.current_url
    browser.switch_to.new_window("tab")
    browser.get(f"{served.url}/console/")
    until(lambda b: by_id(b, "sign-in").is_displayed())
    assert script(browser, "return sessionStorage.length") == 0
    browser.close()
    browser.switch_to.window(browser.window_handles[-1])


def test_a_reload_stays_signed_in_and_signing_out_forgets_everything(
    browser: Chrome, until: Until, served: Any
) -> None:
    served.hub.satellite_views = [satellite("far-1")]
    sign_in(browser, until)
    browser.refresh()
    until(lambda b: "far-1" in text(b))
    click(browser, "#sign-out")
    assert by_id(browser, "sign-in").is_displayed()
    assert script(browser, "return sessionStorage.length") == 0
    assert "far-1" not in browser.page_source


def test_a_wrong_token_is_told_and_not_kept(browser: Chrome, until: Until) -> None:
    until(lambda b: by_id(b, "sign-in").is_displayed())
    by_id(browser, "token").send_keys("ct-nobody.x", Keys.ENTER)
    until(lambda b: "does not know this token" in text(b, "sign-in-error"))
    assert not by_id(browser, "console").is_displayed()
    assert script(browser, "return sessionStorage.length") == 0


def test_a_satellites_row_shows_what_the_hub_knows(browser: Chrome, until: Until, served: Any) -> None:
    served.hub.satellite_views = [
        satellite("edge-1", labels={"region": "eu"}, rtt_ms=1.26, version="0.1.0", services=["api", "redis"]),
        satellite("edge-2", "offline"),
    ]
    sign_in(browser, until)
    cells = [each.text for each in browser.find_elements(By.CSS_SELECTOR, "tbody tr:first-child td")]
    assert cells == ["edge-1", "connected", "1 / 1", "1.3 ms", "region=eu", "api\nredis", "0.1.0"]
    assert "1 / 2\nsatellites connected" in text(browser, "tiles")


def test_changes_appear_on_their_own_within_the_refresh_interval(browser: Chrome, until: Until, served: Any) -> None:
    sign_in(browser, until)
    assert "No satellite has joined yet" in text(browser)
    served.hub.satellite_views = [satellite("edge-1"), satellite("edge-2")]
    until(lambda b: "edge-2" in text(b))
    served.hub.satellite_views = [satellite("edge-2", "offline")]
    until(lambda b: "edge-1" not in text(b) and "offline" in text(b))


def test_names_and_labels_of_a_hostile_satellite_are_only_text(browser: Chrome, until: Until, served: Any) -> None:
    served.hub.satellite_views = [satellite(HOSTILE, labels={HOSTILE: HOSTILE}, services=[HOSTILE], version=HOSTILE)]
    served.hub.service_views = [ServiceView(HOSTILE, HOSTILE, "http", "healthy", HOSTILE)]
    served.hub.tunnel_views = [TunnelView(HOSTILE, HOSTILE, HOSTILE, remote=HOSTILE)]
    sign_in(browser, until)
    for tab in ("satellites", "services", "tunnels"):
        click(browser, f"#tab-{tab}")
        until(lambda b: HOSTILE in text(b))
        assert browser.find_elements(By.CSS_SELECTOR, "#panel img, #panel script") == []
        assert "owned" not in browser.title


def test_the_policy_stops_script_that_got_in_anyway(browser: Chrome, until: Until) -> None:
    sign_in(browser, until)
    attempts = """
      const tried = [];
      for (const attempt of [
        () => { document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.owned = 1'>"); },
        () => { document.createElement("script").textContent = "window.owned = 1"; },
        () => { setTimeout("window.owned = 1", 0); },
      ]) try { attempt(); tried.push("done"); } catch (e) { tried.push(e.name); }
      return tried;
    """
    assert script(browser, attempts) == ["TypeError"] * 3
    assert script(browser, "return window.owned ?? null") is None


def test_no_own_resource_breaks_the_policy(browser: Chrome, until: Until, served: Any) -> None:
    served.hub.satellite_views = [satellite("edge-1", labels={"a": "b"})]
    sign_in(browser, until)
    messages = [entry["message"] for entry in browser.get_log("browser")]
    # Signing in begins with asking without a token: those 401 are Chromium's own lines.
    assert [message for message in messages if "401 (Unauthorized)" not in message] == []


def test_a_join_token_is_made_shown_once_and_revoked(browser: Chrome, until: Until, served: Any) -> None:
    sign_in(browser, until)
    click(browser, "#tab-tokens")
    until(lambda b: by_id(b, "new-token").is_displayed())
    click(browser, "#new-token")
    by_id(browser, "t-satellite").send_keys("edge-7")
    by_id(browser, "t-labels").send_keys("region=eu, role=gpu", Keys.ENTER)
    until(lambda b: by_id(b, "token-made").is_displayed())
    command = by_id(browser, "made-command").text
    (record,) = served.hub.store.list_join_tokens()
    assert command.startswith(f"PLATFORMCTL_JOIN_TOKEN={record.id}.")
    assert "platformctl join satellite edge-7 --hub https://hub.example:7443 --ca-pin sha256:" in command
    assert (record.satellite, dict(record.labels)) == ("edge-7", {"region": "eu", "role": "gpu"})
    secret = command.split()[0].partition(".")[2]
    click(browser, "#token-made [data-close]")
    until(lambda b: secret not in b.page_source)
    until(lambda b: record.id in text(b))
    click(browser, "[data-action=revoke]")
    assert record.id in text(browser, "confirm-text")
    click(browser, "#confirm-yes")
    until(lambda b: "No join token" in text(b))
    assert served.hub.store.list_join_tokens() == []


@pytest.mark.parametrize(
    ("name", "labels", "complaint"),
    [("edge-7", "region", "is not a label"), ("hub", "", "a satellite cannot be named"), ("a", "b c=/", "not a label")],
)
def test_a_token_that_cannot_be_made_says_why(
    browser: Chrome, until: Until, served: Any, name: str, labels: str, complaint: str
) -> None:
    sign_in(browser, until)
    click(browser, "#tab-tokens")
    until(lambda b: by_id(b, "new-token").is_displayed())
    click(browser, "#new-token")
    by_id(browser, "t-satellite").send_keys(name)
    by_id(browser, "t-labels").send_keys(labels, Keys.ENTER)
    until(lambda b: complaint in text(b, "token-error"))
    assert served.hub.store.list_join_tokens() == []
    by_id(browser, "t-labels").send_keys(Keys.ESCAPE)
    assert not by_id(browser, "token-dialog").is_displayed()


def test_what_an_identity_may_not_see_is_said_where_it_would_be(browser: Chrome, until: Until, served: Any) -> None:
    served.hub.satellite_views = [satellite("edge-1")]
    sign_in(browser, until, VIEWER_TOKEN)
    assert "edge-1" in text(browser)
    assert not by_id(browser, "new-token").is_displayed()
    click(browser, "#tab-tokens")
    assert "token:viewer may not GET /api/v1/tokens" in text(browser)
    assert not by_id(browser, "new-token").is_displayed()


def test_a_hub_that_fails_is_said_and_its_return_noticed(browser: Chrome, until: Until, served: Any) -> None:
    served.hub.satellite_views = [satellite("edge-1")]
    sign_in(browser, until)
    served.front.broken = True
    until(lambda b: by_id(b, "banner").is_displayed())
    assert "edge-1" in text(browser)
    assert "ago" in text(browser, "live")
    served.front.broken = False
    until(lambda b: not by_id(b, "banner").is_displayed())
    assert text(browser, "live") == "Live"


def test_a_revoked_session_ends_and_leaves_nothing_on_the_page(browser: Chrome, until: Until, served: Any) -> None:
    served.hub.satellite_views = [satellite("far-1")]
    sign_in(browser, until)
    del served.front.identities[ADMIN_TOKEN]
    until(lambda b: "Your session ended" in text(b, "sign-in-error"))
    assert "far-1" not in browser.page_source


def test_the_lists_are_reached_and_filtered_by_keyboard(browser: Chrome, until: Until, served: Any) -> None:
    served.hub.service_views = [ServiceView("edge-1", name, "http", "healthy") for name in ("api", "web")]
    sign_in(browser, until)
    by_id(browser, "tab-satellites").send_keys(Keys.ARROW_RIGHT)
    assert browser.switch_to.active_element.get_attribute("id") == "tab-services"
    assert browser.current_url.endswith("#services")
    browser.switch_to.active_element.send_keys("/")
    assert browser.switch_to.active_element.get_attribute("id") == "filter"
    browser.switch_to.active_element.send_keys("edge-1 web")
    names = [each.text for each in browser.find_elements(By.CSS_SELECTOR, "td.name")]
    assert names == ["web"]
    browser.switch_to.active_element.send_keys("x")
    assert "Nothing matches" in text(browser)


def test_columns_sort_both_ways_and_numbers_as_numbers(browser: Chrome, until: Until, served: Any) -> None:
    served.hub.satellite_views = [satellite("s-10", rtt_ms=9.0), satellite("s-9", rtt_ms=10.0), satellite("s-8")]
    sign_in(browser, until)

    def names() -> list[str]:
        return [each.text for each in browser.find_elements(By.CSS_SELECTOR, "td.name")]

    assert names() == ["s-8", "s-9", "s-10"]
    click(browser, "[data-sort='3']")
    assert names() == ["s-10", "s-9", "s-8"]
    click(browser, "[data-sort='3']")
    assert names() == ["s-8", "s-9", "s-10"]
    assert browser.find_element(By.CSS_SELECTOR, "th[aria-sort]").get_attribute("aria-sort") == "descending"


def test_focus_survives_a_refresh_that_changes_its_row(browser: Chrome, until: Until, served: Any) -> None:
    _, record = mint_join_token(bytes(ENTROPY_BYTES), "edge-1", {}, now=served.hub.now())
    served.hub.store.put_join_token(record)
    sign_in(browser, until)
    click(browser, "#tab-tokens")
    script(browser, "document.querySelector('[data-action=revoke]').focus()")
    assert served.hub.store.consume_join_token(record.id, served.hub.now())
    until(lambda b: "unused" not in text(b))
    assert script(browser, "return document.activeElement.dataset.id") == record.id


CONTRAST = """
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const light = (colour) => {
    canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (node) => {
    let under = node;
    while (getComputedStyle(under).backgroundColor === "rgba(0, 0, 0, 0)") under = under.parentElement;
    const [a, b] = [light(getComputedStyle(node).color), light(getComputedStyle(under).backgroundColor)];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  return [...document.querySelectorAll("td, .state, .chip, .tiles small, .tiles b, .tabs button, button.primary, #version, th button")]
    .filter((node) => node.offsetParent && ratio(node) < 4.5).map((node) => [node.className, node.innerText, ratio(node)]);
"""  # noqa: E501


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_is_readable_in_both_themes_and_the_choice_is_kept(
    browser: Chrome, until: Until, served: Any, theme: str
) -> None:
    served.hub.satellite_views = [satellite(s, s, labels={"a": "b"}) for s in ("connected", "degraded", "offline")]
    sign_in(browser, until)
    script(
        browser,
        "const t = document.getElementById('theme'); t.value = arguments[0]; t.dispatchEvent(new Event('change'))",
        theme,
    )
    browser.refresh()
    until(lambda b: "degraded" in text(b))
    background = script(browser, "return getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(244, 246, 248)", "dark": "rgb(13, 18, 22)"}[theme]
    assert script(browser, CONTRAST) == []
    script(browser, "localStorage.clear()")


def test_every_control_has_a_name_for_a_screen_reader(browser: Chrome, until: Until, served: Any) -> None:
    served.hub.satellite_views = [satellite("edge-1")]
    sign_in(browser, until)
    controls = browser.find_elements(By.CSS_SELECTOR, "button, input, select, [role=tabpanel], [role=tablist]")
    shown = [each for each in controls if each.is_displayed()]
    assert len(shown) > 12
    assert [each.get_attribute("outerHTML") for each in shown if not each.accessible_name] == []


def test_a_narrow_window_never_scrolls_sideways(browser: Chrome, until: Until, served: Any) -> None:
    served.hub.satellite_views = [satellite("edge-1", labels={"l" * 60: "v" * 60}, services=["s" * 60] * 9)]
    sign_in(browser, until)
    before = browser.get_window_size()
    browser.set_window_size(500, 800)
    try:
        assert script(browser, "return document.documentElement.scrollWidth <= innerWidth")
    finally:
        browser.set_window_size(before["width"], before["height"])

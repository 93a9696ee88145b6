"""What a page in a browser has."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By

if TYPE_CHECKING:
    from collections.abc import Callable

    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement


def all_of(browser: Chrome, selector: str) -> list[WebElement]:
    return browser.find_elements(By.CSS_SELECTOR, selector)


def words(browser: Chrome, selector: str) -> list[str]:
    """Texts, with one space between words."""
    return [" ".join(text.split()) for text in texts(browser, selector)]


def texts(browser: Chrome, selector: str) -> list[str]:
    return [str(element.get_property("textContent")) for element in all_of(browser, selector)]


def until(holds: Callable[[], Any], seconds: float = 60) -> Any:
    """What it gives once it holds; elements may be replaced meanwhile."""
    end = time.monotonic() + seconds
    while True:
        try:
            if value := holds():
                return value
        except StaleElementReferenceException:
            pass
        assert time.monotonic() < end
        time.sleep(0.05)


def seen(browser: Chrome, selector: str) -> WebElement:
    """The one element, once it is displayed."""

    def displayed() -> WebElement | None:
        return next((one for one in all_of(browser, selector) if one.is_displayed()), None)

    found: WebElement = until(displayed)
    return found


def overflow(browser: Chrome) -> int:
    """Pixels by which the page is wider than the window."""
    root = "document.documentElement"
    return int(browser.execute_script(f"return {root}.scrollWidth - {root}.clientWidth"))


def scheme(browser: Chrome, name: str) -> None:
    """As a reader who wants it `light` or `dark`."""
    features = [{"name": "prefers-color-scheme", "value": name}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


CONTRAST = """
const channels = (color) => {
  const drawn = document.createElement("canvas").getContext("2d");
  drawn.fillStyle = color;
  drawn.fillRect(0, 0, 1, 1);
  return [...drawn.getImageData(0, 0, 1, 1).data];
};
const luminance = ([r, g, b]) => [r, g, b].map((c) => c / 255)
  .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const ground = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const color = channels(getComputedStyle(e).backgroundColor);
    if (color[3] === 255) return color;
  }
  return [255, 255, 255, 255];
};
const poor = [];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  const named = element.closest("svg, script, style, noscript, [hidden], :disabled, option");
  if (!own || named || !element.getClientRects().length) continue;
  const [a, b] = [channels(getComputedStyle(element).color), ground(element)].map(luminance).sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  const place = `${element.tagName}.${element.className} ${element.textContent.slice(0, 30)}`;
  if (ratio < 4.5) poor.push(`${place}: ${ratio.toFixed(2)}`);
}
return poor;
"""
"""Texts that are not 4.5 times as bright or dark as what is behind them (WCAG 2.2, 1.4.3)."""

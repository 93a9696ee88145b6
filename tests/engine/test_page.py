"""The page of `toploc serve` in a real browser: what it shows, and whose text to whom."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from browsing import CONTRAST, all_of, overflow, scheme, seen, texts, until, words
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from toploc.evidence.parquet import to_parquet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from selenium.webdriver import Chrome
    from toploc_proxy.local_server import LocalServer

EVIDENCE = Path(__file__).parents[1] / "toploc" / "evidence"
KEYS = ("alpha", "beta")


def evidence(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((EVIDENCE / f"{name}.json").read_text("utf-8"))
    return found


@pytest.fixture(scope="module")
def server(launch: Callable[..., LocalServer]) -> Iterator[LocalServer]:
    with launch("--toploc-role", "verifier", "--api-key", *KEYS) as local:
        yield local


@pytest.fixture(scope="module")
def https(server: LocalServer) -> Iterator[dict[str, httpx.Client]]:
    """A client by key."""
    made = {
        key: httpx.Client(base_url=server.url, timeout=300, headers={"authorization": f"Bearer {key}"}) for key in KEYS
    }
    yield made
    for client in made.values():
        client.close()


def opened(browser: Chrome, server: LocalServer, key: str, answer: str = "") -> None:
    browser.get(f"{server.url}/toploc")
    browser.execute_script("sessionStorage.clear()")
    browser.get("about:blank")
    browser.get_log("browser")
    browser.get(f"{server.url}/toploc" + (f"#answer/{answer}" if answer else ""))
    seen(browser, "#key input").send_keys(key, Keys.ENTER)
    until(lambda: texts(browser, "#status") == ["live"])


def listed(client: httpx.Client) -> list[str]:
    """The newest verifications, by their ids."""
    with client.stream("GET", "/v1/toploc/page/events") as events:
        lines = events.iter_lines()
        assert next(lines) == "event: state"
        return [one["id"] for one in json.loads(next(lines).removeprefix("data: "))["newest"]]


def verified(client: httpx.Client, item: dict[str, Any], verdict: str) -> str:
    """The id of a verification of this item, once the page has it: pages share a look at the state, one a second."""
    assert client.post("/v1/toploc/verify", json=item).json()["verdict"] == verdict

    def found() -> str | None:
        for name in listed(client):
            answer = client.get(f"/v1/toploc/page/verifications/{name}").json()["answer"]
            if answer.get("id") == item["response"]["id"]:
                return name
        return None

    return str(until(found))


def test_what_it_shows_of_itself_and_as_it_verifies(
    browser: Chrome, server: LocalServer, https: dict[str, httpx.Client]
) -> None:
    opened(browser, server, "alpha")
    said = texts(browser, "#identity")[0]
    for part in ("verifier", "toploc-mini", "vllm", "mismatches of 128"):
        assert part in said
    assert texts(browser, "#listed li") == ["There is none."]
    assert https["alpha"].post("/v1/toploc/verify", json=evidence("greedy")).json()["verdict"] == "accepted"
    assert https["beta"].post("/v1/toploc/verify", json=evidence("int4-greedy")).json()["verdict"] == "rejected"
    until(lambda: words(browser, "#listed .verdict") == ["rejected", "accepted"])
    cells = texts(browser, "#models tbody td")
    assert cells[:5] == ["toploc-mini", "1", "1", "0", "2"]
    assert https["alpha"].post("/v1/toploc/verify", json={"request": {}}).status_code == 400
    until(lambda: "malformed" in texts(browser, "#identity")[0])


def test_the_text_is_for_the_key_that_asked(
    browser: Chrome, server: LocalServer, https: dict[str, httpx.Client]
) -> None:
    asked = evidence("greedy")
    name = verified(https["alpha"], asked, "accepted")
    said = asked["response"]["choices"][0]["message"]["content"]
    opened(browser, server, "alpha", name)
    seen(browser, "#answer .answer.accepted")
    chunks = all_of(browser, "#answer .text .chunk")
    assert "".join(str(chunk.get_property("textContent")) for chunk in chunks) == said
    opened(browser, server, "beta", name)
    seen(browser, "#answer .answer.accepted")
    assert "the text is for the key that asked" in texts(browser, "#answer h3")[0]
    strip = all_of(browser, "#answer .strip .chunk.passed")
    assert len(strip) == len(chunks)
    browser.execute_script("arguments[0].focus()", strip[0])
    assert "mismatches" in browser.find_element(By.ID, "figures").text
    document = str(browser.execute_script("return document.documentElement.textContent"))
    for secret in (said[:12], asked["request"]["messages"][-1]["content"], asked["response"]["id"]):
        assert secret not in document
        assert secret not in https["beta"].get(f"/v1/toploc/page/verifications/{name}").text
    gone = https["beta"].get("/v1/toploc/page/verifications/none")
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "verification_unknown")


def test_evidence_is_brought(browser: Chrome, server: LocalServer, tmp_path: Path) -> None:
    opened(browser, server, "alpha")
    lines = tmp_path / "answers.jsonl"
    lines.write_text("".join(json.dumps(evidence(name)) + "\n" for name in ("greedy", "int4-greedy")), "utf-8")
    area = seen(browser, "#drop textarea")
    browser.execute_script("arguments[0].value = arguments[1]", area, lines.read_text("utf-8") + '{"torn\n')
    browser.find_element(By.CSS_SELECTOR, "#drop [name=verify]").click()
    until(lambda: texts(browser, "#progress") == ["3 of 3: 1 accepted, 1 rejected, 1 unread"])
    pytest.importorskip("pyarrow")
    to_parquet(lines, tmp_path / "answers.parquet")
    browser.find_element(By.CSS_SELECTOR, "#drop [type=file]").send_keys(str(tmp_path / "answers.parquet"))
    until(lambda: texts(browser, "#progress") == ["2 of 2: 1 accepted, 1 rejected"])


def test_nothing_of_it_becomes_a_part_of_the_page(
    browser: Chrome, server: LocalServer, https: dict[str, httpx.Client]
) -> None:
    hostile = "</script><img src=x onerror=\"document.title='owned'\"><b>"
    asked = evidence("greedy")
    asked["request"]["user"] = asked["response"]["id"] = hostile
    asked["response"]["choices"][0]["message"]["content"] = hostile
    opened(browser, server, "alpha", verified(https["alpha"], asked, "rejected"))
    seen(browser, "#answer .answer")
    assert texts(browser, "#answer .text") == [hostile]
    assert all_of(browser, "img, iframe, object") == []
    assert browser.title == "toploc verifier"


@pytest.mark.parametrize("kind", ["light", "dark"])
def test_on_a_phone(phone: Chrome, server: LocalServer, https: dict[str, httpx.Client], kind: str) -> None:
    name = verified(https["alpha"], evidence("int4-greedy"), "rejected")
    scheme(phone, kind)
    for answer in ("", name):
        opened(phone, server, "alpha", answer)
        seen(phone, "#answer .answer" if answer else "#listed a")
        assert overflow(phone) == 0
        assert phone.execute_script(CONTRAST) == []
    for _ in range(12):
        ActionChains(phone).send_keys(Keys.TAB).perform()
        if "chunk" in (phone.switch_to.active_element.get_attribute("class") or ""):
            break
    assert phone.find_element(By.ID, "figures").is_displayed()


def test_a_page_that_is_open_does_not_keep_the_server_from_stopping(launch: Callable[..., LocalServer]) -> None:
    with (
        launch("--toploc-role", "verifier") as local,
        httpx.stream("GET", f"{local.url}/v1/toploc/page/events", timeout=300) as events,
    ):
        parts = events.iter_bytes()
        assert next(parts).startswith(b"event: state")
        os.kill(local.pid, signal.SIGTERM)
        local.wait(120)

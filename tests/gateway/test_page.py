"""The gateway's page in a real browser: what it shows, who sees it, and that nothing becomes a part of it."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from browsing import CONTRAST, all_of, overflow, scheme, seen, texts, until, words
from lying_provider import EVIL
from parties import Process, config_of
from recorded import RECORDED
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from toploc.evidence.parquet import to_parquet
from toploc.protocol import ToplocProofs
from toploc.receipts.keys import SigningKey
from toploc.receipts.statement import issue

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from parties import Provider, Running, Served, VerifierApp
    from selenium.webdriver import Chrome

KEY = "k-1234"
HOSTILE = "</script><img src=x onerror=\"document.title='owned'\"><b>{{ 7 * 7 }}\u202e\u2028"


def opened(browser: Chrome, gateway: Running, answer: str = "") -> None:
    """The page, live, with nothing that the browser complains of."""
    browser.get("about:blank")
    browser.get_log("browser")  # of tests before
    browser.get(f"{gateway.url}/toploc" + (f"#answer/{answer}" if answer else ""))
    until(lambda: texts(browser, "#status") == ["live"])
    quiet(browser)


def quiet(browser: Chrome) -> None:
    assert browser.get_log("browser") == []


def models(browser: Chrome, upstream: int = 0) -> dict[str, str]:
    """The first line of an upstream's table."""
    card = all_of(browser, "#upstreams > .card")[upstream]
    names, cells = (
        [str(one.get_property("textContent")) for one in card.find_elements(By.CSS_SELECTOR, selector)]
        for selector in ("thead th", "tbody tr:first-child td")
    )
    return dict(zip(names, cells, strict=True)) if cells else {}


def pooled(report: dict[str, Any]) -> None:
    """Of a verifier with figures for the test over answers."""
    alarms = {"int8": {"threshold": 4.0, "audits": 100, "false_alarm": 0.01}}
    check = {"name": "pooled", "status": "passed", "message": "", "figures": {"evidence": {"int8": 1.5}}}
    report["checks"].append({**check, "thresholds": {"name": "mini", "alarms": alarms}})


def lie(response: dict[str, Any]) -> None:
    response["choices"][0]["message"]["content"] = EVIL


# Who sees it


def test_the_document_has_nothing_of_anybodys(start: Callable[..., Running], provider: Provider) -> None:
    """It comes without a key; what it reads does not."""
    gateway = start(provider, api_keys=[KEY])
    page = gateway.http.get("/toploc")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "toploc-mini" not in page.text
    policy = dict(part.split(" ", 1) for part in page.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert "unsafe" not in page.headers["content-security-policy"]
    assert gateway.http.get("/toploc/", follow_redirects=False).headers["location"] == "../toploc"
    for path in ("events", "answers", "answers/none"):
        assert gateway.http.get(f"/toploc/{path}").json()["error"]["code"] == "invalid_api_key"
    assert gateway.http.post("/toploc/verify?upstream=one", content=b"{}").status_code == 401


def test_it_asks_for_the_key(browser: Chrome, start: Callable[..., Running], provider: Provider) -> None:
    gateway = start(provider, api_keys=[KEY])
    browser.get(f"{gateway.url}/toploc")
    field = seen(browser, "#key input")
    assert browser.switch_to.active_element == field
    assert not browser.find_element(By.ID, "overview").is_displayed()
    field.send_keys("another", Keys.ENTER)
    until(lambda: "does not take this key" in texts(browser, "#problem")[0])
    seen(browser, "#key input").send_keys("na\u00efve", Keys.ENTER)
    until(lambda: "beyond ASCII" in texts(browser, "#problem")[0])
    seen(browser, "#key input").send_keys(KEY, Keys.ENTER)
    seen(browser, "#overview")
    assert KEY not in browser.page_source
    assert browser.execute_script("return localStorage.length + document.cookie.length") == 0
    browser.refresh()  # this tab knows it
    seen(browser, "#overview")
    browser.execute_script("sessionStorage.clear()")


LATE = """
const fetched = window.fetch;
window.fetch = async (path, options) => {
  const reply = await fetched(path, options);
  if (reply.status === 401 && path.includes("answers/")) {
    await new Promise((done) => { window.release = done; });
    setTimeout(() => { window.late = true; }, 500);
  }
  return reply;
};
"""


def test_a_late_refusal_is_of_the_key_before(
    browser: Chrome, start: Callable[..., Running], provider: Provider
) -> None:
    """The page asks for a state and an answer at once, and is refused twice."""
    gateway = start(provider, api_keys=[KEY])
    gateway.http.headers["authorization"] = f"Bearer {KEY}"
    report = gateway.ask(provider).headers["toploc-report"]
    script = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": LATE})
    try:
        browser.get(f"{gateway.url}/toploc#answer/{report}")
        field = seen(browser, "#key input")
        until(lambda: browser.execute_script("return Boolean(window.release)"))
        field.send_keys(KEY, Keys.ENTER)
        seen(browser, "#answer .answer.accepted")
        browser.execute_script("window.release()")
        until(lambda: browser.execute_script("return window.late"))
        assert browser.find_element(By.CSS_SELECTOR, "#answer .answer.accepted").is_displayed()
        assert not browser.find_element(By.ID, "key").is_displayed()
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)
        browser.execute_script("sessionStorage.clear()")


# What it shows


def test_an_answer_comes_while_it_is_open(browser: Chrome, start: Callable[..., Running], provider: Provider) -> None:
    gateway = start(provider)
    opened(browser, gateway)
    assert words(browser, "#upstreams h3 .verdict") == ["trusted"]
    assert "No answer yet." in texts(browser, "#upstreams .card")[0]
    reply = gateway.ask(provider)
    assert reply.headers["toploc-verdict"] == "accepted"
    until(lambda: models(browser).get("accepted") == "1")
    shown = models(browser)
    assert {name: shown[name] for name in ("model", "answers", "audited", "accepted", "rejected", "pending")} == {
        "model": "toploc-mini",
        "answers": "1",
        "audited": "1",
        "accepted": "1",
        "rejected": "0",
        "pending": "0",
    }
    field = provider.lying.field
    tokens = field["prompt"]["num_tokens"] + len(field["choices"][0]["token_ids"])
    assert shown["tokens read"] == f"{tokens:,}"
    assert shown["audit, median"].endswith((" ms", " s"))
    [line] = until(lambda: all_of(browser, "#listed a"))
    assert line.get_attribute("href").endswith(f"#answer/{reply.headers['toploc-report']}")
    assert "accepted" in line.text
    assert texts(browser, "#status") == ["live"]
    quiet(browser)


def test_a_lie_ends_the_trust_before_the_readers_eyes(
    browser: Chrome, start: Callable[..., Running], provider: Provider, other: Provider
) -> None:
    gateway = start(provider, other)
    opened(browser, gateway)
    provider.lying.change = lie
    report = gateway.ask(provider).headers["toploc-report"]
    until(lambda: words(browser, "#upstreams h3 .verdict") == ["quarantined", "trusted"])
    seen(browser, "#upstreams .facts a").click()
    seen(browser, "#answer .answer.rejected")
    assert browser.current_url.endswith(f"#answer/{report}")
    assert EVIL in texts(browser, "#answer .text")[0]
    browser.back()
    seen(browser, "#overview")
    Select(browser.find_element(By.CSS_SELECTOR, "#filter [name=verdict]")).select_by_visible_text("accepted")
    until(lambda: texts(browser, "#listed li") == ["There is none."])
    gateway.ask(other)
    until(lambda: len(all_of(browser, "#listed a")) == 1)
    assert "two" in texts(browser, "#listed a")[0]
    quiet(browser)


def test_one_answer(browser: Chrome, start: Callable[..., Running], provider: Provider) -> None:
    """Its text by chunks with their figures, checks, request, report and evidence."""
    gateway = start(provider)
    report = gateway.ask(provider).headers["toploc-report"]
    opened(browser, gateway, report)
    seen(browser, "#answer .answer.accepted")
    chunks = all_of(browser, "#answer .text .chunk")
    said = json.loads(RECORDED["greedy"])["response"]["choices"][0]["message"]["content"]
    assert "".join(str(chunk.get_property("textContent")) for chunk in chunks) == said
    assert {chunk.get_attribute("class") for chunk in chunks} == {"chunk passed"}
    tip = browser.find_element(By.ID, "figures")
    ActionChains(browser).move_to_element(chunks[1]).perform()
    assert "chunk 1, tokens 32 to 63: passed" in tip.text
    assert "mismatches" in tip.text
    browser.execute_script("arguments[0].focus()", chunks[0])
    assert "chunk 0, tokens 0 to 31" in tip.text
    folded = {words(browser, "summary")[place].split()[-1]: one for place, one in enumerate(all_of(browser, "details"))}
    checks = next(one for name, one in folded.items() if name.startswith("check"))
    assert "passed proofs of choice 0" in str(checks.get_property("textContent"))
    for one in all_of(browser, "#answer details summary"):
        one.click()
    until(lambda: "…" not in texts(browser, "#answer details pre"))
    shown = texts(browser, "#answer details pre")
    assert json.loads(shown[0]) == json.loads(gateway.http.get(f"/toploc/reports/{report}/evidence").content)["request"]
    kept = gateway.http.get(f"/toploc/reports/{report}").json()
    assert json.loads(shown[-2])["report"] == kept["report"]
    assert shown[-1] == gateway.http.get(f"/toploc/reports/{report}/evidence").text
    quiet(browser)
    ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    if not browser.find_element(By.ID, "overview").is_displayed():  # the first one took the figures away
        ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    seen(browser, "#overview")


def test_a_receipt(browser: Chrome, start: Callable[..., Running], provider: Provider, tmp_path: Path) -> None:
    lying = provider.lying
    lying.fresh = False
    signed = issue(
        SigningKey.create(tmp_path / "key.pem"),
        ToplocProofs.model_validate(lying.field),
        lying.honest,
        request_sha256=None,
        issued_at=1_790_000_000,
    )
    lying.change = lambda response: response.update(toploc_proofs=json.loads(signed.to_json()))
    gateway = start(provider)
    report = gateway.ask(provider).headers["toploc-report"]
    opened(browser, gateway, report)
    seen(browser, "#answer .answer")
    [folded] = [one for one in all_of(browser, "#answer details") if one.text == "receipt of choice 0"]
    folded.find_element(By.TAG_NAME, "summary").click()
    assert signed.choices is not None
    receipt = signed.choices[0].receipt
    assert receipt is not None
    for text in (receipt.signature, receipt.statement.key_id, "2026-09-21 14:13:20 UTC"):
        assert text in folded.text


def test_the_sequential_test_as_a_line(
    browser: Chrome, start: Callable[..., Running], provider: Provider, verifier_app: VerifierApp
) -> None:
    verifier_app.change = pooled
    gateway = start(provider)
    opened(browser, gateway)
    gateway.ask(provider)
    gateway.ask(provider)
    until(lambda: "3 of 4 after 2 answers" in " ".join(texts(browser, ".chart p")))
    assert texts(browser, ".chart figcaption") == ["mini, against int8, toploc-mini"]
    [drawn] = all_of(browser, ".chart svg")
    assert drawn.get_attribute("aria-label") == "the sum is 3 after 2 answers, an alarm is at 4"
    sum_, bound = (drawn.find_element(By.CSS_SELECTOR, f"path.{kind}").get_attribute("d") for kind in ("sum", "bound"))
    heights = [float(point.split()[1]) for point in sum_[1:].split("L")]
    assert len(heights) == 2
    assert heights[0] > heights[1] > float(bound[1:].split("L")[0].split()[1])
    gateway.ask(provider)
    until(lambda: words(browser, "#upstreams h3 .verdict") == ["quarantined"])
    assert all_of(browser, ".chart svg.raised")
    assert "alarm: 4.5 of 4 after 3 answers" in " ".join(texts(browser, ".chart p"))
    quiet(browser)


def test_an_upstream_that_nobody_checks(browser: Chrome, start: Callable[..., Running], provider: Provider) -> None:
    """Its answers are counted, and none is said to be audited."""
    gateway = start(provider, upstream={"proofs": "none", "verifiers": []})
    gateway.ask(provider)
    opened(browser, gateway)
    shown = until(lambda: models(browser))
    assert (shown["answers"], shown["audited"], shown["unchecked"]) == ("1", "0", "1")
    assert "none is checked" in texts(browser, "#upstreams .facts")[0]


def test_what_audits_found_outlives_the_gateway(start: Callable[..., Running], provider: Provider) -> None:
    gateway = start(provider)
    gateway.ask(provider)
    gateway.served.stop()
    again = start(provider)
    with again.http.stream("GET", "/toploc/events") as events:
        lines = events.iter_lines()
        assert next(lines) == "event: state"
        [upstream] = json.loads(next(lines).removeprefix("data: "))["upstreams"]
    [model] = upstream["models"]
    assert (model["answers"], model["audited"], model["verdicts"]["accepted"]) == (1, 1, 1)
    assert upstream["since"] > 0


# What nobody can make of it


def test_no_answer_becomes_a_part_of_the_page(
    browser: Chrome, start: Callable[..., Running], provider: Provider, verifier_app: VerifierApp
) -> None:
    def hostile(response: dict[str, Any]) -> None:
        response["model"] = response["choices"][0]["message"]["content"] = HOSTILE

    def spoken(report: dict[str, Any]) -> None:
        for check in report["checks"]:
            check["message"] = check["reason"] = HOSTILE
            check["details"] = [HOSTILE]

    provider.lying.change, verifier_app.change = hostile, spoken
    gateway = start(provider)
    request = {**provider.lying.request, "user": HOSTILE}
    refused = gateway.http.post(provider.lying.path, json=request)
    opened(browser, gateway)
    until(lambda: all_of(browser, "#listed a"))
    opened(browser, gateway, refused.headers["toploc-report"])
    seen(browser, "#answer .answer")
    for one in all_of(browser, "#answer details summary"):
        one.click()
    until(lambda: "…" not in texts(browser, "#answer details pre"))
    assert texts(browser, "#answer .text") == [HOSTILE]
    assert any(HOSTILE in text for text in texts(browser, "#answer .checks li"))
    assert len(all_of(browser, "script")) == len(all_of(browser, "style")) == 1
    assert all_of(browser, "img, iframe, object") == []
    assert len(all_of(browser, "b")) == len(all_of(browser, ".checks b"))
    assert browser.title == "toploc gateway"
    quiet(browser)


def test_what_a_script_could_do_is_forbidden(
    browser: Chrome, start: Callable[..., Running], provider: Provider
) -> None:
    """Should anything of an answer ever become a script, or be made HTML of."""
    opened(browser, start(provider))
    for attempt in (
        "document.body.innerHTML = '<b>x</b>'",
        "document.write('x')",
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'document.title = 1'}))",
    ):
        browser.execute_script(f"try {{ {attempt} }} catch {{}}")
    browser.execute_async_script("fetch('http://127.0.0.1:9/').catch(() => {}).then(arguments[0])")
    assert browser.title == "toploc gateway"
    said = " ".join(entry["message"] for entry in browser.get_log("browser"))
    assert "TrustedHTML" in said
    assert "connect-src" in said


# Evidence that is brought


def brought(browser: Chrome, text: str) -> None:
    area = seen(browser, "#drop textarea")
    browser.execute_script("arguments[0].value = arguments[1]", area, text)
    browser.find_element(By.CSS_SELECTOR, "#drop [name=verify]").click()


def test_evidence_is_pasted(browser: Chrome, start: Callable[..., Running], provider: Provider) -> None:
    """And counts for nobody's trust."""
    gateway = start(provider)
    opened(browser, gateway)
    brought(browser, json.dumps(json.loads(RECORDED["greedy"]), indent=1))
    until(lambda: texts(browser, "#progress") == ["1 of 1: 1 accepted"])
    assert len(all_of(browser, "#verdicts .chunk.passed")) > 1
    lines = [RECORDED["greedy"], RECORDED["int4-greedy"], '{"torn', '{"request": {}}']
    brought(browser, "\n".join(lines) + "\n")
    until(lambda: texts(browser, "#progress")[0].startswith("4 of 4"))
    assert texts(browser, "#progress") == ["4 of 4: 1 accepted, 1 rejected, 1 undecided, 1 unread"]
    assert words(browser, "#verdicts > li > details > summary .verdict") == [
        "accepted",
        "rejected",
        "unread",
        "undecided",
    ]
    all_of(browser, "#verdicts summary")[1].click()
    until(lambda: all_of(browser, "#verdicts .chunk.failed"))
    brought(browser, "  ")
    until(lambda: texts(browser, "#progress") == ["there is nothing to verify"])
    assert gateway.upstream()["state"] == "trusted"
    assert gateway.http.get("/toploc/answers").json()["answers"] == []
    quiet_but(browser, "400")


def quiet_but(browser: Chrome, status: str) -> None:
    """The browser itself notes replies of that status."""
    assert [one for one in browser.get_log("browser") if f"status of {status}" not in one["message"]] == []


def test_numbers_of_evidence_stay_as_they_are(
    browser: Chrome, start: Callable[..., Running], provider: Provider, verifier_app: VerifierApp
) -> None:
    """JavaScript has no integers above 2^53, which seeds are."""
    evidence = json.loads(RECORDED["greedy"])
    evidence["request"]["seed"] = 2**62 + 1
    opened(browser, start(provider))
    brought(browser, json.dumps(evidence))
    until(lambda: texts(browser, "#progress")[0].startswith("1 of 1"))
    assert verifier_app.asked[-1]["request"]["seed"] == 2**62 + 1


def test_files_are_dropped(browser: Chrome, start: Callable[..., Running], provider: Provider, tmp_path: Path) -> None:
    opened(browser, start(provider))
    (tmp_path / "one.json").write_text(json.dumps(json.loads(RECORDED["greedy"]), indent=1), "utf-8")
    (tmp_path / "two.jsonl").write_text(RECORDED["greedy-short"] + "\n\n" + RECORDED["int4-greedy"], "utf-8")
    chosen = browser.find_element(By.CSS_SELECTOR, "#drop [type=file]")
    chosen.send_keys(f"{tmp_path / 'one.json'}\n{tmp_path / 'two.jsonl'}")
    until(lambda: texts(browser, "#progress") == ["3 of 3: 2 accepted, 1 rejected"])
    browser.execute_script(DROP, RECORDED["greedy"])
    until(lambda: texts(browser, "#progress") == ["1 of 1: 1 accepted"])
    quiet(browser)


def test_tables_are_dropped(browser: Chrome, start: Callable[..., Running], provider: Provider, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    lines = tmp_path / "answers.jsonl"
    lines.write_text(RECORDED["greedy"] + "\n" + RECORDED["int4-greedy"], "utf-8")
    assert to_parquet(lines, tmp_path / "answers.parquet") == 2
    opened(browser, start(provider))
    chosen = browser.find_element(By.CSS_SELECTOR, "#drop [type=file]")
    chosen.send_keys(str(tmp_path / "answers.parquet"))
    until(lambda: texts(browser, "#progress") == ["2 of 2: 1 accepted, 1 rejected"])
    quiet(browser)
    (tmp_path / "torn.parquet").write_bytes((tmp_path / "answers.parquet").read_bytes()[:-9])
    chosen.send_keys(str(tmp_path / "torn.parquet"))
    until(lambda: texts(browser, "#progress") == ["the table cannot be read: ArrowInvalid"])


def test_a_gateway_without_pyarrow_says_so(
    start: Callable[..., Running], provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    reply = start(provider).http.post("/toploc/rows", content=b"PAR1")
    assert (reply.status_code, reply.json()["error"]["code"]) == (501, "no_pyarrow")
    assert "pip install pyarrow" in reply.json()["error"]["message"]


DROP = """
const held = new DataTransfer();
held.items.add(new File([arguments[0]], "answers.jsonl"));
for (const kind of ["dragenter", "dragover", "drop"]) {
  const dragged = new DragEvent(kind, { dataTransfer: held, bubbles: true, cancelable: true });
  document.getElementById("drop").dispatchEvent(dragged);
}
"""


@pytest.mark.parametrize(
    ("query", "body", "status", "code"),
    [
        ("upstream=none", b"{}", 404, "unknown_upstream"),
        ("upstream=plain", b"{}", 409, "no_verifiers"),
        ("upstream=one", b"{", 400, "malformed_evidence"),
        ("upstream=one", b"\xff", 400, "malformed_evidence"),
        ("upstream=one", b'{"a": "' + b"x" * 70_000 + b'"}', 413, "too_large"),
    ],
)
def test_what_is_no_evidence(
    start: Callable[..., Running], provider: Provider, tmp_path: Path, query: str, body: bytes, status: int, code: str
) -> None:
    """Where nobody but a receipt's key says anything of an upstream's answers, nobody is asked."""
    parts: dict[str, Any] = {}
    if "plain" in query:
        SigningKey.create(tmp_path / "key.pem")
        parts = {"name": "plain", "trusted_keys": str(tmp_path / "key.pem"), "verifiers": []}
    gateway = start(provider, upstream=parts, limits={"body_bytes": 65536})
    reply = gateway.http.post(f"/toploc/verify?{query}", content=body)
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)


def test_lists_of_answers(start: Callable[..., Running], provider: Provider) -> None:
    gateway = start(provider)
    ids = [gateway.ask(provider).headers["toploc-report"] for _ in range(3)]
    listed = gateway.http.get("/toploc/answers").json()
    assert [one["id"] for one in listed["answers"]] == ids[::-1]
    assert listed["more"] is False
    assert "request" not in listed["answers"][0]
    middle = listed["answers"][1]["made_at"]
    older = gateway.http.get(f"/toploc/answers?before={middle}&verdict=accepted&upstream=one").json()["answers"]
    assert [one["id"] for one in older] == ids[:1]
    for query in ("verdict=rejected", "upstream=two", "before=0", "verdict='"):
        assert gateway.http.get(f"/toploc/answers?{query}").json()["answers"] == []
    for query in ("before=x", "before=nan"):
        reply = gateway.http.get(f"/toploc/answers?{query}")
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "before")


# How it looks and is used


@pytest.fixture
def shown(
    start: Callable[..., Running], provider: Provider, other: Provider, verifier_app: VerifierApp
) -> tuple[Running, str]:
    """A gateway that has seen something, and a rejected answer."""
    verifier_app.change = pooled
    gateway = start(provider, other)
    gateway.ask(other)
    gateway.ask(provider)
    provider.lying.change = lambda response: response.update(json.loads(RECORDED["int4-greedy"])["response"])
    report = gateway.ask(provider).headers["toploc-report"]
    return gateway, report


@pytest.mark.parametrize("kind", ["light", "dark"])
def test_on_a_phone(phone: Chrome, shown: tuple[Running, str], kind: str) -> None:
    gateway, report = shown
    scheme(phone, kind)
    grounds = {"light": "rgba(246, 247, 249, 1)", "dark": "rgba(20, 24, 30, 1)"}
    opened(phone, gateway)
    until(lambda: all_of(phone, "#listed a"))
    until(lambda: all_of(phone, ".chart"))
    assert overflow(phone) == 0
    assert phone.find_element(By.TAG_NAME, "body").value_of_css_property("background-color") == grounds[kind]
    assert phone.execute_script(CONTRAST) == []
    opened(phone, gateway, report)
    seen(phone, "#answer .answer")
    for one in all_of(phone, "#answer details summary"):
        one.click()
    assert overflow(phone) == 0
    assert phone.execute_script(CONTRAST) == []


FOCUSED = """
const element = document.activeElement;
const name = element.name || element.className || element.localName;
return [name, getComputedStyle(element).outlineStyle];
"""


def test_all_of_it_by_keyboard(browser: Chrome, shown: tuple[Running, str]) -> None:
    gateway, _ = shown
    opened(browser, gateway)
    until(lambda: len(all_of(browser, "#listed a")) == 3)
    # What is told of an upstream may come after the list of its answers.
    seen(browser, "#upstreams .wide")
    reached = set()
    for _ in range(40):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        name, outline = browser.execute_script(FOCUSED)
        reached.add(name)
        assert name == "body" or outline != "none", name
    assert {"wide", "upstream", "verdict", "a", "text", "verify", "files"} <= reached
    line = seen(browser, "#listed li.rejected a")
    browser.execute_script("arguments[0].focus()", line)
    line.send_keys(Keys.ENTER)
    seen(browser, "#answer .answer.rejected")
    until(lambda: browser.switch_to.active_element.tag_name == "h2")
    for _ in range(3):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        if "chunk" in (browser.switch_to.active_element.get_attribute("class") or ""):
            break
    assert browser.find_element(By.ID, "figures").is_displayed()
    ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    assert not browser.find_element(By.ID, "figures").is_displayed()
    assert browser.find_element(By.ID, "answer").is_displayed()
    ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    seen(browser, "#overview")


def test_it_says_when_it_is_not_live(
    browser: Chrome, start: Callable[..., Running], provider: Provider, free_port: int
) -> None:
    gateway = start(provider, port=free_port)
    opened(browser, gateway)
    gateway.served.stop()
    until(lambda: "not live" in texts(browser, "#status")[0])
    start(provider, port=free_port)
    until(lambda: texts(browser, "#status") == ["live"])


def test_a_page_that_is_open_does_not_keep_the_gateway_from_stopping(
    provider: Provider, verifier: Served, tmp_path: Path, free_port: int
) -> None:
    config = config_of(tmp_path, verifier.url, (provider,), {}, {"timeouts": {"stop": 10_000}})
    with (
        Process(tmp_path, {**config, "port": free_port}) as gateway,
        httpx.Client(base_url=gateway.http.base_url, timeout=60) as http,
        http.stream("GET", "/toploc/events") as events,
    ):
        parts = events.iter_bytes()
        assert next(parts).startswith(b"event: state")
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(60) == 0


def test_no_more_pages_than_the_gateway_keeps_up_to_date(start: Callable[..., Running], provider: Provider) -> None:
    gateway = start(provider)
    streams = [gateway.http.stream("GET", "/toploc/events") for _ in range(33)]
    replies = [stream.__enter__() for stream in streams]
    assert [reply.status_code for reply in replies].count(200) <= 32
    for stream in streams:
        stream.__exit__(None, None, None)


def test_an_answer_that_is_held_to_its_text_alone(
    browser: Chrome, start: Callable[..., Running], provider: Provider
) -> None:
    provider.lying.change = lambda response: response.pop("toploc_proofs") and None
    gateway = start(provider, upstream={"proofs": "none"}, policy={"quarantine": {"after": []}})
    reply = gateway.ask(provider)
    verdict = reply.headers["toploc-verdict"]
    assert verdict in ("weak", "undecided")
    opened(browser, gateway)
    until(lambda: models(browser).get(verdict) == "1")
    assert "all checked by their text alone" in texts(browser, "#upstreams .facts")[0]
    opened(browser, gateway, reply.headers["toploc-report"])
    said = json.loads(RECORDED["greedy"])["response"]["choices"][0]["message"]["content"]
    assert said in seen(browser, "#answer pre.response").text
    quiet(browser)

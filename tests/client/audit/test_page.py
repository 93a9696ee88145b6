"""The page of an audit in a real browser: what it shows, that it asks nobody, that no answer becomes a part of it."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest
from browsing import all_of, texts, words
from recorded import RECORDED, ROOT, file_of
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select
from tokenizers import Tokenizer
from toploc_client.audit.command import main
from toploc_client.audit.entry import Entry, entry_of
from toploc_client.audit.journal import Journal
from toploc_client.audit.page.page import Page
from toploc_client.audit.page.shown import MOST_REJECTED, MOST_UNDECIDED
from toploc_client.audit.readers import JsonLines
from toploc_client.audit.table import Table

from toploc.page.figures import ratio
from toploc.report import Report

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Server
    from selenium.webdriver import Chrome

HOSTILE = (
    "</script><script>document.title = 'owned'</script><img src=x onerror=\"document.title='owned'\">"
    "<!--<style>*{display:none}</style>{{ 7 * 7 }}{% raw %}&lt;b&gt;\u202e\u2028"
)


def opened(browser: Chrome, path: Path) -> None:
    """The page, which has loaded nothing else and of which the browser has nothing to say."""
    browser.get(path.as_uri())
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert browser.get_log("browser") == []
    assert browser.title.startswith("Audit of ")


@pytest.fixture(scope="module")
def reports(server: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of an audit of all recorded answers, and their file."""
    folder = tmp_path_factory.mktemp("audit")
    file = file_of(folder / "answers.jsonl", *RECORDED)
    assert main([str(file), "--verifier", server.url, "--out", str(folder / "report")]) == 1
    return folder / "report", file


def test_an_alarm_and_chunks_of_either_kind(browser: Chrome, pooling_server: Server, tmp_path: Path) -> None:
    file = file_of(tmp_path / "answers.jsonl", *["greedy"] * 3, *["int4-greedy"] * 4)
    assert main([str(file), "--verifier", pooling_server.url, "--out", str(tmp_path / "report")]) == 1
    opened(browser, tmp_path / "report" / "index.html")
    assert texts(browser, "#pooled tbody td")[:4] == ["paper, pooled", "int4", "7", "answer 4, line 4"]
    # Verdict and alarm come before all else.
    sections = [section.get_attribute("id") for section in all_of(browser, "section")]
    assert sections[:2] == ["verdict", "alarm"]
    assert words(browser, "#verdict strong") == ["4 of 7 responses are rejected."]
    assert words(browser, "#alarm strong") == ["Alarm at answer 4 of 7, line 4."]
    assert "likelier int4's than the honest model's, by the thresholds paper, pooled." in words(browser, "#alarm")[0]
    # By the paper's bounds a part of the copy's chunks passes.
    assert len(all_of(browser, "#list .chunk.passed")) == 2 * 4
    assert len(all_of(browser, "#list .chunk.failed")) == 3 * 4


def test_what_the_page_shows(browser: Chrome, reports: tuple[Path, Path]) -> None:
    opened(browser, reports[0] / "index.html")
    assert not all_of(browser, "#alarm, #pooled")
    tiles = dict(zip(texts(browser, ".tiles dt"), texts(browser, ".tiles dd:not(.share)"), strict=True))
    summary = json.loads((reports[0] / "summary.json").read_bytes())["total"]
    assert tiles["responses"] == str(len(RECORDED)) == str(summary["responses"])
    assert (tiles["rejected"], tiles["undecided"]) == (str(summary["rejected"]), str(summary["undecided"]))
    assert "toploc-mini" in texts(browser, "#table tbody td")
    titles = ["Mismatches of 128 points", "Mantissa difference, mean", "Mantissa difference, median"]
    assert texts(browser, ".model figcaption") == titles
    for chart in all_of(browser, ".chart"):
        bound = float(chart.find_element(By.CSS_SELECTOR, "line.bound").get_attribute("x1"))
        within = chart.find_elements(By.CSS_SELECTOR, "rect.within")
        beyond = chart.find_elements(By.CSS_SELECTOR, "rect.beyond")
        assert within
        assert beyond
        for bar in within:
            assert float(bar.get_attribute("x")) + float(bar.get_attribute("width")) <= bound
        assert all(float(bar.get_attribute("x")) >= bound for bar in beyond)
        assert all(float(bar.get_attribute("height")) > 0 for bar in within + beyond)
    assert f"All {summary['rejected']} rejected responses are on this page." in texts(browser, "#shown-rejected")[0]
    assert len(all_of(browser, ".answer")) == summary["rejected"] + summary["undecided"] <= 10


def test_the_worst_answer_comes_first(browser: Chrome, reports: tuple[Path, Path]) -> None:
    """The rejected before undecided, and of them those whose chunk is furthest beyond its bound."""
    opened(browser, reports[0] / "index.html")
    entries = [Entry.model_validate_json(line) for line in (reports[0] / "reports.jsonl").read_bytes().splitlines()]
    furthest = {
        entry.id: max((ratio(p) for c in entry.chunks() for p in c.figures if p), default=0) for entry in entries
    }
    ids = texts(browser, ".answer code")
    verdicts = texts(browser, ".answer .verdict")
    assert verdicts == sorted(verdicts)
    reasons = texts(browser, "#reasons td:first-child")
    assert reasons == sorted(reasons)
    rejected = [name for name, verdict in zip(ids, verdicts, strict=True) if verdict == "rejected"]
    assert len(rejected) > 1
    assert rejected == sorted(rejected, key=lambda name: -furthest[name])
    assert ids[0] in words(browser, "#verdict")[0]


def test_one_accepted_answer(browser: Chrome, server: Server, tmp_path: Path) -> None:
    """Nothing is counted wrongly, and no panel is there to say that it is empty."""
    file = file_of(tmp_path / "answers.jsonl", "greedy-short")
    assert main([str(file), "--verifier", server.url, "--out", str(tmp_path / "report")]) == 0
    opened(browser, tmp_path / "report" / "index.html")
    assert words(browser, "#verdict strong") == ["The one response is accepted."]
    assert not all_of(browser, "#alarm, #pooled, #responses, #reasons, form")
    seen = browser.find_element(By.TAG_NAME, "body").text
    assert not re.search(r"\b1 (responses|answers|chunks|tokens|checks)\b", seen)
    assert all(section.text for section in all_of(browser, "section, article, figure, table"))


def test_a_share_of_nothing(browser: Chrome, server: Server, tmp_path: Path) -> None:
    file = file_of(tmp_path / "answers.jsonl", "greedy-short")
    call = [str(file), "--verifier", server.url, "--out", str(tmp_path / "report")]
    assert main([*call, "--sample", "1e-9", "--seed", "a"]) == 0
    opened(browser, tmp_path / "report" / "index.html")
    assert words(browser, "#verdict") == ["No response was drawn."]
    assert not all_of(browser, "#alarm, #pooled, #responses, #reasons, #verifiers, #models, #table")


def test_one_rejected_answer_and_one_undecided(browser: Chrome, server: Server, tmp_path: Path) -> None:
    file = file_of(tmp_path / "answers.jsonl", "greedy", "int4-greedy", "no-proofs")
    assert main([str(file), "--verifier", server.url, "--out", str(tmp_path / "report")]) == 1
    opened(browser, tmp_path / "report" / "index.html")
    [said] = words(browser, "#verdict")
    assert said.startswith("1 of 3 responses is rejected. 1 is accepted, 1 could not be verified.")
    assert words(browser, ".shown") == [
        "The rejected response is on this page.",
        "The undecided response is on this page.",
    ]
    assert not [nav for nav in all_of(browser, "nav.pages") if nav.is_displayed()]
    # One model is nothing to choose from.
    choices = [label for label in all_of(browser, "#filter label") if label.is_displayed()]
    assert [label.text.split()[0] for label in choices] == ["verdict", "reason", "id"]


def test_on_a_phone(phone: Chrome, reports: tuple[Path, Path]) -> None:
    opened(phone, reports[0] / "index.html")
    for selector, name in {
        "#table tbody td:first-child": "meta-llama/Llama-3.1-8B-Instruct",
        "#reasons td:last-child": "proofs: malformed_proof.coefficient",
    }.items():
        for cell in all_of(phone, selector):
            phone.execute_script("arguments[0].textContent = arguments[1]", cell, name)
    assert phone.execute_script("return document.documentElement.scrollWidth") <= 400
    heads = words(phone, "#table .wide th")
    for name in ("accepted", "rejected"):
        for cell in all_of(phone, f"#table .wide tr > :nth-child({heads.index(name) + 1})"):
            assert cell.rect["x"] >= 0
            assert cell.rect["x"] + cell.rect["width"] <= 400 - 12
    assert phone.execute_script(BROKEN_WORDS, "#reasons td") == []
    for line in all_of(phone, ".chart .bounds"):
        assert line.rect["height"] < 1.9 * float(line.value_of_css_property("font-size")[:-2])


BROKEN_WORDS = """
const broken = [];
for (const cell of document.querySelectorAll(arguments[0])) {
  const text = cell.firstChild;
  for (const word of text.data.matchAll(/[^\\s]+/g)) {
    const range = document.createRange();
    range.setStart(text, word.index);
    range.setEnd(text, word.index + word[0].length);
    if (range.getClientRects().length > 1) broken.push(word[0]);
  }
}
return broken;
"""


def test_all_of_it_by_keyboard(browser: Chrome, reports: tuple[Path, Path]) -> None:
    """Tab reaches links, what scrolls, the filter and every chunk, whose figures Escape takes away."""
    opened(browser, reports[0] / "index.html")
    reached: set[str] = set()
    tip = browser.find_element(By.ID, "figures")
    for _ in range(40):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        focused = browser.switch_to.active_element
        reached.add(focused.get_attribute("class") or focused.tag_name)
        if "chunk" in (focused.get_attribute("class") or ""):
            break
    assert {"a", "wide", "select", "input"} <= reached
    assert tip.is_displayed()
    ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    assert not tip.is_displayed()


def test_chunks_have_the_colour_of_their_verdict_and_figures_on_hover(
    browser: Chrome, reports: tuple[Path, Path]
) -> None:
    opened(browser, reports[0] / "index.html")
    lines = [json.loads(line) for line in (reports[0] / "reports.jsonl").read_bytes().splitlines()]
    number = list(RECORDED).index("other-system") + 1
    [entry] = [Entry.model_validate(line) for line in lines if line["line"] == number]
    [answer] = [one for one in all_of(browser, ".answer") if entry.id in one.text]
    chunks = answer.find_elements(By.CSS_SELECTOR, ".text .chunk")
    verdicts = ["passed" if chunk.passed else "failed" for chunk in entry.chunks()]
    assert [chunk.get_attribute("class") for chunk in chunks] == [f"chunk {verdict}" for verdict in verdicts]
    assert "failed" in verdicts
    said = json.loads(RECORDED["other-system"])["response"]["choices"][0]["message"]["content"]
    assert "".join(chunk.text for chunk in chunks) == said
    colours = {chunk.value_of_css_property("background-color") for chunk in chunks}
    assert len(colours) == len(set(verdicts))
    tip = browser.find_element(By.ID, "figures")
    assert not tip.is_displayed()
    for place, chunk in enumerate(entry.chunks()):
        ActionChains(browser).move_to_element(chunks[place]).perform()
        assert tip.is_displayed()
        mismatches = f"{chunk.raw['mismatches']} of {chunk.raw['bounds']['mismatches']:g}"
        assert f"chunk {place}, tokens {32 * place} to" in tip.text
        assert mismatches in tip.text
        assert len(tip.find_elements(By.CSS_SELECTOR, "tr.beyond")) == sum(
            chunk.raw[name] > bound for name, bound in chunk.raw["bounds"].items()
        )


def test_answers_are_found_by_verdict_and_id(browser: Chrome, reports: tuple[Path, Path]) -> None:
    opened(browser, reports[0] / "index.html")
    Select(browser.find_element(By.NAME, "verdict")).select_by_value("undecided")
    assert set(texts(browser, ".answer .verdict")) == {"undecided"}
    Select(browser.find_element(By.NAME, "verdict")).select_by_value("")
    wanted = json.loads(RECORDED["int4-greedy"])["response"]["id"]
    browser.find_element(By.NAME, "id").send_keys(wanted)
    assert texts(browser, ".answer code") == [wanted]


def hostile(name: str, *, by_tokens: bool) -> str:
    """A recorded answer that says what would be a script; its tokens say so too, or not."""
    evidence = json.loads(RECORDED[name])
    response = evidence["response"]
    response["id"] = response["model"] = evidence["request"]["user"] = HOSTILE
    message = response["choices"][0]["message"]
    message["content"] = HOSTILE
    if by_tokens:
        tokenizer = Tokenizer.from_file(str(ROOT / "models" / "toploc-mini" / "tokenizer.json"))
        ids = tokenizer.encode(HOSTILE, add_special_tokens=False).ids
        claimed = response["toploc_proofs"]["choices"][0]
        proofs = -(-len(ids) // 32)
        claimed.update(token_ids=ids, proofs=(claimed["proofs"] * 9)[:proofs])
        response["choices"][0]["finish_reason"] = "length"
        evidence["request"]["max_tokens"] = len(ids)
    return json.dumps(evidence)


def test_no_answer_becomes_a_part_of_the_page(browser: Chrome, server: Server, tmp_path: Path) -> None:
    file = tmp_path / "<b>answers.jsonl"
    lines = [hostile("greedy", by_tokens=True), hostile("greedy", by_tokens=False), '{"torn </script>']
    file.write_text("\n".join(lines), "utf-8")
    assert main([str(file), "--verifier", server.url, "--out", str(tmp_path / "report")]) == 1
    opened(browser, tmp_path / "report" / "index.html")
    assert len(all_of(browser, ".answer")) == 3
    assert len(all_of(browser, "script")) == 2
    assert len(all_of(browser, "style")) == 1
    assert len(all_of(browser, "img, iframe, b")) == len(all_of(browser, ".checks b"))
    answers = {
        f"line {number}": answer
        for number in (1, 2)
        for answer in all_of(browser, ".answer")
        if f"line {number} " in answer.text
    }
    chunks = answers["line 1"].find_elements(By.CSS_SELECTOR, ".text .chunk")
    assert "".join(str(chunk.get_property("textContent")) for chunk in chunks) == HOSTILE
    text = answers["line 2"].find_element(By.CSS_SELECTOR, ".text")
    assert text.get_property("textContent") == HOSTILE
    assert answers["line 2"].find_elements(By.CSS_SELECTOR, ".strip .chunk.failed, .strip .chunk.passed")
    assert browser.title == "Audit of <b>answers.jsonl"


def test_a_page_of_100_000_answers(browser: Chrome, reports: tuple[Path, Path], tmp_path: Path) -> None:
    """Real reports, each on many answers of several days and models."""
    file, count = tmp_path / "answers.jsonl", 100_000
    names = ["greedy-short", "stop-token", "int4-greedy", "no-output"]
    known = {line["line"]: line for line in map(json.loads, (reports[0] / "reports.jsonl").read_bytes().splitlines())}
    kinds: list[tuple[bytes, Report]] = []
    for name in names:
        report = Report.model_validate(known[list(RECORDED).index(name) + 1]["report"])
        kinds.append((RECORDED[name].encode(), report))
    file.write_bytes(b"".join(data + b"\n" for data, _ in kinds))
    offsets = [sum(len(data) + 1 for data, _ in kinds[:place]) for place in range(len(kinds))]
    entries = [
        entry_of(1, offset, sha256(data).hexdigest(), data, report, "http://verifier")
        for offset, (data, report) in zip(offsets, kinds, strict=True)
    ]
    table = Table()
    with Journal(tmp_path / "report", file, 1.0, "seed") as journal:
        page = Page(JsonLines(file), journal.draw, table)
    for number in range(count):
        kind = 2 if number % 50 == 0 else 3 if number % 50 == 1 else number % 2
        created = 1_790_000_000 + 86_400 * (number // 3 % 30)
        changes: dict[str, Any] = {"line": number + 1, "created": created, "model": f"model-{number % 3}"}
        entry = entries[kind].model_copy(update=changes)
        table.add(entry)
        page.add(entry)
    page.write(tmp_path / "report" / "index.html")
    assert (tmp_path / "report" / "index.html").stat().st_size < 8 * 2**20
    opened(browser, tmp_path / "report" / "index.html")
    assert texts(browser, ".tiles dd")[0] == "100,000"
    assert (
        f"{MOST_REJECTED:,} of 2,000 rejected responses are on this page, drawn at random."
        in texts(browser, "#shown-rejected")[0]
    )
    assert (
        f"{MOST_UNDECIDED:,} of 2,000 undecided responses are on this page, drawn at random."
        in texts(browser, "#shown-undecided")[0]
    )
    assert len(all_of(browser, ".model")) == 3
    assert len(all_of(browser, "#table .wide tbody tr")) == 90
    assert len(all_of(browser, ".answer")) == 10
    assert "1 to 10 of 1,200, page 1 of 120" in texts(browser, "nav.pages")[0]
    first = texts(browser, ".answer")[0]
    browser.find_element(By.XPATH, "//nav//button[text()='Next']").click()
    assert "11 to 20 of 1,200, page 2 of 120" in texts(browser, "nav.pages")[0]
    assert texts(browser, ".answer")[0] != first

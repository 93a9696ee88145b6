"""Writes `toploc/conformance/vectors` from the documents' vectors and the tests' fixtures.

    python tests/toploc/conformance/write_vectors.py [--check]

Answers are this library's. Where a fixture's name or a document says the answer, both have to agree.
"""

from __future__ import annotations

import json
import sys
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proof_cases import proof_cases
from report_cases import report_cases

from toploc.conformance.cases import FAMILIES
from toploc.conformance.ours import QUESTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parents[1]
VECTORS = ROOT / "toploc" / "conformance" / "vectors"
Question = tuple[str, str, Any, Any]
"""A name, a question, its input, and what the answer has to contain."""


ROUTES = (
    *("tools/chat-three-choices-stream", "tools/chat-tools-parallel", "tools/completion-several-ids"),
    *("tools/message-text-stream", "tools/message-tool-use", "tools/response-conversation"),
    *("tools/response-text-and-function", "turns/response-tool-turn", "tokens/generate-ids"),
    *("tokens/generate-three-choices-stream", "reasoning/chat-reasoning"),
)
"""Recordings of each route beside those of the first folder; all of them would be megabytes."""

TOO_LONG = ("nested-50000",)
"""Of malformed documents. Shorter ones ask the same."""


def evidence_cases() -> Iterator[Question]:
    routes = [TESTS / "evidence" / "routes" / f"{name}.json" for name in ROUTES]
    for path in [*sorted(TESTS.glob("evidence/*.json")), *routes]:
        text = json.dumps(json.loads(path.read_text("utf-8")), separators=(",", ":"))
        wrong = {"malformed": True} if path.stem == "no-proofs" else {}
        yield path.stem, "evidence", {"text": text}, wrong
    for path in sorted(TESTS.glob("malformed_evidence/*")):
        if path.stem not in TOO_LONG:
            asked = {"base64": b64encode(path.read_bytes()).decode()}
            yield path.stem, "evidence", asked, {"malformed": True, "verdict": "undecided"}
    for name, (where, value, verdict) in BROKEN.items():
        yield name, "evidence", {"text": json.dumps(changed("two-choices", where, value))}, {"verdict": verdict}


FIELD = ("response", "toploc_proofs")
CHOICE = (*FIELD, "choices", 0)
BROKEN: dict[str, tuple[tuple[str | int, ...], Any, str]] = {
    "no-request": (("request",), ..., "undecided"),
    "no-response": (("response",), ..., "undecided"),
    "unknown-field": (("extra",), 1, "undecided"),
    "partial-number": (("partial",), 1, "undecided"),
    "body-of-another-request": (("request_body",), "{}", "undecided"),
    "two-routes": (("request", "prompt"), "a", "undecided"),
    "fewer-choices-than-asked": (("request", "n"), 3, "undecided"),
    "object-of-another-route": (("response", "object"), "text_completion", "undecided"),
    "choice-index-twice": (("response", "choices", 1, "index"), 0, "undecided"),
    "choice-without-message": (("response", "choices", 1, "message"), ..., "undecided"),
    "field-missing": (FIELD, ..., "undecided"),
    "field-null": (FIELD, None, "rejected"),
    "version": ((*FIELD, "version"), 2, "rejected"),
    "scheme": ((*FIELD, "scheme"), "md5", "rejected"),
    "chunk-size": ((*FIELD, "chunk_size"), 1, "rejected"),
    "prompt-digest": ((*FIELD, "prompt", "sha256"), "abc", "rejected"),
    "prompt-of-a-billion-tokens": ((*FIELD, "prompt", "num_tokens"), 10**9, "rejected"),
    "proven-choice-missing": ((*FIELD, "choices", 1), ..., "rejected"),
    "proven-choice-twice": ((*FIELD, "choices", 1, "index"), 0, "rejected"),
    "no-tokens": ((*CHOICE, "token_ids"), [], "rejected"),
    "token-negative": ((*CHOICE, "token_ids", 3), -1, "rejected"),
    "token-above-32-bits": ((*CHOICE, "token_ids", 3), 2**32, "rejected"),
    "token-text": ((*CHOICE, "token_ids", 3), "5", "rejected"),
    "token-fraction": ((*CHOICE, "token_ids", 3), 5.5, "rejected"),
    "token-ids-missing": ((*CHOICE, "token_ids"), ..., "undecided"),
    "proof-number": ((*CHOICE, "proofs", 0), 5, "rejected"),
}
"""What is replaced in the evidence `two-choices`, or left out where it is `...`, and the verdict on that."""


def changed(name: str, where: tuple[str | int, ...], value: Any) -> Any:
    document = json.loads((TESTS / "evidence" / f"{name}.json").read_text("utf-8"))
    *parents, last = where
    place = document
    for part in parents:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return document


def receipt_cases() -> Iterator[Question]:
    vectors = json.loads((ROOT / "docs" / "receipt-vectors.json").read_text("utf-8"))
    for group in ("cases", "bodies", "leaves"):
        for place, case in enumerate(vectors[group]):
            name = f"{group}-{place}-{Path(case['evidence']).stem}"
            yield from _signed(name, case, vectors)
    yield from _kept_in_part(vectors)
    for path in sorted(TESTS.glob("rejected_receipts/*.json")):
        asked = json.loads(path.read_text("utf-8"))
        keys = asked["keys"] if isinstance(asked["keys"], list) else [asked["keys"]]
        wrong = [{"choice": 0, "status": "failed", "reason": path.stem.partition("-")[0], "uncovered": []}]
        yield path.stem, "receipt", {**asked, "keys": keys}, {"results": wrong}
    for name, value in {
        "numbers": [1.0, 0, -0.0, 1e21, 1e-7, 0.1, 5e-324, 9007199254740991],
        "texts": ['\u20ac\n\u0007"\\/', "\U0001f600", "\u00e9"],
        "order": {"\U0001f600": 1, "\ufb33": 2, "b": 3, "a": {"d": None, "c": []}},
    }.items():
        yield name, "canonical", {"value": value}, {}


def _signed(name: str, case: dict[str, Any], vectors: dict[str, Any]) -> Iterator[Question]:
    """A choice with the receipt that the document has for it, trusted, untrusted and by a key that is none."""
    evidence = json.loads((TESTS / "evidence" / f"{case['evidence']}.json").read_text("utf-8"))
    response, number = evidence["response"], case["choice"]
    chosen = next(one for one in response["toploc_proofs"]["choices"] if one["index"] == number)
    receipt = {"statement": json.loads(case["statement"]), "signature": case["signature"]}
    field = {**response["toploc_proofs"], "choices": [{**chosen, "receipt": receipt}]}
    body = {"body": case["request_body"]} if "request_body" in case else {}
    asked = {
        "request": json.loads(case["request_body"]) if body else evidence["request"],
        "response": {**response, "toploc_proofs": field},
        "keys": [vectors["public_key"]],
        **body,
    }
    yield name, "receipt", asked, {}
    if name.startswith("cases-0"):
        yield f"{name}-no-keys", "receipt", {**asked, "keys": []}, {}
        unsigned = {**response, "toploc_proofs": {**field, "choices": [chosen]}}
        yield f"{name}-unsigned", "receipt", {**asked, "response": unsigned}, {}


def _kept_in_part(vectors: dict[str, Any]) -> Iterator[Question]:
    """The second choice of two as a table of rollouts keeps it: by itself, its request written anew."""
    case = next(one for one in vectors["cases"] if (one["evidence"], one["choice"]) == ("two-choices", 1))
    evidence = json.loads((TESTS / "evidence" / "two-choices.json").read_text("utf-8"))
    field = evidence["response"]["toploc_proofs"]
    receipt = {"statement": json.loads(case["statement"]), "signature": case["signature"]}
    choice = {**field["choices"][1], "index": 0, "receipt": receipt}
    kept = {"request_id": "row-7", "choices": [{"index": 0, "token_ids": choice["token_ids"]}]}
    asked = {
        "request": {"token_ids": [1, 2, 3], "sampling_params": {"temperature": 1.0, "n": 1}},
        "response": {**kept, "toploc_proofs": {**field, "choices": [choice]}},
        "keys": [vectors["public_key"]],
    }

    def result(status: str, reason: str | None, *uncovered: str) -> dict[str, Any]:
        return {"results": [{"choice": 0, "status": status, "reason": reason, "uncovered": [*uncovered]}]}

    yield "partial-row", "receipt", {**asked, "partial": True}, result("passed", None, "leaves")
    yield "partial-row-as-whole", "receipt", asked, result("failed", "request_differs")
    for reason, change in KEPT_AND_CHANGED.items():
        changed_row = json.loads(json.dumps({**asked, "partial": True}))
        change(changed_row["response"])
        yield f"partial-{reason}", "receipt", changed_row, result("failed", reason)


def _other_ids(response: dict[str, Any]) -> None:
    """Which the row itself says, too."""
    for holder in (response["choices"][0], response["toploc_proofs"]["choices"][0]):
        holder["token_ids"] = [*holder["token_ids"][:-1], 9]


KEPT_AND_CHANGED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "tokens_differ": _other_ids,
    "proofs_differ": lambda response: response["toploc_proofs"]["choices"][0]["proofs"].pop(),
    "prompt_differs": lambda response: response["toploc_proofs"]["prompt"].update(sha256="0" * 64),
    "response_differs": lambda response: response["choices"][0].update(finish_reason="abort"),
}


CASES = {
    "proofs": lambda: proof_cases(ROOT),
    "evidence": evidence_cases,
    "receipts": receipt_cases,
    "reports": report_cases,
}


def written(family: str) -> str:
    """The file of a family."""
    lines, ids = [], set()
    for name, question, asked, known in CASES[family]():
        case_id = f"{family}/{question}/{name}"
        output = QUESTIONS[question](asked)
        for field, value in known.items():
            got = output.get(field)
            # Of a response of several choices, a fixture is about the first.
            assert (got[: len(value)] if isinstance(value, list) and got else got) == value, (case_id, field, output)
        assert case_id not in ids, case_id
        ids.add(case_id)
        lines.append(json.dumps({"id": case_id, "question": question, "input": asked, "output": output}))
    return "\n".join(lines) + "\n"


def main() -> int:
    stale = [family for family in FAMILIES if not _is_written(VECTORS / f"{family}.jsonl", written(family))]
    if "--check" not in sys.argv:
        for family in stale:
            (VECTORS / f"{family}.jsonl").write_text(written(family), "utf-8")
    elif stale:
        print(f"not as {Path(__file__).name} writes them: {', '.join(stale)}", file=sys.stderr)
        return 1
    return 0


def _is_written(path: Path, text: str) -> bool:
    return path.exists() and path.read_text("utf-8") == text


if __name__ == "__main__":
    sys.exit(main())

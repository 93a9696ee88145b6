"""`wrong.py RULE`: this library behind the door, with one rule broken."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from toploc.conformance import ours
from toploc.receipts.receipt import DIFFERENCES

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Rule:
    """What is broken: a name of a module, and what stands in its place, made of what was there."""

    family: str
    place: str
    broken: Callable[[Any], Any]

    def break_it(self, replace: Callable[[Any, str, Any], None]) -> None:
        module, name = self.place.split(":")
        target = import_module(module)
        *owners, last = name.split(".")
        for owner in owners:
            target = getattr(target, owner)
        replace(target, last, self.broken(getattr(target, last)))


def _higher_index_wins(top_k: Any) -> Any:
    def found(patterns: Any, k: int) -> Any:
        indices, values = top_k(patterns[::-1].copy(), k)
        return (patterns.size - 1 - indices)[::-1].copy(), values[::-1].copy()

    return found


def _signs_are_ignored(compare: Any) -> Any:
    def compared(claimed: Any, own: Any, bits: int) -> Any:
        return compare(claimed & np.uint16(0x7FFF), own & np.uint16(0x7FFF), bits)

    return compared


def _infinities_are_finite(decoy_hits: Any) -> Any:
    return lambda *arguments: (*decoy_hits(*arguments)[:2], True)


RULES = {
    "higher-index-wins": Rule("proofs", "toploc.proofs.chunks:top_k", _higher_index_wins),
    "any-modulus": Rule("proofs", "toploc.proofs.format:modulus_floor", lambda _: lambda topk: topk),
    "signs-are-ignored": Rule("proofs", "toploc.proofs.verdict:compare", _signs_are_ignored),
    "secret-is-ignored": Rule(
        "proofs", "toploc.proofs.verdict:decoy_positions", lambda of: lambda proof, residues, _: of(proof, residues)
    ),
    "decoys-have-no-bound": Rule("proofs", "toploc.proofs.verdict:decoy_bound", lambda _: lambda *_, **__: 256),
    "infinities-are-finite": Rule("proofs", "toploc.proofs.verdict:_decoy_hits", _infinities_are_finite),
    "nothing-passes": Rule("proofs", "toploc.proofs.verdict:Verdict.passed", lambda _: True),
    "last-of-two-keys": Rule("evidence", "toploc.evidence.strict_json:_object", lambda _: dict),
    "any-depth": Rule("evidence", "toploc.evidence.strict_json:MAX_DEPTH", lambda _: 900),
    "any-number-of-choices": Rule(
        "evidence", "toploc.evidence.parse:_by_index", lambda _: lambda choices, _: {one.index: one for one in choices}
    ),
    "any-tokens": Rule("evidence", "toploc.evidence.parse:MAX_TOKENS", lambda _: 10**12),
    "any-signature": Rule("receipts", "toploc.receipts.keys:PublicKey.verifies", lambda _: lambda *_, **__: True),
    "keys-never-expire": Rule(
        "receipts", "toploc.receipts.keys:PublicKey.expired_at", lambda _: lambda *_, **__: False
    ),
    "no-leaves": Rule("receipts", "toploc.receipts.receipt:_other_leaves", lambda _: lambda *_, **__: None),
    "any-request": Rule("receipts", "toploc.receipts.receipt:_Asked.is_of", lambda _: lambda *_, **__: "exact"),
    "any-output": Rule("receipts", "toploc.receipts.receipt:_another_answer", lambda _: lambda *_, **__: None),
    "any-row": Rule("receipts", "toploc.receipts.receipt:OF_THE_WHOLE", lambda _: frozenset(DIFFERENCES)),
    "keys-are-sorted-by-code-points": Rule("receipts", "rfc8785:dumps", lambda _: _json_of_python),
    "response-is-optional": Rule("reports", "toploc.report:REQUIRED", lambda names: names[:-1]),
    "one-choice-is-enough": Rule("reports", "toploc.report:_passed", lambda _: lambda done, name: _any(done, name)),
}
"""By name; of each family the first goes through the runner."""


def _json_of_python(value: Any) -> bytes:
    import json

    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _any(done: Any, name: str) -> bool:
    return any(check.name == name and check.status in ("passed", "weak") for check in done)


if __name__ == "__main__":
    RULES[sys.argv[1]].break_it(setattr)
    ours.main()

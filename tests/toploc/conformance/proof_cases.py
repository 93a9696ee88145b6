"""Proofs: well-formed, malformed in one way each, points, and verdicts at and beyond each bound."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from toploc.proofs.format import decode_proof, encode_points
from toploc.proofs.topk import top_k

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Case = tuple[str, str, Any, Any]
BOUNDS = {"mismatches": 38, "mantissa_mean": 10.0, "mantissa_median": 8.0}
TOPK = 128


def proof_cases(root: Path) -> Iterator[Case]:
    vectors = json.loads((root / "docs" / "proof-vectors.json").read_text("utf-8"))
    for case in vectors["chunks"]:
        name, topk = case["name"], case["topk"]
        sent = {"text": case["base64"], "topk": topk}
        yield name, "decode", sent, {"modulus": case["modulus"]}
        asked = {"activations": case["activations"], "dtype": case["dtype"], "topk": topk}
        yield name, "points", asked, {"indices": case["indices"]}
        indices, own = top_k(_from_hex(case["activations"]), topk)
        yield name, "encode", _points(indices, own), {"hex": case["proof"]}
        yield name, "verdict", _of_document(case), {"passed": True}
    for case in vectors["points"]:
        asked = {"indices": case["indices"], "patterns": case["patterns"]}
        yield case["name"], "encode", asked, {"hex": case["proof"]}
    for case in vectors["malformed"]:
        asked = {"hex": case["proof"], "topk": case["topk"]}
        yield f"{case['reason']}-{case['proof']}", "decode", asked, {"malformed": case["reason"]}
    yield from _malformed(root)
    yield from _more_points()
    yield from _more_encodings()
    yield from _verdicts()
    yield from _other_verdicts()


def _malformed(root: Path) -> Iterator[Case]:
    for path in sorted((root / "tests" / "toploc" / "malformed").iterdir()):
        data = path.read_bytes()
        sent = {"hex": data.hex()} if path.suffix == ".bin" else {"text": data.decode()}
        yield path.name, "decode", {**sent, "topk": TOPK}, {"malformed": path.stem.partition("-")[0]}
    for name, value in (("number", 5), ("null", None), ("list", [])):
        yield f"type-{name}", "decode", {"text": value, "topk": TOPK}, {"malformed": "type"}
    size = 2 + 2 * TOPK
    for modulus, known in ((65497, {"modulus": 65497}), (57369, {"modulus": 57369}), (57368, {"malformed": "modulus"})):
        data = modulus.to_bytes(2, "big").ljust(size, b"\0")
        yield f"modulus-{modulus}", "decode", {"hex": data.hex(), "topk": TOPK}, known
    largest = (65497).to_bytes(2, "big") + (65496).to_bytes(2, "big") * TOPK
    yield "coefficients-largest", "decode", {"hex": largest.hex(), "topk": TOPK}, {"modulus": 65497}


def _more_points() -> Iterator[Case]:
    for name, dtype, text, topk, known in (
        ("ties-to-the-lower-index", "bfloat16", "3f80bf803f803f80", 2, {"indices": [0, 1]}),
        ("negative-zero", "bfloat16", "8000000080000000", 3, {"patterns": [0x8000, 0, 0x8000]}),
        ("infinity-below-not-a-number", "bfloat16", "7f80ffc03f807f81", 2, {"indices": [1, 3]}),
        ("half-precision", "float16", "3c00c0003800bc01", 2, {"indices": [1, 3]}),
        ("subnormals", "float16", "000180020003", 2, {"indices": [1, 2]}),
        ("float32-ties-to-even", "float32", "3f8080003f8180003f7f80003f7f7fff", 4, {}),
        ("float32-to-infinity", "float32", "7f7fffff3f800000", 1, {"patterns": [0x7F80]}),
        ("all", "bfloat16", "3f804000", 2, {"indices": [0, 1]}),
        ("fewer-than-k", "bfloat16", "3f804000", 3, {"unprovable": True}),
    ):
        yield name, "points", {"activations": text, "dtype": dtype, "topk": topk}, known


def _more_encodings() -> Iterator[Case]:
    indices, own = _chunk(7)
    order = np.random.default_rng(1).permutation(TOPK)
    yield "any-order", "encode", _points(indices[order], own[order]), {"hex": encode_points(indices, own).hex()}
    yield "index-twice", "encode", {"indices": [3, 3], "patterns": [1, 2]}, {"unprovable": True}
    yield "one-point", "encode", {"indices": [5], "patterns": [7]}, {}
    wide = np.sort(np.random.default_rng(2).choice(32 * 8192, TOPK, replace=False))
    yield "wide-chunk", "encode", _points(wide, own), {}
    # Equal mod 65497 and mod 65496 too, so the search goes on.
    yield "two-moduli-ruled-out", "encode", {"indices": [0, 65497, 1, 65497 * 2 - 1], "patterns": [1, 2, 3, 4]}, {}


def _verdicts() -> Iterator[Case]:
    """Of one chunk, whose verifier found what the prover did, but for a change of one kind."""
    indices, own = _chunk(3)
    proof = encode_points(indices, own)
    nan, infinite = own.copy(), own.copy()
    nan[5], infinite[5] = 0x7FC0, 0xFF80
    changes: dict[str, tuple[Any, list[str]]] = {
        "equal": (own, []),
        "signs-38": (_each(own, 38, 0x8000), []),
        "signs-39": (_each(own, 39, 0x8000), ["mismatches"]),
        "exponents-38": (_each(own, 38, 0x0400), []),
        "exponents-39": (_each(own, 39, 0x0400), ["mismatches"]),
        "not-a-number": (nan, ["non_finite"]),
        "infinite": (infinite, ["non_finite"]),
    }
    flat = (own & 0xFF80).astype(np.uint16)
    for name, count, difference in (
        ("median-upper-half", TOPK // 2, 9),
        ("median-below-half", TOPK // 2 - 1, 9),
        ("median-at-bound", TOPK, 8),
        ("mean-at-bound", 16, 80),
        ("mean-above-bound", 17, 80),
    ):
        changes[name] = (_each(flat, count, difference), [])
    for name, (found, reasons) in changes.items():
        base = proof if (name.partition("-")[0] not in ("median", "mean")) else encode_points(indices, flat)
        known = {"passed": not reasons} if reasons or base is proof else {}
        yield name, "verdict", _asked([base], [(indices, found)]), known
    yield "other-secret", "verdict", _asked([proof], [(indices, own)], secret="00ff"), {"passed": True}
    yield "long-secret", "verdict", _asked([proof], [(indices, own)], secret="5a" * 300), {"passed": True}
    shifted = encode_points(indices, np.roll(own, 1))
    yield "another-answer", "verdict", _asked([shifted], [_chunk(4)]), {"passed": False}


def _other_verdicts() -> Iterator[Case]:
    """Forgeries, other dtypes, lengths and bounds, and answers of several chunks."""
    indices, own = _chunk(3)
    proof = encode_points(indices, own)
    typical = int(np.sort(own & 0x7FFF)[TOPK // 2])
    flat = encode_points(np.arange(TOPK), np.full(TOPK, typical, np.uint16))
    positive = (own & 0x7FFF).astype(np.uint16)
    yield "constant-polynomial", "verdict", _asked([flat], [(indices, positive)]), {"passed": False}
    equal = np.full(TOPK, 0x3F80, np.uint16)
    yield "equal-activations", "verdict", _asked([encode_points(indices, equal)], [(indices, equal)]), {"passed": False}
    half = np.random.default_rng(8).standard_normal(4096).astype(np.float16).view(np.uint16)
    found = top_k(half, TOPK)
    yield "float16-own", "verdict", _asked([encode_points(*found)], [found], dtype="float16"), {"passed": True}
    far = np.array([0, 65497, 5, 70000]), np.array([0x4000, 0xC040, 0x3F80, 0x3F00], np.uint16)
    asked = _asked([encode_points(*far)], [far], topk=4, bounds={**BOUNDS, "mismatches": 4})
    yield "modulus-below-the-prime", "verdict", asked, {"passed": True}
    none = _asked([flat], [(indices, (positive ^ 0x7F80).astype(np.uint16))])
    yield "no-exponent-equal", "verdict", none, {"passed": False}
    given = _asked([encode_points(indices, equal)], [(indices, equal)], bounds={**BOUNDS, "decoy_hits": 256})
    yield "decoy-bound-given", "verdict", given, {"passed": True}
    two = [proof, encode_points(*_chunk(4))], [(indices, own), _chunk(4)]
    yield "two-chunks", "verdict", _asked(*two), {"passed": True}
    yield "two-chunks-in-another-order", "verdict", _asked(two[0][::-1], two[1]), {"passed": False}
    yield "count-fewer", "verdict", _asked([proof], two[1]), {"malformed": "count"}
    yield "count-more", "verdict", _asked(two[0], two[1][:1]), {"malformed": "count"}
    yield "no-chunks", "verdict", _asked([], []), {"passed": False}
    spoiled = {**_asked(*two)}
    spoiled["proofs"] = [spoiled["proofs"][0], spoiled["proofs"][1][:-1]]
    yield "second-proof-malformed", "verdict", spoiled, {"malformed": "length"}


def _chunk(seed: int) -> tuple[Any, Any]:
    """The points of a chunk of noise in bfloat16."""
    noise = np.random.default_rng(seed).standard_normal(4096).astype(np.float32)
    return top_k((noise.view(np.uint32) >> 16).astype(np.uint16), TOPK)


def _each(patterns: Any, count: int, bits: int) -> Any:
    changed = patterns.copy()
    changed[:count] ^= bits
    return changed


def _points(indices: Any, patterns: Any) -> dict[str, Any]:
    return {"indices": indices.tolist(), "patterns": patterns.tolist()}


def _asked(
    proofs: list[bytes],
    own: list[tuple[Any, Any]],
    *,
    dtype: str = "bfloat16",
    topk: int = TOPK,
    bounds: dict[str, Any] = BOUNDS,
    secret: str = "",
) -> dict[str, Any]:
    chunks = [_points(*found) for found in own]
    texts = [decode_proof(proof, topk).base64 for proof in proofs]
    return {"proofs": texts, "chunks": chunks, "dtype": dtype, "topk": topk, "bounds": bounds, "secret": secret}


def _from_hex(text: str) -> Any:
    return np.frombuffer(bytes.fromhex(text), ">u2").astype(np.uint16)


def _of_document(case: dict[str, Any]) -> dict[str, Any]:
    topk = case["topk"]
    found = top_k(_from_hex(case["verifier"] or case["activations"]), topk)
    asked = _asked([bytes.fromhex(case["proof"])], [found], dtype=case["dtype"], topk=topk, secret=case["secret"])
    return {**asked, "bounds": {**BOUNDS, "mismatches": min(38, topk)}}

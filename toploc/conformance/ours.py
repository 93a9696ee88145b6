"""`python -m toploc.conformance.ours`: this library behind the door of `python -m toploc.conformance`.

A case a line on stdin, an answer a line on stdout. Packages are imported by the questions that need them.
"""

from __future__ import annotations

import json
import sys
from base64 import b64decode
from typing import TYPE_CHECKING, Any, Final

from ..errors import InvalidActivations, MalformedEvidence, MalformedProof
from ..scheme import CHUNK_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from ..proofs.verdict import ChunkVerdict
    from ..thresholds.bounds import Thresholds


def decode(asked: dict[str, Any]) -> dict[str, Any]:
    """`text`, which may be any JSON value, or `hex`, the bytes; `topk`."""
    from ..proofs.format import decode_proof

    data = bytes.fromhex(asked["hex"]) if "hex" in asked else asked["text"]
    try:
        proof = decode_proof(data, asked["topk"])
    except MalformedProof as error:
        return {"malformed": error.reason}
    return {"modulus": proof.modulus, "coefficients": proof.coefficients.tolist()}


def points(asked: dict[str, Any]) -> dict[str, Any]:
    """`activations`: patterns of one chunk, big-endian hexadecimal; `dtype`, float32 too; `topk`."""
    import numpy as np
    import torch

    from ..proofs.chunks import find_points

    data = bytes.fromhex(asked["activations"])
    if asked["dtype"] == "float32":
        chunk = torch.from_numpy(np.frombuffer(data, ">f4").astype(np.float32))
    else:
        patterns = torch.from_numpy(np.frombuffer(data, ">u2").astype(np.uint16).view(np.int16))
        chunk = patterns.view(torch.float16 if asked["dtype"] == "float16" else torch.bfloat16)
    try:
        found = find_points([(chunk, 1)], asked["topk"])
    except InvalidActivations:
        return {"unprovable": True}
    return {"indices": found.indices[0].tolist(), "patterns": found.patterns[0].tolist()}


def encode(asked: dict[str, Any]) -> dict[str, Any]:
    """`indices` and `patterns`, in any order."""
    from ..proofs.format import encode_points

    try:
        return {"hex": encode_points(_integers(asked["indices"]), _patterns(asked["patterns"])).hex()}
    except InvalidActivations:
        return {"unprovable": True}


def verdict(asked: dict[str, Any]) -> dict[str, Any]:
    """`proofs` of an answer, `chunks` of the verifier's points; `dtype`, `topk`, `bounds`, `secret`."""
    import numpy as np

    from ..proofs.chunks import Points
    from ..proofs.format import decode_proof
    from ..proofs.verdict import verify_chunks

    chunks, topk = asked["chunks"], asked["topk"]
    indices = _integers([chunk["indices"] for chunk in chunks]).reshape(-1, topk)
    patterns = _patterns([chunk["patterns"] for chunk in chunks]).reshape(-1, topk)
    own = Points(indices.astype(np.int32), patterns, (CHUNK_SIZE,) * len(chunks))
    options = {"dtype": asked["dtype"], "thresholds": _thresholds(asked), "secret": bytes.fromhex(asked["secret"])}
    try:
        made = verify_chunks([decode_proof(proof, topk) for proof in asked["proofs"]], own, **options)
    except MalformedProof as error:
        return {"malformed": error.reason}
    return {"passed": made.passed, "chunks": [_figures(chunk) for chunk in made.chunks]}


def evidence(asked: dict[str, Any]) -> dict[str, Any]:
    """`text` of a document, or `base64` of its bytes. Of malformed evidence, what a report on it says."""
    from ..evidence.parse import parse_evidence
    from ..report import malformed

    data = b64decode(asked["base64"]) if "base64" in asked else asked["text"]
    try:
        read = parse_evidence(data)
    except MalformedEvidence as error:
        return {"malformed": True, "verdict": malformed("malformed", str(error), error.field).verdict}
    choices = [
        {
            "index": answer.index,
            "tokens": len(answer.token_ids),
            "prompt_tokens": answer.prompt.num_tokens,
            "text": answer.text,
            "finish_reason": answer.finish_reason,
        }
        for answer in read.answers
    ]
    return {"route": read.route, "model": read.model, "choices": choices}


def receipt(asked: dict[str, Any]) -> dict[str, Any]:
    """`request`, `response`, the trusted `keys`, and `body`, the request's exact text, where it was kept.
    `partial` where the response is what was kept of it."""
    from ..receipts.keys import parse_keys
    from ..receipts.receipt import verify_receipt

    body = asked["body"].encode() if "body" in asked else None
    keys = parse_keys(asked["keys"]) if asked["keys"] else ()
    results = verify_receipt(asked["request"], asked["response"], keys, body, partial=asked.get("partial", False))
    names = ("choice", "status", "reason")
    return {
        "results": [
            {name: getattr(one, name) for name in names} | {"uncovered": list(one.uncovered)} for one in results
        ]
    }


def canonical(asked: dict[str, Any]) -> dict[str, Any]:
    """`value`, in the form of RFC 8785."""
    import rfc8785

    return {"text": rfc8785.dumps(asked["value"]).decode()}


def report(asked: dict[str, Any]) -> dict[str, Any]:
    """`checks`, of which the verdict follows, or a whole `report` as a verifier sent it."""
    from pydantic import ValidationError

    from ..report import Check, Report

    try:
        if "report" in asked:
            return {"verdict": Report.model_validate(asked["report"]).verdict}
        return {"verdict": Report.of(map(Check.model_validate, asked["checks"])).verdict}
    except ValidationError:
        return {"malformed": True}


QUESTIONS: Final[dict[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    function.__name__: function for function in (decode, points, encode, verdict, evidence, receipt, canonical, report)
}


def _integers(values: Any) -> NDArray[np.int64]:
    import numpy as np

    return np.array(values, np.int64)


def _patterns(values: Any) -> NDArray[np.uint16]:
    import numpy as np

    return np.array(values, np.uint16)


def _thresholds(asked: dict[str, Any]) -> Thresholds:
    from ..thresholds.bounds import Bounds, Thresholds

    bounds = Bounds(1, **asked["bounds"])
    return Thresholds("conformance", asked["dtype"], asked["topk"], "the case", (bounds,))


def _figures(chunk: ChunkVerdict) -> dict[str, Any]:
    names = ("mismatches", "exponent_mismatches", "mantissa_mean", "mantissa_median", "decoy_hits", "decoys")
    figures = {name: getattr(chunk, name) for name in names}
    return {**figures, "decoy_bound": chunk.bounds.decoy_hits, "reasons": list(chunk.reasons)}


def main() -> None:
    for line in sys.stdin:
        case = json.loads(line)
        print(json.dumps({"id": case["id"], "output": QUESTIONS[case["question"]](case["input"])}), flush=True)


if __name__ == "__main__":
    main()

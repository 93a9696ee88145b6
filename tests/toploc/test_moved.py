"""Names that README and docs showed in 0.1 are still found where they were."""

from __future__ import annotations

from importlib import import_module

import pytest

SHOWN = {
    "toploc.prefill": ["TransformersPrefill"],
    "toploc.thresholds": ["Thresholds"],
    "toploc.verify": ["verify_activations"],
    "toploc.evidence_file": ["EvidenceFile", "from_parquet", "read_lines", "to_parquet"],
    "toploc.keys": ["load_trusted_keys"],
    "toploc.receipt": ["verify_receipt"],
    "toploc.transformers_verifier": ["TransformersVerifier"],
    "toploc.errors": ["MalformedEvidence"],
    "toploc.evidence": ["MAX_BYTES", "parse_evidence"],
    "toploc.protocol": ["ToplocProofs", "token_ids_sha256"],
    "toploc_client": ["AsyncOpenAI", "MissingProofs", "OpenAI", "RejectedResponse", "Verifier", "read_lines"],
    "toploc_proxy.local_server": ["LocalServer"],
}


@pytest.mark.parametrize("module", SHOWN)
def test_names_of_0_1(module: str) -> None:
    for name in SHOWN[module]:
        assert getattr(import_module(module), name)


def test_an_old_name_is_the_same_object() -> None:
    old, new = import_module("toploc.verify"), import_module("toploc.proofs.verdict")
    assert old.verify_activations is new.verify_activations

"""What an import costs: the client must not need torch."""

import subprocess
import sys

import pytest

import toploc

HEAVY = ("torch", "numpy", "numba")


def loaded(statement):
    code = f"import sys; {statement}; print(*[name for name in {HEAVY} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return result.stdout.split()


@pytest.mark.parametrize(
    "statement",
    ["import toploc", "import toploc.protocol", "from toploc import MalformedProof, sha256sum, Thresholds"],
)
def test_light_imports(statement):
    assert loaded(statement) == []


def test_decoding_needs_no_torch():
    assert "torch" not in loaded("from toploc import decode_proof, encode_points")


@pytest.mark.parametrize("name", toploc.__all__)
def test_every_name_resolves(name):
    assert getattr(toploc, name).__name__ == name
    assert name in dir(toploc)


def test_other_names_do_not():
    with pytest.raises(AttributeError, match="none_such"):
        _ = toploc.none_such

"""`toploc.receipts.keys`, under its name of 0.1."""

from toploc.receipts.keys import PublicKey, SigningKey, load_signing_keys, load_trusted_keys

__all__ = ["PublicKey", "SigningKey", "load_signing_keys", "load_trusted_keys"]

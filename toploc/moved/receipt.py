"""`toploc.receipts.receipt`, under its name of 0.1."""

from toploc.receipts.output import shown_in
from toploc.receipts.receipt import ReceiptResult, check_receipts, verify_receipt
from toploc.receipts.request import digest
from toploc.receipts.statement import issue

__all__ = ["ReceiptResult", "check_receipts", "digest", "issue", "shown_in", "verify_receipt"]

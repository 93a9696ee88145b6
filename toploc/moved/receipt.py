"""`toploc.receipts.receipt`, under its name of 0.1."""

from toploc.receipts.receipt import ReceiptResult, check_receipts, issue, verify_receipt

__all__ = ["ReceiptResult", "check_receipts", "issue", "verify_receipt"]

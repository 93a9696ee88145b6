"""The errors that the four packages raise on purpose: one root, so that callers can catch them all.

    ToplocError                 whatever the person who started a command has to act on
    ├── MalformedProof          bytes of a prover
    ├── MalformedEvidence       a request and response
    ├── InvalidActivations      tensors of the caller
    ├── InvalidThresholds       a file or value of the verifier
    ├── InvalidKey              a file of the provider or the verifier
    ├── UnsupportedEngine       the engine, or an option of it
    ├── VerifierUnavailable     a server that verifies
    ├── ProofUnavailable        one answer, in the server; never leaves it
    └── UnacceptedResponse      one answer, in the client (`toploc_client.errors`)
        ├── RejectedResponse    that a check contradicts
        ├── UndecidedResponse   that nobody can judge
        └── MissingProofs       that has nothing to check

Errors that one folder alone raises and catches stand where they are raised, under the same root: `TooFewAnswers`
(calibration), `TooMany`, `TooLarge` and `Busy` (the verify route), `Unrenderable`, `UnknownOutput`, `Unfollowed` and
`Refused` (rehearsal), `TooManyMasks` (tokens), `UnreadableWeights` (their digest), `TooManyBrowsers` and
`UnreadableTable` (pages), `StoreError`, and `InvalidConfig`, `StoreUnavailable` and `Refusal` (the gateway). What never
leaves its folder is no error of ours but a way out of a function: `Again` (replies of a verifier), `Unended` and
`Unreplayable` (replay), `_Failed` (responder), `Disagreement` (events of a stream), `TooLong` (the gateway's
deliveries), `NoAnswer` (a program under test).
"""

from __future__ import annotations


class ToplocError(Exception):
    """Root of the project's errors. `str(error)` is written for the person who has to act on it."""


class MalformedProof(ToplocError):
    """A proof that no honest encoder can have produced, as opposed to a proof of something else.

    `reason` is stable and machine-readable (`type`, `length`, `base64`, `modulus`, `coefficient`,
    `count`).
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class MalformedEvidence(ToplocError):
    """A request and response that no honest server and auditor can have produced, or of an unknown shape.

    `field` is the path of what is wrong, such as `response.choices[1].message`, or empty for the whole.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field


class InvalidActivations(ToplocError):
    """Activations that cannot be proven: wrong shape or dtype, or fewer elements in a chunk than top-k."""


class InvalidThresholds(ToplocError):
    """A threshold file or value that is missing, out of range or not a number."""


class InvalidKey(ToplocError):
    """A signing or public key that cannot be read, is of another kind, or would overwrite a file."""


class UnsupportedEngine(ToplocError):
    """The inference engine, or an option of it, under which proofs would be wrong or missing."""


class VerifierUnavailable(ToplocError):
    """A verifier that gave no report: it cannot be reached, is busy for too long, failed, or is none. `url` is its."""

    def __init__(self, url: str, message: str) -> None:
        super().__init__(f"{url}: {message}")
        self.url = url


class ProofUnavailable(ToplocError):
    """Why an answer has no proof. `code` is what `toploc_proofs.error.code` says."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

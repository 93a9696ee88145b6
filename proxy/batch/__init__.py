"""`toploc run-batch`: a file of requests to a file of responses with proofs."""

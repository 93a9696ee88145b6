"""Error pooled over chunks and answers: what no single chunk shows."""

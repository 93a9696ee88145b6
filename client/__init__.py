"""The OpenAI SDK that forwards responses to verifiers."""

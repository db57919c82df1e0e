"""What outlives a request and is shared between replicas: rate limits, nonces, sessions, budgets, cached answers, tasks."""

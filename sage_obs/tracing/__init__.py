"""Traces: request context in and out on every request, spans only for the sampled ones and only where somebody receives them."""

"""The operations server: /metrics and /health/* on a port of their own."""

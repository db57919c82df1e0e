"""A2A: the open agent-to-agent protocol, 1.0 and 0.3, beside the lean path and through the same service."""

"""Profiles of a running service in Go's format and at Go's addresses: what it computes, waits for, holds and blocks on."""

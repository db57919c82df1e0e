"""Executable runbooks: typed steps, a hash-chained journal, evidence before mutation, rollback to a release proven good."""

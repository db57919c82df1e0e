"""Service objectives and rollback triggers: data and pure functions, the one definition every other part works from."""

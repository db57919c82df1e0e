"""Where a service runs: what is deployed, how to go back, and whether the platform has converged on it."""

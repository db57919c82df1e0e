"""Prometheus rules and Alertmanager's routes, rendered from the triggers in `sage_obs.slo`."""

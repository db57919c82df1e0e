"""`sage-obs up`: the agent, Prometheus, Alertmanager, the responder and some traffic as supervised local processes."""

"""What alerts would have done: an incident, scripted or from a Prometheus's memory, evaluated by Prometheus's own rule engine."""

"""Metrics: cells that are cheap to write, bounded labels, and the bridge to prometheus_client's registry."""

"""Grafana boards, built with grafanalib from the names and triggers that the rules use."""

"""Logs: one JSON object a line with the guide's keys, written off the event loop."""

"""The Python runtime under the service: its event loops, its threads, its garbage collector, its memory limit."""

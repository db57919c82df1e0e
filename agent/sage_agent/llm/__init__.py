"""Asking models: who, with which key, how patiently, and when not."""

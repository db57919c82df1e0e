"""The layer in programs that do not call it: `sage-obs run`, and a distribution of OpenTelemetry."""

"""What keeps the telemetry of a service from working, found before it is missed; each finding with its remedy."""

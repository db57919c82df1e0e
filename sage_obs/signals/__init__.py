"""Where a number comes from: the HTTP API of a Prometheus, or the services' own /metrics scraped twice."""

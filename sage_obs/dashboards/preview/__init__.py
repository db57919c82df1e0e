"""A page that draws boards without Grafana: their JSON against a Prometheus, on this machine only."""

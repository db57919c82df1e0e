"""HTTP: routes, bodies in, JSON and server-sent events out."""

"""The way of a request, from its admission to its answer."""

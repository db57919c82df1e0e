"""The listening side: sockets, the server, the drain."""

"""Ports: who has one, and which is free."""

from __future__ import annotations

import os
import socket

import pytest

from sage_obs.errors import UnavailableError
from sage_obs.stack.ports import Ports, is_free, owner


def test_a_taken_port_is_an_error_that_names_its_owner() -> None:
    """The message holds the port, the part that wanted it, and the process that has it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(UnavailableError, match=rf"Port {port}, wanted for agent, is taken by .* \(pid {os.getpid()}\)"):
            Ports("exact").take("agent", port)


def test_the_next_free_port_is_taken_where_that_was_asked_for() -> None:
    """`next` goes upwards from a taken port and never gives the same port twice."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        ports = Ports("next")
        given = {ports.take("a", port), ports.take("b", port)}
    assert len(given) == 2
    assert port not in given
    assert min(given) > port


def test_any_port_is_free_and_given_once() -> None:
    """`any` ignores what was wanted."""
    ports = Ports("any")
    given = [ports.take("a", 80) for _ in range(20)]
    assert len(set(given)) == 20
    assert 80 not in given


def test_an_unseen_owner_is_said_to_be_unseen() -> None:
    """A port nobody listens on has no owner to name."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        assert owner(probe.getsockname()[1]) == "a process that cannot be seen from here"
        assert not is_free(probe.getsockname()[1])

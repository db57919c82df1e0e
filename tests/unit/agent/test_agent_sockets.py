"""Binding and inheriting the listening socket."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap

import pytest

from sage_agent.server.sockets import open_listener
from sage_obs.errors import ConfigError, UnavailableError


def test_port_zero_takes_a_free_one() -> None:
    """The port that was taken is told, and connections are taken at once."""
    listener = open_listener("127.0.0.1", 0, environ={})
    with listener.sock, socket.create_connection(("127.0.0.1", listener.port), timeout=2):
        assert not listener.inherited


def test_a_taken_port_is_named() -> None:
    """A port somebody listens on is an UnavailableError with its number."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UnavailableError, match=str(taken.getsockname()[1])):
        open_listener("127.0.0.1", taken.getsockname()[1], environ={})


def test_an_address_of_another_machine_is_refused() -> None:
    """A host that is not here is a ConfigError."""
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1"):
        open_listener("192.0.2.1", 0, environ={})


def test_sockets_meant_for_another_process_are_left_alone() -> None:
    """LISTEN_PID of somebody else: bind as usual, and take the variables away from children."""
    environ = {"LISTEN_FDS": "1", "LISTEN_PID": "1", "LISTEN_FDNAMES": "x"}
    listener = open_listener("127.0.0.1", 0, environ=environ)
    listener.sock.close()
    assert not listener.inherited
    assert environ == {}


def test_more_than_one_socket_is_refused() -> None:
    """Only one socket can be served."""
    with pytest.raises(ConfigError, match="exactly one"):
        open_listener("127.0.0.1", 0, environ={"LISTEN_FDS": "2"})


@pytest.mark.parametrize(
    ("prepare", "expected"),
    [
        ("s = socket.create_server(('127.0.0.1', 0)); fd = s.fileno()", "inherited True"),
        ("s = socket.socket(); fd = s.fileno()", "not a listening TCP socket"),
        ("s = socket.socket(socket.AF_UNIX); fd = s.fileno()", "not a listening TCP socket"),
        ("fd = os.open('/dev/null', os.O_RDONLY)", "not a socket"),
    ],
    ids=["listening", "not listening", "unix", "file"],
)
def test_descriptor_three_is_checked(prepare: str, expected: str) -> None:
    """What stands at descriptor 3 is served if it is a listening TCP socket, and refused by what it is otherwise."""
    program = f"""
        import os, socket
        {prepare}
        os.dup2(fd, 3)
        from sage_agent.server.sockets import open_listener
        from sage_obs.errors import ConfigError
        try:
            print("inherited", open_listener("127.0.0.1", 0, environ={{"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}}).inherited)
        except ConfigError as exc:
            print(exc)
    """
    environ = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True, env=environ)
    assert expected in done.stdout

"""The agent's card: who it is and how it is reached."""

from __future__ import annotations

from a2a.types.a2a_pb2 import AgentCapabilities, AgentCard, AgentInterface, AgentSkill

from sage_agent.a2a.paths import RPC_PATH

_BINDINGS = (("JSONRPC", "1.0"), ("JSONRPC", "0.3"), ("HTTP+JSON", "1.0"), ("HTTP+JSON", "0.3"))


def make_card(*, name: str, description: str, version: str, url: str) -> AgentCard:
    """The card of an agent at `url` (without the path)."""
    address = f"{url.rstrip('/')}{RPC_PATH}"
    return AgentCard(
        name=name,
        description=description,
        version=version,
        supported_interfaces=[
            AgentInterface(url=address, protocol_binding=binding, protocol_version=number) for binding, number in _BINDINGS
        ],
        capabilities=AgentCapabilities(streaming=True, push_notifications=False),
        default_input_modes=["text/plain", "application/json"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="answer", name="Answer", description=description, tags=["text"])],
    )

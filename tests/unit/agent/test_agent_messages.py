"""Messages in and out."""

from __future__ import annotations

import json

import pytest

from sage_agent.messages import DataPart, FilePart, Reply, TextPart, parse_message
from sage_agent.problems import Problem


def _bytes(document: object) -> bytes:
    return json.dumps(document).encode()


def test_bare_and_wrapped_messages_are_the_same() -> None:
    """`{"message": …}` and the message itself are read alike."""
    document = {"messageId": "m-1", "role": "user", "parts": [{"kind": "text", "text": "hi"}]}
    assert parse_message(_bytes(document)) == parse_message(_bytes({"message": document}))


def test_every_key_of_a_message_is_accepted() -> None:
    """A complete message with parts of each kind is read, ids and order kept."""
    document = {
        "messageId": "m-1",
        "contextId": "c-1",
        "taskId": "t-1",
        "referenceTaskIds": ["t-0"],
        "role": "agent",
        "kind": "message",
        "metadata": {"a": 1},
        "parts": [
            {"kind": "text", "text": "hi", "metadata": {}},
            {"kind": "data", "data": {"a": 1}},
            {"kind": "file", "file": {"name": "a.pdf", "uri": "https://example.com/a.pdf"}},
        ],
    }
    message = parse_message(_bytes(document))
    assert (message.message_id, message.context_id, message.task_id, message.role) == ("m-1", "c-1", "t-1", "agent")
    assert message.parts == (TextPart("hi"), DataPart('{"a":1}'), FilePart("a.pdf"))


def test_keys_of_later_versions_are_let_pass() -> None:
    """A key this version does not know is no reason to refuse a message."""
    assert parse_message(_bytes({"parts": [{"kind": "text", "text": "hi"}], "extensions": ["https://example.com/x"]})).parts


def test_a_missing_id_is_generated() -> None:
    """Two messages without an id get two different ones."""
    body = _bytes({"parts": [{"kind": "text", "text": "hi"}]})
    assert parse_message(body).message_id != parse_message(body).message_id


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "not valid JSON"),
        (b"{", "line 1, column"),
        (b"\xff", "not valid JSON"),
        (b"[" * 5000, "not valid JSON"),
        (b'"text"', "JSON object"),
        (b'{"message": []}', "`message` must be"),
        (b"{}", "`parts` must be"),
        (b'{"parts": []}', "`parts` must be"),
        (b'{"parts": [1]}', r"parts\[0\]` must be"),
        (b'{"parts": [{"kind": "text", "text": "a"}, {"kind": "sound"}]}', r"parts\[1\].kind` must be one of"),
        (b'{"parts": [{"kind": ["text"], "text": "a"}]}', r"kind` must be one of"),
        (b'{"parts": [{"kind": "text", "text": 1}]}', r"parts\[0\].text` must be a string"),
        (b'{"parts": [{"kind": "data", "data": "x"}]}', r"parts\[0\].data` must be a JSON object"),
        (b'{"parts": [{"kind": "data", "data": ' + b'{"a":' * 400 + b"1" + b"}" * 400 + b"}]}", "nested too deeply"),
        (b'{"prats": []}', "`parts` must be"),
        (b'{"parts": [{"kind": "text", "text": "a"}], "role": "system"}', "`role`"),
        (b'{"parts": [{"kind": "text", "text": "a"}], "role": ["user"]}', "`role`"),
        (b'{"parts": [{"kind": "text", "text": "a"}], "kind": "task"}', "`kind`"),
        (b'{"parts": [{"kind": "text", "text": "a"}], "messageId": 5}', "`messageId`"),
        (b'{"parts": [{"kind": "text", "text": "a"}], "metadata": [1]}', "`metadata`"),
        (b'{"parts": [{"kind": "text", "text": "a"}], "referenceTaskIds": [1]}', "`referenceTaskIds`"),
    ],
)
def test_what_is_wrong_is_said(body: bytes, sentence: str) -> None:
    """A message that cannot be read is a 400 that points at the place."""
    with pytest.raises(Problem, match=sentence) as caught:
        parse_message(body)
    assert caught.value.status == 400


def test_the_prompt_is_text_and_data() -> None:
    """The model reads text and data parts, one a line."""
    message = parse_message(_bytes({"parts": [{"kind": "text", "text": "look:"}, {"kind": "data", "data": {"a": 1}}]}))
    assert message.prompt() == 'look:\n{"a":1}'


def test_a_file_is_refused_rather_than_ignored() -> None:
    """A part that no model here can read is the caller's error, by its name."""
    message = parse_message(_bytes({"parts": [{"kind": "file", "file": {"name": "a.pdf"}}]}))
    with pytest.raises(Problem, match=r"a\.pdf"):
        message.prompt()


def test_a_reply_keeps_context_and_counts() -> None:
    """The answer carries the caller's context and task, and only the token counts that are known."""
    request = parse_message(_bytes({"contextId": "c", "taskId": "t", "parts": [{"kind": "text", "text": "hi"}]}))
    document = Reply("m", request, "hello", "gpt", 3, None).document()
    assert document == {
        "kind": "message",
        "messageId": "m",
        "role": "agent",
        "contextId": "c",
        "taskId": "t",
        "parts": [{"kind": "text", "text": "hello"}],
        "metadata": {"model": "gpt", "usage": {"input_tokens": 3}},
    }

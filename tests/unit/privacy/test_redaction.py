"""Secrets out of anything that is written."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_obs.privacy.redaction import MASK, redact, redact_text

SEED = "SEEDseed0123456789abcdef"
DIGITS = "31415926535897932384"
NAMES = (
    *("password", "passwd", "db_password", "pwd", "passphrase", "secret", "client_secret", "secret_key", "aws_secret_access_key"),
    *("token", "access_token", "refresh-token", "api_key", "apiKey", "X-Api-Key", "api-key", "private_key", "credential", "credentials"),
    *("authorization", "Authorization", "Cookie", "set-cookie"),
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "form",
    [
        '{{"{name}":"{seed}"}}',
        '{{"{name}" : "a quoted \\" {seed}"}}',
        "{{'{name}': '{seed}'}}",
        '{{"message":"{{\\"{name}\\":\\"{seed}\\"}}"}}',
        '{{"message":"say {name}={seed} now"}}',
        '{{"{name}":["{seed}","b"]}}',
        "{name}={seed}",
        "{name}: {seed}",
        '{name}="two words {seed}"',
        "GET /x?{name}={seed}&y=1",
        "{name}: Bearer {seed}",
    ],
)
def test_a_value_under_a_telling_name_is_masked(name: str, form: str) -> None:
    """In JSON, in JSON within JSON, in a repr, in a list, in plain text, in a query."""
    for seed in (SEED, DIGITS):
        redacted = redact_text(form.format(name=name, seed=seed))
        assert seed not in redacted
        assert name in redacted


@pytest.mark.parametrize("number", ["31415926", "-31415926", "3.1415926535e10", "12"])
def test_a_number_under_a_telling_name_stays_a_number(number: str) -> None:
    """A long one is hidden, a count is not, and the line is still JSON."""
    for text in (f'{{"secret":{number},"n":1}}', json.dumps({"message": f'{{"secret": {number}}}'})):
        redacted = redact_text(text)
        json.loads(redacted)
        assert (number in redacted) == (number == "12")


@pytest.mark.parametrize(
    "secret",
    [
        f"Bearer {SEED}",
        f"Basic {SEED}==",
        f"sk-{SEED}",
        f"sk-ant-api03-{SEED}",
        f"ghp_{SEED}",
        f"github_pat_{SEED}",
        f"xoxb-{SEED}",
        "AKIAIOSFODNN7EXAMPLE",
        f"AIza{SEED}",
        f"eyJhbGciOiJIUzI1NiJ9.{SEED}.{SEED}",
        f"postgres://user:{SEED}@db/x",
        f"-----BEGIN RSA PRIVATE KEY-----\n{SEED}\n-----END RSA PRIVATE KEY-----",
        f"Cookie: a=1; session={SEED}; b=2",
    ],
)
@pytest.mark.parametrize("wrap", ["{}", "before {} after", "/v1/{}", '{{"path":"/v1/{}","n":1}}'])
def test_what_looks_like_a_credential_is_masked_wherever_it_stands(secret: str, wrap: str) -> None:
    """In text, in a path, in a JSON line, which stays JSON."""
    text = wrap.format(secret)
    if text.startswith("{"):
        text = wrap.format(json.dumps(secret)[1:-1])
        json.loads(redact_text(text))
    redacted = redact_text(text)
    assert SEED not in redacted
    assert "AKIAIOSFODNN7EXAMPLE" not in redacted


@pytest.mark.parametrize(
    "text",
    [
        '{"input_tokens":120,"max_tokens":4096,"tokenizer":"cl100k_base"}',
        '{"token_count":12,"cookie_enabled":true,"secret":null}',
        '{"message":"POST /v1/messages 200","request_id":"req-1","duration_ms":1.5}',
        "https://example.org/a:b/c@d",
        "the key of the matter: keyboards",
        "sk-short",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    """Counts, flags, model names and ordinary words are not masked."""
    assert redact_text(text) == text


_WORDS = st.sampled_from(
    ['"', "'", "\\", "\\\\", '\\"', "password", "token", "secret", "cookie", ":", "=", "[", "]", "{", "}", ",", " ", "\n", "a", SEED]
)


@given(st.dictionaries(st.sampled_from([*NAMES, "message", "n"]), st.lists(_WORDS, max_size=12).map("".join), max_size=4))
def test_json_stays_json_whatever_its_strings_hold(record: dict[str, str]) -> None:
    """A redacted log line can still be parsed, and has the same keys."""
    redacted = json.loads(redact(json.dumps(record).encode()))
    assert set(redacted) == set(record)
    for name, value in record.items():
        if name not in ("message", "n") and value:
            assert redacted[name] == MASK


@pytest.mark.parametrize("end", [":", "=", ": ", '":', "':", "'="])
@pytest.mark.parametrize("name", NAMES)
def test_a_text_that_ends_in_a_telling_name_ends_there(name: str, end: str) -> None:
    """A prompt such as "Enter password:" has no value after it: what follows in the line is kept, and the line is still JSON."""
    prompt = f"Enter {name}{end}"
    for record in ({"message": prompt}, {"message": prompt, "n": 1}, {"a": [prompt, {"b": prompt}], "c": "d"}, [prompt, "x"], prompt):
        for text in (json.dumps(record), json.dumps(record, separators=(",", ":")), json.dumps(record) + "\n"):
            assert json.loads(redact_text(text)) == record


def test_quoted_values_in_plain_lines_are_masked_beside_json() -> None:
    """A text that begins with a line of JSON may go on with others."""
    text = f'{{"message":"Enter password:"}}\npassword: "{SEED}"\ntoken="two {SEED}"\n'
    assert SEED not in redact_text(text)


@given(st.lists(_WORDS, max_size=12).map("".join))
def test_json_within_json_stays_json(text: str) -> None:
    """The same one level deeper, where every quote is escaped."""
    inner = json.dumps({"password": text, "note": text})
    assert json.loads(redact(json.dumps({"message": inner}).encode()))["message"]


@given(st.binary(max_size=200))
def test_any_bytes_are_taken(data: bytes) -> None:
    """Text that is not text does not raise."""
    redact(data)


@pytest.mark.parametrize(
    "piece",
    [
        "secret-",
        "a-",
        "token=",
        "token:'",
        'password:"',
        "\\",
        '\\"',
        'token:\\"',
        "cookie: ",
        "eyJ",
        "eyJaaaa.",
        "://a:",
        "bearer ",
        "api_key[",
        "a",
        "-----BEGIN PRIVATE KEY-----",
        'api_key:["',
        "api_key:[",
        'api_key:["a"',
        "secret ",
        "sk-",
        "authorization: bearer ",
    ],
)
@pytest.mark.parametrize("start", ["", "{"], ids=["text", "json"])
def test_the_time_is_linear_in_the_text(piece: str, start: str) -> None:
    """Text made to slow a regular expression down takes eight times as long when it is eight times as long, not sixty-four."""

    def seconds(size: int) -> float:
        data = (start + piece * size)[:size].encode()
        started = time.process_time()
        redact(data)
        return time.process_time() - started

    small = min(seconds(8_000) for _ in range(3))
    assert min(seconds(64_000) for _ in range(2)) < 24 * max(small, 0.001)


KNOWN = [
    "ghp_abcdefghij0123456789",
    "sk-abcdefghijklmnop1234",
    "AKIAABCDEFGHIJKLMNOP",
    "eyJhbGciOi.eyJzdWIiOi.c2lnbmF0",
    "Bearer abcdefghijklmnop",
]


@pytest.mark.parametrize("secret", KNOWN)
@pytest.mark.parametrize("before", ["\n", "\t", "\r\n", "password:\n", "token=\t"])
def test_what_stands_on_a_line_of_its_own_is_found_in_json_too(before: str, secret: str) -> None:
    """JSON writes the line break before a secret as a backslash and a letter, which is no part of a word."""
    redacted = redact(json.dumps({"message": f"see{before}{secret}", "n": 1}).encode())
    assert secret.rpartition(" ")[2].encode() not in redacted
    assert json.loads(redacted)["n"] == 1

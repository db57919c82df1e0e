"""Secrets that change while they are used: a provider's key under a real agent, and the passwords of real databases."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import httpx
import psycopg
import pytest
import redis

from sage_agent.state.base import State, StateError
from sage_agent.state.postgres import Pool, postgres_state
from sage_agent.state.redis import redis_state
from tests.support.agents import BODY, running_agent
from tests.support.databases import postgres, redis_server
from tests.support.llm_server import fake_models
from tests.support.services import wait_until


def _mount(folder: Path, version: str, key: str) -> None:
    """What Kubernetes does to a mounted secret: a new folder, and one rename of the link that leads there."""
    (folder / version).mkdir(parents=True)
    (folder / version / "key").write_text(key)
    (folder / "..tmp").symlink_to(version)
    (folder / "..tmp").rename(folder / "..data")
    if not (folder / "key").is_symlink():
        (folder / "key").symlink_to("..data/key")


def test_a_running_agent_asks_with_the_key_that_was_mounted_last(tmp_path: Path) -> None:
    """Within the time between two looks calls carry the new key, without a restart; the metric tells the age and no line the key."""
    mount = tmp_path / "mount"
    _mount(mount, "..1", "key-one-0123456789")
    with fake_models() as models:
        environ = {
            "SAGE_LLM_PROVIDER": "anthropic",
            "SAGE_LLM_MODEL": "m-1",
            "SAGE_LLM_BASE_URL": models.url,
            "SAGE_LLM_API_KEY_FILE": str(mount / "key"),
            "SAGE_SECRETS_REFRESH": "100ms",
        }
        with running_agent(tmp_path, environ=environ) as agent, httpx.Client() as client:

            def key_used() -> str:
                assert client.post(f"{agent.url}/v1/messages", json=BODY).status_code == 200
                return models.headers[-1]["x-api-key"]

            assert key_used() == "key-one-0123456789"
            _mount(mount, "..2", "key-two-0123456789")
            wait_until(lambda: key_used() == "key-two-0123456789", says=agent.process.log.read_text)
            metrics = client.get(f"{agent.ops_url}/metrics").text
            assert 'sage_secret_age_seconds{name="llm.api_key"}' in metrics
            (mount / "key").unlink()
            wait_until(lambda: any("stays what it was" in line["message"] for line in agent.lines()))
            assert key_used() == "key-two-0123456789"
            log = agent.process.log.read_text()
            assert "0123456789" not in log + metrics
            assert [line["message"] for line in agent.lines()].count("secrets renewed") == 1


async def _renewed(state: State, change: str, url: str) -> None:
    """Works with the old password, not after it was changed and everybody was cut off, and again with the new one."""
    await state.store.open()
    assert await state.nonces.claim(change, "1", seconds=60)
    await asyncio.to_thread(_CHANGES[change], url)
    began = time.monotonic()
    with pytest.raises(StateError) as error:
        await state.nonces.claim(change, "2", seconds=60)
    assert time.monotonic() - began < 4
    assert "pw-" not in f"{error.value}"
    state.store.renew(_with(url, "pw-two"))
    for number in range(100):
        try:
            assert await state.nonces.claim(change, f"3 {number}", seconds=60)
            break
        except StateError:
            await asyncio.sleep(0.1)
    else:
        raise AssertionError("the new password was never used")
    await state.store.close()


def _with(url: str, password: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://app:{password}@{rest.rpartition('@')[2]}"


def _change_postgres(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER ROLE app PASSWORD 'pw-two'")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")


def _change_redis(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        client.execute_command("ACL", "SETUSER", "app", "resetpass", ">pw-two")
        client.execute_command("CLIENT", "KILL", "USER", "app")


_CHANGES = {"postgres": _change_postgres, "redis": _change_redis}


def test_postgres_is_connected_to_with_the_password_that_is_right_now() -> None:
    """A password that was rotated is taken for new connections without opening the store anew."""
    with postgres() as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE ROLE app LOGIN SUPERUSER PASSWORD 'pw-one'")
            (file,) = connection.execute("SHOW hba_file").fetchone() or ("",)
            rules = "SELECT 'host all tester 127.0.0.1/32 trust' UNION ALL SELECT 'host all app 127.0.0.1/32 scram-sha-256'"
            connection.execute(f"COPY ({rules}) TO '{file}'".encode())
            connection.execute("SELECT pg_reload_conf()")
        asyncio.run(_renewed(postgres_state(_with(url, "pw-one"), pool=Pool(2, 1, 60.0), timeout=1.5), "postgres", url))


def test_redis_is_connected_to_with_the_password_that_is_right_now() -> None:
    """The same for Redis."""
    with redis_server() as url:
        with redis.Redis.from_url(url) as client:
            client.execute_command("ACL", "SETUSER", "app", "on", ">pw-one", "~*", "+@all")
        asyncio.run(_renewed(redis_state(_with(url, "pw-one"), connections=2, timeout=1.5), "redis", url))

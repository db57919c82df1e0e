"""The `sage-agent` command."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sage_obs.cli import entry

if TYPE_CHECKING:
    from sage_agent.config import AgentConfig

_CONFIG = click.option("--config", "file", type=click.Path(path_type=Path), help="A YAML file; without it ./config.yaml, if there is one.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
def group() -> None:
    """Run an LLM agent as a production server, observed by sage-obs."""


@group.command()
@_CONFIG
@click.option("--host", help="The address to take requests on.  [default: 0.0.0.0]")
@click.option("--port", type=int, help="The port to take requests on, 0 for any free one.  [default: 8080]")
@click.option("--workers", type=int, help="How many processes take requests; SIGHUP renews them one by one.  [default: 1]")
def serve(file: Path | None, host: str | None, port: int | None, workers: int | None) -> None:
    """Serve messages until SIGTERM or Ctrl-C, then drain."""
    from sage_agent import config
    from sage_agent import serve as server

    loaded = config.load(file=file, environ=os.environ, arguments={"host": host, "port": port, "workers": workers})
    if loaded.server.workers == 1:
        server.serve(loaded, environ=os.environ)
    else:
        from sage_agent.supervise import supervise

        sys.exit(supervise(loaded, file=file, environ=os.environ))


@group.group("config")
def config_group() -> None:
    """Look at the configuration without starting anything."""


@config_group.command()
@_CONFIG
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def show(file: Path | None, *, as_json: bool) -> None:
    """Print every setting with its value and where it came from; secrets are masked."""
    from sage_agent import config

    settings = config.load(file=file, environ=os.environ).settings
    rows = [{"setting": path, "value": value.shown(), "source": value.source} for path, value in settings.items()]
    if as_json:
        for row in rows:
            _print_json(row)
        return
    widths = [max(len(row[column]) for row in rows) for column in ("setting", "value")]
    for row in rows:
        click.echo(f"{row['setting']:<{widths[0]}}  {row['value']:<{widths[1]}}  {row['source']}")


@config_group.command()
@_CONFIG
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def validate(file: Path | None, *, as_json: bool) -> None:
    """Say whether the configuration can be served with, and what in it has no effect."""
    from sage_agent import config

    loaded = config.load(file=file, environ=os.environ)
    files = [str(one) for one in config.find_files(file, os.environ)]
    if as_json:
        _print_json({"valid": True, "files": files, "warnings": list(loaded.notices)})
        return
    for notice in loaded.notices:
        click.echo(f"Warning: {notice}", err=True)
    click.echo(f"The configuration is valid ({', '.join(files) or 'no file'}).")


@group.group()
def sessions() -> None:
    """Conversations that are kept about a user: hand them out, or forget them."""


_USER = click.option("--user", required=True, help="The caller's id; `anonymous` where callers are not identified.")
_TENANT = click.option("--tenant", default="", help="The tenant the caller belongs to, if any.")


@sessions.command()
@_CONFIG
@_USER
@_TENANT
def export(file: Path | None, user: str, tenant: str) -> None:
    """Print each conversation of a user as one JSON object a line."""
    from sage_agent import config, rights

    loaded = config.load(file=file, environ=os.environ)
    found = asyncio.run(rights.export(loaded.state, tenant=tenant, user=user))
    _note(loaded, "exported", user, tenant, len(found))
    for conversation in found:
        _print_json(conversation)


@sessions.command()
@_CONFIG
@_USER
@_TENANT
@click.option("--yes", is_flag=True, help="Do not ask.")
def erase(file: Path | None, user: str, tenant: str, *, yes: bool) -> None:
    """Forget every conversation of a user, and every cached answer."""
    from sage_agent import config, rights

    loaded = config.load(file=file, environ=os.environ)
    if not yes:
        click.confirm(
            f"Forget every conversation of {user}{f' of {tenant}' if tenant else ''} in {loaded.state.kind}?", abort=True, err=True
        )
    count = asyncio.run(rights.erase(loaded.state, tenant=tenant, user=user))
    _note(loaded, "erased", user, tenant, count)
    _print_json({"erased": count, "tenant": tenant, "user": user})


def _note(loaded: AgentConfig, outcome: str, user: str, tenant: str, count: int) -> None:
    from sage_agent.security.audit import note_once

    facts = {"actor": f"uid {os.getuid()}", "user": user, "tenant": tenant, "count": str(count)}
    note_once(loaded.security.audit, "conversations", outcome, **facts)


@group.group("audit")
def audit_group() -> None:
    """The audit log: who did what."""


@audit_group.command()
@click.argument("log", type=click.Path(path_type=Path))
@_CONFIG
@click.option("--expect", multiple=True, metavar="SEQ:SHA256", help="A record that was noted elsewhere and must be there.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def verify(log: Path, file: Path | None, expect: tuple[str, ...], *, as_json: bool) -> None:
    """Say whether any record of the file LOG, and of its parts set aside, was changed, removed or reordered; exit 1 if so.

    The key is security.audit.key, as for `serve`. Without one, whoever can write to the folder can make a new chain that is right.
    """
    from sage_agent import config
    from sage_agent.security import audit_file
    from sage_agent.security.audit_chain import parse_expected

    key = config.load(file=file, environ={"SAGE_AUDIT_PATH": str(log), **os.environ}).settings["security.audit.key"].value
    verdict = audit_file.verify(log, key=key.encode(), expected=[parse_expected(one) for one in expect])
    if as_json:
        end = {"record": verdict.head.seq, "sha256": verdict.head.sha256}
        _print_json({"lines": verdict.lines, "begins": verdict.begins, "sealed": verdict.sealed, "problems": verdict.problems, **end})
    else:
        for problem in verdict.problems:
            click.echo(problem)
        click.echo(
            f"{verdict.lines} lines, records {verdict.begins} to {verdict.head.seq}; the end is {verdict.head.seq}:{verdict.head.sha256}"
        )
        if not verdict.sealed:
            click.echo("No key was given: only the chain was followed.", err=True)
    sys.exit(1 if verdict.problems else 0)


@group.group("keys")
def keys_group() -> None:
    """API keys of those who may ask this agent."""


@keys_group.command("new")
@click.option("--id", "name", required=True, help="Whose it is.")
@click.option("--tenant", default="", help="Whose data they see.")
@click.option("--role", type=click.Choice(["viewer", "operator", "admin"]), default="operator", show_default=True)
def new_key(name: str, tenant: str, role: str) -> None:
    """Make a key: it is printed once, and what goes into security.api_keys or its file after it."""
    from sage_agent.security import api_keys
    from sage_agent.security.fingerprints import fingerprint

    key = api_keys.new_key()
    click.echo(f"{key}")
    click.echo(json.dumps({"id": name, "tenant": tenant, "role": role, "sha256": fingerprint(key)}), err=True)


@group.group("did")
def did_group() -> None:
    """The identity this agent signs with (needs sage-obs[did])."""


@did_group.command("new")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The file the private key goes to; it must not exist.")
@click.option("--alg", type=click.Choice(["ed25519", "ecdsa-p256-sha256", "es256k"]), default="ed25519", show_default=True)
def did_new(out: Path, alg: str) -> None:
    """Make a private key and print its did:key."""
    from sage_agent.security import identity

    click.echo(identity.create(out, alg))


@did_group.command("show")
@click.option("--key", type=click.Path(path_type=Path), required=True, help="A file with a private key.")
@click.option("--did", default="", help="The DID the document is of; without it the key's own did:key.")
def did_show(key: Path, did: str) -> None:
    """Print the DID document of a key, as a domain serves it or a registry holds it."""
    from sage_agent.security import identity

    _print_json(identity.document(key, did))


@did_group.command("call")
@click.argument("url")
@click.argument("text")
@click.option("--key", type=click.Path(path_type=Path), required=True, help="The private key to sign with.")
@click.option("--keyid", default="", help="The DID URL that names the key; without it the key's own did:key.")
@click.option("--timeout", type=float, default=60.0, show_default=True, help="The longest the answer may take, in seconds.")
def did_call(url: str, text: str, key: Path, keyid: str, timeout: float) -> None:
    """Send a signed message to an agent at URL (such as http://127.0.0.1:8080) and print its answer."""
    from sage_agent.security import identity

    _print_json(identity.call(url, text, key=key, keyid=keyid, timeout=timeout))


def _print_json(document: dict[str, Any]) -> None:
    click.echo(json.dumps(document, sort_keys=True))


def main() -> None:
    """Run the command line; errors become messages and exit codes."""
    sys.exit(entry.run(group, sys.argv[1:], name="sage-agent"))

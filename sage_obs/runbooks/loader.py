"""Runbooks from YAML: the catalogue that comes with the package, and files."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Final

from sage_obs.errors import ConfigError
from sage_obs.runbooks.document import Mapping, parse, seconds, suggestion
from sage_obs.runbooks.evidence import ITEMS
from sage_obs.runbooks.model import Allowance, Effect, Kind, Limits, Next, Parameter, Runbook, Step
from sage_obs.slo.triggers import TRIGGERS

_SLUG: Final = re.compile(r"[a-z][a-z0-9-]*", re.ASCII)
_ALLOWANCE: Final = re.compile(r"(\d+)/(\S+)", re.ASCII)
_USES: Final[dict[Kind, tuple[str, ...]]] = {
    Kind.DECIDE: ("severity", "release.target"),
    Kind.ACTION: ("platform.rollback",),
    Kind.WAIT: ("platform.converged", "triggers.pass"),
    Kind.RECORD: ("ledger",),
}
_TRIGGERS: Final = tuple(one.slug for one in TRIGGERS)
_ALERTS: Final = tuple(one.alert for one in TRIGGERS)
_STEP_KEYS: Final = ("id", "kind", "title", "why", "use", "any", "timeout", "effect", "on_pass", "on_fail", "on_unknown")


def names() -> tuple[str, ...]:
    """The runbooks of the catalogue, sorted."""
    return tuple(sorted(one.name.removesuffix(".yaml") for one in _folder().iterdir() if one.name.endswith(".yaml")))


def source(name: str) -> str:
    """The YAML text of a runbook of the catalogue. Raises ConfigError for an unknown name."""
    if name not in names():
        raise ConfigError(f"There is no runbook `{name}`.", hint=suggestion(name, names()))
    return (_folder() / f"{name}.yaml").read_text(encoding="utf-8")


def _folder() -> resources.abc.Traversable:
    return resources.files("sage_obs.runbooks") / "catalogue"


def catalogue() -> dict[str, Runbook]:
    """Every runbook of the catalogue by name."""
    return {name: load(source(name), source=f"{name}.yaml", callable_names=names()) for name in names()}


def load_folder(folder: Path) -> dict[str, Runbook]:
    """The runbooks kept in a folder, by name. Raises ConfigError."""
    files = sorted(folder.glob("*.yaml"))
    known = tuple(one.stem for one in files)
    return {one.stem: load(read(one), source=str(one), callable_names=known) for one in files}


def read(path: Path) -> str:
    """A file's text. Raises ConfigError when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"Cannot read the runbook {path}: {exc}.") from exc


def load(text: str, *, source: str, callable_names: tuple[str, ...] = ()) -> Runbook:
    """Parse and check one runbook. `callable_names` are those it may call. Raises ConfigError naming file, line and key."""
    root = parse(text, source=source).only("metadata", "params", "alerts", "locks", "limits", "steps", "finally")
    about = root.mapping("metadata").only("name", "title", "owner", "summary")
    steps = tuple(_step(one, callable_names) for one in root.mappings("steps"))
    closing = tuple(_step(one, ()) for one in root.mappings("finally"))
    if not steps:
        raise root.fail("steps", "must hold at least one step")
    _check_ids(root, (*steps, *closing))
    return Runbook(
        name=about.parsed("name", _slug),
        title=about.text("title"),
        owner=about.text("owner"),
        summary=about.text("summary").strip(),
        alerts=root.texts("alerts", choices=_ALERTS),
        parameters=_parameters(root.mapping("params")),
        locks=root.texts("locks"),
        limits=_limits(root.mapping("limits").only("deadline", "automatic")),
        steps=steps,
        closing=closing,
    )


def _slug(text: str) -> str:
    if not _SLUG.fullmatch(text):
        raise ValueError("expected lower-case letters, digits and dashes")
    return text


def _parameters(found: Mapping) -> tuple[Parameter, ...]:
    tables = ((name, found.mapping(name).only("default", "enum", "help")) for name in found.entries)
    return tuple(Parameter(name, one.text("default"), one.text("help", ""), one.texts("enum")) for name, one in tables)


def _limits(found: Mapping) -> Limits:
    allowances = []
    for text in found.texts("automatic"):
        try:
            allowances.append(_allowance(text))
        except ValueError as exc:
            raise found.fail("automatic", f"holds `{text}`: {exc}") from exc
    return Limits(found.parsed("deadline", seconds, "30m"), tuple(allowances))


def _allowance(text: str) -> Allowance:
    match = _ALLOWANCE.fullmatch(text)
    if match is None:
        raise ValueError("expected runs per duration, such as 1/1h")
    return Allowance(int(match[1]), seconds(match[2]))


def _step(found: Mapping, callable_names: tuple[str, ...]) -> Step:
    found.only(*_STEP_KEYS)
    kind = Kind(found.choice("kind", [one.value for one in Kind]))
    effect = Effect(found.choice("effect", [one.value for one in Effect], Effect.NONE))
    if (kind is Kind.ACTION) != (effect is not Effect.NONE):
        raise found.fail("effect", "is for actions, and an action must say what its effect is", hint="Write `effect: reversible`.")
    return Step(
        id=found.parsed("id", _slug),
        kind=kind,
        title=found.text("title"),
        why=found.text("why"),
        use=_use(found, kind, callable_names),
        timeout=found.parsed("timeout", seconds, "1m"),
        triggers=_any(found, kind),
        effect=effect,
        on_pass=_next(found, "on_pass", Next.CONTINUE),
        on_fail=_next(found, "on_fail", Next.STOP),
        on_unknown=_next(found, "on_unknown", Next.STOP),
    )


def _use(found: Mapping, kind: Kind, callable_names: tuple[str, ...]) -> str:
    choices = callable_names if kind is Kind.CALL else _USES.get(kind, ())
    if choices:
        return found.choice("use", choices)
    if "use" in found.entries:
        raise found.fail("use", f"means nothing for a step of kind {kind}")
    return ""


def _any(found: Mapping, kind: Kind) -> tuple[str, ...]:
    return found.texts("any", choices=ITEMS if kind is Kind.EVIDENCE else _TRIGGERS)


def _next(found: Mapping, key: str, default: Next) -> Next:
    return Next(found.choice(key, [one.value for one in Next], default))


def _check_ids(root: Mapping, steps: tuple[Step, ...]) -> None:
    seen: set[str] = set()
    for step in steps:
        if step.id in seen:
            raise root.fail("steps", f"has two steps with the id `{step.id}`")
        seen.add(step.id)

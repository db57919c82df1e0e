"""Settings that refer to secrets are resolved to the secrets, and remember where those are kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from sage_agent.secrets import Secrets
from sage_obs.settings import Option, Settings, Value, parse_seconds


def parse_refresh(value: object) -> float:
    """A duration in seconds of at least a tenth."""
    seconds = parse_seconds(value)
    if seconds < 0.1:  # noqa: PLR2004 - more often is a busy loop
        raise ValueError("expected a duration of at least 100ms")
    return seconds


SECRET_OPTIONS: Final[Mapping[str, Option]] = {
    "secrets_refresh": Option(
        "secrets.refresh",
        ("SAGE_SECRETS_REFRESH",),
        parse_refresh,
        10.0,
        "how often secrets that are kept in files are looked at for changes, in seconds",
    ),
}
"""By argument name."""


class _Whole(str):
    """A reference from `<VARIABLE>_FILE`: all of a setting, whatever else it would be split at."""

    __slots__ = ()


class References:
    """The references of one reading of the configuration, over secrets that outlive it."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets
        self._places: dict[str, list[str]] = {}

    def options(self, options: Mapping[str, Option]) -> dict[str, Option]:
        """The same settings, of which the secret ones follow references."""
        return {name: replace(option, parse=self._following(option)) if option.secret else option for name, option in options.items()}

    def environ(self, options: Mapping[str, Option], environ: Mapping[str, str]) -> dict[str, str]:
        """The environment with `<VARIABLE>_FILE` of secrets written as references."""
        files = {}
        for option in options.values():
            for variable in option.env if option.secret else ():
                if path := environ.get(f"{variable}_FILE"):
                    files[variable] = _Whole(f"file:{path}")
        gone = {f"{variable}_FILE" for variable in files}
        return {**{name: text for name, text in environ.items() if name not in gone}, **files}

    def told(self, option: Option, value: Value) -> Value:
        """A value whose source says where its secret is kept."""
        places = self._places.get(option.path)
        return value if not places else Value(value.value, f"{value.source}: {', '.join(places)}", value.secret)

    def filled(self, options: Mapping[str, Option], settings: Settings) -> Settings:
        """Settings of the observability layer, with secrets where there were references."""
        found: dict[str, Any] = {}
        sources = dict(settings.sources)
        for name in (name for name, option in options.items() if option.secret):
            found[name] = self._read(options[name], getattr(settings, name))
            sources[name] = self.told(options[name], Value(found[name], sources[name].source, secret=True))
        return replace(settings, sources=sources, **found)

    def _following(self, option: Option) -> Callable[[object], Any]:
        return lambda raw: option.parse(self._resolved(option, raw))

    def _resolved(self, option: Option, raw: object) -> object:
        """What was written, with secrets where there were references: before it is parsed, as a parser may keep only a digest."""
        if isinstance(raw, _Whole):
            raw = self._read(option, raw)
        elif isinstance(raw, str) and not isinstance(option.default, tuple):
            return self._read(option, raw)
        if isinstance(raw, str) and isinstance(option.default, tuple):
            if not raw.lstrip().startswith(("[", "{")):
                return ",".join(self._read(option, one.strip()) for one in raw.split(","))
            try:
                raw = json.loads(raw)
            except json.JSONDecodeError:
                return raw
        return self._filled(option, raw)

    def _filled(self, option: Option, tree: Any) -> Any:
        if isinstance(tree, list):
            return [self._filled(option, one) for one in tree]
        if isinstance(tree, dict):
            return {name: self._filled(option, one) for name, one in tree.items()}
        return self._read(option, tree) if isinstance(tree, str) else tree

    def _read(self, option: Option, text: str) -> str:
        secret = self._secrets.find(option.path, str(text))
        if secret is None:
            return text
        places = self._places.setdefault(option.path, [])
        if secret.place not in places:
            places.append(secret.place)
        return secret.current()

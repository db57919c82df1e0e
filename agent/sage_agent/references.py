"""Settings that refer to secrets are resolved to the secrets, and remember where those are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, Final

from sage_agent.secrets import Secrets
from sage_obs.settings import Option, Value, parse_seconds


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

    def _following(self, option: Option) -> Callable[[object], Any]:
        def parse(raw: object) -> Any:
            several = isinstance(option.default, tuple)
            if isinstance(raw, str) and (isinstance(raw, _Whole) or not several):
                raw = self._read(option, raw)
            value = option.parse(raw)
            return tuple(dict.fromkeys(self._each(option, value))) if several else value

        return parse

    def _each(self, option: Option, values: tuple[Any, ...]) -> Iterator[Any]:
        """Every entry of a list, what is secret in it resolved; a file may hold several."""
        for one in values:
            if isinstance(one, str):
                text = self._read(option, one)
                yield from (one,) if text == one else option.parse(text)
            elif is_dataclass(one) and not isinstance(one, type):
                hidden = {field.name: getattr(one, field.name) for field in fields(one) if not field.repr}
                yield replace(one, **{name: self._filled(option, value) for name, value in hidden.items()})
            else:
                yield one

    def _filled(self, option: Option, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(self._filled(option, one) for one in value)
        return self._read(option, value) if isinstance(value, str) else value

    def _read(self, option: Option, text: str) -> str:
        secret = self._secrets.find(option.path, str(text))
        if secret is None:
            return text
        places = self._places.setdefault(option.path, [])
        if secret.place not in places:
            places.append(secret.place)
        return secret.current()

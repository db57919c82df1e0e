"""What an operator says of the alerts: objectives of their own, other thresholds, windows and receivers. One YAML file holds all of it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

from sage_obs.alerts.conditions import Condition
from sage_obs.conventions import Metric, Severity
from sage_obs.errors import ConfigError
from sage_obs.slo.objectives import NAME, OBJECTIVES, Counted, Objective, Timed
from sage_obs.slo.signals import Selector
from sage_obs.slo.windows import Windows, seconds

DEFAULT_FILE: Final = Path("sage-alerts.yaml")
_METRIC: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*", re.ASCII)
_OBJECTIVE_KEYS: Final = ("name", "sentence", "target", "counter", "histogram", "where", "bad", "ignore", "under")
_TUNED_KEYS: Final = ("enabled", "threshold", "min_samples", "hold", "keep", "severity")
_WINDOWS: Final = ("rate", "novelty", "reference", "scrape", "evaluation")
_KEYS: Final = ("objectives", "alerts", "windows", "receivers")


@dataclass(frozen=True, slots=True)
class Tuned:
    """What is different of an alert; None where it is as it was."""

    enabled: bool = True
    threshold: float | None = None
    min_samples: float | None = None
    hold: float | None = None
    keep: float | None = None
    severity: Severity | None = None


@dataclass(frozen=True, slots=True)
class AlertSettings:
    """The settings. `objectives` are the guide's and the operator's, `receivers` replace Alertmanager's by their names."""

    objectives: tuple[Objective, ...] = OBJECTIVES
    tuned: Mapping[str, Tuned] = field(default_factory=dict)
    windows: Mapping[str, float] = field(default_factory=dict)
    receivers: tuple[Mapping[str, Any], ...] = ()

    @property
    def metrics(self) -> frozenset[str]:
        """The series that the operator's objectives are about."""
        return frozenset(series for one in self.objectives for series in one.events.metric.series)

    def condition(self, condition: Condition) -> Condition | None:
        """A condition as it is wanted; None where it is not."""
        tuned = self.tuned.get(condition.alert)
        if tuned is None:
            return condition
        if not tuned.enabled:
            return None
        said = {one.name: getattr(tuned, one.name) for one in fields(tuned) if one.name != "enabled"}
        return replace(condition, **{name: value for name, value in said.items() if value is not None})

    def of(self, windows: Windows) -> Windows:
        """Production's windows as they are wanted; those of a drill are its own."""
        if windows.name != "production":
            return windows
        said: dict[str, Any] = dict(self.windows)
        return replace(windows, **said)


def load(file: Path | None, *, known: Sequence[str]) -> AlertSettings:
    """Read a file, or `sage-alerts.yaml` here if there is one. `known` are the alerts there are.

    Raises ConfigError that says where what is wrong: an unknown key, a value of the wrong kind, two objectives of one name.
    """
    if file is None:
        if not DEFAULT_FILE.is_file():
            return AlertSettings()
        file = DEFAULT_FILE
    return parse(read(file), where=str(file), known=known)


def read(file: Path) -> Any:
    """The YAML of a file. Raises ConfigError where it cannot be read or is none."""
    import yaml

    try:
        return yaml.safe_load(file.read_text())
    except FileNotFoundError:
        raise ConfigError(f"There is no file {file}.", hint="Give an existing one with --settings, or leave the option out.") from None
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{file} cannot be read: {exc}.") from exc
    except yaml.YAMLError as exc:
        raise ConfigError(f"{file} is not valid YAML: {' '.join(str(exc).split())}.") from exc


def parse(given: Any, *, where: str, known: Sequence[str]) -> AlertSettings:
    """The settings in a document. Raises ConfigError."""
    document = _mapping({} if given is None else given, where, _KEYS)
    own = tuple(_objective(one, place) for place, one in _listed(document, "objectives", where))
    names = [one.name for one in (*OBJECTIVES, *own)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{where}: there are two objectives called {twice[0]}.", hint="Rename yours.")
    alerts = _mapping(document.get("alerts") or {}, f"{where}: alerts", known)
    return AlertSettings(
        objectives=(*OBJECTIVES, *own),
        tuned={name: _tuned(one, f"{where}: alerts.{name}") for name, one in alerts.items()},
        windows={
            name: _parsed(_seconds, value, f"{where}: windows.{name}")
            for name, value in _mapping(document.get("windows") or {}, f"{where}: windows", _WINDOWS).items()
        },
        receivers=tuple(_receiver(one, place) for place, one in _listed(document, "receivers", where)),
    )


def _objective(given: Any, where: str) -> Objective:
    said = _mapping(given, where, _OBJECTIVE_KEYS)
    name = _parsed(_name, said.get("name"), f"{where}.name")
    if ("counter" in said) == ("histogram" in said):
        raise ConfigError(f"{where}: an objective is about either a `counter` or a `histogram`.")
    target = _parsed(_target, said.get("target"), f"{where}.target")
    conditions = _labels(said.get("where"), f"{where}.where")
    events: Counted | Timed
    if "counter" in said:
        metric = Metric(_parsed(_metric, said["counter"], f"{where}.counter"), "counter", "")
        bad = _labels(said.get("bad"), f"{where}.bad")
        if not bad:
            raise ConfigError(f"{where}: `bad` says which events are bad, such as {{outcome: [server_error]}}.")
        ignored = _labels(said.get("ignore"), f"{where}.ignore")
        events = Counted(Selector(metric, include=(*conditions, *bad)), Selector(metric, include=conditions, exclude=ignored))
    else:
        metric = Metric(_parsed(_metric, said["histogram"], f"{where}.histogram"), "histogram", "")
        events = Timed(metric, _parsed(_positive, said.get("under"), f"{where}.under"), conditions)
    return Objective(name, str(said.get("sentence") or name), target, events)


def _tuned(given: Any, where: str) -> Tuned:
    said = _mapping(given, where, _TUNED_KEYS)
    kinds: dict[str, Callable[[Any], Any]] = {
        "enabled": _bool,
        "threshold": _number,
        "min_samples": _number,
        "hold": _seconds,
        "keep": _seconds,
        "severity": Severity,
    }
    return Tuned(**{name: _parsed(kinds[name], value, f"{where}.{name}") for name, value in said.items()})


def _receiver(given: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(given, dict) or not isinstance(given.get("name"), str):
        raise ConfigError(f"{where}: expected a receiver of Alertmanager's, with its `name`.")
    return given


def _mapping(given: Any, where: str, known: Sequence[str]) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise ConfigError(f"{where}: expected a mapping.")
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            raise ConfigError(
                f"{where}: unknown key `{key}`.", hint=f"Did you mean `{near[0]}`?" if near else f"There are {', '.join(known)}."
            )
    return given


def _listed(document: Mapping[str, Any], name: str, where: str) -> Iterator[tuple[str, Any]]:
    """Each entry of a list, with where it stands."""
    given = document.get(name)
    if given is None:
        return
    if not isinstance(given, list):
        raise ConfigError(f"{where}: {name}: expected a list.")
    for number, one in enumerate(given):
        yield f"{where}: {name}[{number}]", one


def _labels(given: Any, where: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    if given is None:
        return ()
    if not isinstance(given, dict):
        raise ConfigError(f"{where}: expected labels with their values, such as {{outcome: [server_error]}}.")
    return tuple(
        (str(name), tuple(str(one) for one in (values if isinstance(values, list) else [values]))) for name, values in given.items()
    )


def _parsed(kind: Callable[[Any], Any], given: Any, where: str) -> Any:
    try:
        return kind(given)
    except (ValueError, TypeError) as exc:
        raise ConfigError(f"{where}: {exc}.") from None


def _name(given: Any) -> str:
    if not isinstance(given, str) or NAME.fullmatch(given) is None:
        raise ValueError("expected a name of lower-case letters, digits and -")
    return given


def _metric(given: Any) -> str:
    if not isinstance(given, str) or _METRIC.fullmatch(given) is None:
        raise ValueError("expected the name of a metric")
    return given


def _number(given: Any) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not abs(given) < float("inf"):
        raise ValueError("expected a number")
    return float(given)


def _positive(given: Any) -> float:
    if (number := _number(given)) <= 0:
        raise ValueError("expected a number over 0")
    return number


def _target(given: Any) -> float:
    if not 0 < (number := _number(given)) < 1:
        raise ValueError("expected a share over 0 and under 1, such as 0.995")
    return number


def _bool(given: Any) -> bool:
    if not isinstance(given, bool):
        raise ValueError("expected true or false")
    return given


def _seconds(given: Any) -> float:
    return _positive(given) if isinstance(given, int | float) else seconds(str(given))

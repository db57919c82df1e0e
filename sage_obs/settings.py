"""Layered settings: argument > environment > file > default, and every value knows which of them it came from.

`Option` describes one setting and `resolve` reads a table of them. The layer's own table is `OPTIONS`; the agent runtime brings its
own and reads both from one file. Nothing here looks at the environment or a file until it is called.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Self

from sage_obs.conventions import DEFAULT_METRICS_PORT, DEFAULT_PROFILING_PORT
from sage_obs.errors import ConfigError
from sage_obs.privacy.content import LEVELS, Content, of_otel
from sage_obs.semconv import CONVENTIONS, OPT_IN, Convention

_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)", re.ASCII)
_UNIT_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}", re.ASCII)
MASK: Final = "********"


def parse_bool(value: object) -> bool:
    """A boolean from YAML, or one of 1/true/yes/on and 0/false/no/off in any case."""
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in _TRUE | _FALSE:
        return text in _TRUE
    raise ValueError("expected true or false")


def parse_text(value: object) -> str:
    """A scalar as text; a list or mapping is refused."""
    if isinstance(value, (dict, list)):
        raise ValueError("expected a single value")
    return str(value)


def parse_ratio(value: object) -> float:
    """A number from 0 to 1."""
    number = _number(value)
    if not 0.0 <= number <= 1.0:
        raise ValueError("expected a number from 0 to 1")
    return number


def parse_port(value: object) -> int:
    """A TCP port from 0 to 65535, where 0 asks for any free one."""
    return parse_int(0, 65535)(value)


def parse_int(low: int, high: int) -> Callable[[object], int]:
    """A parser for whole numbers from `low` to `high`."""

    def parse(value: object) -> int:
        number = _number(value)
        if number != int(number) or not low <= number <= high:
            raise ValueError(f"expected a whole number from {low} to {high}")
        return int(number)

    return parse


def parse_seconds(value: object) -> float:
    """A duration in seconds: a number, or Go's way of writing one (`300ms`, `5m`, `1h30m`)."""
    text = str(value).strip()
    if isinstance(value, str) and text and _DURATION.sub("", text) == "":
        return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in _DURATION.findall(text))
    seconds = _number(value)
    if seconds < 0:
        raise ValueError("expected a duration of at least 0 seconds")
    return seconds


def parse_amount(value: object) -> float:
    """A number of at least 0."""
    number = _number(value)
    if not number >= 0:
        raise ValueError("expected a number of at least 0")
    return number


def parse_choice(*choices: str) -> Callable[[object], str]:
    """A parser for one of a few words, in any case."""

    def parse(value: object) -> str:
        text = parse_text(value).strip().lower()
        if text not in choices:
            raise ValueError(f"expected one of {', '.join(choices)}{_suggest(text, choices)}")
        return text

    return parse


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError("expected a number")
    try:
        number = float(value)
    except ValueError:
        raise ValueError("expected a number") from None
    if not math.isfinite(number):
        raise ValueError("expected a finite number")
    return number


def _suggest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean `{close[0]}`?)" if close else ""


@dataclass(frozen=True, slots=True)
class Option:
    """One setting.

    `path` is its dotted place in the file, `env` the variables that set it (the first one present wins), `parse` turns what was
    found into the value or raises ValueError with what was expected. A secret is masked wherever settings are shown, and can also
    be given as the path of a file in `<VARIABLE>_FILE`. `theirs` are variables of OpenTelemetry's with words of their own, each with
    who reads it: "" where it says nothing of this.
    """

    path: str
    env: tuple[str, ...]
    parse: Callable[[object], Any]
    default: Any
    help: str
    aliases: tuple[str, ...] = ()
    secret: bool = False
    theirs: tuple[tuple[str, Callable[[str], str]], ...] = ()


@dataclass(frozen=True, slots=True)
class Value:
    """A resolved setting and where it came from, such as `environment SAGE_LOG_LEVEL` or `config.yaml: agent.id`."""

    value: Any
    source: str
    secret: bool = False

    def shown(self) -> str:
        """The value as it may be printed."""
        return MASK if self.secret and self.value else str(self.value)

    def __repr__(self) -> str:
        return f"Value({self.shown()!r}, source={self.source!r})"


def resolve(
    options: Mapping[str, Option],
    *,
    arguments: Mapping[str, object] | None = None,
    environ: Mapping[str, str],
    file: Path | Sequence[Path] | None = None,
    foreign: Iterable[str] = (),
) -> dict[str, Value]:
    """Resolve `options` by name from arguments, environment, file and defaults, in that order of strength.

    `file` may be several, the strongest first. An argument of None counts as not given. `foreign` lists dotted paths (or prefixes
    ending in a dot) that belong to somebody else's table and are let pass in a file. Raises ConfigError for an unknown key or
    argument, a value that cannot be parsed, and a file that cannot be read.
    """
    given = {name: value for name, value in (arguments or {}).items() if value is not None}
    for name in given:
        if name not in options:
            raise ConfigError(f"Unknown setting `{name}`{_suggest(name, options)}.", hint=f"Known: {', '.join(sorted(options))}.")
    passing = tuple(foreign)
    trees = {one: read_yaml(one, environ) for one in _files(file)}
    for one, tree in trees.items():
        check_keys(tree, options.values(), file=one, foreign=passing)
    return {name: _resolve_one(name, option, given, environ, trees) for name, option in options.items()}


def _files(file: Path | Sequence[Path] | None) -> tuple[Path, ...]:
    if file is None:
        return ()
    return (file,) if isinstance(file, Path) else tuple(file)


def _resolve_one(
    name: str, option: Option, given: Mapping[str, object], environ: Mapping[str, str], trees: Mapping[Path, Mapping[str, object]]
) -> Value:
    if name in given:
        return _parsed(option, given[name], f"argument {name}")
    for variable in option.env:
        if option.secret and (path := environ.get(f"{variable}_FILE")):
            return _parsed(option, _read_secret(variable, Path(path)), f"environment {variable}_FILE")
        if (text := environ.get(variable, "")) != "":
            return _parsed(option, text, f"environment {variable}")
    for variable, read in option.theirs:
        if text := read(environ.get(variable, "")):
            return _parsed(option, text, f"environment {variable}")
    for file, tree in trees.items():
        for path in (option.path, *option.aliases):
            if path in tree and tree[path] is not None:
                return _parsed(option, tree[path], f"{file}: {path}")
    return Value(option.default, "default", option.secret)


def _parsed(option: Option, raw: object, source: str) -> Value:
    try:
        return Value(option.parse(raw), source, option.secret)
    except ValueError as exc:
        shown = MASK if option.secret else repr(raw)[:80]
        raise ConfigError(f"Cannot use {shown} from {source}: {exc}.", hint=f"It sets: {option.help}") from exc


def _read_secret(variable: str, path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as exc:
        raise ConfigError(f"Cannot read the secret that {variable}_FILE points to, {path}: {exc.strerror}.") from exc


def read_yaml(file: Path, environ: Mapping[str, str]) -> dict[str, object]:
    """Read a YAML mapping, expand `${VAR}` and `${VAR:-default}`, and flatten it to dotted paths.

    Raises ConfigError with line and column where the text is not YAML, and for a variable that is not set.
    """
    import yaml

    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"Cannot read the configuration file {file}: {reason}.") from exc
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{file}{where} is not valid YAML: {getattr(exc, 'problem', None) or exc}.") from exc
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{file} holds a {type(tree).__name__} where a mapping of settings is expected.")
    return dict(_flatten(tree, "", environ, file))


def _flatten(tree: Mapping[Any, object], prefix: str, environ: Mapping[str, str], file: Path) -> Iterable[tuple[str, object]]:
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _flatten(value, f"{path}.", environ, file)
        else:
            yield path, _expanded(value, path, environ, file)


def _expanded(value: object, path: str, environ: Mapping[str, str], file: Path) -> object:
    """A value with the variables in its texts filled in, those of a list too."""
    if isinstance(value, str):
        return _expand(value, path, environ, file)
    if isinstance(value, list):
        return [_expanded(one, f"{path}[{index}]", environ, file) for index, one in enumerate(value)]
    if isinstance(value, dict):
        return {key: _expanded(one, f"{path}.{key}", environ, file) for key, one in value.items()}
    return value


def _expand(text: str, path: str, environ: Mapping[str, str], file: Path) -> str:
    def replacement(match: re.Match[str]) -> str:
        name, default = match.group(1), match.group(2)
        value = environ.get(name) or default
        if value is None:
            raise ConfigError(
                f"{file}: `{path}` refers to ${{{name}}}, which is not set.", hint=f"Set {name}, or write ${{{name}:-default}}."
            )
        return value

    return _VARIABLE.sub(replacement, text)


def check_keys(tree: Mapping[str, object], options: Iterable[Option], *, file: Path | None, foreign: Iterable[str] = ()) -> None:
    """Raise ConfigError, with the nearest known key, if the file holds one that no option reads."""
    known = {path for option in options for path in (option.path, *option.aliases)}
    passing = tuple(foreign)
    for path in tree:
        if path in known or any(path == other or (other.endswith(".") and path.startswith(other)) for other in passing):
            continue
        names = [*known, *(other.rstrip(".") for other in passing)]
        raise ConfigError(f"{file}: unknown key `{path}`{_suggest(path, names)}.", hint="Remove it or correct its name.")


@dataclass(frozen=True, slots=True)
class Settings:
    """What `instrument()` works with. Field names are those of its arguments; units are seconds and ratios."""

    enabled: bool
    service_name: str
    agent_id: str
    version: str
    revision: str
    metrics: bool
    metrics_host: str
    metrics_port: int
    multiprocess_dir: str
    logs: bool
    log_level: str
    log_output: str
    log_format: str
    traces: bool
    traces_endpoint: str
    sampling_rate: float
    semconv: Convention
    content: Content
    metrics_endpoint: str
    metrics_interval: float
    prices_file: str
    tail_sampling: bool
    tail_slow: float
    tail_expensive: float
    health: bool
    profiling: bool
    profiling_host: str
    profiling_port: int
    profiling_token: str = field(repr=False)
    profiling_certificate: str
    profiling_key: str
    profiling_locks: bool
    profiling_server: str
    label_budget: int
    overhead_objective: float
    exit_timeout: float
    sources: Mapping[str, Value]

    @classmethod
    def load(
        cls,
        *,
        arguments: Mapping[str, object] | None = None,
        environ: Mapping[str, str] | None = None,
        file: Path | Sequence[Path] | None = None,
        foreign: Iterable[str] = (),
    ) -> Self:
        """Resolve the layer's own settings; see `resolve` for the arguments and errors."""
        values = resolve(OPTIONS, arguments=arguments, environ=os.environ if environ is None else environ, file=file, foreign=foreign)
        names = [field.name for field in fields(cls) if field.name != "sources"]
        return cls(**{name: values[name].value for name in names}, sources=values)


def _latest(text: str) -> str:
    """Whether OTEL_SEMCONV_STABILITY_OPT_IN asks for the latest GenAI conventions; the other words in it are not about these."""
    return "latest" if OPT_IN in {word.strip() for word in text.split(",")} else ""


def _milliseconds(text: str) -> str:
    """OpenTelemetry's milliseconds as a duration; what is no number of them says nothing, as the SDK has it."""
    return f"{text.strip()}ms" if text.strip().isdecimal() else ""


def parse_content(value: object) -> Content:
    """A level of content."""
    if value is False:  # YAML's `off`
        return Content.OFF
    return Content(parse_choice(*LEVELS)(value))


def parse_interval(value: object) -> float:
    """A duration of at least a tenth of a second, in seconds."""
    seconds = parse_seconds(value)
    if seconds < _LEAST_INTERVAL:
        raise ValueError(f"expected a duration of at least {_LEAST_INTERVAL} seconds")
    return seconds


_LEAST_INTERVAL: Final = 0.1
_LEVELS: Final = ("debug", "info", "warning", "error", "critical")

OPTIONS: Final[Mapping[str, Option]] = {
    "enabled": Option("observability.enabled", ("SAGE_OBSERVABILITY_ENABLED",), parse_bool, True, "the master switch of the whole layer"),
    "service_name": Option(
        "observability.service_name",
        ("OTEL_SERVICE_NAME", "SAGE_SERVICE_NAME"),
        parse_text,
        "sage-agent",
        "the service's name",
        aliases=("tracing.service_name", "observability.tracing.service_name"),
    ),
    "agent_id": Option("agent.id", ("SAGE_AGENT_ID",), parse_text, "agent-001", "the agent's identity in metrics and logs"),
    "version": Option("observability.version", ("SAGE_SERVICE_VERSION",), parse_text, "0.0.0", "the release that runs here"),
    "revision": Option("observability.revision", ("SAGE_SERVICE_REVISION",), parse_text, "unknown", "the source revision of the release"),
    "metrics": Option("observability.metrics.enabled", ("SAGE_METRICS_ENABLED",), parse_bool, True, "whether /metrics is served"),
    "metrics_host": Option("observability.metrics.host", ("SAGE_METRICS_HOST",), parse_text, "0.0.0.0", "the address /metrics listens on"),  # noqa: S104 - scraped from elsewhere
    "metrics_port": Option(
        "observability.metrics.port", ("SAGE_METRICS_PORT",), parse_port, DEFAULT_METRICS_PORT, "the port /metrics and /health answer on"
    ),
    "multiprocess_dir": Option(
        "observability.metrics.multiprocess_dir",
        ("SAGE_MULTIPROCESS_DIR",),
        parse_text,
        "",
        "the folder in which the processes of one service share their metrics; chosen by itself for the usual servers",
    ),
    "logs": Option("observability.logging.enabled", ("SAGE_LOGS_ENABLED",), parse_bool, True, "whether log records become JSON lines"),
    "log_level": Option(
        "observability.logging.level", ("SAGE_LOG_LEVEL",), parse_choice(*_LEVELS), "info", "the least level that is logged"
    ),
    "log_output": Option(
        "observability.logging.output", ("SAGE_LOG_OUTPUT",), parse_text, "stdout", "where lines go: stdout, stderr or a file's path"
    ),
    "log_format": Option(
        "observability.logging.format", ("SAGE_LOG_FORMAT",), parse_choice("json", "text"), "json", "json, or text for people"
    ),
    "traces": Option(
        "tracing.enabled",
        ("SAGE_TRACING_ENABLED",),
        parse_bool,
        True,
        "whether sampled requests become spans",
        aliases=("observability.tracing.enabled",),
    ),
    "traces_endpoint": Option(
        "tracing.endpoint",
        ("SAGE_TRACING_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        parse_text,
        "",
        "the OTLP/HTTP endpoint spans go to; none means no spans",
        aliases=("observability.tracing.endpoint",),
    ),
    "sampling_rate": Option(
        "tracing.sampling_rate",
        ("SAGE_TRACING_SAMPLING_RATE",),
        parse_ratio,
        0.1,
        "the share of new traces that is recorded",
        aliases=("observability.tracing.sampling_rate",),
    ),
    "semconv": Option(
        "tracing.semconv",
        ("SAGE_SEMCONV",),
        parse_choice(*CONVENTIONS),
        "legacy",
        "which GenAI conventions name what is on spans",
        aliases=("observability.tracing.semconv",),
        theirs=(("OTEL_SEMCONV_STABILITY_OPT_IN", _latest),),
    ),
    "content": Option(
        "tracing.content",
        ("SAGE_CAPTURE_CONTENT",),
        parse_content,
        Content.OFF,
        "how much of prompts, answers and what tools are given and return goes on spans",
        aliases=("observability.tracing.content",),
        theirs=(("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", lambda text: text and of_otel(text)),),
    ),
    "metrics_endpoint": Option(
        "observability.metrics.endpoint",
        ("SAGE_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"),
        parse_text,
        "",
        "the OTLP/HTTP endpoint metrics are pushed to; none means they are only scraped",
    ),
    "metrics_interval": Option(
        "observability.metrics.interval",
        ("SAGE_METRICS_INTERVAL",),
        parse_interval,
        60.0,
        "how often metrics are pushed, in seconds",
        theirs=(("OTEL_METRIC_EXPORT_INTERVAL", _milliseconds),),
    ),
    "tail_sampling": Option(
        "tracing.tail.enabled",
        ("SAGE_TRACING_TAIL",),
        parse_bool,
        False,
        "whether traces of failed, slow and expensive requests are kept beyond the sampling rate",
        aliases=("observability.tracing.tail.enabled",),
    ),
    "tail_slow": Option(
        "tracing.tail.slow",
        ("SAGE_TRACING_TAIL_SLOW",),
        parse_seconds,
        5.0,
        "with tail sampling: a request of so many seconds is slow",
        aliases=("observability.tracing.tail.slow",),
    ),
    "tail_expensive": Option(
        "tracing.tail.expensive",
        ("SAGE_TRACING_TAIL_EXPENSIVE",),
        parse_amount,
        0.5,
        "with tail sampling: a request whose model calls cost so much is expensive, in USD",
        aliases=("observability.tracing.tail.expensive",),
    ),
    "prices_file": Option(
        "observability.prices_file",
        ("SAGE_PRICES_FILE",),
        parse_text,
        "",
        "a YAML or JSON file of prices that come before those of the bundled table",
    ),
    "health": Option("observability.health.enabled", ("SAGE_HEALTH_ENABLED",), parse_bool, True, "whether /health/* is served"),
    "profiling": Option(
        "observability.profiling.enabled",
        ("SAGE_PROFILING_ENABLED",),
        parse_bool,
        False,
        "whether /debug/pprof/ is served",
        aliases=("profiling.enabled",),
    ),
    "profiling_host": Option(
        "observability.profiling.host",
        ("SAGE_PROFILING_HOST",),
        parse_text,
        "127.0.0.1",
        "the address /debug/pprof/ answers on; any but this machine's own needs a token",
        aliases=("profiling.host",),
    ),
    "profiling_port": Option(
        "observability.profiling.port",
        ("SAGE_PROFILING_PORT",),
        parse_port,
        DEFAULT_PROFILING_PORT,
        "the port /debug/pprof/ answers on; the default gives way to any free one where it is taken",
        aliases=("profiling.port",),
    ),
    "profiling_token": Option(
        "observability.profiling.token",
        ("SAGE_PROFILING_TOKEN",),
        parse_text,
        "",
        "what whoever fetches a profile has to present, as a Bearer token or as the password of Basic",
        aliases=("profiling.token",),
        secret=True,
    ),
    "profiling_certificate": Option(
        "observability.profiling.certificate",
        ("SAGE_PROFILING_CERTIFICATE",),
        parse_text,
        "",
        "the PEM file of the certificate to serve profiles over TLS with",
        aliases=("profiling.certificate",),
    ),
    "profiling_key": Option(
        "observability.profiling.key",
        ("SAGE_PROFILING_KEY",),
        parse_text,
        "",
        "the PEM file of its key, where that is not in the same file",
        aliases=("profiling.key",),
    ),
    "profiling_locks": Option(
        "observability.profiling.locks",
        ("SAGE_PROFILING_LOCKS",),
        parse_bool,
        False,
        "whether locks that are made from now on say who waited for them",
        aliases=("profiling.locks",),
    ),
    "profiling_server": Option(
        "observability.profiling.server",
        ("SAGE_PROFILING_SERVER",),
        parse_text,
        "",
        "the address of a Pyroscope server that profiles of the processor are pushed to",
        aliases=("profiling.server",),
    ),
    "label_budget": Option(
        "observability.metrics.label_budget", ("SAGE_LABEL_BUDGET",), parse_int(1, 100_000), 100, "how many values an open label may take"
    ),
    "overhead_objective": Option(
        "observability.objectives.overhead",
        ("SAGE_OVERHEAD_OBJECTIVE",),
        parse_seconds,
        0.1,
        "the latency objective in seconds, excluding language models",
    ),
    "exit_timeout": Option(
        "observability.exit_timeout",
        ("SAGE_EXIT_TIMEOUT",),
        parse_seconds,
        2.0,
        "the longest the telemetry may delay the process's exit, in seconds",
    ),
}
"""The layer's settings by argument name."""

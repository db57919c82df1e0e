"""The order of things in a program, read from its text: only what can be told for certain without running it.

Most patches are on classes, and reach what was imported before them; what is looked at here does not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final

from sage_obs.doctor.findings import Finding, World
from sage_obs.integrations import base

_SERVERS: Final = frozenset({"uvicorn.run", "hypercorn.run", "web.run_app", "aiohttp.web.run_app", "asyncio.run"})
_MULTIPROC: Final = "PROMETHEUS_MULTIPROC_DIR"
_BLOCKS: Final = (ast.If, ast.Try, ast.With, ast.For, ast.While)


@dataclass(frozen=True, slots=True)
class Step:
    """One statement that runs when the program does, and whether it runs only as the main module."""

    node: ast.stmt
    main_only: bool

    @property
    def calls(self) -> Iterator[tuple[str, ast.Call]]:
        """The calls in it, by dotted name; those in functions it defines happen later, or never."""
        for node in _reached(self.node):
            if isinstance(node, ast.Call) and (name := _dotted(node.func)):
                yield name, node


def order(world: World) -> Iterator[Finding]:
    """What is wrong with the order of the program that the command runs, if its text can be found."""
    file = script_of(world)
    if file is None:
        return
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError) as exc:
        yield Finding("order", f"{file.name} cannot be read as Python: {type(exc).__name__}.", "Correct it.")
        return
    steps = list(_steps(tree.body, main_only=False))
    yield from _multiprocess(steps, file)
    begins = _index(steps, _instruments(tree))
    if begins is None:
        return
    yield from _late(steps, begins, file)
    yield from _provider(steps, begins, file)
    yield from _main_only(steps, begins, file)


def script_of(world: World) -> Path | None:
    """The file of the program: `python app.py`, `python -m app`, or the module of `uvicorn app:app`."""
    for word in world.command:
        module = word.partition(":")[0].replace(".", "/")
        for candidate in (word, f"{module}.py", f"{module}/__init__.py", f"{module}/__main__.py"):
            path = world.folder / candidate
            if PurePath(candidate).suffix == ".py" and path.is_file():
                return path
    return None


def _steps(body: list[ast.stmt], *, main_only: bool) -> Iterator[Step]:
    for node in body:
        if not isinstance(node, _BLOCKS):
            yield Step(node, main_only)
            continue
        inner = main_only or (isinstance(node, ast.If) and "__main__" in ast.unparse(node.test))
        yield from _steps(node.body, main_only=inner)
        for handler in getattr(node, "handlers", ()):
            yield from _steps(handler.body, main_only=main_only)
        for name in ("orelse", "finalbody"):
            yield from _steps(getattr(node, name, []), main_only=main_only)


def _reached(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _reached(child)


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{inner}.{node.attr}" if (inner := _dotted(node.value)) else ""
    return node.id if isinstance(node, ast.Name) else ""


def _instruments(tree: ast.Module) -> frozenset[str]:
    """The names by which the program can call `instrument`."""
    names = {"sage_obs.instrument"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {f"{one.asname}.instrument" for one in node.names if one.name == "sage_obs" and one.asname}
        elif isinstance(node, ast.ImportFrom) and node.module == "sage_obs":
            names |= {one.asname or one.name for one in node.names if one.name == "instrument"}
    return frozenset(names)


def _index(steps: list[Step], names: frozenset[str]) -> int | None:
    return next((index for index, step in enumerate(steps) if any(name in names for name, _ in step.calls)), None)


def patched() -> frozenset[str]:
    """The functions of modules that integrations replace, such as `library.complete`: a name taken before keeps the original."""
    return frozenset(name for one in base.NAMES for name in getattr(base.load(one), "functions", ()))


def _late(steps: list[Step], begins: int, file: Path) -> Iterator[Finding]:
    replaced = patched()
    for step in steps[:begins]:
        node = step.node
        if isinstance(node, ast.ImportFrom):
            for one in node.names:
                if f"{node.module}.{one.name}" in replaced:
                    what = (
                        f"{file.name}:{node.lineno} imports {one.name} from {node.module} before instrument(): its calls are not measured."
                    )
                    yield Finding("order", what, f"Call sage_obs.instrument() first, or call {node.module}.{one.name}().")
        for name, call in step.calls:
            if name in _SERVERS:
                what = f"{file.name}:{call.lineno} calls {name}(), and instrument() comes only after it returns."
                yield Finding("order", what, "Call sage_obs.instrument() at the top of the program.")


def _provider(steps: list[Step], begins: int, file: Path) -> Iterator[Finding]:
    for step in steps[begins:]:
        for name, call in step.calls:
            if name.rpartition(".")[2] == "set_tracer_provider":
                what = f"{file.name}:{call.lineno} sets a tracer provider after instrument(): OpenTelemetry takes the first one only."
                yield Finding("order", what, "Set it before sage_obs.instrument(), which then uses it.")


def _main_only(steps: list[Step], begins: int, file: Path) -> Iterator[Finding]:
    if not steps[begins].main_only:
        return
    for step in steps:
        for name, call in step.calls:
            if name == "uvicorn.run" and call.args and isinstance(call.args[0], ast.Constant) and _starts_processes(call):
                what = f"{file.name}:{call.lineno} serves from new processes, which import the module and never call instrument()."
                yield Finding("order", what, "Call sage_obs.instrument() outside `if __name__ == '__main__'`.")


def _starts_processes(call: ast.Call) -> bool:
    said = {word.arg: word.value.value for word in call.keywords if isinstance(word.value, ast.Constant)}
    workers = said.get("workers")
    return said.get("reload") is True or (isinstance(workers, int) and workers > 1)


def _multiprocess(steps: list[Step], file: Path) -> Iterator[Finding]:
    """prometheus_client chooses its mode when it is imported."""
    imported = False
    for step in steps:
        node = step.node
        if isinstance(node, ast.Import):
            imported = imported or any(one.name.partition(".")[0] == "prometheus_client" for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            imported = imported or (node.module or "").partition(".")[0] == "prometheus_client"
        elif imported and isinstance(node, ast.Assign | ast.Expr) and _sets(node):
            what = f"{file.name}:{node.lineno} sets {_MULTIPROC} after prometheus_client was imported: it has chosen its mode by then."
            yield Finding("order", what, "Set it in the environment of the service.")


def _sets(node: ast.Assign | ast.Expr) -> bool:
    if isinstance(node, ast.Expr):
        call = node.value
        named = isinstance(call, ast.Call) and _dotted(call.func) in {"os.environ.setdefault", "os.putenv"} and bool(call.args)
        return named and isinstance(call, ast.Call) and ast.unparse(call.args[0]).strip("'\"") == _MULTIPROC
    keys = [target.slice for target in node.targets if isinstance(target, ast.Subscript) and _dotted(target.value).endswith("environ")]
    return any(isinstance(key, ast.Constant) and key.value == _MULTIPROC for key in keys)

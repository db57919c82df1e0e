"""A runbook as the Markdown page that an alert's `runbook_url` opens: generated from the runbook, never parsed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sage_obs.errors import ExitCode
from sage_obs.render import MARK
from sage_obs.runbooks.model import Effect, Kind, Limits, Next, Runbook, Step
from sage_obs.runbooks.rails import RAILS
from sage_obs.runbooks.words import quantity, span
from sage_obs.slo.triggers import TRIGGERS, trigger

_CODES = {
    ExitCode.OK: "healthy, or rolled back and verified",
    ExitCode.FAILED: "failed; the journal says where",
    ExitCode.USAGE: "wrong usage or configuration",
    ExitCode.REFUSED: "a rail or a person refused; nothing was changed",
    ExitCode.WAITING_FOR_APPROVAL: "waits for approval: `sage-obs runbook resume RUN --yes`",
    ExitCode.LOCK_HELD: "another run has the service",
    ExitCode.VERIFICATION_FAILED: "rolled back but not verified; escalated, never rolled back again",
    ExitCode.INCONCLUSIVE: "too little data to say that it is healthy",
    ExitCode.RESUMABLE: "stopped on request: `sage-obs runbook resume RUN`",
    ExitCode.INTERRUPTED: "interrupted: `sage-obs runbook resume RUN`",
}


def render(runbook: Runbook) -> str:
    """The page."""
    sections = [
        f"# {runbook.title}\n\n<!-- {MARK}: change the runbook, not this file. -->",
        f"{runbook.summary}\n\nOwner: {runbook.owner}.",
        f"## Run it\n\n{_run(runbook)}",
        f"## When\n\n{_when(runbook)}",
        f"## Steps\n\n{_steps(runbook.steps)}",
        f"## At the end, where something was wrong or was changed\n\n{_steps(runbook.closing)}",
        f"## Safety rails\n\n{_rails(runbook.limits)}",
        f"## Parameters\n\n{_parameters(runbook)}",
        f"## Exit codes\n\n{_table(('code', 'meaning'), [(str(int(code)), text) for code, text in _CODES.items()])}",
    ]
    return "\n\n".join(sections) + "\n"


def _run(runbook: Runbook) -> str:
    return (
        "```sh\n"
        f"sage-obs runbook {runbook.name} --dry-run    # measures, and shows what would be done and which rail would refuse\n"
        f"sage-obs runbook {runbook.name}              # shows the plan, asks, does it, verifies it\n"
        f"sage-obs runbook {runbook.name} --dry-run --target http://HOST:9090    # without a Prometheus\n"
        "sage-obs runbook status                  # what ran and how it ended\n"
        "```"
    )


def _when(runbook: Runbook) -> str:
    triggers = [one for one in TRIGGERS if one.alert in runbook.alerts]
    if not triggers:
        return "When another runbook calls it, or a person decides to."
    rows = [(f"`{one.alert}`", one.sentence, quantity(one.threshold, one.unit), f"{one.min_samples:g}", span(one.hold)) for one in triggers]
    return _table(("alert", "means that", "threshold", "samples at least", "for"), rows)


def _steps(steps: Sequence[Step]) -> str:
    return "\n\n".join(_step(number, step) for number, step in enumerate(steps, 1))


def _step(number: int, step: Step) -> str:
    lines = [f"### {number}. {step.title}\n", f"{step.why}\n", f"- Kind: {step.kind}{_changes(step)}"]
    if step.use:
        lines.append(f"- Uses: {f'[{step.use}]({step.use}.md)' if step.kind is Kind.CALL else f'`{step.use}`'}")
    if step.triggers:
        lines.append(f"- Looks at: {', '.join(_name(step, slug) for slug in step.triggers)}")
    if step.kind is Kind.WAIT:
        lines.append(f"- Waits at most: {span(step.timeout)}")
    lines += _leads(step)
    return "\n".join(lines)


def _name(step: Step, slug: str) -> str:
    return slug if step.kind is Kind.EVIDENCE else trigger(slug).title.lower()


def _changes(step: Step) -> str:
    return ", changes the service (can be undone)" if step.effect is not Effect.NONE else ""


def _leads(step: Step) -> list[str]:
    if step.kind not in (Kind.CHECK, Kind.WAIT):
        return []
    words = {Next.CONTINUE: "go on", Next.FINISH: "done", Next.STOP: "stop", Next.ESCALATE: "escalate to a person"}
    return [f"- Pass: {words[step.on_pass]}. Fail: {words[step.on_fail]}. Unknown: {words[step.on_unknown]}."]


def _rails(limits: Limits) -> str:
    allowed = " and ".join(f"{one.runs} within {span(one.seconds)}" for one in limits.automatic)
    lines = [f"- **{name}**: {_sentence(rail.__doc__)}" for name, rail in RAILS.items()]
    return "\n".join([*lines, f"\nAutomatic rollbacks: at most {allowed}. A run has {span(limits.deadline)} from start to end."])


def _sentence(text: str | None) -> str:
    return " ".join((text or "").split())


def _parameters(runbook: Runbook) -> str:
    rows = [(f"`{one.name}`", one.help, f"`{one.default}`", ", ".join(one.choices)) for one in runbook.parameters]
    return _table(("name", "meaning", "default", "one of"), rows)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def pages(runbooks: Mapping[str, Runbook]) -> dict[str, str]:
    """Every runbook's page by its file name."""
    return {f"{name}.md": render(runbook) for name, runbook in runbooks.items()}

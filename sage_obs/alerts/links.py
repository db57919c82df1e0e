"""Where an alert's links lead."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Links:
    """Where an alert's links lead: the folder of the runbooks' pages and the root of Grafana, both without a last slash."""

    runbooks: str = "runbooks"
    grafana: str = "http://localhost:3000"

    def runbook(self, slug: str) -> str:
        """The address of a runbook's page."""
        return f"{self.runbooks.rstrip('/')}/{slug}.md"

    def dashboard(self, uid: str) -> str:
        """The address of a board, opened for the alert's own job."""
        return f"{self.grafana.rstrip('/')}/d/{uid}?var-job={{{{ $labels.job | urlquery }}}}"

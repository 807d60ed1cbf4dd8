"""What the report page shows: a page has rows, a row has jobs, and a job has checks, quantities and figures."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

MOST_FIGURES = 24
"""In one row; a sweep's figures are shared out among its jobs."""


class Verdict(Enum):
    """What became of a row, a job or a check; the value is what readers see."""

    PASS = "PASS"
    FAIL = "FAIL"
    SKIPPED = "SKIPPED"
    UNJUDGED = "NOT JUDGED"


@dataclass(frozen=True)
class Figure:
    """A PNG file, its bytes in a data URI; width and height in pixels."""

    name: str
    caption: str
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Check:
    """A number beside the expected one; `passed` is None where the run's settings differ from the experiment's."""

    quantity: str
    label: str
    value: float | None
    expected: float
    tolerance: float
    passed: bool | None

    @property
    def verdict(self) -> Verdict:
        """PASS, FAIL or NOT JUDGED."""
        if self.passed is None:
            return Verdict.UNJUDGED
        return Verdict.PASS if self.passed else Verdict.FAIL


@dataclass(frozen=True)
class Quantity:
    """An estimate with its standard error, the generating value and the exact answer, None where unknown."""

    label: str
    value: float | None
    se: float | None
    truth: float | None
    exact: float | None


@dataclass(frozen=True)
class Job:
    """One run: its swept settings, what it found, or why it failed."""

    number: int | None
    settings: dict[str, str]
    status: str
    subtitle: str = ""
    error: str = ""
    lacks_data: bool = False
    unjudged: str = ""
    checks: tuple[Check, ...] = ()
    quantities: tuple[Quantity, ...] = ()
    figures: tuple[Figure, ...] = ()
    seconds: float = 0.0
    environment: dict[str, object] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """FAIL for a job without an end, else the worst of its checks."""
        if self.lacks_data:
            return Verdict.SKIPPED
        if self.error or self.status not in ("completed", "converged"):
            return Verdict.FAIL
        return worst([check.verdict for check in self.checks])


@dataclass(frozen=True)
class Row:
    """An experiment's place on the page: a run, a sweep, or a command that left neither."""

    name: str
    command: str
    jobs: tuple[Job, ...]
    keys: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    hidden_figures: int = 0
    where: str = ""
    says: str = ""
    note: str = ""
    error: str = ""

    @property
    def verdict(self) -> Verdict:
        """FAIL where the command or a job failed, SKIPPED where data are missing, else the worst of the checks."""
        if self.error and not any(job.lacks_data for job in self.jobs):
            return Verdict.FAIL
        return worst([job.verdict for job in self.jobs])

    @property
    def checks(self) -> list[tuple[Job, Check]]:
        """Every check with its job."""
        return [(job, check) for job in self.jobs for check in job.checks]

    @property
    def unjudged(self) -> str:
        """Why checks were not applied, or nothing."""
        return next((job.unjudged for job in self.jobs if job.unjudged), "")

    @property
    def seconds(self) -> float:
        """What the jobs took together."""
        return sum(job.seconds for job in self.jobs)

    @property
    def environment(self) -> dict[str, object]:
        """Of the first job that finished."""
        return next((job.environment for job in self.jobs if job.environment), {})


@dataclass(frozen=True)
class Page:
    """A whole page; `wall` is what the command that made it took."""

    title: str
    rows: tuple[Row, ...]
    date: str
    fidelity: str = ""
    wall: float | None = None

    @property
    def counts(self) -> dict[Verdict, int]:
        """How many rows ended in which way, those that occur."""
        every = [row.verdict for row in self.rows]
        return {verdict: every.count(verdict) for verdict in Verdict if verdict in every}

    @property
    def environment(self) -> dict[str, object]:
        """Of the first row that finished."""
        return next((row.environment for row in self.rows if row.environment), {})


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the verdict that decides over a whole: a failure first, then what was skipped, then what passed."""
    order = (Verdict.FAIL, Verdict.SKIPPED, Verdict.PASS)
    return next((verdict for verdict in order if verdict in verdicts), Verdict.UNJUDGED)

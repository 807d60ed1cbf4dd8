"""Records of the report page: a page has rows, a row has jobs, and a job has checks, quantities and figures."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from ..results.verdict_lines import WORDS
from ..run.jobs import FINISHED

MOST_FIGURES = 24  # in one row; the jobs of a sweep share them


class Verdict(Enum):
    """Outcome of a row, a job or a check, or of a fit that has no checks; the value is the text on the page."""

    PASS = "PASS"
    FAIL = "FAIL"
    SKIPPED = "SKIPPED"
    TRUSTED = WORDS["good"]
    CORRECTED = WORDS["corrected"]
    DISTRUSTED = WORDS["poor"]
    UNJUDGED = "NOT JUDGED"


ON_FITS = (Verdict.TRUSTED, Verdict.CORRECTED, Verdict.DISTRUSTED)


@dataclass(frozen=True)
class Figure:
    """A PNG file.

    Attributes:
        name: Of the file, without suffix.
        caption: Words below it.
        uri: Its bytes, as a data URI.
        width, height: In pixels.
    """

    name: str
    caption: str
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Check:
    """A number beside the expected one.

    Attributes:
        quantity: Its path in summary.json or trace.csv.
        label: The same in words.
        value: What the run found, or None where it is missing.
        expected: What the experiment expects.
        tolerance: Largest difference that passes.
        passed: Whether it passed; None where the run's settings differ from the experiment's.
        limits: What is asked for in words, where that is a range; else empty.
    """

    quantity: str
    label: str
    value: float | None
    expected: float
    tolerance: float
    passed: bool | None
    limits: str = ""

    @property
    def verdict(self) -> Verdict:
        """PASS, FAIL or NOT JUDGED."""
        if self.passed is None:
            return Verdict.UNJUDGED
        return Verdict.PASS if self.passed else Verdict.FAIL


@dataclass(frozen=True)
class Quantity:
    """An estimate; its other numbers are None where they are unknown.

    Attributes:
        label: Its name.
        mean: The posterior mean, the value of a bound, or the number that a study computes.
        mc_error: Monte Carlo error of the mean.
        sd, q05, q95: Deviation and quantiles of the posterior.
        median, observed: Median, and the number that was observed, in a prior predictive check.
        exact, exact_sd: Mean and deviation of the exact posterior, or the exact answer.
        truth: The value that generated the data.
    """

    label: str
    mean: float | None
    mc_error: float | None
    sd: float | None = None
    q05: float | None = None
    q95: float | None = None
    median: float | None = None
    observed: float | None = None
    exact: float | None = None
    exact_sd: float | None = None
    truth: float | None = None


@dataclass(frozen=True)
class Job:
    """One run, alone or of a sweep.

    Attributes:
        number: In its sweep, or None.
        settings: Values of the keys that the sweep varied.
        status: How it ended, as in summary.json, or `killed`.
        subtitle: Which parts it was composed of.
        error: Why it failed; empty where it did not.
        lacks_data: Whether it failed because a data file is missing.
        unjudged: Why its checks were not applied; empty where they were.
        checks, quantities, figures: What it found.
        trust: The verdict on the fit, in one line.
        fit: The same as a verdict, or None where there is none.
        data: What the summary says of the data by name, as text.
        diagnostics: Numbers about q and the run by name, as text.
        seconds: How long it took.
        environment: Versions and machine.
    """

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
    trust: str = ""
    fit: Verdict | None = None
    data: tuple[tuple[str, str], ...] = ()
    diagnostics: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0
    environment: dict[str, object] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """SKIPPED without its data, FAIL where the run did not end well, else the worst of its checks.

        Of a fit that has no checks it is the verdict on the fit.
        """
        if self.lacks_data:
            return Verdict.SKIPPED
        if self.error or self.status not in FINISHED:
            return Verdict.FAIL
        if not self.checks and self.fit is not None:
            return self.fit
        return worst([check.verdict for check in self.checks])


@dataclass(frozen=True)
class Row:
    """An experiment on the page: a run, a sweep, or a command that left neither.

    Attributes:
        name: Of the experiment.
        command: Command line that repeats it.
        jobs: Its runs; one unless it is a sweep.
        keys: Settings that the sweep varied.
        figures: Figures of the sweep as a whole.
        hidden_figures: How many figures of the jobs are left out.
        where: Place in the reports that it reproduces.
        says: What the reports say there.
        note: Remark of its configuration.
        error: Why its command failed; empty where it did not.
        overview: Cells of a table that stands first, its head in the first line; none if empty.
        settings: Of a run, by part, as text.
        course: Of a run, steps and bounds as two lists in JSON; empty for none.
    """

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
    overview: tuple[tuple[str, ...], ...] = ()
    settings: tuple[tuple[str, str], ...] = ()
    course: str = ""

    @property
    def verdict(self) -> Verdict:
        """FAIL where the command or a job failed, SKIPPED where data are missing, else the worst of the checks.

        Verdicts on fits count where no job has a check.
        """
        if self.error and not any(job.lacks_data for job in self.jobs):
            return Verdict.FAIL
        found = [job.verdict for job in self.jobs]
        if any(job.checks or job.unjudged for job in self.jobs):
            found = [verdict for verdict in found if verdict not in ON_FITS]
        return worst(found)

    @property
    def checks(self) -> list[tuple[Job, Check]]:
        """Every check, with its job."""
        return [(job, check) for job in self.jobs for check in job.checks]

    @property
    def unjudged(self) -> str:
        """Why checks were not applied, by the first job that has a reason; empty where they were."""
        return next((job.unjudged for job in self.jobs if job.unjudged), "")

    @property
    def seconds(self) -> float:
        """Time of all jobs together."""
        return sum(job.seconds for job in self.jobs)

    @property
    def environment(self) -> dict[str, object]:
        """Versions and machine of the first job that finished."""
        return next((job.environment for job in self.jobs if job.environment), {})


@dataclass(frozen=True)
class Page:
    """A whole page.

    Attributes:
        title: Heading of the page.
        rows: Its experiments.
        date: When it was written.
        fidelity: full or quick; empty for the page of one run.
        wall: Seconds of the command that made it, or None.
    """

    title: str
    rows: tuple[Row, ...]
    date: str
    fidelity: str = ""
    wall: float | None = None

    @property
    def counts(self) -> dict[Verdict, int]:
        """Number of rows by verdict, for verdicts that occur."""
        every = [row.verdict for row in self.rows]
        return {verdict: every.count(verdict) for verdict in Verdict if verdict in every}

    @property
    def environment(self) -> dict[str, object]:
        """Versions and machine of the first row that finished."""
        return next((row.environment for row in self.rows if row.environment), {})


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the verdict of a whole with these parts, the worst of them; NOT JUDGED for no parts."""
    order = (
        Verdict.FAIL, Verdict.SKIPPED, Verdict.DISTRUSTED, Verdict.CORRECTED, Verdict.TRUSTED, Verdict.PASS,
    )  # fmt: skip
    return next((verdict for verdict in order if verdict in verdicts), Verdict.UNJUDGED)

"""Numerical confirmation of the claims in the theory questions of reports 000 to 003.

A claim is a number that the library computes, beside the same number by a route that does not use the library:
quadrature, scipy's densities, torch's divergences, finite differences. A Monte Carlo number has a standard error, and
its standardised error z is that of a Normal; other numbers differ by rounding. The quantities `report_...` are formulas
that a report has wrong.
"""

from collections.abc import Callable, Mapping

import numpy as np

from vi_core.errors import require
from vi_core.studies.base import Figures, Finding, Form, Quantity, Records, Study
from vi_core.studies.claims import bounds, gradients, natural, reports
from vi_core.studies.claims.base import Problem

CLAIMS: tuple[Callable[[Problem], dict[str, Quantity]], ...]
CLAIMS = (*bounds.CLAIMS, *gradients.CLAIMS, *natural.CLAIMS, *reports.CLAIMS)
"""In the order in which they draw from torch's default stream."""
LIMIT = 5.0  # standard errors: the tolerance of a claim with draws
MOST_CLAIMS = 500  # that a figure has rows for


class Identities(Study):
    """All claims, on the Normal–Gamma problem of `vi_core.studies.claims.base`.

    Args:
        num_samples: Draws of each Monte Carlo claim, at least 1000.
    """

    def __init__(self, *, num_samples: int = 100_000):
        require(num_samples >= 1000, f"study.num_samples={num_samples} must be at least 1000.")
        self.num_samples = num_samples

    def run(self) -> Finding:
        problem, quantities = Problem(self.num_samples), dict[str, Quantity]()
        for claim in CLAIMS:
            quantities |= claim(problem)
        return Finding(quantities, bounds.records(problem, quantities) | standardised(quantities))

    def forms(self) -> dict[str, Form]:
        count = len(bounds.IMPORTANCE)
        return {
            "names": Form(("claims",), "text", most=MOST_CLAIMS),
            "z": Form(("claims",)),
            "catches": Form(("claims",), least=0),
            "importance": Form((count,), "integer", least=1),
            "iwelbo": Form((count,)),
            "iwelbo_se": Form((count,), least=0),
            "exact": Form((count,)),
            "evidence": Form(()),
        }

    def figures(self, records: Records) -> Figures:
        from vi_core.plots.studies import errors_figure, importance_figure

        titles = ("identities: Monte Carlo against exact values", "identities: the IWELBO rises to the log evidence")
        rows = [f"{name}  {size:.2g}" for name, size in zip(records["names"], records["catches"], strict=True)]
        errors = errors_figure(rows, records["z"], limit=LIMIT, title=f"{titles[0]}, and the least error seen")
        curve = (records[name] for name in ("importance", "iwelbo", "iwelbo_se"))
        exact, evidence = records["exact"], float(records["evidence"])
        return {"errors": errors, "iwelbo": importance_figure(*curve, exact=exact, evidence=evidence, title=titles[1])}


def standardised(quantities: Mapping[str, Quantity]) -> dict[str, np.ndarray]:
    """Return names and standardised errors of the Monte Carlo claims, without the formulas that a report has wrong.

    `catches` is the smallest error that a claim sees, as a share of its exact value where that is not zero.
    """
    drawn = {name: q for name, q in quantities.items() if q.z is not None and not name.startswith("report_")}
    sizes = [LIMIT * (q.se or 0.0) / abs(q.exact or 1.0) for q in drawn.values()]
    scores = np.array([q.z for q in drawn.values()], dtype=float)
    return {"names": np.array(list(drawn)), "z": scores, "catches": np.array(sizes)}

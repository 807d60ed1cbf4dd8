"""The claims of the reports' theory questions, confirmed numerically: report 000 to 003.

A claim is a number that the library computes, beside the same number by a route that does not use it: quadrature,
scipy's densities, torch's divergences, finite differences. What is drawn has a standard error, and its standardised
error z is that of a Normal; what is not drawn differs by rounding. `report_...` are formulas that a report has wrong.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from vi_core.errors import require
from vi_core.studies.base import Finding, Quantity, Study
from vi_core.studies.claims import bounds, divergences, gradients, natural, reports
from vi_core.studies.claims.base import Problem

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Identities(Study):
    """All claims on one problem.

    Args:
        num_samples: Draws of each Monte Carlo claim.
    """

    def __init__(self, *, num_samples: int = 100_000):
        require(num_samples >= 1000, f"study.num_samples={num_samples} must be at least 1000.")
        self.num_samples = num_samples

    def run(self) -> Finding:
        problem = Problem(self.num_samples)
        log_w = bounds.log_weights(problem)
        quantities = {
            **bounds.densities(problem),
            **bounds.decomposition(problem),
            **bounds.optimum(problem),
            **bounds.iwelbo(problem, log_w),
            **divergences.divergences(),
            **gradients.scores(problem),
            **gradients.estimators(problem),
            **gradients.landing(problem),
            **gradients.control_variate(problem),
            **gradients.rao_blackwell(problem),
            **natural.exponential_family(),
            **natural.natural_gradient(),
            **natural.natural_step(problem),
            **reports.report_000(problem),
            **reports.report_001(problem),
            **reports.report_001_estimators(problem),
            **reports.report_003(),
            **reports.report_004(problem),
        }
        return Finding(quantities, bounds.records(problem, log_w) | standardised(quantities))

    def figures(self, records: Mapping[str, np.ndarray]) -> "dict[str, Figure]":
        from vi_core.plots.claims import errors_figure, importance_figure

        return {
            "errors": errors_figure(
                records["names"].tolist(), records["z"], limit=5.0, title="identities: Monte Carlo against exact values"
            ),
            "iwelbo": importance_figure(
                records["importance"],
                records["iwelbo"],
                records["iwelbo_se"],
                exact=records["exact"],
                evidence=float(records["evidence"]),
                title="identities: the IWELBO rises to the log evidence",
            ),
        }


def standardised(quantities: Mapping[str, Quantity]) -> dict[str, np.ndarray]:
    """Return names and standardised errors of the claims that are drawn and hold."""
    scores = {name: q.z for name, q in quantities.items() if q.z is not None and not name.startswith("report_")}
    return {"names": np.array(list(scores)), "z": np.array(list(scores.values()), dtype=float)}

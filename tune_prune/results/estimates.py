"""Estimates the error of a point from its loss and its own count, so that a lucky count does not win.

A front holds the lowest of many counted errors, and flatters. The validation loss says more of the error on unseen
images than the count does (experiments/selection): it uses how sure the network is of each image. So the count is
shrunk towards what the run's points of like loss have, by as much as its own noise explains how they scatter (empirical
Bayes; Efron and Morris 1975).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from tune_prune.results.constraints import Constraints
from tune_prune.results.records import PointRecord, TrialRecord
from tune_prune.tasks.metrics import ERROR

MIN_POINTS = 24
"""The points that a fit takes; with fewer, errors stay as they were counted."""

RANGE = 1.5
"""Points with an error up to so many times the limit are fitted; of others the count stays."""

OWN_SHARE = 0.2
"""The share of a count's binomial variance that is its own, where others are counted on the same images; measured."""

GROWTH = 1.1
"""The fit is made anew once there are so many times the points."""


@dataclass(frozen=True)
class _Fit:
    """Errors in percent as a curve in the loss that nowhere falls, and the weight in [0, 1] of a point's own count."""

    curve: np.polynomial.Polynomial
    weight: float

    def estimate(self, point: PointRecord) -> float:
        """The estimate of a point; a loss beyond those that were fitted counts as the nearest of them."""
        expected = float(self.curve(np.clip(point.val_loss, *self.curve.domain)))
        return max(0.0, expected + self.weight * (point.val_metric - expected))


class Estimates:
    """Estimates the errors of a search's points; `records` are its trials by number, whose points have estimates.

    They are in the order in which they were added, and `fits` counts how often all estimates were made anew. `samples`
    is the number of validation images. Of other metrics than the error the noise is not known, and there are none.
    """

    def __init__(self, limits: Constraints, samples: int) -> None:
        self.limits, self._samples = limits, samples
        self._fit: _Fit | None = None
        self._points = self._fitted = self.fits = 0
        self._measured: dict[int, TrialRecord] = {}
        self.records: dict[int, TrialRecord] = {}

    def add(self, record: TrialRecord) -> TrialRecord:
        """Adds a trial that has ended; returns it with estimates."""
        self._points += len(record.points)
        self._measured[record.trial] = self.records[record.trial] = record
        if self._points >= max(MIN_POINTS, GROWTH * self._fitted):
            self.refit()
        else:
            self.records[record.trial] = self._with_estimates(record)
        return self.records[record.trial]

    def refit(self) -> None:
        """Makes the fit anew, and all estimates."""
        if self.limits.metric != ERROR or not self._samples:
            return
        self._fitted, self._fit, self.fits = self._points, self._make_fit(), self.fits + 1
        for number, record in self._measured.items():
            self.records[number] = self._with_estimates(record)

    def estimate(self, point: PointRecord) -> PointRecord:
        """A measured point with its estimate; it is feasible where both its count and its estimate keep the limit."""
        if self._fit is None or not self._is_near(point):
            return point
        value = self._fit.estimate(point)
        return replace(point, estimate=value, feasible=point.feasible and value <= self.limits.max_cost)

    def _with_estimates(self, record: TrialRecord) -> TrialRecord:
        return replace(record, points=[self.estimate(point) for point in record.points])

    def _is_near(self, point: PointRecord) -> bool:
        return point.val_metric <= RANGE * self.limits.max_cost and math.isfinite(point.val_loss)

    def _make_fit(self) -> _Fit | None:
        """The fit to all points near the limit; None where they are too few."""
        near = [point for record in self.records.values() for point in record.points if self._is_near(point)]
        if len(near) < MIN_POINTS:
            return None
        losses, errors = np.array([p.val_loss for p in near]), np.array([p.val_metric for p in near])
        curve = _fit_curve(losses, errors)
        scatter = float(np.mean((errors - curve(losses)) ** 2))
        own = OWN_SHARE * float(np.mean(errors * (100 - errors))) / self._samples
        return _Fit(curve, max(0.0, 1 - own / scatter) if scatter else 0.0)


def _fit_curve(losses: np.ndarray, errors: np.ndarray) -> np.polynomial.Polynomial:
    """A parabola by least squares; a line where it would fall within the losses, and the mean where that would, too."""
    for degree in (2, 1):
        if len(np.unique(losses)) > degree:
            curve = np.polynomial.Polynomial.fit(losses, errors, degree)
            if (curve.deriv()(curve.domain) >= 0).all():
                return curve
    return np.polynomial.Polynomial.fit(losses, errors, 0)


def estimate_all(records: Iterable[TrialRecord], limits: Constraints, samples: int) -> list[TrialRecord]:
    """The trials of a search that has ended, in their order, with estimates from all of them."""
    found = Estimates(limits, samples)
    for record in records:
        found.add(record)
    found.refit()
    return [*found.records.values()]

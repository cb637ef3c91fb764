"""Means of correlated series and their errors, correlation times, and tests of distributions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pidelta.state import FloatArray

FEWEST_BLOCKS = 8
"""Fewer say nothing of an error."""
_SETTLING = 20  # one part in so many at the beginning is left out
_WINDOW = 5.0
_FEWEST_FOR_TEST = 20


@dataclass(frozen=True)
class Mean:
    """A mean and its statistical error, which is nan where there is too little to tell it from."""

    value: float
    error: float

    def __str__(self) -> str:
        return self.shown(".4g")

    def shown(self, value_format: str) -> str:
        """The mean in a format, with its error where it is known."""
        mean = format(self.value, value_format)
        return mean if math.isnan(self.error) else f"{mean} ± {self.error:.2g}"

    def scaled(self, factor: float) -> Mean:
        """In another unit."""
        return Mean(self.value * factor, self.error * abs(factor))


@dataclass(frozen=True)
class CorrelationTime:
    """The integral of a normalised autocorrelation function.

    Attributes:
        samples: the integral from 0 to infinity, in rows of the series; 0.5 where rows are independent.
        n_effective: how many independent rows the series is worth.
        is_reliable: whether the series is at least 50 times as long as twice the integral.
    """

    samples: float
    n_effective: float
    is_reliable: bool


def settled(values: FloatArray) -> FloatArray:
    """Leave out the first twentieth, in which beads that started from one point spread out."""
    return values[len(values) // _SETTLING :]


def pair_means(values: FloatArray) -> FloatArray:
    """The means of neighbours: a series half as long."""
    pairs = len(values) // 2
    return 0.5 * (values[0 : 2 * pairs : 2] + values[1 : 2 * pairs : 2])


def mean_with_error(values: FloatArray) -> Mean:
    """Return the mean of a correlated series and its standard error.

    The error is the largest over the levels of reblocking (Flyvbjerg, Petersen, J. Chem. Phys. 91, 461
    (1989)) that leave at least eight blocks; NaN for series shorter than that.
    """
    if not len(values):
        return Mean(math.nan, math.nan)
    mean = float(values.mean())
    return Mean(mean, max(block_errors(values), default=math.nan))


def block_errors(values: FloatArray) -> list[float]:
    """Standard errors of the mean from the rows, from blocks of two, of four, and so on."""
    errors = []
    while len(values) >= FEWEST_BLOCKS:
        errors.append(float(values.std(ddof=1) / np.sqrt(len(values))))
        values = pair_means(values)
    return errors


def correlation_time(values: FloatArray) -> CorrelationTime:
    """The integrated autocorrelation time of a series, with the window of Sokal (as emcee does it).

    Args:
        values: (n,), or (n, k) for k equivalent series whose autocorrelation functions are averaged, such as
            the components of a vector; they count as one series.

    Returns:
        At least 0.5: series that alternate are not credited with more rows than they have. NaN where the
        series is constant or shorter than eight rows.
    """
    from emcee.autocorr import auto_window

    n = len(values)
    if n < FEWEST_BLOCKS or not (np.ptp(values, axis=0) > 0.0).any():
        return CorrelationTime(math.nan, math.nan, False)
    function = autocorrelation(values)
    inefficiencies = 2.0 * np.cumsum(function) - 1.0
    inefficiency = max(1.0, float(inefficiencies[auto_window(inefficiencies, _WINDOW)]))
    return CorrelationTime(0.5 * inefficiency, n / inefficiency, n > 50.0 * inefficiency)


def autocorrelation(values: FloatArray) -> FloatArray:
    """The normalised autocorrelation function (n,) of a series as in `correlation_time`, not constant."""
    from emcee.autocorr import function_1d

    series = values[:, None] if values.ndim == 1 else values
    functions = [function_1d(column) for column in series.T if np.ptp(column) > 0.0]
    return np.asarray(np.mean(functions, axis=0), dtype=np.float64)


@dataclass(frozen=True)
class CanonicalTest:
    """A kinetic energy beside what the canonical distribution says of it.

    Attributes:
        temperature: the mean, in the unit of the series.
        expected: the temperature of the ensemble, in this unit.
        width: standard deviation over that of the canonical distribution at the expected temperature,
            sqrt(2 / g) T, with its error.
        p_value: of a Kolmogorov-Smirnov test of independent rows; NaN where these are fewer than 20.
        correlation: of the series.
    """

    temperature: Mean
    expected: float
    width: Mean
    p_value: float
    correlation: CorrelationTime

    @property
    def z(self) -> float:
        """The deviation of the mean in units of its error."""
        return (self.temperature.value - self.expected) / self.temperature.error


def compare_with_canonical(temperatures: FloatArray, degrees: float, expected: float) -> CanonicalTest:
    """Compare 2 K / (g k_B) with the canonical distribution: K is Gamma distributed, shape g/2, scale k_B T.

    Args:
        temperatures: (n,) one row a time.
        degrees: g, the number of degrees of freedom.
        expected: T, in the unit of the series.
    """
    from scipy.stats import gamma, kstest

    correlation = correlation_time(temperatures)
    n_effective = correlation.n_effective
    sigma = float(temperatures.std(ddof=1)) if len(temperatures) > 1 else math.nan
    width = sigma / (math.sqrt(2.0 / degrees) * expected)
    error = math.nan
    if n_effective > 1.0:  # a Gamma distribution has an excess kurtosis of 12 / g
        error = width * math.sqrt((1.0 + 6.0 / degrees) / (2.0 * n_effective))
    p_value = math.nan
    if n_effective >= _FEWEST_FOR_TEST:
        step = math.ceil(2.0 * correlation.samples - 0.1)
        distribution = gamma(degrees / 2.0, scale=2.0 * expected / degrees)
        p_value = float(kstest(temperatures[::step], distribution.cdf).pvalue)
    return CanonicalTest(mean_with_error(temperatures), expected, Mean(width, error), p_value, correlation)

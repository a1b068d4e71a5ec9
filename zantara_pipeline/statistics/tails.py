"""Tail probabilities that keep their logarithm.

Belongs here: natural logs of p-values, also far below the smallest DOUBLE (2.2e-308), and how they print.
Does not belong here: test statistics. scipy 1.17 returns -inf for t.logsf(40, 10000) and chi2.logsf(5000, 1), so the
far tail is computed from continued fractions here.
"""

from __future__ import annotations

import math

_SMALLEST = 1e-290  # below it scipy's direct values lose digits, then underflow
_TINY = 1e-300
_EPSILON = 1e-16
_MAX_STEPS = 100_000


def log_p_t(t: float, df: float) -> float:
    """Natural log of the two-sided p-value of Student's t.

    P(|T| > |t|) = I_x(df/2, 1/2), x = df / (df + t^2): Abramowitz & Stegun 26.7.1; far tail by the continued fraction
    26.5.8.
    """
    if math.isnan(t) or df <= 0:
        return math.nan
    from scipy import special  # half a second, paid only where a tail is asked for

    ratio = t * t / df
    a, x = df / 2, 1 / (1 + ratio)
    direct = float(special.betainc(a, 0.5, x))
    if direct > _SMALLEST:
        return math.log(direct)
    log_front = -a * math.log1p(ratio) - 0.5 * math.log1p(1 / ratio) - math.log(a) - float(special.betaln(a, 0.5))
    return log_front + math.log(_beta_fraction(a, 0.5, x))


def log_p_chi_square(statistic: float, df: int) -> float:
    """Natural log of the upper tail of chi-square: Q(df/2, x/2), Abramowitz & Stegun 26.4.19; far tail by 6.5.31."""
    if math.isnan(statistic) or df <= 0:
        return math.nan
    from scipy import special  # half a second, paid only where a tail is asked for

    s, x = df / 2, statistic / 2
    direct = float(special.gammaincc(s, x))
    if direct > _SMALLEST:
        return math.log(direct)
    return s * math.log(x) - x - math.lgamma(s) + math.log(_gamma_fraction(s, x))


def format_p(log_p: float | None, digits: int = 2) -> str:
    """A p-value for people, never '0': '0.031', '1.2e-112', '3.4e-1203'; '-' when there is none."""
    if log_p is None or math.isnan(log_p):
        return "-"
    if log_p >= math.log(1e-4):
        return f"{math.exp(log_p):.{digits}g}"
    power = math.floor(log_p / math.log(10))
    mantissa = math.exp(log_p - power * math.log(10))
    text = f"{mantissa:.{digits - 1}f}"
    return f"1e{power + 1}" if text.startswith("10") else f"{text}e{power}"


def _beta_fraction(a: float, b: float, x: float) -> float:
    """Modified Lentz evaluation of the incomplete beta's continued fraction."""
    c, d = 1.0, 1 / _away_from_zero(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _MAX_STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _away_from_zero(1 + term * d)
            c = _away_from_zero(1 + term / c)
            value *= d * c
        if abs(d * c - 1) < _EPSILON:
            break
    return value


def _gamma_fraction(s: float, x: float) -> float:
    """Modified Lentz evaluation of the upper incomplete gamma's continued fraction."""
    b = x + 1 - s
    c, d = 1 / _TINY, 1 / _away_from_zero(b)
    value = d
    for i in range(1, _MAX_STEPS):
        term = -i * (i - s)
        b += 2
        d = 1 / _away_from_zero(term * d + b)
        c = _away_from_zero(b + term / c)
        value *= d * c
        if abs(d * c - 1) < _EPSILON:
            break
    return value


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY

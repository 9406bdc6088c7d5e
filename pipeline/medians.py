"""How well a median of few values is known: the one table that skies, stacks and forecasts go by.

    variance(5)   # 0.28683: that of a median of 5, for one of its values 1

Pure, and light enough for the daemon's side.
"""

from __future__ import annotations

import math

# Variance of the median of n standard normal values (even n: mean of the middle two), by numerical
# integration over the density of the order statistics; tests/unit/algorithms/test_combine.py does it again.
# fmt: off
_TABLE = (
    1.00000, 0.50000, 0.44867, 0.29820, 0.28683, 0.21474, 0.21045, 0.16818, 0.16610, 0.13833, 0.13716,
    0.11752, 0.11680, 0.10217, 0.10169, 0.09038, 0.09005, 0.08103, 0.08079, 0.07344, 0.07326, 0.06715,
    0.06701, 0.06185, 0.06175, 0.05733, 0.05725, 0.05343, 0.05336, 0.05002, 0.04997, 0.04703,
)
# fmt: on


def variance(n: int, exact: bool = True) -> float:
    """Variance of the median of n Gaussian samples of unit variance; of fewer than one that of one.

    exact : by the table, and beyond it by the expansion in 1/n; otherwise Laplace's pi/(2n)
    """
    n = max(n, 1)
    if exact and n <= len(_TABLE):
        return _TABLE[n - 1]
    plain = math.pi / (2 * n)
    return plain * (1 - ((2.0 if n % 2 else 3.0) - math.pi / 2) / n) if exact else plain

"""Image planes as the compiled loops take them."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

FloatImage = NDArray[np.float32]
MaskImage = NDArray[np.uint16]
BoolImage = NDArray[np.bool_]

_Plane = TypeVar("_Plane", bound=NDArray[Any])


def fixed(plane: _Plane) -> _Plane:
    """The plane, contiguous and read-only, as those of a Frame are.

    The compiler makes another version of a loop for every mixture of read-only and writable arguments;
    with one kind only, what is compiled at start serves everyone.
    """
    view = np.ascontiguousarray(plane).view()
    view.flags.writeable = False
    return view  # type: ignore[return-value]

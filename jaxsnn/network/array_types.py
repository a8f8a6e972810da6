"""Types of arrays with their shapes, for annotations: those of jaxtyping, or placeholders.

Importing jaxtyping takes some 0.07 s, a twentieth of a small simulation, and the types are not needed
at runtime. So they are placeholders, except for type checkers and if jaxtyping is already imported.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or "jaxtyping" in sys.modules:
    from jaxtyping import Array, Bool, Float, Int, Num, Shaped, UInt32
else:

    class Array:
        """Placeholder type for arrays of any dtype and shape in annotations."""

        def __class_getitem__(cls, shape: Any) -> type[Array]:
            return cls

    Bool = Float = Int = Num = Shaped = UInt32 = Array

__all__ = ["Array", "Bool", "Float", "Int", "Num", "Shaped", "UInt32"]

"""Own the colouring that turns depth into the picture the model sees.

Depth is drawn on a logarithmic scale, near = 1, with Mikhailov's polynomial approximation of the
turbo colour map. The range belongs to the checkpoint and is never taken from the frame.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

_MIN_DEPTH_M = np.float32(1e-3)

# Coefficients of x^0 ... x^5 for red, green, blue (A. Mikhailov, "Turbo", Google, 2019).
_TURBO = np.array(
    [
        [0.13572138, 4.61539260, -42.66032258, 132.13108234, -152.94239396, 59.28637943],
        [0.09140261, 2.19418839, 4.84296658, -14.18503333, 4.27729857, 2.82956604],
        [0.10667330, 12.64194608, -60.58204836, 110.36276771, -89.90310912, 27.34824973],
    ]
)


@cache
def turbo_lut() -> NDArray[np.float32]:
    """Return the (256, 3) float32 RGB colours in [0, 1] of the turbo map; read-only."""
    x = np.linspace(0.0, 1.0, 256)
    lut = np.clip(np.polynomial.polynomial.polyval(x, _TURBO.T).T, 0.0, 1.0).astype(np.float32)
    lut.setflags(write=False)
    return lut


def depth_to_rgb(depth: NDArray, *, log_min: float, log_max: float) -> NDArray[np.float32]:
    """Colour depth with the turbo map: near red, far blue, unknown as the farthest.

    Args:
        depth: (...) m; not finite or at most 1 mm = unknown.
        log_min: Natural logarithm of the nearest depth (m) of the scale.
        log_max: Natural logarithm of the farthest depth (m) of the scale.

    Returns:
        (..., 3) float32 RGB in [0, 1].
    """
    # float32 throughout, as released: a colour is a truncated number, so rounding decides it.
    low, high = np.float32(log_min), np.float32(log_max)
    depth = np.asarray(depth, dtype=np.float32)
    known = np.isfinite(depth) & (depth > _MIN_DEPTH_M)
    clipped = np.clip(np.where(known, depth, np.float32(1.0)), np.exp(low), np.exp(high))
    far = (np.log(clipped) - low) / max(high - low, np.float32(1e-6))
    near = np.where(known, np.float32(1.0) - far, np.float32(0.0))
    index = np.clip((np.float32(255.0) * near).astype(np.int64), 0, 255)
    return turbo_lut()[index]

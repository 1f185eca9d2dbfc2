"""Import MuJoCo with a renderer that needs no screen, or say what is missing.

MuJoCo binds its OpenGL library while it is imported (environment variable MUJOCO_GL); every module
of this package takes MuJoCo from here, so that the choice and its error stand in one place.
"""

import os

from mu0_core.errors import ConfigError

NO_RENDERING = (
    "off-screen rendering does not work with MUJOCO_GL={backend} ({reason}); on Debian and Ubuntu "
    "install libegl1 and libgl1-mesa-dri for MUJOCO_GL=egl, or libosmesa6 for MUJOCO_GL=osmesa"
)

os.environ.setdefault("MUJOCO_GL", "egl")
try:
    import mujoco
except (ImportError, AttributeError, OSError) as error:  # PyOpenGL raises any of them
    raise ConfigError(
        NO_RENDERING.format(backend=os.environ["MUJOCO_GL"], reason=error)
    ) from error

__all__ = ["NO_RENDERING", "mujoco"]

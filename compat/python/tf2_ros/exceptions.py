"""The errors of tf2; the real package takes them from the compiled module tf2_py."""


class TransformException(Exception):  # noqa: N818 - the name is tf2's
    """Base of everything a lookup raises."""


class ConnectivityException(TransformException):
    """Both frames exist, but no chain of transforms connects them."""


class LookupException(TransformException):
    """A frame is unknown, or the frames form a loop."""


class ExtrapolationException(TransformException):
    """The frames are connected, but not at the requested time."""


class InvalidArgumentException(TransformException):
    """A frame name is empty or starts with a slash."""


class TimeoutException(TransformException):
    """Waiting took longer than allowed (kept for handlers; lookups raise their own cause)."""

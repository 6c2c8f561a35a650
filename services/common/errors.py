"""The ways in which a service refuses a request. Each becomes an HTTP status in `services.common.answers`."""

from __future__ import annotations

from zsbir.base.errors import InputError, RunError


class Forbidden(InputError):  # noqa: N818 - named as HTTP names it
    """The user's role is too low, or the thing belongs to another user."""


class NotFound(InputError):  # noqa: N818 - named as HTTP names it
    """The thing that was asked for does not exist."""


class Conflict(InputError):  # noqa: N818 - named as HTTP names it
    """The state of the thing does not allow the request."""


class TooMany(InputError):  # noqa: N818 - named after what there is of
    """The user asks for more at a time than one user may. retry_after_s: seconds after which it may be otherwise."""

    def __init__(self, text: str, retry_after_s: int = 1):
        super().__init__(text)
        self.retry_after_s = retry_after_s


class Busy(RunError):  # noqa: N818 - named after what the service is
    """The service has more to do than it can at the moment. retry_after_s: seconds after which it may be otherwise."""

    def __init__(self, text: str, retry_after_s: int = 1):
        super().__init__(text)
        self.retry_after_s = retry_after_s

"""The ways in which a service refuses a request. Each becomes an HTTP status in `services.common.answers`."""

from __future__ import annotations

from zsbir.base.errors import InputError, RunError


class Forbidden(InputError):  # noqa: N818 - named as HTTP names it
    """The user's role is too low, or the thing belongs to another user."""


class NotFound(InputError):  # noqa: N818 - named as HTTP names it
    """The thing that was asked for does not exist."""


class Conflict(InputError):  # noqa: N818 - named as HTTP names it
    """The state of the thing does not allow the request."""


class BadGateway(RunError):  # noqa: N818 - named as HTTP names it
    """Another server, or a program, did not do what this service asked of it. The service itself is well."""

"""Serve a search: a page to draw on, and an API that takes strokes or images and answers with photos.

python -m services.search --model champion            the champion and its index, switched when another one is promoted
python -m services.search --index URI                 one index, as zsbir.index prints it
"""

from __future__ import annotations

from collections.abc import Sequence

from services.common.credentials import refuse_secrets
from services.search.settings import SearchSettings
from zsbir.base import cli, events
from zsbir.base.errors import InputError


def _parse(argv: Sequence[str]) -> None:
    parser = cli.Parser("services.search", __doc__ or "")
    parser.add_fields(SearchSettings, title="service")
    _, values = parser.values(argv)
    refuse_secrets(argv, "set ZSBIR_JOBS_STORE or MLFLOW_TRACKING_URI instead")
    settings = SearchSettings.of(values)
    if bool(settings.model) == bool(settings.index):
        raise InputError("name one thing to serve: --model champion, or --index URI")
    from services.common.server import serve
    from services.common.tokens import LOGIN_S
    from services.common.users import OwnerToken
    from services.search.start import open_app, port_for

    port = port_for(settings.host, settings.port)
    app = open_app(settings)
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"http://{shown}:{port}"
    events.say(f"the search service listens at {address}")
    if isinstance(app.state.users, OwnerToken):
        code = app.state.users.make_login()
        events.say(f"to let one browser in, once, within {LOGIN_S / 60:.0f} minutes: {address}/#login={code}")
    serve(app, settings.host, port)


if __name__ == "__main__":
    cli.main(_parse)

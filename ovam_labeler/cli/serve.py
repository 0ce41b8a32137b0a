"""``ovam-labeler serve``: the backend that a labeling tool talks to."""

from __future__ import annotations

import typer

from ovam_labeler.cli.common import load_settings


def serve(
    host: str = typer.Option("127.0.0.1", "--host", help="Address to listen on."),
    port: int = typer.Option(
        9090, "--port", min=0, max=65535, help="Port to listen on; 0 picks a free one and prints it."
    ),
) -> None:
    """Serve predictions, take corrections, learn.

    OVAM_LABEL_STUDIO_URL and OVAM_LABEL_STUDIO_TOKEN name the host that may be sent credentials and fetched from,
    private or not.  OVAM_WEBHOOK_SECRET unset leaves the webhook open on loopback only.
    """
    from ovam_labeler.server import run_server

    run_server(load_settings(), host=host, port=port)

"""`sam2edge serve`: a page in the browser on which one clicks on what a camera is to follow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sam2edge.cli.model_options import FileName, model_options
from sam2edge.errors import BackendUnavailableError


@click.command(no_args_is_help=True)
@click.argument("source", type=FileName("SOURCE"), metavar="[SOURCE]", required=False)
@click.option("--config", type=FileName("FILE.toml"), help="Every setting in one file; options override it.")
@click.option("--loop", is_flag=True, default=None, help="Play a recording again and again.")
@click.option("--host", help="Address to listen on; default 127.0.0.1, this machine alone.")
@click.option("--port", type=int, help="Default 8000; 0 takes a free one.")
@click.option("--token-file", type=FileName(), help="File with the token that clients need; or set $SAM2EDGE_TOKEN.")
@click.option(
    "--allow-host",
    "allow_hosts",
    multiple=True,
    metavar="NAME",
    help="A host name of this machine to accept. Repeatable.",
)
@click.option("--tls-cert", type=FileName(), help="Serve HTTPS with this certificate ...")
@click.option("--tls-key", type=FileName(), help="... and this key.")
@click.option("--recordings", type=FileName("DIR"), help="Where recordings go; default ./recordings.")
@click.option("--max-clients", type=int, help="Browsers and programs that get frames at a time; default 8.")
@click.option("--max-objects", type=int, help="Objects followed at a time; default 16.")
@click.option("--size", type=int, metavar="PIXELS", help="Side of the model's input; default: its own.")
@model_options
@click.pass_context
def serve(ctx: click.Context, config: str | None, model_id: str, **options: Any) -> None:
    """Follow what you click on, on a page in the browser. SOURCE is a camera, a stream or a recording.

    The page and an HTTP interface are on http://127.0.0.1:8000/. Other machines can connect with --host 0.0.0.0 and the
    token that is printed then. Ctrl-C ends it.
    """
    if config is None and options["source"] is None:
        raise click.UsageError("Nothing to follow: give SOURCE or --config FILE.toml.")
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
        import websockets  # noqa: F401
    except ImportError as error:
        raise BackendUnavailableError(
            "the server is not installed", got=str(error), remedy="pip install 'sam2edge[serve]'"
        ) from error
    from sam2edge.serve.run import serve as run
    from sam2edge.serve.settings import read_settings

    options["model"] = model_id
    given = {
        name: tuple(value) if isinstance(value, (list, tuple)) else value
        for name, value in options.items()
        if ctx.get_parameter_source("model_id" if name == "model" else name) == click.core.ParameterSource.COMMANDLINE
    }
    settings = read_settings(None if config is None else Path(config), given)
    try:
        run(settings, lambda line: click.echo(line, err=True))
    except KeyboardInterrupt:  # the way to end it
        return

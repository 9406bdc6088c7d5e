"""nirid web: the page in a browser, a process of its own that only reads."""

from __future__ import annotations

import click

from daemon.cli import Settings


@click.command(short_help="The night in a browser: conditions, pictures, what is missing, what needs you.")
@click.option(
    "--port", type=click.IntRange(0, 65535), metavar="N", help="Port instead of [web] port; 0 is any."
)
@click.option("--token", is_flag=True, help="Say the token of the login, made if there is none, and end.")
@click.pass_obj
def web(settings: Settings, port: int | None, token: bool) -> None:
    """Serve the page of the night until SIGTERM or Ctrl-C, at http://127.0.0.1:8321/ unless told otherwise.

    \b
    nirid web                      the service's night
    nirid --state demo/state web   that of another state folder
    nirid web --token              what a login asks for, to decide on the page

    It reads the database of the daemon, whether that runs or not, and writes nothing. It needs what
    pip install "nirid[web]" brings. Other machines reach it through ssh -L 8321:localhost:8321 HOST, or see
    [web] in the configuration.
    """
    from daemon import logs
    from pipeline.errors import ConfigError

    config = settings.load(web_port=port)
    if token:
        from daemon.web import access

        click.echo(access.make(config))
        return
    try:
        from daemon.web import server
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn", "h11", "anyio"):
            raise
        raise ConfigError(f'the page needs {error.name}: pip install "nirid[web]"') from None
    server.serve(config)
    logs.flush()

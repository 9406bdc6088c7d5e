"""nirid completion: the shell finishes commands, options, recipes, descriptors and tags."""

from __future__ import annotations

import click


@click.command(short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes a shell complete commands, options, and names of recipes, descriptors and tags.

    \b
    nirid completion bash >> ~/.bash_completion
    nirid completion zsh >> ~/.zshrc
    nirid completion fish > ~/.config/fish/completions/nirid.fish
    """
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None
    root = ctx.find_root()
    click.echo(made(root.command, {}, "nirid", "_NIRID_COMPLETE").source())

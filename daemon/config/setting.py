"""What the planner needs of the configuration."""

from __future__ import annotations

from daemon.config.options import Config
from daemon.model.groups import Setting


def setting_of(config: Config, *, batch: bool = False) -> Setting:
    """What planning needs of the configuration."""
    from pipeline.recipes import RECIPES

    return Setting(
        rules={rule.title: rule for rule in config.trigger},
        recipes=RECIPES,
        policy=config.policy,
        preset=config.reduction.preset,
        products=str(config.product_folder),
        batch=batch,
        grace_seconds=config.watch.grace_seconds,
    )

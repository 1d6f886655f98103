"""From a checkpoint to the leaderboard: `python -m scout.submit --help`."""

import signal
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from scout import cli
from scout.submit_config import SubmitConfig


@hydra.main(config_path=str(cli.CONF), config_name="submit", version_base="1.3")
@cli.job
def main(cfg: DictConfig) -> None:
    """Makes the bundle, proves it and sends it."""
    config = cli.load(SubmitConfig, cfg)
    output_dir = Path(HydraConfig.get().runtime.output_dir)

    from scout.submission.steps import submit  # torch takes seconds to import, a wrong key should not

    submit(config, output_dir)


if __name__ == "__main__":
    # In order: no process of the proof is left.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda got, _: sys.exit(128 + got))
    cli.run(main, SubmitConfig)

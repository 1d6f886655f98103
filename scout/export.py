"""Writes a trained network into one file that others play: `python -m scout.export --help`."""

import signal
import sys

import hydra
from omegaconf import DictConfig

from scout import cli
from scout.submit_config import ExportConfig


@hydra.main(config_path=str(cli.CONF), config_name="export", version_base="1.3")
@cli.job
def main(cfg: DictConfig) -> None:
    """Hydra's entry; scout/submission/formats.py does it."""
    config = cli.load(ExportConfig, cfg)

    from scout.submission.formats import export  # torch takes seconds to import, a wrong key should not

    export(config)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # in order: half a file is removed
    cli.run(main, ExportConfig)

"""Trains a scout from a composed config: `python train.py --help`."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from scout import cli
from scout.config import Experiment
from scout.config_checks import check_machine
from scout.ranks import Ranks

CONF = str(Path(__file__).resolve().parent / "conf")


@hydra.main(config_path=CONF, config_name="train", version_base="1.3")
@cli.job
def main(cfg: DictConfig) -> float | None:
    """Returns what runs are compared by: the last value of the metric `sweep.objective`; None when it has none."""
    ranks = Ranks.from_environment()
    experiment, run_dir, resumed = cli.experiment_of(cfg, ranks)
    if ranks.size == 1:
        check_machine(experiment, ranks)

    from scout.training import train  # torch takes seconds to import, a wrong key should not

    return train(experiment, run_dir, resumed, ranks, cli.hopeless()).objective


if __name__ == "__main__":
    cli.run(main, Experiment)

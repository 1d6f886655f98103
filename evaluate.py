"""Judges or shows a scout on maps that training never saw: `python evaluate.py --help`."""

import signal
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from scout import cli
from scout.evaluation_config import EvaluationConfig

CONF = str(Path(__file__).resolve().parent / "conf")


@hydra.main(config_path=CONF, config_name="evaluate", version_base="1.3")
@cli.job
def main(cfg: DictConfig) -> float:
    """Returns the mean return per agent, which a sweeper maximises."""
    config = cli.load(EvaluationConfig, cfg)
    output_dir = Path(HydraConfig.get().runtime.output_dir)

    from scout.evaluation import evaluate  # torch takes seconds to import, a wrong key should not

    return evaluate(config, output_dir).mean_return


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # in order: half a film is removed
    cli.run(main, EvaluationConfig)

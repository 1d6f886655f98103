"""Trains and judges a scout from Python, without Hydra: `python examples/train_from_python.py`."""

import logging
from pathlib import Path
from tempfile import mkdtemp

from scout.config import Experiment, MissionConfig, TrainerConfig, VecenvConfig, WandbConfig
from scout.evaluation import evaluate
from scout.evaluation_config import EvaluationConfig
from scout.training import train

logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
folder = Path(mkdtemp())
experiment = Experiment(
    total_timesteps=8192,
    mission=MissionConfig(max_steps=200),
    trainer=TrainerConfig(batch_size=2048, minibatch_size=1024),
    vecenv=VecenvConfig(num_envs=8),
    wandb=WandbConfig(mode="disabled"),
)
run = train(experiment, folder / "run")
evaluation = EvaluationConfig(checkpoint=str(run.run_dir), episodes=4)
print(f"Mean return per agent: {evaluate(evaluation, folder).mean_return:.2f}")

"""Names of the files that runs and evaluations leave behind, and of what is read back from them."""

CONFIG, STATUS, METRICS, VERSIONS = "config.yaml", "status.json", "metrics.jsonl", "versions.json"  # a run's
AUTOTUNE = "autotune.json"
CHECKPOINTS, BEST = "checkpoints", "best.pt"
EPISODES, EPISODES_CSV, SUMMARY = "episodes.json", "episodes.csv", "summary.json"  # an evaluation's
FILM = "film.mp4"
TORCHRUN = "torchrun"  # key of a status: the torchrun that started the run
ENDED = ("finished", "pruned")  # states of a run in which nothing is left to do
SWEEP = "multirun.yaml"  # Hydra's, in the folder of a sweep
JOBS, SWEEP_LOCK, STOPPING, STUDY = "jobs.json", "sweep.lock", "stopping", "study.log"
SUMMARY_CSV, SUMMARY_PAGE = "summary.csv", "summary.html"
RETURN, HELD_OUT = (
    "environment/episode_return",
    "evaluation/return",
)  # metrics: in training, and on held-out maps

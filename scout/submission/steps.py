"""The steps of a submission, in their order: bundle, proof, upload, and the record of what the server answered."""

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from scout.contestants import judged_network
from scout.errors import ScoutError
from scout.files import CONFIG, STATUS
from scout.pretrained import path_of
from scout.run_folder import is_running, load_experiment, object_in
from scout.submission.bundle import BUNDLE, Bundle, write_bundle
from scout.submission.journal import JOURNAL
from scout.submission.proof import LOG, Proof, prove, show, validate
from scout.submission.upload import Answer, Leaderboard
from scout.submit_config import CheckpointConfig, SubmitConfig
from scout.tracking import Tracker

log = logging.getLogger(__name__)

PROOF = "proof.json"
WITHOUT_RUN = Path("outputs/submissions")
"""Where it is noted what became of scouts that have no run folder of their own; the same place for each call."""


@dataclass(frozen=True)
class Submission:
    """What became of a submission: as much of it as was asked for."""

    bundle: Bundle
    proof: Proof | None = None
    answer: Answer | None = None


def submit(config: SubmitConfig, output_dir: Path) -> Submission:
    """Writes the bundle and its proof into `output_dir`, sends the bundle, and records the server's answer.

    Raises ScoutError for what the user can mend, and where the proof fails: then nothing is sent. Of a dry run the
    proof is made even where the server would not take the bundle.
    """
    if (output_dir / BUNDLE).exists():
        raise ScoutError(f"{output_dir / BUNDLE} exists already: choose another folder with hydra.run.dir=DIR")
    leaderboard = None if config.bundle_only else Leaderboard(config)
    policy, model, _, game = judged_network(config, config.greedy)
    bundle = write_bundle(output_dir / BUNDLE, model, policy.network, config.greedy)
    (output_dir / CONFIG).write_text(yaml.safe_dump(config.model_dump(), sort_keys=False), encoding="utf-8")
    log.info("Bundle: %s (%.1f MB, %s)", bundle.path, bundle.size / 1e6, bundle.class_path)
    if leaderboard is None:
        return Submission(bundle)
    season = refusal = None
    try:
        season = leaderboard.season()
    except ScoutError as error:
        if not config.dry_run:
            raise
        refusal = error
    proof = prove(
        *(bundle, policy, game),
        seed=config.seed,
        episodes=config.episodes,
        action_timeout_ms=config.action_timeout_ms,
        log_path=output_dir / LOG,
    )
    (output_dir / PROOF).write_text(json.dumps(proof.as_object(), indent=1) + "\n", encoding="utf-8")
    show(proof, config.action_timeout_ms)
    if refusal is not None:
        raise ScoutError(f"The bundle is sound, but it could not be sent: {refusal}")
    assert season is not None
    validate(bundle, leaderboard, season, output_dir / LOG)
    if config.dry_run:
        log.info("A dry run: %s was not sent to season %s", bundle.path, season.name)
        return Submission(bundle, proof)
    run_dir = run_of(config)
    journal = run_dir or WITHOUT_RUN
    answer = leaderboard.send(bundle, season, journal)
    pools = f"in {', '.join(answer.pools)}" if answer.pools else "its pools are not known"
    log.info("On the leaderboard: %s:v%d, %s (%s)", answer.name, answer.version, pools, journal / JOURNAL)
    record(answer, run_dir)
    return Submission(bundle, proof, answer)


def run_of(config: CheckpointConfig) -> Path | None:
    """The folder of the run that made the checkpoint; None for what comes without a record, such as a state_dict."""
    path = path_of(str(config.checkpoint))
    run_dir = path if path.is_dir() else path.resolve().parent.parent
    return run_dir if (run_dir / STATUS).is_file() and (run_dir / CONFIG).is_file() else None


def record(answer: Answer, run_dir: Path | None) -> None:
    """Puts what the server answered into the run's row in W&B, where the run has one; submissions.jsonl has it too."""
    if run_dir is None:
        return
    experiment, status = load_experiment(run_dir), object_in(run_dir / STATUS)
    if is_running(run_dir):
        log.warning("%s is still being trained, so its row in W&B does not get the answer", run_dir)
        return
    try:
        tracker = Tracker(experiment, run_dir, status.get("wandb_id"))
    except ScoutError as error:
        log.warning("W&B does not get the answer: %s", error)
        return
    tracker.summarize({f"submission/{name}": value for name, value in asdict(answer).items()})
    tracker.finish(str(status.get("state")))

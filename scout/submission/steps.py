"""The steps of a submission, in their order: bundle, proof, upload, and the record of what the server answered."""

import json
import logging
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scout.contestants import judged_network
from scout.errors import ScoutError
from scout.files import CONFIG, ENDED, STATUS
from scout.pretrained import path_of
from scout.run_folder import is_running, load_experiment, object_in
from scout.submission.bundle import BUNDLE, Bundle, cogames_command, write_bundle
from scout.submission.proof import LOG, Proof, prove, show, validate
from scout.submission.upload import Answer, Leaderboard
from scout.submit_config import SubmitConfig
from scout.tracking import Tracker

log = logging.getLogger(__name__)

PROOF = "proof.json"
SUBMISSIONS = "submissions.jsonl"  # in a run folder


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
    try:
        return _submit(config, output_dir)
    except OSError as error:
        raise ScoutError(
            f"{error.filename or output_dir} cannot be written ({error.strerror}): choose another folder with "
            "hydra.run.dir=DIR"
        ) from error


def _submit(config: SubmitConfig, output_dir: Path) -> Submission:
    leaderboard = None if config.bundle_only else Leaderboard(config)
    policy, model, mission, game = judged_network(config, config.greedy)
    bundle = write_bundle(output_dir / BUNDLE, model, policy.network, config.greedy)
    log.info("Bundle: %s (%.1f MB, %s)", bundle.path, bundle.size / 1e6, bundle.class_path)
    if leaderboard is None:
        log.info("Play it: %s", cogames_command(mission, str(bundle.path.resolve())))
        return Submission(bundle)
    season = refusal = None
    try:
        season = leaderboard.season()
    except ScoutError as error:
        if not config.dry_run:
            raise
        refusal = error
    # One journal for all runs: a name's versions are the user's, whichever run they came from.
    journal_folder = Path.home() / ".metta" / "scout"
    if season is not None and not config.dry_run:
        answer = leaderboard.sent_before(bundle, season, journal_folder)
        if answer is not None:
            _keep(answer, bundle, config, output_dir)
            return Submission(bundle, answer=answer)
    proof = prove(
        *(bundle, policy, game),
        seed=config.seed,
        episodes=config.episodes,
        action_timeout_ms=config.action_timeout_ms,
        log_path=output_dir / LOG,
    )
    found = {"config": config.model_dump(), "sha256": bundle.sha256, **asdict(proof)}
    (output_dir / PROOF).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    show(proof, config.greedy, config.action_timeout_ms)
    if refusal is not None:
        raise ScoutError(f"The bundle is sound, but it could not be sent: {refusal}")
    assert season is not None
    validate(bundle, leaderboard, season, output_dir / LOG)
    if config.dry_run:
        log.info("A dry run: %s was not sent to season %s", bundle.path, season.name)
        return Submission(bundle, proof)
    answer = leaderboard.send(bundle, season, journal_folder)
    pools = f"in {', '.join(answer.pools)}" if answer.pools else "its pools are not known"
    log.info("On the leaderboard: %s:v%d, %s (id %s)", answer.name, answer.version, pools, answer.id)
    _keep(answer, bundle, config, output_dir)
    return Submission(bundle, proof, answer)


def _keep(answer: Answer, bundle: Bundle, config: SubmitConfig, output_dir: Path) -> None:
    """Puts what the server answered where the run is, unless it is there from a call before."""
    run_dir = _run_of(path_of(str(config.checkpoint)))
    if run_dir is None:
        return
    about = {"checkpoint": config.checkpoint, "greedy": config.greedy, "sha256": bundle.sha256}
    try:
        _record(answer, {**about, "folder": str(output_dir)}, run_dir)
    except (ScoutError, OSError) as error:  # the bundle is on the leaderboard, which matters more
        log.warning("%s or its row in W&B does not get the answer: %s", run_dir, error)


def _run_of(checkpoint: Path) -> Path | None:
    """The folder of the run that made a checkpoint; None for what comes without a record, such as a state_dict."""
    run_dir = checkpoint if checkpoint.is_dir() else checkpoint.resolve().parent.parent
    return run_dir if (run_dir / STATUS).is_file() and (run_dir / CONFIG).is_file() else None


def _record(answer: Answer, about: dict[str, Any], run_dir: Path) -> None:
    """Puts what the server answered into the run's folder, and into its row in W&B where it has one.

    Raises ScoutError and OSError where that cannot be done.
    """
    path = run_dir / SUBMISSIONS
    if path.is_file() and f'"{answer.id}"' in path.read_text(encoding="utf-8"):
        return
    line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), **asdict(answer), **about}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    experiment, status = load_experiment(run_dir), object_in(run_dir / STATUS)
    if is_running(run_dir):
        raise ScoutError("it is still being trained, and W&B takes a run's row from one process alone")
    tracker = Tracker(experiment, run_dir, status.get("wandb_id"))
    tracker.summarize({f"submission/{name}": value for name, value in asdict(answer).items()})
    tracker.finish("finished" if status.get("state") in ENDED else "failed")  # not "interrupted", which has no patience

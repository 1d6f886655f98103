"""A sweep whose values an Optuna study proposes: `sweep=optuna`."""

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from scout.config import Experiment
from scout.errors import ScoutError, nearest
from scout.launching import missing_extra
from scout.naming import WITHOUT_EFFECT, is_in
from scout.objective import metrics_of, objective_of
from scout.sweep_folder import SweepFolder
from scout.sweeps import Sweep
from scout.validation import flat

log = logging.getLogger(__name__)

# Keys on which no trial's objective depends. The seed and how runs are evaluated are not among them.
_WITHOUT_EFFECT = (
    *(key for key in WITHOUT_EFFECT if key not in ("seed", "evaluation", "sweep")),
    *("evaluation.film", "sweep.name"),
)


def search(
    sweep: Sweep,
    params: Mapping[str, object],
    arguments: Sequence[str],
    n_trials: int,
    n_jobs: int,
    direction: Literal["maximize", "minimize"],
    seed: int,
    sampler: DictConfig,
    pruner: DictConfig | None,
) -> None:
    """Runs the trials that the study in the sweep's folder lacks, `n_jobs` at a time.

    Raises ScoutError when what is asked for is wrong, before the first trial, and when no trial of all has ended well.
    """
    try:
        from scout.study import Search, Study, TrialState
    except ImportError as error:
        raise ScoutError(missing_extra("sweep=optuna", "sweep")) from error
    overrides = sweep.overrides(params, arguments)
    swept = {override.get_key_element(): override for override in overrides if override.is_sweep_override()}
    fixed = {
        override.get_key_element(): f"{override.get_key_element()}={override.get_value_element_as_str()}"
        for override in overrides
        if not override.is_sweep_override()
    }
    if not swept:
        raise ScoutError("sweep=optuna has nothing to search: give a key several values, as KEY=interval(0.1,0.9)")
    _check(n_trials, n_jobs, seed, direction)
    samplers = OmegaConf.to_container(sampler)
    pruners = None if pruner is None else OmegaConf.to_container(pruner)
    _make("sampler", samplers, seed=seed)
    _make("pruner", pruners)  # as the jobs do
    space = {key: distribution_of(override) for key, override in swept.items()}
    ends = {key: _ends(distribution) for key, distribution in space.items()}
    base = sweep.experiment([*fixed.values(), *(f"{key}={values[0]}" for key, values in ends.items())])
    for key, values in ends.items():
        for value in values[1:]:
            others = [f"{other}={ends[other][0]}" for other in ends if other != key]
            sweep.experiment([*fixed.values(), *others, f"{key}={value}"])
    metric = base.sweep.objective
    if metric.startswith("evaluation/") and base.evaluation.every is None:
        raise ScoutError(f"sweep.objective={metric} needs evaluations: set evaluation.every")
    contents = _contents(base, swept) | {f"{key} (fixed)": fixed[key] for key in fixed if is_in(key, tuple(swept))}
    settings = {"direction": direction, "seed": seed, "sampler": samplers, "pruner": pruners}
    contents |= {f"hydra.sweeper.{key}": json.dumps(value) for key, value in settings.items()}
    studied = Search(space, contents, direction, n_trials, lambda number: instantiate(samplers, seed=seed + number))
    with sweep.open() as folder:
        study = Study(folder.path, studied)
        with sweep.recorded(folder):
            while trials := study.next_trials(n_jobs):
                for number, parameters in trials:
                    values = [f"{key}={value}" for key, value in parameters.items()]
                    folder.jobs[str(number)] = [*fixed.values(), *values]
                folder.store()
                ready = [str(number) for number, _ in trials if _is_valid(sweep, folder, str(number))]
                sweep.launch(folder, ready)
                for number, _ in trials:
                    study.tell(number, *_outcome(folder, str(number), metric))
        completed = study.finished(TrialState.COMPLETE)
    if not completed:
        raise ScoutError(f"None of the {n_trials} trials in {folder.path} ended well: their logs say why")


def _is_valid(sweep: Sweep, folder: SweepFolder, name: str) -> bool:
    """Whether a trial's values fit together; else its log says why not, as that of a job that failed."""
    try:
        sweep.experiment(folder.jobs[name])
    except (ScoutError, HydraException, OmegaConfBaseException) as error:
        folder.note_error(name, str(error))
        log.error("Trial %s: %s", name, error)
        return False
    return True


def _outcome(folder: SweepFolder, name: str, metric: str) -> tuple[Any, float | None]:
    """How a trial ended, and its objective: that of a whole run alone is one.

    Raises ScoutError when a whole run has none, since no other trial would have one either.
    """
    from scout.study import TrialState

    state, found = folder.state(name), objective_of(folder.path / name, metric)
    if state == "pruned":
        return TrialState.PRUNED, None
    if state == "finished" and found is not None:
        return TrialState.COMPLETE, found.value
    if state == "finished":
        logged = metrics_of(folder.path / name)
        raise ScoutError(
            f"sweep.objective={metric} is not logged by the run {folder.path / name}; {nearest(metric, logged)}"
        )
    return TrialState.FAIL, None


def _check(n_trials: int, n_jobs: int, seed: int, direction: str) -> None:
    for key, value, least in (("n_trials", n_trials, 1), ("n_jobs", n_jobs, 1), ("seed", seed, 0)):
        if not isinstance(value, int) or value < least:
            raise ScoutError(f"hydra.sweeper.{key}={value} is not valid: expected an integer from {least} on")
    if direction not in ("maximize", "minimize"):
        raise ScoutError(f"hydra.sweeper.direction={direction} is not valid: expected maximize or minimize")


def _make(key: str, config: Any, **arguments: Any) -> None:
    """Raises ScoutError when a sampler or pruner cannot be made as the config says."""
    try:
        instantiate(config, **arguments)
    except Exception as error:  # whatever Optuna's classes raise, and the packages that some of them want
        cause = error.__cause__ or error
        raise ScoutError(
            f"hydra.sweeper.{key} cannot be made ({type(cause).__name__}: {str(cause).splitlines()[0]}): "
            f"`--cfg hydra -p hydra.sweeper.{key}` shows what it is given; ~hydra.sweeper.{key}.KEY takes a key away"
        ) from error


def distribution_of(override: Override) -> Any:
    """The values that an override stands for.

    Of a,b,c and choice(...) one of them, of range(...) a whole number, of interval(...) any number, and of
    tag(log,interval(...)) one that is as likely to lie in each decade. Raises ScoutError for bounds without a number
    between them.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value, written = override.value(), override.input_line
    try:
        if isinstance(value, IntervalSweep):
            whole = isinstance(value.start, int) and isinstance(value.end, int)
            distribution = IntDistribution if whole else FloatDistribution
            assert value.start is not None
            assert value.end is not None
            return distribution(value.start, value.end, log="log" in value.tags)  # pyright: ignore[reportArgumentType]
        if isinstance(value, RangeSweep) and isinstance(value.step, int) and not value.shuffle:
            values = list(value.range())
            return IntDistribution(min(values), max(values), step=abs(value.step))
        return CategoricalDistribution(tuple(override.sweep_string_iterator()))
    except ValueError as error:
        raise ScoutError(f"{written} is not valid: {error}") from error


def _ends(distribution: Any) -> list[Any]:
    """The values that a distribution can take, or the lowest and the highest."""
    if hasattr(distribution, "choices"):
        return list(distribution.choices)
    return [distribution.low, distribution.high]


def _written(override: Override) -> str:
    """The values that an override stands for, as they were asked for."""
    return (override.input_line or "").partition("=")[2].replace(" ", "")


def _contents(base: Experiment, swept: Mapping[str, Override]) -> dict[str, str]:
    """All that the trials' objectives depend on, in words, by key."""
    fixed = {
        key: json.dumps(value)
        for key, value in flat(base.model_dump()).items()
        if not is_in(key, (*_WITHOUT_EFFECT, *swept))
    }
    return fixed | {key: _written(override) for key, override in swept.items()}

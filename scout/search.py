"""A sweep whose values an Optuna study proposes: `sweep=optuna`."""

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from scout.config import Experiment
from scout.errors import ScoutError
from scout.naming import WITHOUT_EFFECT, is_in
from scout.objective import objective_of
from scout.sweep_folder import SweepFolder
from scout.sweeps import Sweep, missing_extra
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
    pruner: DictConfig,
) -> None:
    """Runs the trials that the study in the sweep's folder lacks, `n_jobs` at a time.

    Raises ScoutError when what is asked for is wrong, before the first trial, and when no trial of all has ended well.
    """
    del pruner  # for the jobs, which read it from Hydra's config
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
    _check(n_trials, n_jobs, direction)
    space = {key: distribution_of(override) for key, override in swept.items()}
    base = sweep.experiment([*fixed.values(), *(f"{key}={_first(space[key])}" for key in swept)])
    metric = base.sweep.objective
    if metric.startswith("evaluation/") and base.evaluation.every is None:
        raise ScoutError(f"sweep.objective={metric} needs evaluations: set evaluation.every")
    contents = _contents(base, swept) | {"hydra.sweeper.direction": direction}
    samplers = OmegaConf.to_container(sampler)
    studied = Search(space, contents, direction, n_trials, lambda number: instantiate(samplers, seed=seed + number))
    with sweep.open() as folder:
        study = Study(folder.path, studied)
        with sweep.recorded(folder):
            while trials := study.next_trials(n_jobs):
                for number, parameters in trials:
                    values = [f"{key}={value}" for key, value in parameters.items()]
                    folder.jobs[str(number)] = [*fixed.values(), *values]
                folder.store()
                sweep.launch(folder, [str(number) for number, _ in trials])
                for number, _ in trials:
                    study.tell(number, *_outcome(folder, str(number), metric))
        completed = study.finished(TrialState.COMPLETE)
    if not completed:
        raise ScoutError(f"None of the {n_trials} trials in {folder.path} ended well: their logs say why")


def _outcome(folder: SweepFolder, name: str, metric: str) -> tuple[Any, float | None]:
    """How a trial ended, and its objective: that of a whole run alone is one."""
    from scout.study import TrialState

    state, found = folder.state(name), objective_of(folder.path / name, metric)
    if state == "pruned":
        return TrialState.PRUNED, None
    if state == "finished" and found is not None:
        return TrialState.COMPLETE, found.value
    if state == "finished":
        log.error("Trial %s: its metrics.jsonl has no %s, which sweep.objective asks for", name, metric)
    return TrialState.FAIL, None


def _check(n_trials: int, n_jobs: int, direction: str) -> None:
    for key, value in (("n_trials", n_trials), ("n_jobs", n_jobs)):
        if not isinstance(value, int) or value < 1:
            raise ScoutError(f"hydra.sweeper.{key}={value} is not valid: expected an integer from 1 on")
    if direction not in ("maximize", "minimize"):
        raise ScoutError(f"hydra.sweeper.direction={direction} is not valid: expected maximize or minimize")


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


def _first(distribution: Any) -> Any:
    """A value of the distribution."""
    return distribution.choices[0] if hasattr(distribution, "choices") else distribution.low


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

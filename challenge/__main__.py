"""The commands of python -m challenge; `train --help` lists every setting."""

import json
from pathlib import Path
from typing import Annotated, Any

import optuna
import pandas as pd
from jsonargparse import ArgumentParser, auto_cli
from optuna.storages.journal import JournalFileBackend, JournalStorage
from pydantic import Field, TypeAdapter, ValidationError
from torch import distributed

from challenge.model import Classifier, all_reduce
from challenge.movies import RANKS, read_movies, score, to_submission
from challenge.settings import ChallengeError, Settings


class Parser(ArgumentParser):
    """A parser that takes one file of films or several."""

    def add_argument(self, *names: Any, **options: Any) -> Any:
        """Add an argument."""
        options = {"nargs": "+", "type": Path, "help": options["help"]} if names == ("films",) else options
        return super().add_argument(*names, **options)


def read_all(films: list[Path]) -> pd.DataFrame:
    """Read files of films with genres as one table."""
    return pd.concat(read_movies(str(path), str(path), labelled=True)[0] for path in films)


def train(films: list[Path], model: Path = Path("model.pt"), **options: Any) -> None:
    """Learn the genres of films from their synopses.

    Under torchrun, each process reads its share of the files; where there are fewer files than processes, it takes its
    share of the films.

    Parameters
    ----------
    films
        CSV files with columns movie_id, synopsis and genres, taken as one; .csv.gz works too.
    model
        Where to save what was learnt.
    **options
        The settings.
    """
    rank, world = 0, 1
    if distributed.is_torchelastic_launched():
        distributed.init_process_group()
        rank, world = distributed.get_rank(), distributed.get_world_size()
    movies = read_all(films)[rank::world] if len(films) < world else read_all(films[rank::world])
    classifier = Classifier.learn(movies["synopsis"], movies["genres"], Settings(**options))
    n_films = int(all_reduce(len(movies)))
    if rank == 0:
        classifier.save(model)
        print(f"{model}: learnt {len(classifier.labels)} genres from {n_films} films")
    if distributed.is_initialized():
        distributed.destroy_process_group()  # or a process aborts now and then as it ends


def predict(table: Path, model: Path = Path("model.pt"), output: Path = Path("submission.json")) -> None:
    """Rank the five most probable genres of films.

    Parameters
    ----------
    table
        CSV file with columns movie_id and synopsis; .csv.gz works too.
    model
        What `train` saved.
    output
        Where to write the rankings, as JSON.
    """
    movies, _ = read_movies(str(table), str(table), labelled=False)
    rankings = Classifier.load(model).rank(movies["synopsis"], RANKS)
    output.write_text(json.dumps(to_submission(movies.index, rankings)))
    print(f"{output}: ranked the genres of {len(rankings)} films")


def evaluate(table: Path, submission: Path) -> None:
    """Print the scores of rankings, the mean average precision at five (MAP@5) last, after the figures of each genre.

    Parameters
    ----------
    table
        CSV file with columns movie_id, synopsis and genres; .csv.gz works too.
    submission
        What `predict` wrote.
    """
    try:
        rankings = TypeAdapter(dict[str, dict[str, str]]).validate_json(submission.read_bytes())
    except ValidationError as error:
        raise ChallengeError(422, f"{submission}: not what predict writes: {error.errors()[0]['msg']}") from error
    movies, _ = read_movies(str(table), str(table), labelled=True)
    missing = movies.index.difference(list(rankings))
    if len(missing):
        raise ChallengeError(422, f"{submission}: lacks {len(missing)} films, movie_id {missing[0]!r} among them")
    scores, per_genre = score(movies["genres"], [list(rankings[movie].values()) for movie in movies.index])
    print(per_genre.round(3).to_string(), "", *(f"{name} {value:.4f}" for name, value in scores.items()), sep="\n")


def sweep(
    films: list[Path],
    trials: int = 50,
    minutes: float = 10,
    workers: int = 2,
    folds: Annotated[int, Field(ge=2)] = 5,
    seed: int = 0,
    storage: str = "sweep.journal",
) -> None:
    """Search for better settings, and write them to best.yaml; the same command again resumes.

    A trial is a cross-validation: each of its folds tests what was learnt from the others, and the value is the mean
    MAP@5. A trial that falls behind after some folds is pruned. The first trial has the defaults.

    Parameters
    ----------
    films
        CSV files with columns movie_id, synopsis and genres, taken as one table; .csv.gz works too.
    trials
        Number of trials to come to, with those of earlier times and of others.
    minutes
        Time after which no trial begins.
    workers
        Threads that run trials.
    folds
        Number of folds.
    seed
        Seed of the proposals; with one worker they repeat.
    storage
        Where the trials are kept: a file, or the URL of a database that Optuna knows, as in postgresql://…; whoever
        names the same storage shares the work.
    """
    movies = read_all(films).sample(frac=1, random_state=0)
    fold = pd.RangeIndex(len(movies)) % folds
    try:
        place = storage if "://" in storage else JournalStorage(JournalFileBackend(storage))
        study = optuna.create_study(storage=place, study_name="challenge", load_if_exists=True, direction="maximize")
    except Exception as error:  # of files, of databases, and of what connects to them
        raise ChallengeError(422, f"--storage {storage}: {str(error).splitlines()[0]}") from error

    def objective(trial: optuna.Trial) -> float:
        # Seeded anew for each trial, so that no two draw the same numbers, whoever runs them, and resuming repeats none
        study.sampler = optuna.samplers.TPESampler(seed=hash((seed, trial.number)) % 2**32)
        settings = Settings(
            ngrams=trial.suggest_int("ngrams", 2, 6),
            pair_weight=trial.suggest_float("pair_weight", 0, 1.5),
            idf=trial.suggest_float("idf", 0, 1),
            smoothing=trial.suggest_float("smoothing", 0.2, 20, log=True),
            epochs=trial.suggest_int("epochs", 1, 4),
            learning_rate=trial.suggest_float("learning_rate", 0.02, 2, log=True),
        )
        scores = pd.Series(dtype=float)
        for number in range(folds):
            training, test = movies[fold != number], movies[fold == number]
            classifier = Classifier.learn(training["synopsis"], training["genres"], settings)
            scores[number] = score(test["genres"], classifier.rank(test["synopsis"], RANKS))[0]["MAP@5"]
            trial.report(scores.mean(), number)
            if trial.should_prune():
                raise optuna.TrialPruned
        trial.set_user_attr("deviation", scores.std(ddof=0))
        return float(scores.mean())

    missing = trials - sum(trial.datetime_start is not None for trial in study.trials)
    study.enqueue_trial(vars(Settings()), skip_if_exists=True)
    enough = optuna.study.MaxTrialsCallback(trials, states=None)
    try:
        study.optimize(objective, max(0, missing), 60 * minutes, workers, catch=Exception, callbacks=[enough])
    except KeyboardInterrupt:
        print("stopped early; the same command resumes")
    if not study.best_trials:
        raise ChallengeError(422, "no trial has come to an end; the lines above say why")
    table = study.trials_dataframe(("number", "value", "user_attrs", "params")).dropna()  # not those pruned
    print(table.nlargest(10, "value").to_string(index=False))
    Path("best.yaml").write_text(json.dumps(study.best_params))
    print("best.yaml: the best settings; train with --config best.yaml")


if __name__ == "__main__":
    try:
        auto_cli([train, predict, evaluate, sweep], prog="python -m challenge", parser_class=Parser)
    except (ChallengeError, OSError, ValidationError) as error:
        faults = error.errors() if isinstance(error, ValidationError) else []
        message = "; ".join(f"{fault['loc'][0]}: {fault['msg']}, not {fault['input']!r}" for fault in faults)
        ArgumentParser().exit(2, f"error: {message or getattr(error, 'detail', error)}\n")

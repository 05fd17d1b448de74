"""The commands of python -m challenge; `train --help` lists every setting."""

import json
import re
import signal
import sys
from pathlib import Path
from threading import Event
from typing import Any
from zlib import crc32

import optuna
import pandas as pd
from filelock import FileLock
from jsonargparse import ArgumentError, ArgumentParser, auto_cli
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, TypeAdapter, ValidationError

from challenge.model import Classifier
from challenge.movies import RANKS, read_movies, score, to_submission
from challenge.settings import ChallengeError, Settings


class Parser(ArgumentParser):
    """A parser that takes one file of films or several."""

    def add_argument(self, *names: Any, **options: Any) -> Any:
        """Add an argument."""
        options = {"nargs": "+", "type": str, "help": options["help"]} if names == ("films",) else options
        return super().add_argument(*names, **options)


def train(films: list[str], model: Path = Path("model.pt"), **options: Any) -> None:
    """Learn the genres of films from their synopses; films without genres are left out.

    Parameters
    ----------
    films
        CSV files with columns movie_id, synopsis and genres, taken as one; .csv.gz works too.
    model
        Where to save what was learnt.
    **options
        The settings.
    """
    tables, left_out = zip(*(read_movies(path, path, labelled=True) for path in films))
    movies = pd.concat(tables)
    classifier = Classifier.learn(movies["synopsis"], movies["genres"], Settings(**options))
    classifier.save(model)
    print(f"{model}: {len(classifier.labels)} genres, {len(movies)} films; left out {sum(left_out)}", file=sys.stderr)


def predict(table: str, model: Path = Path("model.pt"), output: Path = Path("submission.json")) -> None:
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
    movies, _ = read_movies(table, table, labelled=False)
    rankings = Classifier.load(model).rank(movies["synopsis"], RANKS)
    output.write_text(json.dumps(to_submission(movies.index, rankings)))
    print(f"{output}: ranked the genres of {len(rankings)} films", file=sys.stderr)


def evaluate(table: str, submission: Path) -> None:
    """Print the scores of rankings, the mean average precision at five (MAP@5) last, after the figures of each genre.

    Parameters
    ----------
    table
        CSV file with columns movie_id, synopsis and genres; .csv.gz works too.
    submission
        What `predict` wrote.
    """
    movies, _ = read_movies(table, table, labelled=True)
    try:
        rankings = TypeAdapter(dict[str, dict[NonNegativeInt, str]]).validate_json(submission.read_bytes())
        ranked = [[genre for _, genre in sorted(rankings[movie].items())] for movie in movies.index]
    except (KeyError, ValidationError) as error:
        raise ChallengeError(422, f"{submission}: does not rank each film of {table}: {error}") from error
    scores, per_genre = score(movies["genres"], ranked)
    print(per_genre.round(3).to_string(), "", *(f"{name} {value:.4f}" for name, value in scores.items()), sep="\n")


def cross_validate(trial: optuna.Trial, movies: pd.DataFrame, folds: int, stopping: Event) -> float:
    """Return the mean MAP@5 of the settings of a trial over folds, each of which tests what was learnt from the others.

    Raises
    ------
    RuntimeError
        The sweep is stopping; the fold is done.
    """
    settings = Settings(
        ngrams=trial.suggest_int("ngrams", 2, 6),
        pair_weight=trial.suggest_float("pair_weight", 0, 1.5),
        idf=trial.suggest_float("idf", 0, 1),
        smoothing=trial.suggest_float("smoothing", 0.2, 20, log=True),
        epochs=trial.suggest_int("epochs", 1, 4),
        learning_rate=trial.suggest_float("learning_rate", 0.02, 2, log=True),
    )
    fold, scores = pd.RangeIndex(len(movies)) % folds, pd.Series(dtype=float)
    for number in range(folds):
        training, test = movies[fold != number], movies[fold == number]
        classifier = Classifier.learn(training["synopsis"], training["genres"], settings)
        scores[number] = score(test["genres"], classifier.rank(test["synopsis"], RANKS))[0]["MAP@5"]
        if stopping.is_set():
            trial.study.stop()
            raise RuntimeError("stopped by Ctrl-C; the same command resumes")
    trial.set_user_attr("deviation", scores.std(ddof=0))
    return float(scores.mean())


def sweep(
    films: list[str],
    trials: PositiveInt = 50,
    minutes: PositiveFloat = 10.0,
    workers: PositiveInt = 2,
    folds: PositiveInt = 5,
    seed: int | None = None,
    storage: str = "sqlite:///sweep.db?timeout=60",
) -> None:
    """Search for better settings, and write them to best.yaml; the same command again resumes.

    A trial is a cross-validation: each of its folds tests what was learnt from the others, and the value is the mean
    MAP@5. The first trial has the defaults. Other films, or another number of folds, make another study in the same
    storage.

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
        Seed of the proposals; with one worker, the same seed repeats them.
    storage
        URL of the database where the trials are kept, such as postgresql+psycopg://…; commands with the same one share
        the work.
    """
    movies = pd.concat(read_movies(path, path, labelled=True)[0] for path in films).sample(frac=1, random_state=0)
    if not 2 <= folds <= len(movies):
        raise ChallengeError(422, f"--folds {folds}: take 2 or more, but no more than films; these are {len(movies)}")
    stopping, failures, faults = Event(), set(), (ValueError, RuntimeError, MemoryError)

    def objective(trial: optuna.Trial) -> float:
        try:
            return cross_validate(trial, movies, folds, stopping)
        except faults as error:
            failures.add(" ".join(str(error).split()))
            raise

    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    name = str(crc32(f"{folds} {Settings()} {movies.to_csv(index=False)}".encode()))  # what the scores depend on
    try:
        with FileLock("sweep.lock"):  # the first command makes the study and tries the defaults; others wait
            signal.signal(signal.SIGINT, lambda *_: stopping.set())
            study = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
            if not study.best_trials:
                study.enqueue_trial(vars(Settings()))
                study.optimize(objective, 1)
        study.sampler = optuna.samplers.TPESampler(seed=None if seed is None else (seed + len(study.trials)) % 2**32)
        limit, left = optuna.study.MaxTrialsCallback(trials, states=None), max(0, trials - len(study.trials))
        study.optimize(objective, left, 60 * minutes, workers, faults, [limit], show_progress_bar=sys.stderr.isatty())
        Path("best.yaml").write_text(json.dumps(study.best_params))
    except BaseException as error:  # of files, of databases, of what connects to them, or of the first trial
        while error.__context__:
            error = error.__context__  # Optuna hides a full disk, among others, behind errors of its own
        raise ChallengeError(422, f"the sweep in {storage} ended: {error}".splitlines()[0]) from error
    sys.stderr.writelines(f"trials broke off: {reason}\n" for reason in failures)
    # The defaults, and the best of the others
    table = study.trials_dataframe(("number", "value", "user_attrs", "params")).dropna().convert_dtypes()
    table = pd.concat([table.head(1), table.iloc[1:].nlargest(9, "value")])
    print(table.to_string(index=False))
    told = table["value"].map("{:.3f}".format) + table["user_attrs_deviation"].map(" ± {:.3f}".format)
    print(f"best.yaml: MAP@5 {told[table['value'].idxmax()]}, against {told.iloc[0]} for the defaults")


if __name__ == "__main__":
    strict: dict[str, Any] = {"exit_on_error": False, "allow_abbrev": False}
    try:
        auto_cli([train, predict, evaluate, sweep], prog="python -m challenge", parser_class=Parser, **strict)
    except (ArgumentError, ChallengeError, KeyboardInterrupt, OSError) as error:
        message = " ".join(f"error: {str(getattr(error, 'detail', error)) or 'stopped'}".split())
        # Without what pydantic adds to its messages
        ArgumentParser().exit(2, re.sub(r" \d+ validation errors? for \S+| \[type=.*?/v/\w+", "", message) + "\n")

"""The commands of python -m challenge; `train --help` lists every setting."""

import json
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, cast
from unicodedata import normalize

import pandas as pd
import yaml
from filelock import FileLock
from jsonargparse import ArgumentError, ArgumentParser, auto_cli
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, TypeAdapter

from challenge.model import Classifier, hold_out, rank_file, score, train_file
from challenge.movies import read_movies, refuse_overwriting, write_file
from challenge.settings import RANKS, Answer, ChallengeError, Settings


def train(films: str, model: Path = Path("model.pt"), **options: Any) -> None:
    """Learn the genres of films from their synopses, and print the number of films and the genres as JSON.

    Parameters
    ----------
    films
        CSV file with the columns synopsis and genres; .csv.gz works too. Films without genres are left out.
    model
        Where to save the model.
    **options
        The settings.
    """
    refuse_overwriting(model, Path(films))
    # jsonargparse reads this source: it takes the options from where they are handed on, as it does in `predict`
    summary = train_file(Path(films).read_bytes(), films, Settings(**options), model)
    print(json.dumps(summary, ensure_ascii=False))


def predict(table: str, model: Path = Path("model.pt"), output: Path = Path("submission.json"), **options: Any) -> None:
    """Rank the most probable genres of films.

    Parameters
    ----------
    table
        CSV file with the columns movie_id and synopsis, or those that the model was trained on; .csv.gz works too.
    model
        The model that `train` saved.
    output
        Where to write the rankings, as JSON.
    **options
        What to write about each film; `evaluate` can't read probabilities or explanations.
    """
    refuse_overwriting(output, Path(table), model)
    answer = rank_file(Path(table).read_bytes(), table, Classifier.load(model), Answer(**options))
    write_file(output, json.dumps(answer).encode())


def evaluate(table: str, submission: Path) -> None:
    """Print the MAP@5 of each genre, and P@1, R@5 and MAP@5 (mean average precision at five) of all films.

    Parameters
    ----------
    table
        CSV file with the columns movie_id and genres; .csv.gz works too.
    submission
        The rankings that `predict` wrote.
    """
    # No text is needed, so the column of the genres takes its place
    movies, left_out = read_movies(Path(table).read_bytes(), table, labelled=True, columns="genres")
    try:
        given = TypeAdapter(dict[str, dict[NonNegativeInt, str]]).validate_json(submission.read_bytes())
        # A gap in the ranks stays a gap: dashes, which are no genre, take its place
        ranked = [[normalize("NFC", given[film].get(k, "-" * (k + 1))) for k in range(RANKS)] for film in movies.index]
    except (KeyError, ValueError) as error:
        raise ChallengeError(f"{submission}: does not rank each film of {table}: {str(error)[:300]}") from error
    scores, per_genre = score(movies["genres"], ranked)
    print(f"{per_genre.round(3).to_string()}\nleft out {left_out}")
    print("\n".join(f"{name} {value:.4f}" for name, value in scores.items()))


def sweep(
    films: str,
    trials: PositiveInt = 50,
    minutes: PositiveFloat = 10.0,
    workers: PositiveInt = 2,
    folds: Annotated[int, Field(ge=2)] = 5,
    storage: str = "sqlite:///sweep.db?timeout=60",
    columns: Annotated[str, Settings.model_fields["columns"]] = Settings().columns,
) -> None:
    """Search for better settings, and write them to best.yaml. Run the same command again to resume.

    A trial is a cross-validation: each fold tests a model that learnt from the other folds. The value of a trial is the
    mean MAP@5. The first trial has the defaults. Other films, or another number of folds, make another study in the
    same storage.

    Parameters
    ----------
    films
        CSV file with the columns synopsis and genres; .csv.gz works too.
    trials
        Total number of trials, including those of earlier runs and of other commands.
    minutes
        Time after which no trial begins.
    workers
        Threads that run trials.
    folds
        Number of folds; if there are fewer different texts, their number.
    storage
        URL of the database of the trials, such as postgresql+psycopg://…; commands with the same database share the
        work.
    columns
        Names of the columns that make a film's text, as for `train`.
    """
    import optuna  # here, since no other command needs it

    movies, left_out = read_movies(Path(films).read_bytes(), films, labelled=True, columns=columns)
    folds = min(folds, movies["synopsis"].nunique())
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    # All that the scores depend on, including the order of the films
    name = f"{folds} folds of {pd.util.hash_pandas_object(movies.reset_index().astype(str)).sum():x}; {Settings()}"

    def objective(trial: optuna.Trial) -> float:
        """Return the mean MAP@5 over the folds."""
        settings = Settings(
            columns=columns,
            ngrams=trial.suggest_int("ngrams", 2, 6),
            pair_weight=trial.suggest_float("pair_weight", 0, 1.5),
            idf=trial.suggest_float("idf", 0, 1),
            smoothing=trial.suggest_float("smoothing", 0.2, 20, log=True),
            epochs=trial.suggest_int("epochs", 1, 4),
            learning_rate=trial.suggest_float("learning_rate", 0.02, 2, log=True),
        )
        scores = pd.Series([hold_out(movies, number, folds, settings)["MAP@5"] for number in range(folds)])
        trial.set_user_attr("deviation", scores.std(ddof=0))
        return float(scores.mean())

    try:
        with FileLock("sweep.lock"):  # the first command here makes the study and tries the defaults; others wait
            study = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
            if not study.best_trials:
                study.enqueue_trial(Settings().model_dump())
                study.optimize(objective, 1)
        due = max(0, trials - len(study.trials))
        cap = [optuna.study.MaxTrialsCallback(trials, states=None)]  # stops when other commands have done what was due
        tty = sys.stderr.isatty()
        # Ctrl-C: with several workers, running trials end first; with one, its trial is cancelled
        with suppress(KeyboardInterrupt):
            study.optimize(objective, due, 60 * minutes, workers, catch=Exception, callbacks=cap, show_progress_bar=tty)
    except Exception as error:  # of databases, of what connects to them, or of the first trial
        # Optuna hides a full disk, among others, behind an error of its own
        raise ChallengeError(f"the sweep ended: {error.__context__ or error}".splitlines()[0]) from error
    write_file(Path("best.yaml"), yaml.safe_dump({"columns": columns, **study.best_params}).encode())
    # The defaults, and the best of the others
    table = study.trials_dataframe(("number", "value", "user_attrs", "params")).dropna().convert_dtypes()
    print(pd.concat([table.head(1), table.iloc[1:].nlargest(9, "value")]).to_string(index=False))
    print(f"\n{len(table)} of {len(study.trials)} trials have a value; films left out: {left_out}")
    print(f"best.yaml: MAP@5 {study.best_value:.3f}, against {table['value'].iloc[0]:.3f} for the defaults")


if __name__ == "__main__":
    cast(Any, sys.stdout).reconfigure(errors="backslashreplace")  # a terminal may lack letters of a genre
    try:
        auto_cli([train, predict, evaluate, sweep], prog="python -m challenge", exit_on_error=False, allow_abbrev=False)
    except (ArgumentError, ChallengeError, KeyboardInterrupt, OSError, UnicodeDecodeError) as error:
        message = " ".join(f"error: {str(error) or 'stopped'}".split())
        message = re.sub(r"(://[^:/\s]*:)\S*(?=@)|(password=)\S*", r"\1\2***", message)  # in a URL
        # Without what pydantic adds to its messages. argparse's exit keeps the status even if stderr is closed or full
        ArgumentParser().exit(2, re.sub(r" \d+ validation errors? for \S+| \[type=.*?/v/\w+", "", message) + "\n")

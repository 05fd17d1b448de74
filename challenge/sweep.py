"""The hyper-parameter sweep: a study of Optuna, whose trials are cross-validations."""

import sys
from contextlib import suppress
from pathlib import Path

import optuna
import pandas as pd
import yaml
from filelock import FileLock
from pydantic import PositiveFloat, PositiveInt

from challenge.model import hold_out
from challenge.movies import read_movies, write_file
from challenge.settings import ChallengeError, Settings


def sweep(
    films: str,
    trials: PositiveInt = 50,
    minutes: PositiveFloat = 10.0,
    workers: PositiveInt = 2,
    folds: PositiveInt = 5,
    storage: str = "sqlite:///sweep.db?timeout=60",
    columns: str = Settings().columns,
) -> None:
    """Search for better settings, and write them to best.yaml; the same command again resumes.

    A trial is a cross-validation: each of its folds tests what was learnt from the others, and the value is the mean
    MAP@5. The first trial has the defaults. Other films, or another number of folds, make another study in the same
    storage.

    Parameters
    ----------
    films
        CSV file with the columns synopsis and genres; .csv.gz works too.
    trials
        Number of trials to come to, with those of earlier times and of others.
    minutes
        Time after which no trial begins.
    workers
        Threads that run trials.
    folds
        Number of folds.
    storage
        URL of the database where the trials are kept, such as postgresql+psycopg://…; commands with the same one share
        the work.
    columns
        Names of the columns that make a film's text, as for `train`.
    """
    movies, left_out = read_movies(Path(films).read_bytes(), films, labelled=True, columns=columns)
    most = movies["synopsis"].nunique()
    if not 2 <= folds <= most:
        raise ChallengeError(f"--folds {folds}: take 2 to {most}, the number of different texts")
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    # All that the scores depend on, the order of the films included
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
        with FileLock("sweep.lock"):  # the first command makes the study and tries the defaults; others wait
            study = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
            if not study.best_trials:
                study.enqueue_trial(Settings().model_dump())
                study.optimize(objective, 1)
        cap, n = optuna.study.MaxTrialsCallback(trials, states=None), max(0, trials - len(study.trials))
        with suppress(KeyboardInterrupt):  # the trials that run in threads come to their end first
            study.optimize(objective, n, 60 * minutes, workers, Exception, [cap], show_progress_bar=sys.stderr.isatty())
        write_file(Path("best.yaml"), yaml.safe_dump({"columns": columns, **study.best_params}).encode())
    except Exception as error:  # of files, of databases, of what connects to them, or of the first trial
        # A URL of another kind may have a password
        shown = storage.partition("?")[0] if storage.startswith("sqlite:") else "--storage"
        # Optuna hides a full disk, among others, behind an error of its own
        raise ChallengeError(f"the sweep in {shown} ended: {error.__context__ or error}".splitlines()[0]) from error
    # The defaults, and the best of the others
    table = study.trials_dataframe(("number", "value", "user_attrs", "params")).dropna().convert_dtypes()
    print(pd.concat([table.head(1), table.iloc[1:].nlargest(9, "value")]).to_string(index=False))
    print(f"\n{len(table)} of {len(study.trials)} trials have a value; films left out: {left_out}")
    figures = table["value"].map("{:.3f}".format) + table["user_attrs_deviation"].map(" ± {:.3f}".format)
    print(f"best.yaml: MAP@5 {figures[table.value.idxmax()]}, against {figures.iloc[0]} for the defaults")

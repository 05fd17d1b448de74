"""The commands of python -m challenge; `train --help` lists every setting."""

import json
from pathlib import Path
from typing import Annotated, Any

import optuna
import pandas as pd
from joblib import Parallel, delayed
from jsonargparse import ArgumentParser, auto_cli
from optuna.storages.journal import JournalFileBackend, JournalStorage
from pydantic import Field, TypeAdapter, ValidationError
from torch import distributed

from challenge.model import Classifier
from challenge.movies import RANKS, judge, read_movies
from challenge.settings import SPACE, ChallengeError, Settings

Folds = Annotated[int, Field(ge=2)]


def train(films: Path, model: Path = Path("model.pt"), **options: Any) -> None:
    """Learn the genres of films from their synopses.

    Parameters
    ----------
    films
        CSV file with columns movie_id, synopsis and genres; .csv.gz works too.
    model
        Where to save what was learnt.
    **options
        The settings.
    """
    rank, world = 0, 1
    if distributed.is_torchelastic_launched():
        distributed.init_process_group()
        rank, world = distributed.get_rank(), distributed.get_world_size()
    movies = read_movies(str(films), str(films), labelled=True)
    classifier = Classifier.learn(movies["synopsis"][rank::world], movies["genres"][rank::world], Settings(**options))
    if rank == 0:
        classifier.save(model)
        print(f"{model}: learnt {len(classifier.labels)} genres from {len(movies)} films")


def predict(films: Path, model: Path = Path("model.pt"), output: Path = Path("submission.json")) -> None:
    """Rank the five most probable genres of films.

    Parameters
    ----------
    films
        CSV file with columns movie_id and synopsis; .csv.gz works too.
    model
        What `train` saved.
    output
        Where to write the rankings, as JSON.
    """
    rankings = Classifier.load(model).rank(read_movies(str(films), str(films), labelled=False)["synopsis"], RANKS)
    output.write_text(json.dumps(rankings.to_dict("index")))
    print(f"{output}: ranked the genres of {len(rankings)} films")


def evaluate(films: Path, submission: Path, plot: Path | None = None) -> None:
    """Print the scores of rankings, the mean average precision at five (MAP@5) last, after the figures of each genre.

    Parameters
    ----------
    films
        CSV file with columns movie_id and genres.
    submission
        What `predict` wrote.
    plot
        File for a picture of the figures of the hundred most frequent genres, such as genres.png.
    """
    try:
        rows = TypeAdapter(dict[str, dict[str, str]]).validate_json(submission.read_bytes())
    except ValidationError as error:
        raise ChallengeError(422, f"{submission}: not what predict writes: {error.errors()[0]['msg']}") from error
    scores, per_genre = judge(read_movies(str(films), str(films), labelled=True), pd.DataFrame.from_dict(rows, "index"))
    if plot:
        bars = per_genre.head(100).set_index("films", append=True)["map_at_5"][::-1]
        bars.plot.barh(figsize=(8, 2 + len(bars) / 4), xlabel="MAP@5").figure.savefig(plot, bbox_inches="tight")
    print(per_genre.round(3).to_string(), "", *(f"{name} {score:.4f}" for name, score in scores.items()), sep="\n")


def open_study(storage: str = "sweep.journal", study: str = "challenge") -> optuna.Study:
    """Open a study of Optuna, a new one beginning with the defaults.

    Parameters
    ----------
    storage
        Where the trials are kept: a file, or the URL of a database that Optuna knows, as in postgresql://…; whoever
        names the same storage and study shares the work.
    study
        Name of the study in the storage.
    """
    try:
        place = storage if "://" in storage else JournalStorage(JournalFileBackend(storage))
        found = optuna.create_study(storage=place, study_name=study, load_if_exists=True, direction="maximize")
    except Exception as error:  # of files, of databases, and of what connects to them
        raise ChallengeError(422, f"--storage {storage}: {error}") from error
    found.enqueue_trial({name: getattr(Settings(), name) for name in SPACE}, skip_if_exists=True)
    return found


def search(
    films: Path, trials: int = 50, minutes: float = 10, workers: int = 2, folds: Folds = 5, seed: int = 0, **place: Any
) -> optuna.Study:
    """Run trials of a study, until there are enough of them or time is up, and return the study.

    Parameters
    ----------
    films
        CSV file with columns movie_id, synopsis and genres; .csv.gz works too.
    trials
        Number of trials to come to, with those of earlier times and of others.
    minutes
        Time after which no trial begins.
    workers
        Processes that run trials.
    folds
        Number of folds.
    seed
        Seed of the proposals; with one worker they repeat.
    **place
        The study.
    """
    movies = read_movies(str(films), str(films), labelled=True).sample(frac=1, random_state=0)
    fold = pd.RangeIndex(len(movies)) % folds
    study = open_study(**place)
    missing = trials - sum(trial.state.is_finished() for trial in study.trials)
    enough = optuna.study.MaxTrialsCallback(trials, states=None)

    def objective(trial: optuna.Trial) -> float:
        # Seeded anew for each trial, so that no two draw the same numbers, whoever runs them, and going on repeats none
        trial.study.sampler = optuna.samplers.TPESampler(seed=hash((seed, trial.number)) % 2**32)
        settings = Settings(**{name: draw(trial, name) for name, draw in SPACE.items()})
        scores = pd.Series(dtype=float)
        for held in range(folds):
            known, asked = movies[fold != held], movies[fold == held]
            classifier = Classifier.learn(known["synopsis"], known["genres"], settings)
            scores[held] = judge(asked, classifier.rank(asked["synopsis"], RANKS))[0]["MAP@5"]
            trial.report(scores.mean(), held)
            if trial.should_prune():
                raise optuna.TrialPruned
        trial.set_user_attr("deviation", scores.std(ddof=0))
        return float(scores.mean())

    run = delayed(study.optimize)(objective, timeout=60 * minutes, catch=Exception, callbacks=[enough])
    try:
        Parallel(max(1, workers))([run] * min(workers, missing))
    except (KeyboardInterrupt, RuntimeError) as error:
        print(f"stopped early, by {type(error).__name__}; the same command goes on")
    return study


def sweep(plot: Path | None = None, **options: Any) -> None:
    """Search for better settings, and write them to best.yaml; the same command again goes on where it stopped.

    A trial is a cross-validation: each of its folds judges what was learnt from the others, and the value is the mean
    MAP@5. A trial that falls behind after some folds is pruned.

    Parameters
    ----------
    plot
        Folder for pictures of the study: its history, how much each setting mattered, and the values of each setting.
    **options
        The search.
    """
    study = search(**options)
    if not study.best_trials:
        raise ChallengeError(422, "no trial has come to an end; the lines above say why")
    if plot:
        plot.mkdir(parents=True, exist_ok=True)
        for name in ("optimization_history", "param_importances", "slice"):
            axes = getattr(optuna.visualization.matplotlib, f"plot_{name}")(study)
            # Slices are several axes, of one figure
            getattr(axes, "flat", [axes])[0].figure.savefig(plot / f"{name}.png", bbox_inches="tight")
    table = study.trials_dataframe(("number", "value", "user_attrs", "params")).dropna()  # not those pruned
    print(table.nlargest(10, "value").to_string(index=False))
    print("\nimportance", pd.Series(optuna.importance.get_param_importances(study)).round(2).to_string(), sep="\n")
    Path("best.yaml").write_text(json.dumps(study.best_params))
    print("best.yaml: the best settings; train with --config best.yaml")


def main() -> None:
    """Run a command; a fault that the user can put right ends it with one line and exit status 2."""
    try:
        auto_cli([train, predict, evaluate, sweep], prog="python -m challenge")
    except (ChallengeError, OSError, ValidationError) as error:
        faults = error.errors() if isinstance(error, ValidationError) else []
        complaint = "; ".join(f"{fault['loc'][0]}: {fault['msg']}, not {fault['input']!r}" for fault in faults)
        ArgumentParser().exit(2, f"error: {complaint or getattr(error, 'detail', error)}\n")


if __name__ == "__main__":
    main()

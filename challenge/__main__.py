"""The commands of python -m challenge; `train --help` lists every setting."""

import json
import re
import sys
from pathlib import Path
from typing import Any, cast

from jsonargparse import ArgumentError, ArgumentParser, auto_cli
from pydantic import NonNegativeInt, TypeAdapter, ValidationError

from challenge.model import RANKS, Classifier, score
from challenge.movies import read_movies
from challenge.settings import ChallengeError, Settings
from challenge.sweep import sweep


def train(films: str, model: Path = Path("model.pt"), **options: Any) -> None:
    """Learn the genres of films from their synopses; films without genres are left out.

    Parameters
    ----------
    films
        CSV file with columns movie_id, synopsis and genres; .csv.gz works too.
    model
        Where to save what was learnt.
    **options
        The settings.
    """
    movies, left_out = read_movies(Path(films).read_bytes(), films, labelled=True)
    classifier = Classifier.learn(movies["synopsis"], movies["genres"], Settings(**options))
    classifier.save(model)
    print(f"{model}: {len(classifier.labels)} genres, {len(movies)} films; left out {left_out}", file=sys.stderr)


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
    movies, _ = read_movies(Path(table).read_bytes(), table, labelled=False)
    rankings = Classifier.load(model).rank(movies["synopsis"], RANKS)
    output.write_text(json.dumps({movie: dict(enumerate(top)) for movie, top in zip(movies.index, rankings)}))


def evaluate(table: str, submission: Path) -> None:
    """Print the scores of rankings, the mean average precision at five (MAP@5) last, after the figures of each genre.

    Parameters
    ----------
    table
        CSV file with columns movie_id, synopsis and genres; .csv.gz works too.
    submission
        What `predict` wrote.
    """
    movies, left_out = read_movies(Path(table).read_bytes(), table, labelled=True)
    try:
        rankings = TypeAdapter(dict[str, dict[NonNegativeInt, str]]).validate_json(submission.read_bytes())
        ranked = [[genre for _, genre in sorted(rankings[movie].items())] for movie in movies.index]
    except (KeyError, ValidationError) as error:
        raise ChallengeError(f"{submission}: does not rank each film of {table}: {error}") from error
    scores, genres = score(movies["genres"], ranked)
    print(genres.round(3).to_string(), f"left out {left_out}", *(f"{k} {v:.4f}" for k, v in scores.items()), sep="\n")


if __name__ == "__main__":
    cast(Any, sys.stdout).reconfigure(errors="backslashreplace")  # a genre may have letters that a terminal lacks
    try:
        auto_cli([train, predict, evaluate, sweep], prog="python -m challenge", exit_on_error=False, allow_abbrev=False)
    except (ArgumentError, ChallengeError, KeyboardInterrupt, OSError) as error:
        message = " ".join(f"error: {str(error) or 'stopped'}".split())
        # Without what pydantic adds to its messages
        ArgumentParser().exit(2, re.sub(r" \d+ validation errors? for \S+| \[type=.*?/v/\w+", "", message) + "\n")

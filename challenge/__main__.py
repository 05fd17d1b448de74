"""The commands of python -m challenge; `train --help` lists every setting."""

import json
import re
import sys
from pathlib import Path
from typing import Any, cast
from unicodedata import normalize

from jsonargparse import ArgumentError, ArgumentParser, auto_cli
from pydantic import NonNegativeInt, TypeAdapter

from challenge.model import RANKS, Classifier, hold_out, score
from challenge.movies import read_movies, refuse_overwriting, write_file
from challenge.settings import ChallengeError, Settings
from challenge.sweep import sweep


def train(films: str, model: Path = Path("model.pt"), **options: Any) -> None:
    """Learn the genres of films from their synopses; films without genres are left out.

    Parameters
    ----------
    films
        CSV file with the columns synopsis and genres; .csv.gz works too.
    model
        Where to save what was learnt.
    **options
        The settings.
    """
    settings = Settings(**options)
    refuse_overwriting(model, Path(films))
    movies, left_out = read_movies(Path(films).read_bytes(), films, labelled=True, columns=settings.columns)
    classifier = Classifier.learn(movies["synopsis"], movies["genres"], settings)
    classifier.save(model)
    print(f"{model}: {len(classifier.labels)} genres, {len(movies)} films; left out {left_out}", file=sys.stderr)
    more = f" and {len(classifier.labels) - 20} more" if len(classifier.labels) > 20 else ""
    print(f"genres: {', '.join(classifier.labels[:20])}{more}", file=sys.stderr)
    scores = hold_out(movies, 0, 10, settings) if settings.held_out else {}
    for name, value in scores.items():
        print(f"{name} {value:.4f}")


def predict(table: str, model: Path = Path("model.pt"), output: Path = Path("submission.json")) -> None:
    """Rank the five most probable genres of films.

    Parameters
    ----------
    table
        CSV file with the columns movie_id and synopsis, or those that the model has learnt from; .csv.gz works too.
    model
        What `train` saved.
    output
        Where to write the rankings, as JSON.
    """
    refuse_overwriting(output, Path(table), model)
    classifier = Classifier.load(model)
    movies, _ = read_movies(Path(table).read_bytes(), table, labelled=False, columns=classifier.settings.columns)
    rankings = classifier.rank(movies["synopsis"], RANKS)
    submission = {movie: dict(enumerate(top)) for movie, top in zip(movies.index, rankings)}
    write_file(output, json.dumps(submission).encode())


def read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of a JSON file, in which no name may come twice; texts in it in Unicode's form NFC."""
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a film, or a rank of a film, is there twice")
    return {name: normalize("NFC", value) if isinstance(value, str) else value for name, value in pairs}


def evaluate(table: str, submission: Path) -> None:
    """Print the scores of rankings, the mean average precision at five (MAP@5) last, after the figures of each genre.

    Parameters
    ----------
    table
        CSV file with the columns movie_id and genres; .csv.gz works too.
    submission
        What `predict` wrote.
    """
    # No text is needed, and the genres are there anyway
    movies, left_out = read_movies(Path(table).read_bytes(), table, labelled=True, columns="genres")
    try:
        content = json.loads(submission.read_bytes(), object_pairs_hook=read_object)
        rankings = TypeAdapter(dict[str, dict[NonNegativeInt, str]]).validate_python(content)
        # A gap among the ranks stays one: the number that stands for it is no genre
        ranked = [[rankings[movie].get(rank, rank) for rank in range(RANKS)] for movie in movies.index]
    except (KeyError, RecursionError, ValueError) as error:
        raise ChallengeError(f"{submission}: does not rank each film of {table}: {error}") from error
    scores, genres = score(movies["genres"], ranked)
    print(f"{genres.round(3).to_string()}\nleft out {left_out}")
    for name, value in scores.items():
        print(f"{name} {value:.4f}")


if __name__ == "__main__":
    cast(Any, sys.stdout).reconfigure(errors="backslashreplace")  # a genre may have letters that a terminal lacks
    try:
        auto_cli([train, predict, evaluate, sweep], prog="python -m challenge", exit_on_error=False, allow_abbrev=False)
    except (ArgumentError, ChallengeError, KeyboardInterrupt, OSError, UnicodeDecodeError) as error:
        reason = "the file of --config is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        message = " ".join(f"error: {reason or 'stopped'}".split())
        message = re.sub(r"(://[^:/\s]*):\S*@", r"\1:***@", message)  # the password in a URL
        # Without what pydantic adds to its messages
        ArgumentParser().exit(2, re.sub(r" \d+ validation errors? for \S+| \[type=.*?/v/\w+", "", message) + "\n")

"""The commands of python -m challenge; `train --help` lists every setting."""

import json
import sys
from pathlib import Path
from typing import Any

import uvicorn
from jsonargparse import auto_cli
from pydantic import TypeAdapter, ValidationError

from challenge.model import Classifier
from challenge.movies import RANKS, judge, read_movies, to_submission
from challenge.settings import ChallengeError, Settings


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
    settings = Settings(**options)
    movies = read_movies(str(films), str(films), labelled=True)
    classifier = Classifier.learn(movies["synopsis"], movies["genres"], settings)
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
    movies = read_movies(str(films), str(films), labelled=False)
    rankings = Classifier.load(model).rank(movies["synopsis"], RANKS)
    output.write_text(json.dumps(to_submission(movies, rankings)))
    print(f"{output}: ranked the genres of {len(movies)} films")


def evaluate(films: Path, submission: Path) -> None:
    """Print the scores of rankings, the mean average precision at five (MAP@5) last, after the figures of each genre.

    Parameters
    ----------
    films
        CSV file with columns movie_id and genres.
    submission
        What `predict` wrote.
    """
    try:
        rankings = TypeAdapter(dict[str, dict[str, str]]).validate_json(submission.read_bytes())
    except ValidationError as error:
        raise ChallengeError(f"{submission}: not what predict writes: {error.errors()[0]['msg']}") from error
    scores, per_genre = judge(read_movies(str(films), str(films), labelled=True), rankings)
    totals = "\n".join(f"{name} {score:.4f}" for name, score in scores.items())
    print(per_genre.to_string(float_format="{:.3f}".format), totals, sep="\n\n")


def serve(host: str = "127.0.0.1", port: int = 9876) -> None:
    """Serve training and prediction over HTTP; CHALLENGE_MODEL names the model file, model.pt where it is not set.

    Parameters
    ----------
    host
        Address to listen on.
    port
        Port to listen on.
    """
    uvicorn.run("challenge:app", host=host, port=port)


def main() -> None:
    """Run a command; a fault that the user can put right ends it with one line and exit status 2."""
    try:
        auto_cli([train, predict, evaluate, serve], prog="python -m challenge")
    except (ChallengeError, OSError, ValidationError) as error:
        faults = error.errors() if isinstance(error, ValidationError) else []
        complaint = "; ".join(f"{fault['loc'][0]}: {fault['msg']}, not {fault['input']!r}" for fault in faults)
        print(f"error: {complaint or error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

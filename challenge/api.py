"""The service: train on a CSV file of films, predict the genres of another.

The model is the file that the environment variable CHALLENGE_MODEL names, or `model.pt`. It is read anew when it has
changed, so that every worker, and a server started again, serves what was trained last.
"""

import os
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, Request, UploadFile
from fastapi.responses import JSONResponse

from challenge.model import Classifier
from challenge.movies import RANKS, read_movies, to_submission
from challenge.settings import ChallengeError, Settings

app = FastAPI(title="challenge", summary="Learns the genres of films from their synopses.", description=__doc__)

MODEL = Path(os.environ.get("CHALLENGE_MODEL", "model.pt"))
TRAINED = {"films": 840, "genres": ["Action", "Comedy", "Drama"]}
PREDICTED = {"155": {"0": "Thriller", "1": "Crime", "2": "Drama", "3": "Action", "4": "Mystery"}}


@lru_cache(maxsize=1)
def load(path: Path, modified: int) -> Classifier:
    """Return the model as of this time of modification, read once."""
    return Classifier.load(path)


@app.exception_handler(ChallengeError)
def refuse(_: Request, error: Exception) -> JSONResponse:
    """Answer a fault that the client can put right."""
    return JSONResponse({"detail": str(error)}, getattr(error, "status", 422))


@app.post("/genres/train", responses={200: {"content": {"application/json": {"example": TRAINED}}}})
def train(file: UploadFile, settings: Annotated[Settings, Depends()]) -> dict[str, int | list[str]]:
    """Train on a CSV file with columns movie_id, synopsis and genres, and save the model.

    Genres are separated by spaces; films without any are left out. Other columns are let be. For example:

        movie_id,year,synopsis,genres
        17,1959,"A heist goes wrong, and a cellist pays.",Crime Drama
        18,1962,Two rival puppeteers must share one van.,Comedy

    The settings of the training are query parameters.
    """
    movies = read_movies(file.file, file.filename or "file", labelled=True)
    classifier = Classifier.learn(movies["synopsis"], movies["genres"], settings)
    classifier.save(MODEL)
    return {"films": len(movies), "genres": classifier.labels}


@app.post("/genres/predict", responses={200: {"content": {"application/json": {"example": PREDICTED}}}})
def predict(file: UploadFile) -> dict[str, dict[str, str]]:
    """Rank the five most probable genres of each film of a CSV file with columns movie_id and synopsis.

    Other columns are let be. For example:

        movie_id,synopsis
        155,A masked burglar returns what he stole.

    The answer has the films in the order of the rows, and the best genre of each under "0".
    """
    movies = read_movies(file.file, file.filename or "file", labelled=False)
    classifier = load(MODEL, MODEL.stat().st_mtime_ns if MODEL.exists() else 0)
    return to_submission(movies, classifier.rank(movies["synopsis"], RANKS))

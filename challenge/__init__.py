"""Genres of films from their synopses: a fastText-style classifier in pure PyTorch, and its service.

    uvicorn challenge:app --port 9876       the service, its page at /, its description at /docs
    python -m challenge --help              the commands

Data flows once: a table of films (`movies`), hashed bags, logits and ranked genres (`model`). The service below and the
commands (`__main__`) stand on these, and all of them on `settings`. The service reads the environment variables

    CHALLENGE_MODEL     the model file; model.pt where it is not set
    CHALLENGE_HOSTS     the names under which browsers may reach the service, with spaces between; those of this machine
    CHALLENGE_UPLOAD    bytes of the largest upload; 1 GiB
    CHALLENGE_TOKEN     what a training needs in its header, as in "Authorization: Bearer …"; nothing

It reads the model anew when the file has changed, so that every worker, and a server started again, serves what was
trained last. One training runs at a time; predictions are answered meanwhile, by the former model.
"""

import os
from functools import lru_cache
from hmac import compare_digest
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, UploadFile
from fastapi.staticfiles import StaticFiles
from filelock import FileLock, Timeout

from challenge.model import Classifier
from challenge.movies import RANKS, read_movies, to_submission
from challenge.settings import ChallengeError, Settings

MODEL = Path(os.environ.get("CHALLENGE_MODEL", "model.pt"))
TOKEN = os.environ.get("CHALLENGE_TOKEN")
HOSTS = os.environ.get("CHALLENGE_HOSTS", "localhost 127.0.0.1 0.0.0.0 ::1").split()
UPLOAD = int(os.environ.get("CHALLENGE_UPLOAD", 2**30))


def guard(request: Request) -> None:
    """Refuse what the pages of other sites send, whatever name they call this machine by; others send no origin."""
    origin = request.headers.get("origin", "")
    if origin and (request.url.hostname not in HOSTS or not origin.endswith(f"//{request.url.netloc}")):
        raise ChallengeError(403, f"a page of {origin} may not use this service; CHALLENGE_HOSTS says which may")


app = FastAPI(title="challenge", description=__doc__, dependencies=[Depends(guard)], max_body_size=UPLOAD)


@lru_cache(maxsize=1)
def load(modified: int) -> Classifier:
    """Return the model as of this time of modification, read once."""
    return Classifier.load(MODEL)


def current() -> Classifier:
    """Return the model that was saved last."""
    return load(MODEL.stat().st_mtime_ns if MODEL.exists() else 0)


@app.post("/genres/train")
def train(request: Request, file: UploadFile, settings: Annotated[Settings, Query()]) -> dict[str, Any]:
    """Train on a CSV file with columns movie_id, synopsis and genres, and save the model.

    Genres are separated by spaces, by | or by commas; films without any are left out. Other columns are ignored. The
    columns may also be separated by semicolons or tabs, and the file may be compressed by gzip. For example:

        movie_id,year,synopsis,genres
        17,1959,"A heist goes wrong, and a cellist pays.",Crime Drama
        18,1962,Two rival puppeteers must share one van.,Comedy

    The settings of the training are query parameters. The answer counts the films and names the genres:

        {"films": 2, "left_out": 0, "genres": ["Comedy", "Crime", "Drama"]}
    """
    if TOKEN and not compare_digest(request.headers.get("authorization", "").encode(), f"Bearer {TOKEN}".encode()):
        raise ChallengeError(401, "training needs the header 'Authorization: Bearer …', with the token of this service")
    movies, left_out = read_movies(file.file.read(), file.filename or "file", labelled=True)
    try:
        with FileLock(f"{MODEL}.lock", timeout=0):
            classifier = Classifier.learn(movies["synopsis"], movies["genres"], settings)
            classifier.save(MODEL)
    except Timeout as error:
        raise ChallengeError(409, "another training is running; try again when it has ended") from error
    return {"films": len(movies), "left_out": left_out, "genres": classifier.labels}


@app.post("/genres/predict")
def predict(file: UploadFile, explain: bool = False) -> dict[str, Any]:
    """Rank the five most probable genres of each film of a CSV file with columns movie_id and synopsis.

    Other columns are ignored. For example:

        movie_id,synopsis
        155,A masked burglar returns what he stole.

    The answer has the films in the order of the rows, and the best genre of each under "0":

        {"155": {"0": "Thriller", "1": "Crime", "2": "Drama", "3": "Action", "4": "Mystery"}}

    With explain=true it tells what each word, and each pair of neighbouring words, adds to the logits of these genres,
    the best first; "(start)" stands before the first word. A genre's figures sum to its logit, and
    1 / (1 + exp(-logit)) is its probability:

        {"155": {"Thriller": {"a": -0.13, "masked": 0.33, "a masked": 0.05, "(bias)": -2.03}, "Crime": {}}}
    """
    (movies, _), classifier = read_movies(file.file.read(), file.filename or "file", labelled=False), current()
    if explain:
        return dict(zip(movies.index, classifier.explain(movies["synopsis"], RANKS)))
    return to_submission(movies.index, classifier.rank(movies["synopsis"], RANKS))


@app.get("/health")
def health() -> dict[str, Any]:
    """Tell which model is served: when it was saved (seconds since 1970), its genres, the settings of its training."""
    classifier = current()
    return {"genres": classifier.labels, "settings": classifier.settings, "saved": MODEL.stat().st_mtime}


app.mount("/", StaticFiles(directory=Path(__file__).with_name("web"), html=True))

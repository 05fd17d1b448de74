"""The service: films in, ranked genres out, over HTTP and on a page; errors become statuses here.

It reads the environment variables

    CHALLENGE_MODEL     the model file; default: model.pt
    CHALLENGE_HOSTS     the names under which browsers may reach the service, separated by spaces; default: this machine
    CHALLENGE_TOKEN     what a training needs in its header, as in "Authorization: Bearer …"; default: nothing

It reads the model anew when the file has changed, so that every worker, and a server started again, serves what was
trained last. One training runs at a time; predictions are answered meanwhile, by the former model. An upload of more
than 1 GiB is refused.
"""

import os
from contextlib import suppress
from functools import lru_cache
from hmac import compare_digest
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Query, Request, Response, UploadFile, concurrency, responses
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi_offline import FastAPIOffline
from filelock import FileLock, Timeout

from challenge.model import RANKS, Classifier, hold_out, score
from challenge.movies import LIMIT, read_movies
from challenge.settings import ChallengeError, NoModelError, Settings

MODEL = Path(os.environ.get("CHALLENGE_MODEL") or "model.pt").expanduser()
TOKEN = os.environ.get("CHALLENGE_TOKEN", "").strip()
HOSTS = (os.environ.get("CHALLENGE_HOSTS") or "localhost 127.0.0.1 0.0.0.0 ::1").lower().split()
LOCK = FileLock(f"{MODEL}.lock", timeout=0.1)  # seconds; `health` holds it for less

# What the form holds, for the service's description
FORM = {"encoding": {"file": {"contentType": "text/csv"}}, "example": {"file": "movie_id,synopsis,genres\n1,War.,War"}}
TABLE = {"requestBody": {"content": {"multipart/form-data": FORM}}}


def answer_error(request: Request, error: Exception) -> responses.JSONResponse:
    """Answer an error that people can put right."""
    busy = "another training is running; try again when it has ended"
    status = 409 if isinstance(error, (NoModelError, Timeout)) else 422 if isinstance(error, ChallengeError) else 507
    return responses.JSONResponse({"detail": busy if isinstance(error, Timeout) else str(error)}, status)


async def guard(request: Request, response: Response) -> None:
    """Refuse what the pages of other sites send, whatever name they call this machine by; others send no origin.

    Nor may other sites show the page in a frame.
    """
    response.headers["X-Frame-Options"] = "DENY"
    origin = request.headers.get("origin", "")
    if origin and (request.url.hostname not in HOSTS or not origin.endswith(f"//{request.url.netloc}")):
        raise HTTPException(403, f"a page of {origin} may not use {request.url.netloc}; CHALLENGE_HOSTS says which may")


def authorize(bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]) -> None:
    """Refuse a request without the token of this service."""
    if not (bearer and compare_digest(bearer.credentials.encode("latin-1"), TOKEN.encode())):
        raise HTTPException(401, "training needs 'Authorization: Bearer TOKEN'", {"WWW-Authenticate": "Bearer"})


app = FastAPIOffline(
    title="challenge",
    dependencies=[Depends(guard)],
    max_body_size=LIMIT,
    form_limits={"max_files": 1},
    exception_handlers=dict.fromkeys((ChallengeError, OSError), answer_error),
    responses={status: {"description": "Refused; `detail` says why"} for status in (400, 401, 403, 409, 413, 422, 507)},
)


@lru_cache(maxsize=1)
def load(changed: int) -> Classifier:
    """Return the model as of this time of change, read once."""
    return Classifier.load(MODEL)


def current() -> Classifier:
    """Return the model that was saved last."""
    # The time of change, unlike that of modification, can't be set by a program that copies or moves a file here
    return load(MODEL.stat().st_ctime_ns if MODEL.exists() else 0)


@app.post("/genres/train", openapi_extra=TABLE, dependencies=[Depends(authorize)] if TOKEN else [])
def train(file: UploadFile, settings: Annotated[Settings, Query()]) -> dict[str, Any]:
    """Train on a CSV file with columns synopsis and genres, and save the model.

    Genres are separated by spaces, commas, semicolons or |, whichever most films have, or are lists of JSON; films
    without any are left out. `columns` names what is read as a film's text, where that is not `synopsis` and `year`.
    The columns may also be separated by semicolons, tabs or |, and the file may be compressed by gzip, or be in the
    format of fastText. For example:

        movie_id,year,synopsis,genres
        17,1959,"A heist goes wrong, and a cellist pays.",Crime Drama
        18,1962,Two rival puppeteers must share one van.,Comedy

    The settings of the training are query parameters. The answer counts the films and names the genres:

        {"films": 2, "left_out": 0, "genres": ["Comedy", "Crime", "Drama"]}

    With held_out=true, which takes twice as long, it also tells what such a model is worth: another one
    learns from nine tenths of the films, and its P@1, R@5 and MAP@5 are those on the other tenth. Films with the same
    text are on the same side. Of one text nothing can be held out.
    """
    movies, left_out = read_movies(file.file.read(), file.filename or "file", True, settings.columns)
    with LOCK:
        Path(LOCK.lock_file).touch()
        classifier = Classifier.learn(movies["synopsis"], movies["genres"], settings)
        classifier.save(MODEL)
        scores = hold_out(movies, 0, 10, settings) if settings.held_out and movies["synopsis"].nunique() > 1 else {}
    return {"films": len(movies), "left_out": left_out, "genres": classifier.labels, **scores}


@app.post("/genres/evaluate", openapi_extra=TABLE)
def evaluate(file: UploadFile) -> dict[str, Any]:
    """Tell how good the model is, on a CSV file with genres and the columns that the model has learnt from.

    The films should be others than it has learnt from. Those without genres are left out. The answer has the mean
    average precision (MAP@5), the precision of the first genre (P@1), the recall of the first five (R@5), and for each
    genre its number of films and their MAP@5, the most frequent first:

        {"films": 2, "left_out": 0, "P@1": 0.5, "R@5": 1.0, "MAP@5": 0.75,
         "genres": {"Drama": {"films": 2, "map_at_5": 0.75}, "Crime": {"films": 1, "map_at_5": 1.0}}}
    """
    classifier = current()
    movies, left_out = read_movies(file.file.read(), file.filename or "file", True, classifier.settings.columns)
    scores, per_genre = score(movies["genres"], classifier.rank(movies["synopsis"], RANKS))
    return {"films": len(movies), "left_out": left_out, **scores, "genres": per_genre.to_dict("index")}


@app.post("/genres/predict", openapi_extra=TABLE)
async def predict(file: UploadFile, explain: bool = False) -> Response:
    """Rank the five most probable genres of each film of a CSV file with columns movie_id and synopsis.

    In place of `synopsis` there may be the columns that the model has learnt from. For example:

        movie_id,synopsis
        155,A masked burglar returns what he stole.

    The answer has the films in the order of the rows, and the best genre of each under "0":

        {"155": {"0": "Thriller", "1": "Crime", "2": "Drama", "3": "Action", "4": "Mystery"}}

    With explain=true it tells what each word, and each pair of neighbouring words, adds to the logits of these genres,
    the best first; "(start)" stands before the first word. A genre's figures sum to its logit, and
    1 / (1 + exp(-logit)) is its probability:

        {"155": {"Thriller": {"a": -0.13, "masked": 0.33, "a masked": 0.05, "(bias)": -2.03}, "Crime": {}}}
    """
    content = await file.read()

    def answer() -> Response:
        classifier = current()
        movies, _ = read_movies(content, file.filename or "file", False, classifier.settings.columns)
        answers = (classifier.explain if explain else classifier.rank)(movies["synopsis"], RANKS)
        films = {movie: answer if explain else dict(enumerate(answer)) for movie, answer in zip(movies.index, answers)}
        return responses.JSONResponse(films)

    # A thread costs more than a few films; what is longer, or packed, must not keep other requests waiting
    if len(content) < 4096 and not content.startswith(b"\x1f\x8b"):
        return answer()
    return await concurrency.run_in_threadpool(answer)


@app.head("/health", include_in_schema=False)
@app.get("/health")
def health() -> dict[str, Any]:
    """Tell which model is served: the time of its file (seconds since 1970), its genres, the settings of its training.

    And since when a training runs, in the same seconds; null, if none does.
    """
    state = {"genres": current().labels, "settings": current().settings, "saved": MODEL.stat().st_mtime}
    with suppress(OSError), LOCK:
        return {**state, "training_since": None}
    # A training has the lock, or none may take it: then none runs
    return {**state, "training_since": os.path.getmtime(LOCK.lock_file) if os.access(LOCK.lock_file, os.W_OK) else None}


app.frontend("/", directory=Path(__file__).with_name("web"), fallback=None)

"""The service: it ranks the genres of films, over HTTP and on a page. Errors become HTTP statuses here.

It reads the environment variables

    CHALLENGE_MODEL     the model file; default: model.pt; its folder is made if it is missing
    CHALLENGE_HOSTS     the names under which browsers may reach the service, separated by spaces; default: this machine
    CHALLENGE_TOKEN     the token that a training must send, in the header "Authorization: Bearer …"; default: none

It reads the model again when the file has changed. So every worker, and a restarted server, serves the latest model.
Only one training runs at a time. Meanwhile, predictions use the former model. Each process works on three predictions
and evaluations at once, and others wait. An upload of more than 1 GiB is refused.
"""

import os
from functools import lru_cache, partial
from hmac import compare_digest
from pathlib import Path
from typing import Annotated, Any, Iterator

from fastapi import Depends, HTTPException, Query, Request, Response, UploadFile, responses
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi_offline import FastAPIOffline
from filelock import FileLock, Timeout

from challenge.model import Classifier, rank_file, score, train_file
from challenge.movies import LIMIT, read_movies
from challenge.settings import RANKS, Answer, ChallengeError, NoModelError, Options, Settings

MODEL = Path(os.environ.get("CHALLENGE_MODEL") or "model.pt").expanduser()
TOKEN = os.environ.get("CHALLENGE_TOKEN", "").strip()
HOSTS = (os.environ.get("CHALLENGE_HOSTS") or "localhost 127.0.0.1 0.0.0.0 ::1").lower().split()
LOCK = FileLock(f"{MODEL}.lock", timeout=0.1, poll_interval=0.005)  # seconds; `health` holds it for less


# The status of each kind of error; the most specific kind counts
STATUSES = {NoModelError: 409, Timeout: 409, ChallengeError: 422, OSError: 507}


def answer_error(status: int, request: Request, error: Exception) -> responses.JSONResponse:
    """Answer an error that the user can correct."""
    detail = "another training is running; try again when it has ended" if isinstance(error, Timeout) else str(error)
    return responses.JSONResponse({"detail": detail}, status)


async def guard(request: Request, response: Response) -> None:
    """Refuse requests with the origin of another site, or of a page that calls this machine by another name.

    Browsers send the origin of a page with each POST, and with each read of another site by a script. Other reads have
    no origin, and are answered under any name; they change nothing. Programs that are no browsers send no origin
    either. Other sites may not show the page in a frame.
    """
    response.headers["X-Frame-Options"] = "DENY"
    origin = request.headers.get("origin", "")
    # Browsers write an origin in lower case, and without a default port
    host = request.url.netloc.lower().removesuffix(":443").removesuffix(":80")
    if origin and (request.url.hostname not in HOSTS or not origin.endswith(f"//{host}")):
        raise HTTPException(403, f"a page of {origin} may not use {host}; CHALLENGE_HOSTS says which may")


def authorize(bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]) -> None:
    """Refuse a request without the token of this service."""
    # Headers are decoded as Latin-1
    if not (bearer and compare_digest(bearer.credentials.encode("latin-1"), os.fsencode(TOKEN))):
        raise HTTPException(401, "training needs 'Authorization: Bearer TOKEN'", {"WWW-Authenticate": "Bearer"})


app = FastAPIOffline(
    title="challenge",
    dependencies=[Depends(guard)],
    max_body_size=LIMIT,
    form_limits={"max_files": 1, "max_fields": 0},
    exception_handlers={kind: partial(answer_error, status) for kind, status in STATUSES.items()},
    responses={status: {"description": "Refused; `detail` says why"} for status in (400, 401, 403, 409, 413, 422, 507)},
)


@lru_cache(maxsize=1)
def load(changed: int) -> Classifier:
    """Return the model, which is read again only if the file's time of change (`st_ctime_ns`) is another one.

    Unlike the time of modification, it can't be set by a program that copies or moves a file here.
    """
    return Classifier.load(MODEL)


def lend_model() -> Iterator[Classifier]:
    """Lend the latest model for the time of a request."""
    # With return in place of yield, the limit of requests would not count the time after this function
    yield load(MODEL.stat().st_ctime_ns if os.path.exists(MODEL) else 0)


# More at once would not be faster, since Python code runs in one thread at a time, and each takes memory
LatestModel = Annotated[Classifier, Depends(lend_model, max_concurrency=3)]


@app.post("/genres/train", dependencies=[Depends(authorize)] if TOKEN else [])
def train(file: UploadFile, settings: Annotated[Settings, Query()]) -> dict[str, Any]:
    """Train on a CSV file with columns synopsis and genres, and save the model.

    Genres are separated by spaces, commas, semicolons or |, whichever most films have, or are lists in JSON or Python;
    films without genres are left out. `columns` names the columns of a film's text; the default is `synopsis` and
    `year`. The columns may also be separated by semicolons, tabs or |, and the file may be compressed by gzip, or be in
    the format of fastText. For example:

        movie_id,year,synopsis,genres
        17,1959,"A heist goes wrong, and a cellist pays.",Crime Drama
        18,1962,Two rival puppeteers must share one van.,Comedy

    The settings of the training are query parameters; `python -m challenge train --help` explains them. The answer
    counts the films and names the genres:

        {"films": 2, "left_out": 0, "genres": ["Comedy", "Crime", "Drama"]}

    With held_out=true, a second model learns from nine tenths of the films. The answer then has its scores on the other
    tenth: P@1, R@5 and MAP@5. This takes about twice as long. Films with the same text are never on both sides. If all
    films have the same text, nothing can be held out, and there are no scores.
    """
    with LOCK:
        Path(LOCK.lock_file).touch()
        return train_file(file.file.read(), file.filename or "file", settings, MODEL)


@app.post("/genres/evaluate")
def evaluate(file: UploadFile, classifier: LatestModel, options: Annotated[Options, Query()]) -> dict[str, Any]:
    """Score the model on a CSV file with genres and the columns that the model was trained on.

    The model should not have learnt from these films. Films without genres are left out. The answer has the precision
    of the first genre (P@1), the recall of the first five (R@5), and the mean average precision (MAP@5). It also has,
    for each genre, the number of its films and their MAP@5, with the most frequent genre first:

        {"films": 2, "left_out": 0, "P@1": 0.5, "R@5": 1.0, "MAP@5": 0.75,
         "genres": {"Drama": {"films": 2, "map_at_5": 0.75}, "Crime": {"films": 1, "map_at_5": 1.0}}}
    """
    movies, left_out = read_movies(file.file.read(), file.filename or "file", True, classifier.settings.columns)
    scores, per_genre = score(movies["genres"], classifier.rank(movies["synopsis"], RANKS))
    return {"films": len(movies), "left_out": left_out, **scores, "genres": per_genre.to_dict("index")}


@app.post("/genres/predict")
def predict(file: UploadFile, classifier: LatestModel, options: Annotated[Answer, Query()]) -> Response:
    """Rank the most probable genres of each film of a CSV file with columns movie_id and synopsis.

    The columns that the model was trained on may replace `synopsis`. For example:

        movie_id,synopsis
        155,A masked burglar returns what he stole.

    The answer has the films in the order of the rows, and the best genre of each under "0":

        {"155": {"0": "Thriller", "1": "Crime", "2": "Drama", "3": "Action", "4": "Mystery"}}

    It has five genres for each film, or `k`, or all if there are fewer. With probabilities=true each genre comes with
    its probability, with the best genre first. These need not sum to 1, since a film may have several genres:

        {"155": {"Thriller": 0.62, "Crime": 0.41, "Drama": 0.33, "Action": 0.2, "Mystery": 0.14}}

    With explain=true the answer has what each word, and each pair of neighbouring words, adds to the logits of these
    genres. "(start)" is before the first word. The terms of a genre sum to its logit, and 1 / (1 + exp(-logit)) is its
    probability. One request can explain about a thousand films: the number of characters, and 100 for each film, times
    the number of genres that the model knows, may be at most 10 million:

        {"155": {"Thriller": {"a": -0.13, "masked": 0.33, …, "a masked": 0.05, …, "(bias)": -2.03}, "Crime": …, …}}
    """
    return responses.JSONResponse(rank_file(file.file.read(), file.filename or "file", classifier, options))


@app.head("/health", include_in_schema=False)
@app.get("/health")
def health(options: Annotated[Options, Query()]) -> dict[str, Any]:
    """Describe the current model: its genres, its settings, and when it was saved (in seconds since 1970).

    Before the first training there are no genres, and `settings` and `saved` are null. `training_since` says when the
    running training began, also in seconds since 1970. It is null if none is running. If the model file can't be read,
    or has no model, the status is 409.
    """
    state: dict[str, Any] = {"genres": [], "settings": None, "saved": None, "training_since": None}
    if os.path.exists(MODEL):
        classifier = load(MODEL.stat().st_ctime_ns)
        state |= {"genres": classifier.labels, "settings": classifier.settings, "saved": MODEL.stat().st_mtime}
    try:
        with LOCK:
            pass
    except Timeout:  # a training has the lock
        state["training_since"] = os.path.getmtime(LOCK.lock_file)
    except OSError:  # nobody can take the lock, so no training runs
        pass
    return state


app.frontend("/", directory=Path(__file__).with_name("web"), fallback=None)

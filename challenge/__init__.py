"""Genres of films from their synopses: a fastText-style classifier in pure PyTorch, served by FastAPI.

    uvicorn challenge:app --port 9876       the service
    python -m challenge --help              the commands

Data flows once: a table of films (`movies`), hashed bags (`text`), logits and ranked genres (`model`). `api` and
`__main__` stand on these, and all of them on `settings`.
"""

from challenge.api import app
from challenge.model import Classifier
from challenge.movies import read_movies
from challenge.settings import ChallengeError, Settings

__all__ = ["ChallengeError", "Classifier", "Settings", "app", "read_movies"]

"""Genres of films from their synopses: a fastText-style classifier in pure PyTorch, and its service.

    uvicorn challenge:app --port 9876       the service, its page at /, its description at /docs
    python -m challenge --help              the commands

Data flows one way: a table of films (`movies`), hashed bags (`text`), logits and ranked genres (`model`). The service
(`service`) and the commands (`__main__`) use these modules, and all of them use `settings`.
"""

from importlib import import_module


def __getattr__(name: str) -> object:
    """Return a name of the service, such as `app`.

    The service is imported only then, since the commands do not need it. `from challenge import movies` imports it too,
    unlike `from challenge.movies import read_movies`.
    """
    return getattr(import_module("challenge.service"), name)

"""Genres of films from their synopses: a fastText-style classifier in pure PyTorch, and its service.

    uvicorn challenge:app --port 9876       the service, its page at /, its description at /docs
    python -m challenge --help              the commands

Data flows once: a table of films (`movies`), hashed bags (`text`), logits and ranked genres (`model`). The service
(`service`) and the commands (`__main__`) stand on these, and all of them on `settings`.
"""

from importlib import import_module


def __getattr__(name: str) -> object:
    """Return a name of the service, `app` above all; it is imported only then, since the commands do without it."""
    return getattr(import_module("challenge.service"), name)

"""Every option of the product, declared once, and the error that people see.

`Settings` serves Python, the command line, the service and the model file alike. Values out of range are refused where
they enter, by name.
"""

from functools import partial
from typing import Annotated, Literal, get_args

from fastapi import HTTPException
from optuna import Trial
from pydantic import Field
from pydantic.dataclasses import dataclass


class ChallengeError(HTTPException):
    """A fault that the user can put right: `detail` says how, in one line, and the service answers `status_code`."""


@dataclass(frozen=True)
class Settings:
    """How texts become bags, and how the model learns.

    Attributes
    ----------
    ngram
        Number of characters in the n-grams of words, marks of beginning and end included; short ones forgive more.
    min_count
        Features seen in fewer training texts than this are left out.
    max_features
        Of the other features, the most frequent ones are kept, up to this many.
    idf
        Exponent of the inverse document frequency in a feature's weight; 0 weighs all features alike.
    smoothing
        Added to the summed weights that the table starts at the log-odds of; more of it quiets what is rare.
    epochs
        Passes over the training texts; 0 keeps the naive Bayes start.
    batch_size
        Texts a step, at most; few texts make smaller batches, so that there are steps enough.
    learning_rate
        Step size of Adagrad at the first step; it falls linearly to zero.
    seed
        Seed of the order of the training texts.
    device
        Where to compute: "auto" takes a GPU where there is one, "cpu" never.
    """

    ngram: Annotated[int, Field(ge=3, le=20), partial(Trial.suggest_int, low=3, high=7)] = 5
    min_count: Annotated[int, Field(ge=1)] = 2
    max_features: Annotated[int, Field(ge=1)] = 100_000
    idf: Annotated[float, Field(ge=0, le=4), partial(Trial.suggest_float, low=0, high=1)] = 0.5
    smoothing: Annotated[float, Field(gt=0, le=1e6), partial(Trial.suggest_float, low=0.02, high=2, log=True)] = 0.2
    epochs: Annotated[int, Field(ge=0, le=1000), partial(Trial.suggest_int, low=1, high=4)] = 2
    batch_size: Annotated[int, Field(ge=1)] = 2048
    learning_rate: Annotated[float, Field(gt=0, le=1e3), partial(Trial.suggest_float, low=0.02, high=2, log=True)] = 0.3
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    device: Literal["auto", "cpu"] = "auto"


# Where a sweep looks: what stands third in an annotation draws a value of the field from a trial
SPACE = {name: draw for name, kind in Settings.__annotations__.items() for draw in get_args(kind)[2:]}

"""Every option of the product, declared once, and the family of errors that people see.

`Settings` serves Python, the command line, the service and the model file alike. Values out of range are refused where
they enter, by name. The errors:

    ChallengeError              anything that the user can put right
    ├── InputError              a file: missing, unreadable, or not what it should hold
    ├── ModelError              a model: none there yet, or not a file of this product
    └── TrainingError           a training that came to no model
"""

from typing import Annotated, Literal

from pydantic import Field, ValidationError
from pydantic.dataclasses import dataclass


class ChallengeError(Exception):
    """A fault that the user can put right; its text says how, in one line."""

    status = 422


class InputError(ChallengeError):
    """A file is missing, unreadable, or not what it should hold."""


class ModelError(ChallengeError):
    """There is no model yet, or the file is not one of this product."""

    status = 409


class TrainingError(ChallengeError):
    """Training could not come to a model."""


@dataclass(frozen=True)
class Settings:
    """How texts become bags, and how the model learns.

    Attributes
    ----------
    pieces
        Size of the subword vocabulary (byte-pair encoding); at least the 256 bytes and two boundary marks.
    min_count
        Features seen in fewer training texts than this are left out.
    idf
        Exponent of the inverse document frequency in a feature's weight; 0 weighs all features alike.
    smoothing
        Added to a feature's summed weights before the table starts at their log-odds; more of it quiets rare features.
    epochs
        Passes over the training texts; 0 keeps the naive Bayes start.
    batch_size
        Texts a step.
    learning_rate
        Step size of Adam at the first step; it falls linearly to zero.
    weight_decay
        L2 penalty on the table.
    seed
        Seed of the order of the training texts.
    device
        Where to compute: "auto" takes a GPU where there is one, "cpu" never.
    """

    pieces: Annotated[int, Field(ge=258, le=100_000)] = 3000
    min_count: Annotated[int, Field(ge=1)] = 2
    idf: Annotated[float, Field(ge=0, le=4)] = 0.5
    smoothing: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    epochs: Annotated[int, Field(ge=0, le=1000)] = 2
    batch_size: Annotated[int, Field(ge=1)] = 1024
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.02
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 3e-6
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    device: Literal["auto", "cpu"] = "auto"


def explain(error: Exception) -> str:
    """Return an error as one line; of a value that is out of range, its name and the value too."""
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(
        f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}, not {fault['input']!r}" for fault in error.errors()
    )

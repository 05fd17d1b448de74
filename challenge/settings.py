"""Every option of the product, and the errors that people see.

Python, the command line and the service all use `Settings` and `Answer`. A model file contains its settings. The error
for a value out of range names the option.
"""

from pydantic import BaseModel, Field

RANKS = 5  # genres of a film that the challenge asks for and judges


class ChallengeError(Exception):
    """An error that the user can correct: one line that says what is wrong."""


class NoModelError(ChallengeError):
    """There is no valid model."""


class Options(BaseModel, frozen=True, extra="forbid"):
    """The base of all options. Unknown ones are refused by name. Routes that have no options use this class itself."""


class Settings(Options):
    """How texts become bags, and how the model learns.

    Attributes
    ----------
    columns
        Names of the columns that make a film's text, separated by spaces. The first one is required, the others are
        used if the table has them. Their cells are joined by a space, in this order.
    ngrams
        Largest number of pieces in an n-gram of a word, including the marks of its beginning and end.
    pair_weight
        How much a pair of neighbouring words counts; a word counts 1; 0 ignores pairs.
    min_count
        Features that occur less often than this in the training texts are ignored; in a text, a feature occurs once for
        each distinct word or pair that has it.
    max_features
        Of the other features, those that count most are kept, up to this many, and up to 2^24 divided by the number of
        labels.
    idf
        Exponent of the inverse document frequency in a feature's weight; with 0, rare features weigh as much as others.
    smoothing
        Additive smoothing of the naive Bayes start, in units of a feature's mean weight; a larger value makes rare
        features count less.
    epochs
        Passes over the training texts; 0 keeps the naive Bayes start.
    batch_size
        Largest number of texts in a step. With few texts the batches are smaller: an epoch has about 32 steps, or more,
        if there are at least a few hundred texts.
    learning_rate
        Learning rate of Adagrad at the first step; it falls linearly to zero.
    seed
        Seed of the order of the training texts.
    held_out
        Whether a training also trains a second model, on nine tenths of the films, and scores it on the other tenth.
        This setting is not saved in the model file.
    """

    columns: str = Field("synopsis year", pattern=r"\w")
    ngrams: int = Field(3, ge=2, le=20)
    pair_weight: float = Field(0.5, ge=0, le=10)
    min_count: int = Field(2, ge=1, lt=2**31)
    max_features: int = Field(115_000, ge=1, lt=2**31)
    idf: float = Field(0.5, ge=0, le=4)
    smoothing: float = Field(2.0, ge=1e-6, le=1e6)
    epochs: int = Field(2, ge=0, le=1000)
    batch_size: int = Field(2048, ge=1, lt=2**31)
    learning_rate: float = Field(0.3, gt=0, le=1e3)
    seed: int = Field(0, ge=0, lt=2**63)
    held_out: bool = Field(False, exclude=True)


class Answer(Options):
    """What a prediction contains for each film.

    Attributes
    ----------
    k
        Number of genres to rank, the most probable first; all, if there are fewer.
    probabilities
        Whether the genres come with their probabilities, instead of with their ranks.
    explain
        Whether the genres come with what each word, and each pair of neighbouring words, adds to their logits. Then
        `probabilities` has no effect.
    """

    k: int = Field(RANKS, ge=1, lt=2**31)
    probabilities: bool = False
    explain: bool = False

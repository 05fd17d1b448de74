"""Every option of the product, declared once, and the errors that people see.

`Settings` and `Answer` serve Python, the command line and the service alike; a model file keeps its settings. Values
out of range are refused where they enter, by name.
"""

from pydantic import BaseModel, Field

RANKS = 5  # genres of a film that the challenge asks for and judges


class ChallengeError(Exception):
    """An error that the user can put right: one line that names what is wrong."""


class NoModelError(ChallengeError):
    """There is no valid model."""


class Settings(BaseModel, frozen=True, extra="forbid"):
    """How texts become bags, and how the model learns.

    Attributes
    ----------
    columns
        Names of the columns that make a film's text, with blanks between. The first must be there, the others count
        where the table has them; their cells are joined by a blank, in this order.
    ngrams
        Largest number of pieces in an n-gram of a word, the marks of its beginning and end included.
    pair_weight
        How much a pair of neighbouring words counts, beside 1 for a word; 0 leaves pairs out.
    min_count
        Features that occur less often than this in the training texts are ignored; in a text, a feature occurs once for
        each distinct word or pair that has it.
    max_features
        Of the other features, those that count most are kept, up to this many; 200 labels or more leave room for
        fewer, 2^24 divided by their number.
    idf
        Exponent of the inverse document frequency in a feature's weight; with 0 rare features weigh as much as others.
    smoothing
        Additive smoothing of the naive Bayes start, in mean weights of a feature; a larger value makes rare features
        count less.
    epochs
        Passes over the training texts; 0 keeps the naive Bayes start.
    batch_size
        Largest number of texts in a step; few texts make smaller batches, so that an epoch of a few hundred
        texts or more has about 32 steps.
    learning_rate
        Step size of Adagrad at the first step; it falls linearly to zero.
    seed
        Seed of the order of the training texts.
    held_out
        Whether a training also scores another model, which learns from nine tenths of the films, on the other tenth.
        It is not kept in the model file.
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


class NoOptions(BaseModel, extra="forbid"):
    """What a request without options may have: none."""


class Answer(BaseModel, frozen=True, extra="forbid"):
    """What a prediction tells of each film.

    Attributes
    ----------
    k
        How many of the most probable genres are ranked; all, where there are fewer.
    probabilities
        Whether the genres come with their probabilities, instead of with their ranks.
    explain
        Whether the genres come with what each word, and each pair of neighbouring words, adds to their logits; then
        `probabilities` has no effect.
    """

    k: int = Field(RANKS, ge=1, lt=2**31)
    probabilities: bool = False
    explain: bool = False

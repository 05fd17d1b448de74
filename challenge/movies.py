"""CSV in, films out; rankings out, and how good they are. Every complaint names the file, and the column or row.

Cells are text as they stand: `NA` is a word, an empty cell is an empty text, `007` keeps its zeros. Other columns are
let be, and a path may end in `.gz`. fastText's files are read too: a line is a text after its labels, `__label__x`.
"""

from difflib import get_close_matches
from typing import BinaryIO

import numpy as np
import pandas as pd
from pyarrow import BufferReader, Table, csv, input_stream, string

from challenge.settings import ChallengeError

RANKS = 5  # that the challenge asks for and judges


def read_lines(content: bytes) -> pd.DataFrame:
    """Read fastText's format; a `movie_id` is the number of a line."""
    lines = pd.Series(content.decode().removesuffix("\n").split("\n"))
    movies = lines.str.extract(r"^(?P<genres>(?:__label__\S+(?:\s+|$))*)(?P<synopsis>.*)$")
    return movies.assign(movie_id=(lines.index + 1).astype(str), genres=movies["genres"].str.replace("__label__", ""))


def read_movies(source: str | BinaryIO, name: str, labelled: bool) -> pd.DataFrame:
    """Read a table of films.

    Parameters
    ----------
    source
        Path of a CSV file, or an open one.
    name
        What to call the file in complaints.
    labelled
        Whether genres are needed too; films without any are left out then.

    Returns
    -------
    DataFrame
        Columns `movie_id`, `synopsis` and, if labelled, `genres`, as text and in the order of the rows; the attribute
        `left_out` is the number of films without genres.

    Raises
    ------
    ChallengeError
        The file can't be read, has a column not once, or holds no films; or, if not labelled, two films have one id.
    """
    columns = ["movie_id", "synopsis", "genres"] if labelled else ["movie_id", "synopsis"]
    # A row has to fit in one block; with threads, complaints don't name the row
    blocks = csv.ReadOptions(use_threads=False, block_size=2**27)
    cells = csv.ConvertOptions(column_types=dict.fromkeys(columns, string()), strings_can_be_null=False)
    try:
        content = input_stream(source).read()
        if content.startswith(b"__label__"):
            table = Table.from_pandas(read_lines(content))
        else:
            table = csv.read_csv(BufferReader(content), blocks, csv.ParseOptions(newlines_in_values=True), cells)
            if content.count(b'"') % 2:
                raise ValueError(f'row {len(table) + 1}, or one before, has a quote (") that never closes')
        header = [column[:99] for column in table.column_names]  # whatever file this is, complaints stay readable
    except (OSError, ValueError) as error:
        raise ChallengeError(422, f"{name}: not a readable CSV file: {' '.join(str(error).split())}") from error
    for column in columns:
        if header.count(column) != 1:
            near = ", ".join(get_close_matches(column, header[:999], 5, 0))
            raise ChallengeError(422, f"{name}: needs one column {column!r}; the nearest that it has: {near}")
    films = table.select(columns).to_pandas()
    movies = films[films["genres"].str.strip() != ""] if labelled else films
    movies.attrs["left_out"] = len(films) - len(movies)
    if movies.empty:
        raise ChallengeError(422, f"{name}: no films{' with genres' * labelled}, though the header is right")
    doubles = movies[movies["movie_id"].duplicated()]
    if len(doubles) and not labelled:
        raise ChallengeError(422, f"{name}: row {doubles.index[0] + 2} repeats the movie_id {doubles.iloc[0, 0]!r}")
    return movies


def to_submission(movies: pd.DataFrame, rankings: list[list[str]]) -> dict[str, dict[str, str]]:
    """Return rankings in the format of the challenge.

    >>> to_submission(pd.DataFrame({"movie_id": ["007"]}), [["Action", "Thriller"]])
    {'007': {'0': 'Action', '1': 'Thriller'}}
    """
    pairs = zip(movies["movie_id"], rankings, strict=True)
    return {movie: {str(rank): genre for rank, genre in enumerate(ranking)} for movie, ranking in pairs}


def judge(movies: pd.DataFrame, submission: dict[str, dict[str, str]]) -> tuple[dict[str, float], pd.DataFrame]:
    """Compare a submission with the truth.

    Parameters
    ----------
    movies
        Films, with `movie_id` and the true `genres`.
    submission
        For each `movie_id` its genres by rank, best first; what is named again is not looked at, nor are other films.

    Returns
    -------
    scores, per_genre
        P@1, the share of films whose first genre is right; R@5, the share of all films' genres that are in the top
        five; MAP@5, the mean of AP@5: the sum of the precision at each rank that is right, by min(number of genres, 5).
        And for each genre, the most frequent first, the number of its films and their MAP@5.

    Raises
    ------
    ChallengeError
        The submission lacks a film.
    """
    missing = sorted(set(movies["movie_id"]) - set(submission))
    if missing:
        raise ChallengeError(422, f"the submission lacks {len(missing)} films, movie_id {missing[0]!r} among them")
    truth = movies.set_index("movie_id")["genres"].str.split().map(set)
    rankings = [[*dict.fromkeys(submission[movie].values()), *[""] * RANKS][:RANKS] for movie in truth.index]
    hits = pd.DataFrame([[genre in own for genre in ranking] for own, ranking in zip(truth, rankings)], truth.index)
    precisions = hits * hits.cumsum(axis=1) / np.arange(1, RANKS + 1)
    films = pd.DataFrame({"genre": truth, "map_at_5": precisions.sum(axis=1) / truth.str.len().clip(upper=RANKS)})
    recall = hits.sum(axis=None) / truth.str.len().sum()
    scores = {"P@1": hits[0].mean(), "R@5": recall, "MAP@5": films["map_at_5"].mean()}
    per_genre = films.explode("genre").groupby("genre")["map_at_5"].agg(films="size", map_at_5="mean")
    return scores, per_genre.sort_values("films", ascending=False, kind="stable")

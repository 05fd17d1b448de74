"""CSV in, films out: every complaint names the file, and the column or row.

Cells are text as they stand: `NA` is a word, an empty cell is an empty text, `007` keeps its zeros. Other columns are
let be, and a path may end in `.gz`.
"""

from typing import BinaryIO

import pandas as pd
from pyarrow import csv, string

from challenge.settings import ChallengeError

LONGEST_ROW = 2**27  # bytes: the reader wants a row in one block


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
        Columns `movie_id`, `synopsis` and, if labelled, `genres`, as text and in the order of the rows.

    Raises
    ------
    ChallengeError
        The file can't be read, lacks a column, or holds no films.
    """
    columns = ["movie_id", "synopsis", "genres"] if labelled else ["movie_id", "synopsis"]
    blocks = csv.ReadOptions(use_threads=False, block_size=LONGEST_ROW)  # with threads, complaints don't name the row
    cells = csv.ConvertOptions(column_types=dict.fromkeys(columns, string()), strings_can_be_null=False)
    try:
        table = csv.read_csv(source, blocks, csv.ParseOptions(newlines_in_values=True), cells)
        missing = [column for column in columns if column not in table.column_names]
    except (OSError, ValueError) as error:
        raise ChallengeError(f"{name}: not a readable CSV file: {error}") from error
    if missing:
        raise ChallengeError(f"{name}: no column {missing[0]!r}; its columns are {', '.join(table.column_names)}")
    movies = table.select(columns).to_pandas()
    if labelled:
        movies = movies[movies["genres"].str.strip() != ""]
    if movies.empty:
        raise ChallengeError(f"{name}: no films{' with genres' * labelled}, though the header is right")
    return movies


def to_submission(movies: pd.DataFrame, rankings: list[list[str]]) -> dict[str, dict[str, str]]:
    """Return rankings in the format of the challenge.

    >>> to_submission(pd.DataFrame({"movie_id": ["007"]}), [["Action", "Thriller"]])
    {'007': {'0': 'Action', '1': 'Thriller'}}
    """
    pairs = zip(movies["movie_id"], rankings, strict=True)
    return {movie: {str(rank): genre for rank, genre in enumerate(ranking)} for movie, ranking in pairs}

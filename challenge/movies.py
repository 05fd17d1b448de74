"""CSV in, films out; rankings out, and how good they are. Every error names the file, and the column or row.

Cells are text as they stand: `NA` is a word, an empty cell is an empty text, `007` keeps its zeros. Other columns are
ignored, and a path may end in `.gz`. fastText's files are read too: a line is a text after its labels, `__label__x`,
and its `movie_id` is its number.
"""

from collections.abc import Iterable
from typing import BinaryIO

import pandas as pd
from pyarrow import BufferReader, Table, csv, input_stream, string

from challenge.settings import ChallengeError

RANKS = 5  # that the challenge asks for and judges


def read_movies(source: str | BinaryIO, name: str, labelled: bool) -> tuple[pd.DataFrame, int]:
    """Read a table of films.

    Parameters
    ----------
    source
        Path of a CSV file, or an open one.
    name
        What to call the file in errors.
    labelled
        Whether genres are needed too; films without any are left out then.

    Returns
    -------
    films, left_out
        The films in the order of the rows, under `movie_id`, with the columns `synopsis` and, if labelled, `genres`,
        lists. And the number of films that were left out because they have no genres.

    Raises
    ------
    ChallengeError
        The file can't be read, has a column not once, or holds no films; or, if not labelled, two films have one id.
    """
    columns = ["movie_id", "synopsis", "genres"] if labelled else ["movie_id", "synopsis"]
    # A row has to fit in one block; with threads, errors don't name the row
    blocks = csv.ReadOptions(use_threads=False, block_size=2**27)
    cells = csv.ConvertOptions(column_types=dict.fromkeys(columns, string()), strings_can_be_null=False)
    try:
        content = input_stream(source).read()
        if content.startswith(b"__label__"):
            lines = pd.Series(content.decode().removesuffix("\n").split("\n"))
            films = lines.str.extract(r"^(?P<genres>(?:__label__\S+(?:\s+|$))*)(?P<synopsis>.*)$")
            films["genres"] = films["genres"].str.replace("__label__", "")
            table = Table.from_pandas(films.assign(movie_id=(films.index + 1).astype(str)))
        else:
            table = csv.read_csv(BufferReader(content), blocks, csv.ParseOptions(newlines_in_values=True), cells)
            if content.count(b'"') % 2:
                raise ValueError(f'row {len(table) + 1}, or one before, has a quote (") that never closes')
        header = table.column_names  # in here, since it may not be UTF-8
    except (OSError, ValueError) as error:
        raise ChallengeError(422, f"{name}: not a readable CSV file: {' '.join(str(error).split())}") from error
    for column in columns:
        if header.count(column) != 1:
            raise ChallengeError(422, f"{name}: needs one column {column!r}, but has {', '.join(header)[:300]}")
    films = table.select(columns).to_pandas().set_index("movie_id")
    movies = films.assign(genres=films["genres"].str.split()) if labelled else films
    movies = movies[movies["genres"].str.len() > 0] if labelled else films
    if movies.empty:
        raise ChallengeError(422, f"{name}: no films{' with genres' * labelled}, though the header is right")
    double = movies.index.duplicated().argmax()  # the first row is none: 0 says that there is none
    if double and not labelled:
        raise ChallengeError(422, f"{name}: row {double + 2} repeats the movie_id {movies.index[double]!r}")
    return movies, len(films) - len(movies)


def to_submission(movie_ids: Iterable[str], rankings: Iterable[Iterable[str]]) -> dict[str, dict[str, str]]:
    """Return rankings in the form that the challenge asks for: the best genre of each film under "0", and so on."""
    return {movie: {str(rank): genre for rank, genre in enumerate(own)} for movie, own in zip(movie_ids, rankings)}


def score(genres: Iterable[Iterable[str]], rankings: Iterable[Iterable[str]]) -> tuple[dict[str, float], pd.DataFrame]:
    """Compare rankings with the truth.

    Parameters
    ----------
    genres
        The true genres of each film.
    rankings
        The genres that each film is ranked to have, best first; what is named again is ignored.

    Returns
    -------
    scores, per_genre
        P@1, the share of films whose first genre is right; R@5, the share of all films' genres that are in the top
        five; MAP@5, the mean of AP@5: the sum of the precision at each rank that is right, by min(number of genres, 5).
        And for each genre, the most frequent first, the number of its films and their MAP@5.
    """
    truth = pd.Series(map(set, genres))
    tops = [[*dict.fromkeys(ranking), *[""] * RANKS][:RANKS] for ranking in rankings]
    hits = pd.DataFrame([[genre in own for genre in top] for own, top in zip(truth, tops, strict=True)])
    precisions = hits * hits.cumsum(axis=1) / (hits.columns + 1)
    films = pd.DataFrame({"genre": truth, "map_at_5": precisions.sum(axis=1) / truth.str.len().clip(upper=RANKS)})
    scores = {"P@1": hits[0].mean(), "R@5": hits.sum().sum() / truth.str.len().sum(), "MAP@5": films["map_at_5"].mean()}
    per_genre = films.explode("genre").groupby("genre")["map_at_5"].agg(films="size", map_at_5="mean")
    return scores, per_genre.sort_values("films", ascending=False, kind="stable")

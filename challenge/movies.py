"""CSV in, films out; rankings out, and how good they are. Every complaint names the file, and the column or row.

Cells are text as they stand: `NA` is a word, an empty cell is an empty text, `007` keeps its zeros. Other columns are
let be, and a path may end in `.gz`. fastText's files are read too: a line is a text after its labels, `__label__x`.
"""

from typing import BinaryIO

import pandas as pd
from pyarrow import BufferReader, csv, input_stream, string

from challenge.settings import ChallengeError

LONGEST_ROW = 2**27  # bytes: the reader wants a row in one block
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
        Columns `movie_id`, `synopsis` and, if labelled, `genres`, as text and in the order of the rows.

    Raises
    ------
    ChallengeError
        The file can't be read, lacks a column, or holds no films.
    """
    columns = ["movie_id", "synopsis", "genres"] if labelled else ["movie_id", "synopsis"]
    blocks = csv.ReadOptions(use_threads=False, block_size=LONGEST_ROW)  # with threads, complaints don't name the row
    rows = csv.ParseOptions(newlines_in_values=True)
    cells = csv.ConvertOptions(column_types=dict.fromkeys(columns, string()), strings_can_be_null=False)
    try:
        content = input_stream(source).read()
        if content.startswith(b"__label__"):
            movies = read_lines(content)
        else:
            movies = csv.read_csv(BufferReader(content), blocks, rows, cells).to_pandas()
    except (OSError, ValueError) as error:
        raise ChallengeError(f"{name}: not a readable CSV file: {error}") from error
    missing = [column for column in columns if column not in movies.columns]
    if missing:
        raise ChallengeError(f"{name}: no column {missing[0]!r}; its columns are {', '.join(movies.columns)}")
    movies = movies[columns]
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


def average_precision(genres: set[str], ranking: list[str]) -> float:
    """Return AP@5: the sum of the precision at each rank that is right, by min(number of genres, 5).

    >>> average_precision({"Drama", "War"}, ["Drama", "Crime", "War"])  # (1/1 + 2/3) / 2
    0.8333333333333333
    """
    right = [genre in genres for genre in ranking[:RANKS]]
    return sum(sum(right[:rank]) / rank for rank, hit in enumerate(right, 1) if hit) / min(len(genres), RANKS)


def judge(movies: pd.DataFrame, submission: dict[str, dict[str, str]]) -> tuple[dict[str, float], pd.DataFrame]:
    """Compare a submission with the truth.

    Parameters
    ----------
    movies
        Films, with `movie_id` and the true `genres`.
    submission
        For each `movie_id` its genres by rank, best first; films that are not in `movies` are not looked at.

    Returns
    -------
    scores, per_genre
        P@1, the share of films whose first genre is right; R@5, the share of all films' genres that are in the top
        five; MAP@5, the mean of AP@5. And for each genre, the most frequent first, the number of its films, the share
        of them that have it in their top five, and their MAP@5.

    Raises
    ------
    ChallengeError
        The submission lacks a film.
    """
    missing = sorted(set(movies["movie_id"]) - set(submission))
    if missing:
        raise ChallengeError(f"the submission lacks {len(missing)} films, movie_id {missing[0]!r} among them")
    films = movies.assign(genre=movies["genres"].str.split().map(set))
    films["ranking"] = [list(submission[movie].values())[:RANKS] for movie in films["movie_id"]]
    films["map_at_5"] = [average_precision(*film) for film in zip(films["genre"], films["ranking"], strict=True)]
    pairs = films.explode("genre").sort_values("genre")
    pairs["recall_at_5"] = [genre in ranking for genre, ranking in zip(pairs["genre"], pairs["ranking"], strict=True)]
    first = sum(ranking[0] in genres for ranking, genres in zip(films["ranking"], films["genre"], strict=True))
    scores = {"P@1": first / len(films), "R@5": pairs["recall_at_5"].mean(), "MAP@5": films["map_at_5"].mean()}
    per_genre = pairs.groupby("genre")[["recall_at_5", "map_at_5"]].mean()
    per_genre.insert(0, "films", pairs["genre"].value_counts())
    return scores, per_genre.sort_values("films", ascending=False, kind="stable")

"""How good rankings of genres are: mean average precision at five (MAP@5), of all films and genre by genre."""

import pandas as pd

from challenge.settings import ChallengeError

RANKS = 5  # that the challenge asks for and judges


def average_precision(genres: set[str], ranking: list[str]) -> float:
    """Return AP@5: the sum of the precision at each rank that is right, by min(number of genres, 5).

    >>> average_precision({"Drama", "War"}, ["Drama", "Crime", "War"])  # (1/1 + 2/3) / 2
    0.8333333333333333
    """
    right = [genre in genres for genre in ranking[:RANKS]]
    return sum(sum(right[:rank]) / rank for rank, hit in enumerate(right, 1) if hit) / min(len(genres), RANKS)


def evaluate(movies: pd.DataFrame, submission: dict[str, dict[str, str]]) -> tuple[float, pd.DataFrame]:
    """Compare a submission with the truth.

    Parameters
    ----------
    movies
        Films, with `movie_id` and the true `genres`.
    submission
        For each `movie_id` its genres by rank, best first; films that are not in `movies` are not looked at.

    Returns
    -------
    map_at_5, per_genre
        The mean of AP@5 over the films; and for each genre, the most frequent first, the number of its films, the
        share of them that have it in their top five (recall at 5), and their MAP@5.

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
    per_genre = pairs.groupby("genre")[["recall_at_5", "map_at_5"]].mean()
    per_genre.insert(0, "films", pairs["genre"].value_counts())
    return films["map_at_5"].mean(), per_genre.sort_values("films", ascending=False, kind="stable")

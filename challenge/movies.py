"""Tables in, films out. Every error names the file, and the column or line.

A table is a CSV file as programs and spreadsheets write it. Commas, semicolons, tabs or | separate its columns, its
text is UTF-8 or UTF-16, and it may be compressed by gzip. Column names count in any letter case. Cells are text as they
stand: `NA` is a word, an empty cell is an empty text, `007` keeps its zeros. A quote counts only where a cell begins
with one. fastText's files are read too.
"""

import csv
import re
from io import StringIO

import pandas as pd
from pyarrow import BufferReader, CompressedInputStream

from challenge.settings import ChallengeError

csv.field_size_limit(2**31 - 1)  # characters of a cell


def read_lines(text: str) -> pd.DataFrame:
    """Read fastText's format: a line is a text with labels anywhere in it; its number is its `movie_id`."""
    lines = pd.Series([*StringIO(text.lstrip(), newline=None)])
    synopses = lines.str.replace(r"(?<!\S)__label__\S+", "", regex=True).str.strip()
    genres = lines.str.findall(r"(?<!\S)__label__(\S+)")
    return pd.DataFrame({"synopsis": synopses, "genres": genres}).set_index((lines.index + 1).astype(str))


def read_table(text: str, columns: list[str]) -> pd.DataFrame:
    """Read columns of a table as text; genres are lists.

    Raises
    ------
    ValueError
        A column is not there once; a row has not as many cells as the header, or has a quote that is not closed.
    """
    text = re.sub(r'(?i)\A"?sep=."?(?=[\r\n])', "", text)  # a spreadsheet's first line; what it says, the header shows
    delimiter = max(",;\t|", key=re.split(r"[\r\n]", text.lstrip("\r\n"), maxsplit=1)[0].count)
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows, line = [], 1  # where the next row begins
    try:
        for row in reader:
            rows.extend([row] if row else [])  # a blank line is no row
            if row and len(row) != len(rows[0]):
                raise ValueError(f"the row in line {line} has {len(row)} cells, but the header has {len(rows[0])}")
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"the row in line {line} has a quote that is not closed: {error}") from error
    header = [name.strip(' "').lower() for name in rows[0]] if rows else []
    if wrong := [column for column in columns if header.count(column) != 1]:
        raise ValueError(f"needs one column {wrong[0]!r}, but has {', '.join(header)[:300] or 'no header'}")
    cells = {column: [row[header.index(column)] for row in rows[1:]] for column in columns}
    films = pd.DataFrame(cells, index=cells.pop("movie_id"))  # for one film faster than set_index
    if "genres" in cells:
        separator = next((sign for sign in "|," if any(sign in cell for cell in films["genres"])), None)
        films["genres"] = [[name.strip() for name in cell.split(separator) if name.strip()] for cell in films["genres"]]
    return films


def read_movies(content: bytes, name: str, labelled: bool) -> tuple[pd.DataFrame, int]:
    """Read a table of films.

    Parameters
    ----------
    content
        What the file holds.
    name
        What to call it in errors.
    labelled
        Whether genres are needed too; films without any are left out then. Genres are separated by `|` where the column
        has one, else by commas where it has one, else by blanks.

    Returns
    -------
    films, left_out
        The films in the order of the rows; the index is their `movie_id`, the columns are `synopsis` and, if labelled,
        `genres`, lists. And the number of films that were left out because they have no genres.

    Raises
    ------
    ChallengeError
        It can't be read, has a column not once, or holds no films; or, if not labelled, two films have one id.
    """
    columns = ["movie_id", "synopsis", "genres"] if labelled else ["movie_id", "synopsis"]
    try:
        content = CompressedInputStream(BufferReader(content), "gzip").read() if content[:2] == b"\x1f\x8b" else content
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
        films = read_lines(text) if "__label__" in text.lstrip().partition("\n")[0] else read_table(text, columns)
    except (OSError, ValueError) as error:
        line = f"line {len(content[: error.start + 1].splitlines())}: " if isinstance(error, UnicodeDecodeError) else ""
        raise ChallengeError(f"{name}: {line}{' '.join(str(error).split())}") from error
    movies = films[films["genres"].astype(bool)] if labelled else films
    if movies.empty:
        raise ChallengeError(f"{name}: it has no films" + (" with genres" if labelled else ""))
    if not labelled and movies.index.has_duplicates:
        raise ChallengeError(f"{name}: two films have the movie_id {movies.index[movies.index.duplicated()][0]!r}")
    return movies, len(films) - len(movies)

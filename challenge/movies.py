"""Read films from tables, and write files completely or not at all.

A table is a CSV file as programs and spreadsheets write it. Commas, semicolons, tabs or | separate its columns, its
text is UTF-8 or UTF-16, and it may be compressed by gzip. Column names may have any letter case. Cells are read
as text: `NA` is a word, an empty cell is an empty text, `007` keeps its zeros. A quote is special only if a cell begins
with it. fastText's files are read too, if the first line has a label. Every error names the file, and if possible the
column or the line.

Not handled: spreadsheets in their own formats, other encodings, and genres in several columns.
"""

import csv
import os
import re
from io import StringIO
from pathlib import Path
from unicodedata import normalize

import pandas as pd
import yaml
from pyarrow import BufferReader, CompressedInputStream

from challenge.settings import ChallengeError, Settings

LIMIT = 2**30  # bytes of an upload, and of an unpacked file: a small packed file may expand to more than the memory
csv.field_size_limit(2**31 - 1)  # characters of a cell

SEPARATORS = "|;, "  # of genres; those that are rarely part of a name come first
# How lists begin in JSON and Python; and sets, tuples, PostgreSQL's arrays and R's vectors, which are refused
LIST = re.compile(r"""[\[{]|\w*\(["'\[{]""")
LABEL = re.compile(r"(?<!\S)__label__(\S+)")  # of a text in fastText's files
# What programs write where there are no genres, in lower case; MySQL writes \N
NO_GENRES = {"(no genres listed)", "nan", "nat", "<na>", "na", "n/a", "#n/a", "none", "null", r"\n"}


def decode(content: bytes) -> str:
    """Return the text of a file, which may be compressed by gzip.

    Raises
    ------
    OSError, ValueError
        It is an incomplete gzip file, it has more than LIMIT bytes when unpacked, or it is not text in UTF-8 or UTF-16.
    """
    if content.startswith(b"\x1f\x8b"):
        content = CompressedInputStream(BufferReader(content), "gzip").read(LIMIT + 1)
        if len(content) > LIMIT:
            raise ValueError("it has more than 1 GiB when it is unpacked; unpack it, or split it")
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = len(re.split(r"\r\n?|\n", error.object[: error.start].decode(encoding)))
        raise ValueError(f"line {line} is not {error.encoding.upper()}: save it as CSV (UTF-8), not Excel") from error


def clean_name(cell: str) -> str:
    """Return the name of a column in lower case, without other characters than letters, digits and _ around it."""
    # The second \W+ begins at the first character of a run; otherwise each character of a long run would be tried
    return re.sub(r"^\W+|(?<!\W)\W+$", "", cell.lower())


def read_rows(text: str) -> dict[int, list[str]]:
    """Return the rows of a table by the lines in which they begin, the header first. Empty rows are skipped.

    Raises
    ------
    ValueError
        A row has a quote that is not closed, or one within a cell that begins with a quote.
    """
    text = re.sub(r'(?i)\A"?sep=."?(?=[\r\n])', "", text)  # the line in which a spreadsheet names its separator
    delimiter = max(",;\t|", key=re.split(r"[\r\n]", text.lstrip("\r\n"), maxsplit=1)[0].count)
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows = {}
    line = 1
    try:
        for row in reader:
            if any(map(str.strip, row)):
                rows[line] = row
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"the row in line {line} has a misplaced quote: {error}") from error
    return rows


def find_column(header: list[str], names: list[str]) -> int:
    """Return the position of the first of these names that a header has.

    Raises
    ------
    ValueError
        It has none of them, or has that one more than once.
    """
    found = next((name for name in names if name in header), names[0])
    if header.count(found) != 1:
        raise ValueError(f"needs one column {found!r}, but has {str(header)[:300]}")
    return header.index(found)


def clean_genres(names: list[str]) -> list[str]:
    """Return the names in Unicode's form NFC, without those that have no letter or digit, or mean no genre."""
    clean = [normalize("NFC", name.strip()) for name in names]
    return [name for name in clean if any(map(str.isalnum, name)) and name.lower() not in NO_GENRES]


def read_list(text: str) -> list[str]:
    """Return the names in a list that a program has written: a list of names, or of records that have a name.

    Examples
    --------
    >>> read_list('[{"id": 18, "name": "Drama"}]'), read_list("['Drama', 'War']")
    (['Drama'], ['Drama', 'War'])
    """
    # It reads JSON and Python's lists as text, but not every escape in them; list.copy refuses what is no list
    items = list.copy(yaml.load(text, yaml.CBaseLoader))
    return [item["name"] if isinstance(item, dict) else item for item in items]


def read_genres(cells: dict[int, str]) -> list[list[str]]:
    """Return the genres in each cell of a column. The cells are given by their lines.

    A cell votes for the first of | ; , and space that it contains. The separator with most votes separates the genres,
    and so do the separators before it in this order, which are less often part of a name.

    Raises
    ------
    ValueError
        A list is incomplete, or a cell is another kind of collection.
    """
    # The first line of each distinct cell: of equal keys, the last one that a dict gets counts
    lines = {cell: line for line, cell in reversed(cells.items()) if cell.lower() not in NO_GENRES}
    split = [cell for cell in cells.values() if cell in lines and not LIST.match(cell)]
    votes = [next((sign for sign in SEPARATORS if sign in cell), None) for cell in split]
    chosen = max(SEPARATORS, key=votes.count)
    separators = SEPARATORS[: SEPARATORS.index(chosen) + 1]
    genres = {}
    for cell, line in reversed(lines.items()):
        try:
            genres[cell] = clean_genres(read_list(cell) if LIST.match(cell) else re.split(f"[{separators}]", cell))
        except Exception as error:  # whatever an incomplete list leads to
            raise ValueError(f"line {line}: {cell[:80]!r} is not a list of genres in JSON or Python") from error
    return [genres.get(cell, []) for cell in cells.values()]


def read_table(text: str, columns: list[str], labelled: bool) -> pd.DataFrame:
    """Read the films of a table, see `read_movies`; films without genres are among them.

    Raises
    ------
    ValueError
        A column is missing, or is there twice; a row is incomplete; or genres can't be read, see `read_genres`.
    """
    rows = read_rows(text)
    header = [clean_name(cell) for cell in next(iter(rows.values()), [])]
    for line, row in rows.items():
        if len(row) != len(header):
            raise ValueError(f"the row in line {line} has {len(row)} cells, but the header has {len(header)}")
    first = find_column(header, columns[:1] if labelled else [columns[0], "synopsis"])
    # A dict has each column once, in their order
    places = dict.fromkeys([first, *(find_column(header, [name]) for name in columns[1:] if name in header)])
    # A training needs no ids: the text may take their place
    id_place = find_column(header, ["movie_id", "movieid", "id", *(columns if labelled else [])])
    # The header is skipped, and so are its repetitions in joined files: rows whose id, or whose text in a table without
    # ids, is the name of its column
    films = {line: row for line, row in rows.items() if clean_name(row[id_place]) != header[id_place]}
    texts = [" ".join([row[place] for place in places]) for row in films.values()]
    movies = pd.DataFrame({"synopsis": texts}, index=[row[id_place] for row in films.values()], dtype=object)
    if labelled:
        genre_place = find_column(header, ["genres"])
        movies["genres"] = read_genres({line: " ".join(row[genre_place].split()) for line, row in films.items()})
    return movies


def read_lines(text: str) -> pd.DataFrame:
    """Read fastText's format: a line is a text with labels anywhere in it; its number is its `movie_id`."""
    lines = [*StringIO(text.lstrip(), newline=None)]
    genres = [clean_genres(re.split(f"[{SEPARATORS}]", " ".join(LABEL.findall(line)))) for line in lines]
    texts = [LABEL.sub("", line).strip() for line in lines]
    return pd.DataFrame({"synopsis": texts, "genres": genres}, map(str, range(1, len(lines) + 1)), dtype=object)


def read_movies(data: bytes, name: str, labelled: bool, columns: str = Settings().columns) -> tuple[pd.DataFrame, int]:
    """Read a table of films.

    Parameters
    ----------
    data
        The content of the file.
    name
        Its name in errors.
    labelled
        Whether genres are needed too. If so, films without genres are left out. See `read_genres` for the separators.
    columns
        See `Settings`. In a table that is read without genres, a column `synopsis` may replace the first one.

    Returns
    -------
    films, left_out
        The films in the order of the rows; the index is their `movie_id`, the columns are `synopsis`, their text, and,
        if labelled, `genres`, lists. And the number of films that were left out because they have no genres.

    Raises
    ------
    ChallengeError
        It can't be read, lacks a column or has it twice, or has no films; or, if not labelled, two films have one id.
    """
    try:
        text = decode(data)
        names = [clean_name(column) for column in columns.split() or ["synopsis"]]
        # A label in the first line that is not empty shows fastText's format
        films = read_lines(text) if re.match(r"\s*+[^\r\n]*__label__", text) else read_table(text, names, labelled)
    except (OSError, ValueError) as error:
        raise ChallengeError(f"{name}: {' '.join(str(error).split())}") from error
    movies = films[films["genres"].astype(bool)] if labelled else films
    if movies.empty:
        raise ChallengeError(f"{name}: it has no films" + (" with genres" if labelled else ""))
    if not labelled and movies.index.has_duplicates:
        raise ChallengeError(f"{name}: two films have the movie_id {movies.index[movies.index.duplicated()][0]!r}")
    return movies, len(films) - len(movies)


def refuse_overwriting(output: Path, *sources: Path) -> None:
    """Refuse to write to a file that is read too, even under another name.

    Raises
    ------
    ChallengeError
        The output is one of the sources.
    """
    if output.is_file() and any(source.exists() and output.samefile(source) for source in sources):
        raise ChallengeError(f"{output}: it is read here, so nothing is written to it; name another file")


def write_file(path: Path, content: bytes) -> None:
    """Write a file completely or not at all. If the path is a link, its target is written.

    A pipe or a device is written to directly.

    Raises
    ------
    OSError
        The file can't be written. An existing file is unchanged.
    """
    # Not the number of the process: in containers, each may have the number 1
    unfinished = Path(f"{os.path.realpath(path)}.{os.urandom(4).hex()}.tmp")
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)
            return
        unfinished.write_bytes(content)
        with unfinished.open() as file:
            os.fsync(file)  # otherwise a power cut could leave an empty file in its place
        unfinished.replace(os.path.realpath(path))
    except OSError as error:
        if os.path.exists(unfinished):
            unfinished.unlink()
        raise OSError(f"{path}: not saved: {error.strerror}") from error

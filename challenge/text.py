"""Text to bags: words, their character n-grams, and the weights of their hashed features.

A text is lower-cased and cut into words: runs of letters, marks and digits. The features of a word are the word as a
whole and its runs of a few characters (n-grams), the marks of where it begins and ends being characters too; each is
known by a 32-bit hash. A distinct word is looked at once, however often it occurs, and everything is vectorised.

Bags are a sparse matrix of texts x features in rows (CSR): the ids, offsets and weights of an embedding bag.

Not handled: punctuation, upper case, and the order of words.
"""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_array

Features = tuple[csr_array, np.ndarray, np.ndarray, np.ndarray]  # what `find_features` returns

MULTIPLIER = 116049371  # of a rolling hash; that of fastText's word n-grams (src/dictionary.cc)


def split_words(texts: pd.Series) -> pd.Series:
    """Lower-case texts and cut them into words, a categorical series under the numbers of the texts.

    >>> split_words(pd.Series(["No — no!", "…", "Ça va?"]))
    0    no
    0    no
    2    ça
    2    va
    dtype: category
    Categories (3, str): ['no', 'ça', 'va']
    """
    text = pc.replace_substring_regex(pc.utf8_lower(pa.array(texts, pa.large_string())), r"[^\pL\pM\pN]+", " ")
    trimmed = pc.utf8_trim_whitespace(text)
    lists = pc.split_pattern(pc.if_else(pc.equal(trimmed, ""), None, trimmed), " ")  # no text is not one empty word
    words: pd.Series = pc.list_flatten(lists).dictionary_encode().to_pandas()
    words.index = np.repeat(np.arange(len(texts), dtype=np.int32), pc.list_value_length(lists).fill_null(0))
    return words


def find_features(words: pd.Series, n_texts: int, ngram: int) -> Features:
    """Find the features of the words of texts.

    Parameters
    ----------
    words
        The words of the texts.
    n_texts
        Number of the texts.
    ngram
        Number of characters in an n-gram, at least 3.

    Returns
    -------
    counts, owners, hashes, strengths
        How often each text holds each distinct word, of shape (n_texts, n_words); for each feature of each distinct
        word, the number of the word, the hash of the feature (int32), and how much it counts (float32): 1 for the word
        as a whole, and for its n-grams what makes the sum of their squares 1.
    """
    distinct, ones = words.cat.categories.to_numpy(object), np.ones(len(words), np.float32)
    counts = csr_array((ones, (words.index, words.cat.codes)), (n_texts, len(distinct)))
    # All words in one row of characters, between line breaks: an n-gram may begin and end at one, but not cross it
    characters = np.frombuffer("\n".join(["", *distinct, *[""] * ngram]).encode("utf-32-le"), np.uint32)
    number = np.cumsum(characters == ord("\n"), dtype=np.int32)
    starts = np.flatnonzero(number[: 1 - ngram] == number[ngram - 2 : -1])
    windows = np.lib.stride_tricks.sliding_window_view(characters, ngram)
    ngrams = (windows @ MULTIPLIER ** np.arange(ngram, dtype=np.uint32))[starts]
    hashes = np.concatenate([pd.util.hash_array(distinct, categorize=False).astype(np.int32), ngrams.view(np.int32)])
    owners = np.concatenate([np.arange(len(distinct), dtype=np.int32), number[starts] - 1])
    strengths = (np.bincount(owners) - 1).clip(1)[owners].astype(np.float32) ** -0.5
    strengths[: len(distinct)] = 1
    return counts, owners, hashes, strengths


def weigh(features: Features, min_count: int, most: int, idf: float) -> pd.Series:
    """Return the weights of the `most` frequent features in at least `min_count` texts, float32 under their hashes.

    A weight is (1 + log(texts / texts with the feature))^idf; texts count once for each distinct word that has it.
    """
    counts, owners, hashes, _ = features
    ids, distinct = pd.factorize(hashes)
    found_in = pd.Series(np.bincount(ids, np.bincount(counts.indices, minlength=counts.shape[1])[owners]), distinct)
    known = found_in[found_in >= min_count].nlargest(most)
    return ((1 + np.log((counts.shape[0] / known).clip(lower=1))) ** idf).astype(np.float32)


def pack(features: Features, weights: pd.Series) -> tuple[csr_array, np.ndarray]:
    """Return the bags of texts, of shape (n_texts, n_weights), and the lengths that they had before they were scaled.

    A feature has log(1 + count of its word) x strength x weight; a bag is scaled to length 1, and unknown features are
    left out.
    """
    counts, owners, hashes, strengths = features
    ids = weights.index.get_indexer(hashes).astype(np.int32)
    known = np.flatnonzero(ids >= 0)
    entries = strengths[known] * weights.to_numpy()[ids[known]], (owners[known], ids[known])
    bags = counts.log1p() @ csr_array(entries, (counts.shape[1], len(weights)))
    lengths = np.sqrt(bags.power(2).sum(axis=1))
    bags.data /= np.repeat(lengths, np.diff(bags.indptr))
    return bags, lengths

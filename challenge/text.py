"""Text to bags: words, their subword pieces, hashed n-grams, and the weights of a bag's features.

A text is lower-cased and cut into words: runs of letters, marks and digits. Byte-pair encoding cuts a word into pieces,
between the boundary marks `<` and `>`. The features of a word are the word as a whole and its pairs of pieces, each
known by a 64-bit hash. A distinct word is encoded once, however often it occurs; the rest is vectorised.

Bags are a sparse matrix of texts x features in rows (CSR): the ids, offsets and weights of `nn.EmbeddingBag`.

Not handled: punctuation, upper case, and the order of words.
"""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.linalg import norm
from tokenizers import ByteLevelBPETokenizer, Tokenizer
from tokenizers.processors import TemplateProcessing

Array = NDArray[Any]
Features = tuple[csr_array, Array, Array]  # what `find_features` returns

SAMPLE = 200_000  # running words that the pieces are learnt from; more change little and take time
LONGEST_PIECE = 32  # characters
MULTIPLIER = 116049371  # of word n-grams in fastText's src/dictionary.cc


def hash_pairs(tokens: Array, owners: Array) -> tuple[Array, Array]:
    """Hash neighbouring tokens of one owner: the first x MULTIPLIER + the second, modulo 2^64.

    Returns
    -------
    owners, hashes
        The owner of each pair, and its hash.

    Examples
    --------
    >>> owners, hashes = hash_pairs(np.array([7, 8, 9, 4]), np.array([0, 0, 0, 1]))
    >>> owners, hashes - np.array([7, 8]) * MULTIPLIER
    (array([0, 0]), array([8, 9]))
    """
    pairs = np.flatnonzero(owners[:-1] == owners[1:])
    return owners[pairs], tokens[pairs] * MULTIPLIER + tokens[pairs + 1]


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
    spaced = pc.replace_substring_regex(pc.utf8_lower(pa.array(list(texts), pa.large_string())), r"[^\pL\pM\pN]+", " ")
    trimmed = pc.utf8_trim_whitespace(spaced)
    lists = pc.split_pattern(pc.if_else(pc.equal(trimmed, ""), None, trimmed), " ")  # no text is not one empty word
    words: pd.Series = lists.flatten().dictionary_encode().to_pandas()
    words.index = np.repeat(np.arange(len(texts), dtype=np.int32), np.diff(lists.offsets))
    return words


def learn_pieces(words: pd.Series, size: int) -> Tokenizer:
    """Learn a byte-pair encoding of `size` pieces from the first of these words (Sennrich et al., ACL 2016)."""
    tokenizer = ByteLevelBPETokenizer()
    sample = (word[:LONGEST_PIECE] for word in words.iloc[:SAMPLE])
    tokenizer.train_from_iterator(sample, size, show_progress=False, special_tokens=["<", ">"])
    tokenizer.post_processor = TemplateProcessing("< $A >", None, [("<", 0), (">", 1)])
    return Tokenizer.from_str(tokenizer.to_str())


def to_matrix(things: pd.Series, n_texts: int) -> csr_array:
    """Return how often each text holds each category of a categorical series under the numbers of the texts."""
    shape = n_texts, len(things.cat.categories)
    return csr_array((np.ones(len(things), np.float32), (things.index, things.cat.codes)), shape)


def find_features(words: pd.Series, n_texts: int, tokenizer: Tokenizer) -> Features:
    """Find the features of texts: their words as wholes, and the pairs of pieces in these.

    Returns
    -------
    counts, owners, hashes
        How often each text holds each distinct word, of shape (n_texts, n_words); for each feature of a distinct word,
        the number of the word and the hash of the feature.
    """
    distinct = words.cat.categories.to_numpy(object)
    pieces = pd.Series([encoding.ids for encoding in tokenizer.encode_batch_fast(distinct)], dtype=object).explode()
    owners, pairs = hash_pairs(pieces.to_numpy(np.int64), pieces.index.to_numpy())
    owners = np.concatenate([np.arange(len(distinct)), owners]).astype(np.int32)
    hashes = np.concatenate([pd.util.hash_array(distinct).astype(np.int64), pairs])
    return to_matrix(words, n_texts), owners, hashes


def weigh(features: Features, min_count: int, idf: float) -> pd.Series:
    """Return the weights of features in at least `min_count` texts, float32 under their hashes, ascending.

    A weight is (1 + log(texts / texts with the feature))^idf; texts count once for each distinct word that has it.
    """
    counts, owners, hashes = features
    found_in = pd.Series(np.bincount(counts.indices, minlength=counts.shape[1])[owners]).groupby(hashes).sum()
    known = found_in[found_in >= min_count]
    return ((1 + np.log((counts.shape[0] / known).clip(lower=1))) ** idf).astype(np.float32)


def pack(features: Features, weights: pd.Series) -> csr_array:
    """Return the bags of texts, a matrix of shape (n_texts, n_weights).

    A feature has log(1 + count of its word) x weight; a bag is scaled to length 1, and unknown features are left out.
    """
    counts, owners, hashes = features
    ids = weights.index.get_indexer(hashes).astype(np.int32)
    known = np.flatnonzero(ids >= 0)
    entries = weights.to_numpy()[ids[known]], (owners[known], ids[known])
    bags = counts.log1p() @ csr_array(entries, (counts.shape[1], len(weights)))
    bags.data /= np.repeat(norm(bags, axis=1), np.diff(bags.indptr))
    return bags

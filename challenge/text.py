"""Text to bags: words, their subword pieces, and the weights of their hashed features.

A text is lower-cased and cut into words: runs of letters, marks and digits. Byte-pair encoding cuts a word into pieces.
The features of a word are the word as a whole and its pairs of neighbouring pieces, the marks before and after it being
pieces too; each is known by a 32-bit hash. A distinct word is encoded once, however often it occurs; the rest is
vectorised.

Bags are a sparse matrix of texts x features in rows (CSR): the ids, offsets and weights of an embedding bag.

Not handled: punctuation, upper case, and the order of words.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_array
from tokenizers import ByteLevelBPETokenizer, Tokenizer

Features = tuple[csr_array, np.ndarray, np.ndarray]  # what `find_features` returns

SAMPLE = 10_000  # distinct words that the pieces are learnt from; more change little and take time
LONGEST_PIECE = 32  # characters
PART = 8192  # texts that a thread cuts into words at a time
LINE = 1000  # words that a thread cuts into pieces at a time
MULTIPLIER = 116049371  # a pair's hash is its first piece x this + its second, as in fastText's src/dictionary.cc


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

    def split(part: pa.Array) -> tuple[pa.Array, np.ndarray]:
        trimmed = pc.utf8_trim_whitespace(pc.replace_substring_regex(pc.utf8_lower(part), r"[^\pL\pM\pN]+", " "))
        lists = pc.split_pattern(pc.if_else(pc.equal(trimmed, ""), None, trimmed), " ")  # no text is not one empty word
        return lists.flatten().dictionary_encode(), np.diff(lists.offsets)

    batches = pa.table([pa.array(texts, pa.large_string())], ["text"]).to_batches(PART)
    with ThreadPoolExecutor(pa.cpu_count()) as pool:
        codes, lengths = zip(*pool.map(split, (batch["text"] for batch in batches)))
    words: pd.Series = pa.chunked_array(codes).to_pandas()
    words.index = np.repeat(np.arange(len(texts), dtype=np.int32), np.concatenate(lengths))
    return words


def learn_pieces(words: pd.Series, size: int) -> Tokenizer:
    """Learn a byte-pair encoding of `size` pieces from the first distinct words (Sennrich et al., ACL 2016)."""
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(words.cat.categories[:SAMPLE].str[:LONGEST_PIECE], size, show_progress=False)
    return Tokenizer.from_str(tokenizer.to_str())


def find_features(words: pd.Series, n_texts: int, tokenizer: Tokenizer) -> Features:
    """Find the features of the words of texts.

    Parameters
    ----------
    words
        The words of the texts.
    n_texts
        Number of the texts.
    tokenizer
        What cuts words into pieces.

    Returns
    -------
    counts, owners, hashes
        How often each text holds each distinct word, of shape (n_texts, n_words); for each feature of each distinct
        word, the number of the word and the hash of the feature, modulo 2^32.
    """
    distinct, ones = words.cat.categories.to_list(), np.ones(len(words), np.float32)
    counts = csr_array((ones, (words.index, words.cat.codes)), (n_texts, len(distinct)))
    hashes = pd.util.hash_array(np.array(distinct, object)).astype(np.int32)
    tokenizer.model._resize_cache(0)  # a word comes once, and the cache of a tokenizer outlives it
    lines = ["\n".join(["", *distinct[start : start + LINE]]) for start in range(0, len(distinct), LINE)]
    pieces = np.concatenate([np.array(line.ids, np.int32) for line in tokenizer.encode_batch_fast([*lines, "\n"])])
    owners = np.concatenate([np.arange(len(distinct)), np.cumsum(pieces == pieces[0])[:-1] - 1]).astype(np.int32)
    return counts, owners, np.concatenate([hashes, pieces[:-1] * MULTIPLIER + pieces[1:]])


def weigh(features: Features, min_count: int, max_features: int, idf: float) -> pd.Series:
    """Return the weights of the most frequent features in at least `min_count` texts, float32 under their hashes.

    A weight is (1 + log(texts / texts with the feature))^idf; texts count once for each distinct word that has it.
    """
    counts, owners, hashes = features
    ids, distinct = pd.factorize(hashes)
    found_in = pd.Series(np.bincount(ids, np.bincount(counts.indices, minlength=counts.shape[1])[owners]), distinct)
    known = found_in[found_in >= min_count].nlargest(max_features)
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
    bags.data /= np.repeat(np.sqrt(bags.power(2).sum(axis=1)), np.diff(bags.indptr))
    return bags

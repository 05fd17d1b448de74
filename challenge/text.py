"""Text to bags: texts -> words -> pieces of a BPE vocabulary -> hashed n-grams.

A text is a bag of units: its distinct words, and its distinct pairs of neighbouring words, in their order. A unit is a
bag of features. A word has itself as a whole, and its n-grams: runs of a few pieces, the marks of its beginning and end
being pieces too. A pair has itself. Features are hashed into buckets. Each unit is looked at once, however often it
occurs, and everything is vectorised, for one text as for sixty thousand. Bags are sparse matrices in rows (CSR), the
layout of an embedding bag.

Not handled: punctuation, upper case, and the order of words that are further apart.
"""

import re
import unicodedata
from collections.abc import Iterable
from zlib import crc32

import numpy as np
from pyarrow import array, compute, large_string, set_memory_pool, system_memory_pool
from scipy.sparse import csr_array
from tokenizers import Tokenizer, models, trainers

from challenge.settings import Settings

BUCKETS = 2**22  # of hashes; 2^20 are as good on films, but cost half a point of MAP@5 on long plots
MULTIPLIER = np.uint64(116049371)  # of the hashes of word n-grams in fastText (src/dictionary.cc)
MARK, UNK = "|", "?"  # the edge of a word or a text, and a character not in the vocabulary; no word holds either
# Distinct words that the vocabulary is learnt from; its size; characters of a word, whose rest is ignored
SAMPLE, PIECES, LONGEST_WORD = 10_000, 500, 256
Units = tuple[csr_array, csr_array, np.ndarray]
# Nobody sees these within a word: soft hyphens, joiners, marks of direction and byte order, variation selectors, tags
HIDDEN = r"[\xad\u034f\u180b-\u180f\u200c-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\U000e0000-\U000e01ef]"
# What stands for each character: a blank for what is no letter, mark or digit. Above, hardly anything but Chinese
# characters and private use follows
PLAIN = "".join(chr(code) if unicodedata.category(chr(code))[0] in "LMN" else " " for code in range(2**17))
set_memory_pool(system_memory_pool())  # the default one keeps much of what is freed


def number_words(texts: Iterable[str]) -> tuple[list[str], np.ndarray]:
    """Give numbers to the distinct words of texts, in the order in which they come.

    Words are runs of letters, marks and digits, after Unicode's form NFKC and lower case. Characters that nobody sees
    are dropped before; a zero width space separates words.

    Returns
    -------
    words, ids
        The distinct words, the empty one first, which marks the edges of texts. And the numbers of all words (int32),
        with a mark before each text and after the last.

    Examples
    --------
    >>> number_words(["Ｎo, no… ﬁre!", "Cafe\N{COMBINING ACUTE ACCENT}"])
    (['', 'no', 'fire', 'café'], array([0, 1, 1, 2, 0, 3, 0], dtype=int32))
    """
    visible = (unicodedata.normalize("NFKC", re.sub(HIDDEN, "", text)) for text in texts)
    lines = [f"{MARK} {text.lower().translate(PLAIN)}".rstrip() for text in visible]
    words = compute.ascii_split_whitespace(array([*lines, MARK], large_string())).flatten().dictionary_encode()
    return ["", *words.dictionary.to_pylist()[1:]], words.indices.to_numpy()


def learn_vocabulary(words: list[str]) -> Tokenizer:
    """Learn a BPE vocabulary (Sennrich et al., ACL 2016) from the first of the distinct words, each counted once."""
    vocabulary = Tokenizer(models.BPE(unk_token=UNK))
    bpe = trainers.BpeTrainer(vocab_size=PIECES, special_tokens=[MARK, UNK], max_token_length=16, show_progress=False)
    vocabulary.train_from_iterator((word[:LONGEST_WORD] for word in words[:SAMPLE]), bpe)
    return vocabulary


def hash_ngrams(words: list[str], vocabulary: Tokenizer, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Hash the n-grams of words, runs of 2 to `longest` pieces.

    The hash of a run is the sum of (number of the piece + 1) x MULTIPLIER^(place in the run, from 0), modulo 2^64.

    Returns
    -------
    hashes, owners
        The hash of each n-gram (uint64), and the number of the word that it is from (int32, ascending).
    """
    # The pieces of all words in one row, with a mark before each word and after the last; lines are encoded in parallel
    lines = ["".join(MARK + word[:LONGEST_WORD] for word in words[i : i + 1024]) for i in range(0, len(words), 1024)]
    vocabulary.model._resize_cache(0)  # it would outlive the vocabulary, and each word comes but once
    # 0 is the last mark; 1 is added, since 0 would not change a hash
    pieces = np.concatenate([*(line.ids for line in vocabulary.encode_batch_fast(lines)), [0]]).astype(np.uint64) + 1
    owners = np.cumsum(pieces == 1, dtype=np.int32) - 1  # the mark before a word is the word's
    # A row for each piece that a run can start with, a column for each length; uint64 overflows, as hashes do
    runs = np.arange(len(pieces) - 1)[:, None] + np.arange(longest)
    hashes = (pieces.take(runs, mode="clip") * MULTIPLIER ** np.arange(longest, dtype=np.uint64)).cumsum(axis=1)[:, 1:]
    inside = owners.take(runs[:, :-1], mode="clip") == owners[:-1, None]  # a run may end with the next word's mark
    return hashes[inside], owners[:-1].repeat(inside.sum(axis=1))


def hash_units(words: list[str], ids: np.ndarray, vocabulary: Tokenizer, settings: Settings) -> Units:
    """Hash the units of texts: distinct words, then distinct pairs of neighbours.

    A word counts 1 as a whole, and its n-grams together sqrt(2): the sum of their squares is 2. A pair counts
    `pair_weight`. The hash of a word is the CRC-32 of its UTF-8 bytes; that of the empty word is 0. The hash of a pair
    is (hash of the first word + 1) x MULTIPLIER + hash of the second, modulo 2^64. The bucket is the hash modulo
    BUCKETS.

    Parameters
    ----------
    words, ids
        What `number_words` returns.
    vocabulary
        The pieces of words.
    settings
        How long n-grams are, and how much a pair counts.

    Returns
    -------
    units, texts, pairs
        How much each feature counts in each unit, float32 of shape (n_units, n_buckets); log(1 + how often each unit
        occurs) in each text, float32 of shape (n_texts, n_units); the numbers of the words of each pair, of shape
        (n_pairs, 2).
    """
    positions = np.flatnonzero(ids)
    neighbours = array((ids[positions - 1].astype(np.int64) << 32) | ids[positions]).dictionary_encode()
    pairs = np.stack(np.divmod(neighbours.dictionary.to_numpy(), 2**32), axis=1)
    wholes = np.array([crc32(word.encode()) for word in words], np.uint64)
    ngrams, owners = hash_ngrams(words, vocabulary, settings.ngrams)
    # 1 is added, since the mark has the hash 0, with which a pair would have the hash of its word
    hashes = np.concatenate([wholes, (wholes[pairs[:, 0]] + 1) * MULTIPLIER + wholes[pairs[:, 1]], ngrams]) % BUCKETS
    values = np.ones(len(words)), np.full(len(pairs), settings.pair_weight), (2 / np.bincount(owners)[owners]) ** 0.5
    n_texts, n_units = np.count_nonzero(ids == 0) - 1, len(words) + len(pairs)
    holders = np.concatenate([np.arange(n_units), owners], dtype=np.int32)
    units = csr_array((np.concatenate(values), (holders, hashes.astype(np.int32))), (n_units, BUCKETS), np.float32)

    # Each word of a text, and the pair that it makes with the word or the mark before it
    entries = np.concatenate([ids[positions], len(words) + neighbours.indices.to_numpy()], dtype=np.int32)
    holders = np.tile(np.cumsum(ids == 0, dtype=np.int32)[positions] - 1, 2)
    return units, csr_array((np.ones(len(holders), np.float32), (holders, entries)), (n_texts, n_units)).log1p(), pairs


def weigh(units: csr_array, texts: csr_array, projection: csr_array) -> tuple[csr_array, csr_array]:
    """Replace buckets by the rows of a table, weigh the features, and scale the texts, in place, to length 1.

    The length of a text is that of its bag of units, each of the length of its bag of features.

    Parameters
    ----------
    units, texts
        What `hash_units` returns.
    projection
        The weight of each bucket in its row, float32 of shape (n_buckets, n_rows); buckets without a row are ignored.
    """
    units = units @ projection
    texts.data /= np.sqrt(texts.power(2) @ units.power(2).sum(axis=1)).clip(1e-9).repeat(np.diff(texts.indptr))
    return units, texts

"""Text to bags: texts -> words -> pieces of a BPE vocabulary -> hashed n-grams.

A text is a bag of units: its distinct words, and its distinct pairs of neighbouring words, in their order. A unit is a
bag of features. The features of a word are the whole word and its n-grams: runs of a few pieces, where the marks of its
beginning and end are pieces too. A pair is one feature. Features are hashed into buckets. Each unit is processed once,
however often it occurs, and everything is vectorised, for one text as for many. Bags are sparse matrices in rows (CSR),
the layout of an embedding bag. Their indices have 32 bits: with others SciPy would copy both matrices of a product.

Ignored: punctuation, upper case, and the order of words that are not neighbours.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple
from zlib import crc32

import numpy as np
from pyarrow import array, compute, large_string, set_memory_pool, system_memory_pool
from scipy.sparse import csr_array, diags_array
from tokenizers import Tokenizer, models, trainers

from challenge.settings import Settings

BUCKETS = 2**22  # of hashes; 2^20 are as good on films, but cost half a point of MAP@5 on long plots
MULTIPLIER = np.uint64(116049371)  # of the hashes of word n-grams in fastText (src/dictionary.cc)
MARK, UNK = "|", "?"  # the edge of a word or a text, and a character not in the vocabulary; no word holds either
LONGEST_WORD = 256  # characters that are cut into pieces; the hash of the whole word uses all of them
# Invisible within a word: soft hyphens, joiners, marks of direction and byte order, variation selectors, tags
HIDDEN = r"[\xad\u034f\u180b-\u180f\u200c-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\U000e0000-\U000e01ef]"
# The replacement of each character: a space, if it is no letter, mark or digit. Above 2^17 there are hardly any but
# Chinese characters and private use
PLAIN = "".join(chr(code) if unicodedata.category(chr(code))[0] in "LMN" else " " for code in range(2**17))
set_memory_pool(system_memory_pool())  # the default one keeps much of what is freed


class Units(NamedTuple):
    """The units of texts: their distinct words, followed by their distinct pairs of neighbouring words.

    Attributes
    ----------
    words
        The distinct words. The first is the empty word, which marks the edges of texts.
    pairs
        The numbers of the words of each pair, int64 of shape (n_pairs, 2).
    counts
        How much each unit counts in each text, float32 of shape (n_texts, n_units).
    """

    words: list[str]
    pairs: np.ndarray
    counts: csr_array


def number_words(texts: Iterable[str]) -> tuple[list[str], np.ndarray]:
    """Give numbers to the distinct words of texts, in order of appearance.

    Words are runs of letters, combining marks and digits, after Unicode's form NFKC and lower case. Invisible
    characters are dropped before that. A zero width space separates words. A single text counts as a list of one.

    Returns
    -------
    words, ids
        The distinct words, first the empty word, which marks the edges of texts. And the numbers of all words (int32),
        with the number of the empty word before each text and after the last.

    Examples
    --------
    >>> number_words(["Ｎo, no… ﬁre!", "Cafe\N{COMBINING ACUTE ACCENT}"])
    (['', 'no', 'fire', 'café'], array([0, 1, 1, 2, 0, 3, 0], dtype=int32))
    """
    texts = [texts] if isinstance(texts, str) else texts
    visible = (unicodedata.normalize("NFKC", re.sub(HIDDEN, "", text)) for text in texts)
    lines = [f"{MARK} {text.lower().translate(PLAIN)}".rstrip() for text in visible]
    words = compute.ascii_split_whitespace(array([*lines, MARK], large_string())).flatten().dictionary_encode()
    return ["", *words.dictionary.to_pylist()[1:]], words.indices.to_numpy()


def learn_vocabulary(words: list[str]) -> Tokenizer:
    """Learn a BPE vocabulary (Sennrich et al., ACL 2016) from the first 10,000 of the distinct words.

    It has 500 pieces. It has fewer if there are few words, and more if the words have more different characters.
    """
    vocabulary = Tokenizer(models.BPE(unk_token=UNK))
    bpe = trainers.BpeTrainer(vocab_size=500, special_tokens=[MARK, UNK], max_token_length=16, show_progress=False)
    vocabulary.train_from_iterator((word[:LONGEST_WORD] for word in words[:10_000]), bpe)
    return vocabulary


def count_units(words: list[str], ids: np.ndarray) -> Units:
    """Count the words of texts, and the pairs that each word makes with the word, or the edge, before it.

    A word or pair that occurs n times in a text counts log(1 + n).

    Parameters
    ----------
    words, ids
        What `number_words` returns.
    """
    places = np.flatnonzero(ids)  # of words; before each is a word or an edge
    # Two numbers of 32 bits in one of 64
    neighbours = array((ids[places - 1].astype(np.int64) << 32) | ids[places]).dictionary_encode()
    pairs = np.stack(np.divmod(neighbours.dictionary.to_numpy(), 2**32), axis=1)

    texts = np.cumsum(ids == 0, dtype=np.int32)[places] - 1  # of each word: an edge is before each text
    units = np.concatenate([ids[places], len(words) + neighbours.indices.to_numpy()], dtype=np.int32)
    shape = (np.count_nonzero(ids == 0) - 1, len(words) + len(pairs))
    counts = csr_array((np.ones(len(units), np.float32), (np.tile(texts, 2), units)), shape)
    return Units(words, pairs, counts.log1p())


def hash_ngrams(words: list[str], vocabulary: Tokenizer, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Hash the n-grams of words, runs of 2 to `longest` pieces.

    The hash of a run is the sum of (number of the piece + 1) x MULTIPLIER^(place in the run, from 0), modulo 2^64.

    Returns
    -------
    hashes, owners
        The hash of each n-gram (uint64), and the number of the word that it is from (int64).
    """
    # All words in one row, with a mark before each word and after the last; lines of it are encoded in parallel
    marked = [MARK + word[:LONGEST_WORD] for word in [*words, ""]]
    vocabulary.model._resize_cache(0)  # a private name, but the cache would outlive the vocabulary
    lines = ["".join(marked[start : start + 1024]) for start in range(0, len(marked), 1024)]
    # The mark has the number 0; 1 is added, since 0 would not change a hash
    pieces = np.concatenate([line.ids for line in vocabulary.encode_batch_fast(lines)]).astype(np.uint64) + 1
    owners = np.cumsum(pieces == 1) - 1  # the mark before a word is the word's
    # A row for each piece that a run can start with, a column for each place in it; uint64 overflows, as hashes do
    places = np.arange(len(pieces) - 1)[:, None] + np.arange(longest)
    runs = pieces.take(places, mode="clip")
    hashes = (runs * MULTIPLIER ** np.arange(longest, dtype=np.uint64)).cumsum(axis=1)  # of the run up to each place
    # A run is the word's if its last piece but one is: it may end with the next word's mark
    inside = owners.take(places[:, :-1], mode="clip") == owners[:-1, None]
    return hashes[:, 1:][inside], owners[:-1].repeat(inside.sum(axis=1))


def hash_units(units: Units, vocabulary: Tokenizer, settings: Settings) -> csr_array:
    """Hash the features of units into buckets.

    A whole word counts 1, and each of its n n-grams sqrt(2 / n). The squares of what the n-grams count sum to 2, or to
    more if an n-gram is repeated. A pair counts `pair_weight`. The hash of a word is the CRC-32 of its UTF-8 bytes;
    that of the empty word is 0. The hash of a pair is (hash of the first word + 1) x MULTIPLIER + hash of the second,
    modulo 2^64. The bucket is the hash modulo BUCKETS.

    Returns
    -------
    features
        How much each bucket counts in each unit, float32 of shape (n_units, BUCKETS).
    """
    words = np.array([crc32(word.encode()) for word in units.words], np.uint64)
    # 1 is added, since the mark has the hash 0, with which a pair would have the hash of its word
    pairs = (words[units.pairs[:, 0]] + 1) * MULTIPLIER + words[units.pairs[:, 1]]
    ngrams, owners = hash_ngrams(units.words, vocabulary, settings.ngrams)
    ngram_weights = np.sqrt(2 / np.bincount(owners))[owners]
    weights = np.concatenate([np.ones(len(words)), np.full(len(pairs), settings.pair_weight), ngram_weights])
    buckets = np.concatenate([words, pairs, ngrams]) % BUCKETS
    rows = np.concatenate([np.arange(units.counts.shape[1]), owners], dtype=np.int32)
    return csr_array((weights, (rows, buckets.astype(np.int32))), (units.counts.shape[1], BUCKETS), np.float32)


def choose_rows(counts: csr_array, features: csr_array, most: int, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """Choose the buckets that get a row in the embedding, and weigh them by their inverse document frequency.

    A bucket occurs in a text once for each distinct unit of the text that has it, so it occurs twice if two words share
    an n-gram. Counting texts exactly would make a training a third longer. Of the buckets that occur `min_count` times
    or more, those that count most in all texts together are chosen: words before rare pairs and long n-grams.

    Parameters
    ----------
    counts, features
        The counts of `count_units`, and what `hash_units` returns.
    most
        How many buckets may be chosen.
    settings
        `min_count` and `idf`.

    Returns
    -------
    buckets, weights
        The numbers of the chosen buckets (int32), ordered by how much they count. And their weights (float32):
        (1 + log(texts / occurrences))^idf, but at least 1.
    """
    texts_with_unit = counts.sign().sum(axis=0)
    occurrences = features.sign().T @ texts_with_unit
    strengths = features.T @ texts_with_unit
    seen = np.flatnonzero(occurrences >= settings.min_count)
    buckets = seen[np.argsort(-strengths[seen], kind="stable")[:most]]
    rarity = np.log(counts.shape[0] / occurrences[buckets]).clip(0)
    return buckets.astype(np.int32), ((1 + rarity) ** settings.idf).astype(np.float32)


def scale(counts: csr_array, features: csr_array) -> csr_array:
    """Return the counts of units in texts, scaled so that each text has the length 1, or 0 if no feature is known.

    The length of a text is that of its bag of units, where each unit has the length of its bag of features.
    """
    lengths = np.sqrt(counts.power(2) @ features.power(2).sum(axis=1))
    return diags_array(1 / lengths.clip(1e-9)) @ counts

"""Text to bags, and the bag model: one column of weights a label, summed over the features of a text.

    logit of a label = bias of the label + sum over the text's features of weight x table[feature, label]

A text is lower-cased and cut into words: runs of letters, marks and digits. The features of a word are the word as a
whole and its runs of a few characters (n-grams), the marks of where it begins and ends being characters too; each is
known by a 32-bit hash. A distinct word is looked at once, however often it occurs, and everything is vectorised. Bags
are a sparse matrix of texts x features in rows (CSR): the ids, offsets and weights of an embedding bag. Not handled:
punctuation, upper case, and the order of words.

The table starts at the naive Bayes log-odds of features and labels, shrunk towards zero, which says nothing; a pass or
two of Adagrad on the one-vs-all logistic loss then weigh the features against each other. The idea is that of Wang and
Manning, "Baselines and Bigrams" (ACL 2012), who scale the inputs of a linear classifier by such log-odds.
"""

import os
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch
from scipy.sparse import csr_array
from torch import Tensor, distributed, nn
from tqdm import tqdm

from challenge.settings import ChallengeError, Settings

FORMAT = "challenge model, format 3"  # the one key of a model file; what older code can't read needs another


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
    words = pc.list_flatten(lists).dictionary_encode().to_pandas()
    return words.set_axis(np.repeat(np.arange(len(texts), dtype=np.int32), pc.list_value_length(lists).fill_null(0)))


def find_features(words: pd.Series, n_texts: int, ngram: int) -> tuple[csr_array, pd.DataFrame]:
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
    counts, features
        How often each text holds each distinct word, of shape (n_texts, n_words). And for each feature of each distinct
        word, under the hash of the feature (int32): `owner`, the number of the word; `texts`, how many texts hold the
        word; `strength`, how much the feature counts (float32): 1 for the word as a whole, and for its n-grams what
        makes the sum of their squares 1.
    """
    distinct, ones = words.cat.categories.to_numpy(object), np.ones(len(words), np.float32)
    counts = csr_array((ones, (words.index, words.cat.codes)), (n_texts, len(distinct)))
    # All words in one row of characters, between line breaks: an n-gram may begin and end at one, but not cross it
    characters = np.frombuffer("\n".join(["", *distinct, *[""] * ngram]).encode("utf-32-le"), np.uint32)
    number = np.cumsum(characters == ord("\n"), dtype=np.int32)
    starts = np.flatnonzero(number[: 1 - ngram] == number[ngram - 2 : -1])
    windows = np.lib.stride_tricks.sliding_window_view(characters, ngram)
    # A rolling hash, its multiplier that of fastText's word n-grams (src/dictionary.cc)
    ngrams = (windows @ 116049371 ** np.arange(ngram, dtype=np.uint32))[starts]
    hashes = np.concatenate([pd.util.hash_array(distinct, categorize=False).astype(np.int32), ngrams.view(np.int32)])
    owners = np.concatenate([np.arange(len(distinct), dtype=np.int32), number[starts] - 1])
    strengths = (np.bincount(owners) - 1).clip(1)[owners].astype(np.float32) ** -0.5
    strengths[: len(distinct)] = 1
    found_in = np.bincount(counts.indices, minlength=len(distinct))[owners]
    return counts, pd.DataFrame({"owner": owners, "texts": found_in, "strength": strengths}, hashes)


def pack(counts: csr_array, features: pd.DataFrame, weights: pd.Series) -> tuple[csr_array, np.ndarray]:
    """Return the bags of texts, of shape (n_texts, n_weights), and the lengths that they had before they were scaled.

    A feature has log(1 + count of its word) x strength x weight; a bag is scaled to length 1, and unknown features are
    left out.
    """
    ids = weights.index.get_indexer(features.index).astype(np.int32)
    known, ids = features[ids >= 0], ids[ids >= 0]
    entries = known["strength"] * weights.to_numpy()[ids], (known["owner"], ids)
    bags = counts.log1p() @ csr_array(entries, (counts.shape[1], len(weights)))
    lengths = np.sqrt(csr_array((bags.data**2, bags.indices, bags.indptr), bags.shape).sum(axis=1))
    bags.data /= np.repeat(lengths, np.diff(bags.indptr))
    return bags, lengths


def gather(own: Any) -> list[Any]:
    """Return what each process of a training has, in the order of the processes, of which torchrun starts several."""
    parts = [own]
    if distributed.is_initialized():
        parts *= distributed.get_world_size()
        distributed.all_gather_object(parts, own)
    return parts


def add_up(bags: csr_array, table: Tensor) -> Tensor:
    """Return the weighted sums of rows of a table over bags, of shape (n_bags, n_columns)."""
    ids, offsets, weights = (torch.from_numpy(part).to(table.device) for part in (bags.indices, bags.indptr, bags.data))
    bag = nn.functional.embedding_bag
    return bag(ids, table, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True)


def start(bags: csr_array, targets: csr_array, n_texts: int, smoothing: float) -> tuple[Tensor, Tensor]:
    """Return the naive Bayes log-odds of features and labels, the table to start at, and the log-odds of the labels.

    A feature's weight in the texts with a label, against what the label's share of all texts leads to expect; the
    same in the texts without it. `smoothing` is added to each, so that what is rare says little. Weights and shares are
    those of the `n_texts` texts of all processes.
    """
    totals = sum(gather(bags.sum(axis=0)))[:, None]
    share = ((sum(gather(targets.sum(axis=0))) + 1) / (n_texts + 2)).astype(np.float32)
    inside = sum(gather((bags.T @ targets).toarray(order="C")))  # the rows of an embedding lie in one piece
    odds = np.log((inside + smoothing) / (totals * share + smoothing))
    # Rounding may take the weight in the other texts below nothing
    odds -= np.log((np.maximum(totals - inside, 0) + smoothing) / (totals * (1 - share) + smoothing))
    return torch.from_numpy(odds), torch.from_numpy(share).logit()


class Classifier(nn.Module):
    """A table of features x labels, a bias, and the weights that turn texts into bags of features.

    Attributes
    ----------
    settings
        How it learnt.
    weights
        The features that it knows, the rows of the table: their weights, (1 + log(texts / texts with it))^idf, float32
        under their hashes.
    labels
        The names of the labels, the columns of the table, ascending.
    table, bias
        What it learns, of shapes (n_features, n_labels) and (n_labels,).
    """

    def __init__(self, settings: Settings, weights: pd.Series, labels: list[str], table: Tensor, bias: Tensor) -> None:
        """Make a classifier of what was learnt."""
        super().__init__()
        self.settings, self.weights, self.labels = settings, weights, labels
        gpu = settings.device == "auto" and torch.cuda.is_available()
        device = f"cuda:{os.getenv('LOCAL_RANK', 0)}" if gpu else "cpu"  # torchrun numbers a machine's processes
        self.table, self.bias = (nn.Parameter(part.to(device), requires_grad=False) for part in (table, bias))

    @classmethod
    def learn(cls, texts: pd.Series, labels: pd.Series, settings: Settings) -> "Classifier":
        """Learn the labels of texts.

        Where `torch.distributed` has a process group, each of its processes brings a share of the texts, and all of
        them return the same classifier.

        Parameters
        ----------
        texts
            The texts.
        labels
            For each text its labels, at least one, separated by spaces.
        settings
            How to learn; the same data, settings and numbers of threads and processes give the same classifier, to the
            byte.
        """
        pairs = labels.str.split().reset_index(drop=True).explode().astype("category")
        names, n_texts = sorted(set().union(*gather(list(pairs.cat.categories)))), sum(gather(len(texts)))
        # 32 bits throughout, or a product copies the ids of all bags to 64
        places = np.array([pairs.index, pd.Index(names).get_indexer(pairs.cat.categories)[pairs.cat.codes]], np.int32)
        targets = csr_array((np.ones(len(pairs), np.float32), places), (len(texts), len(names))).minimum(1)
        counts, features = find_features(split_words(texts), len(texts), settings.ngram)
        found_in = pd.concat(gather(features["texts"])).groupby(level=0, sort=False).sum()
        # The table has 2^24 cells at most: many labels leave room for fewer features
        known = found_in[found_in >= settings.min_count].nlargest(min(settings.max_features, 2**24 // len(names)))
        # Texts count once for each distinct word that has a feature, which may be more than there are
        weights = ((1 + np.log((n_texts / known).clip(lower=1))) ** settings.idf).astype(np.float32)
        bags, _ = pack(counts, features, weights)
        classifier = cls(settings, weights, names, *start(bags, targets, n_texts, settings.smoothing))
        classifier.descend(bags, targets, n_texts)
        return classifier

    def descend(self, bags: csr_array, targets: csr_array, n_texts: int) -> None:
        """Minimise the one-vs-all logistic loss, in shuffled batches, by Adagrad at a rate that falls to zero.

        Adagrad (Duchi et al., JMLR 2011) divides a step by the root of the sum of the squared gradients so far: no step
        is longer than the rate, so that no rate leads to numbers that are not finite. The bias stays as it is. The
        gradient of a bag is a bag too: a feature's is summed over the texts that hold it. Taken so, it costs a fraction
        of what PyTorch's own gradient of `embedding_bag` does, which sorts the ids anew in every step. The processes
        take each step together: a batch is what all of them have in it, and the gradient their sum.
        """
        settings, table = self.settings, self.table
        squares = torch.full_like(table, 0.1)  # more than nothing, so that faint gradients make short steps
        size = min(settings.batch_size, n_texts // 64 + 1)  # so that an epoch has steps enough
        # A permutation of the texts for each epoch, one after the other
        order = np.random.default_rng(settings.seed).random((settings.epochs, bags.shape[0])).argsort(axis=1).ravel()
        batches = np.array_split(order, max(1, settings.epochs * n_texts // size))
        # A bar at a terminal only (None), of one process, and only where there is more than a second to wait
        silent = True if distributed.is_initialized() and distributed.get_rank() else None
        for step, batch in enumerate(tqdm(batches, "training", delay=1, leave=False, disable=silent)):
            texts, truth = bags[batch], torch.from_numpy(targets[batch].toarray())
            errors = self(texts).sigmoid() - truth.to(table.device)
            gradient = add_up(texts.T.tocsr(), errors)
            if distributed.is_initialized():
                distributed.all_reduce(gradient)
            rate = settings.learning_rate * (1 - step / len(batches))
            table.addcdiv_(gradient, squares.addcmul_(gradient, gradient).sqrt(), value=-rate)

    def forward(self, bags: csr_array) -> Tensor:
        """Return logits of shape (n_bags, n_labels)."""
        return add_up(bags, self.table) + self.bias

    def predict(self, texts: pd.Series) -> np.ndarray:
        """Return the probability of each label for each text, float32 of shape (n_texts, n_labels)."""
        bags, _ = pack(*find_features(split_words(texts), len(texts), self.settings.ngram), self.weights)
        return np.asarray(self(bags).sigmoid().cpu())

    def rank(self, texts: pd.Series, k: int) -> pd.DataFrame:
        """Return the `k` most probable labels of each text, in a row, best first; ties in the order of the alphabet."""
        best = np.argsort(-self.predict(texts), axis=1, kind="stable")[:, :k]
        return pd.DataFrame(np.array(self.labels, object)[best], texts.index)

    def explain(self, text: str, k: int) -> pd.DataFrame:
        """Return what makes the logits of the `k` most probable labels of a text, in a column each, best first.

        A row is a distinct word of the text, in lower case, and what it adds to the logits; the last row is the bias. A
        column sums to the logit, whose sigmoid is the probability.
        """
        words = split_words(pd.Series([text]))
        apart = words.set_axis(words.cat.codes)  # each distinct word as a text of its own
        bags, lengths = pack(*find_features(apart, len(words.cat.categories), self.settings.ngram), self.weights)
        shares = lengths / max(np.linalg.norm(lengths @ bags), 1e-9)  # of the words in the bag of the text
        terms = pd.DataFrame(np.asarray(add_up(bags, self.table).cpu()), words.cat.categories, self.labels)
        terms = pd.concat([terms.mul(shares, axis=0), pd.DataFrame([self.bias.tolist()], ["(bias)"], self.labels)])
        return terms[terms.sum().nlargest(k).index]

    def save(self, path: Path) -> None:
        """Write the classifier to a file, whole or not at all.

        Raises
        ------
        ChallengeError
            The file can't be written; what was there before is still there.
        """
        features = torch.tensor(self.weights.index.to_numpy()), torch.tensor(self.weights.to_numpy())
        file = BytesIO()
        torch.save({FORMAT: (vars(self.settings), *features, self.labels, self.state_dict())}, file)
        unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            unfinished.write_bytes(file.getbuffer())
            unfinished.replace(path)
        except OSError as error:
            raise ChallengeError(507, f"{path.name}: not saved: {error.strerror}") from error
        finally:
            unfinished.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> "Classifier":
        """Read a classifier from a file; nothing that the file may hold is run.

        Raises
        ------
        ChallengeError
            There is no such file, or it is not a whole one of this format.
        """
        try:
            settings, hashes, weights, labels, state = torch.load(path, "cpu", weights_only=True)[FORMAT]
            return cls(Settings(**settings), pd.Series(weights.numpy(), hashes.numpy()), labels, **state)
        except Exception as error:  # whatever a file that is not a model leads to
            raise ChallengeError(409, f"{path.name}: no whole {FORMAT}, is there; train one first") from error

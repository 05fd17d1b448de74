"""The bag model: one column of weights a label, summed over the features of a text.

    logit of a label = bias of the label + sum over the text's features of weight x table[feature, label]

The table starts at the naive Bayes log-odds of features and labels, shrunk towards zero, which says nothing; a pass or
two of Adagrad on the one-vs-all logistic loss then weigh the features against each other. The idea is that of Wang and
Manning, "Baselines and Bigrams" (ACL 2012), who scale the inputs of a linear classifier by such log-odds.
"""

import os
from dataclasses import asdict
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn
from tqdm import tqdm

from challenge.settings import ChallengeError, Settings
from challenge.text import find_features, pack, split_words, weigh

FORMAT = "challenge model, format 3"  # the one key of a model file; what older code can't read needs another


def add_up(bags: csr_array, table: Tensor) -> Tensor:
    """Return the weighted sums of rows of a table over bags, of shape (n_bags, n_columns)."""
    ids, offsets, weights = (torch.from_numpy(part).to(table.device) for part in (bags.indices, bags.indptr, bags.data))
    bag = nn.functional.embedding_bag
    return bag(ids, table, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True)


def start(bags: csr_array, targets: csr_array, smoothing: float) -> tuple[Tensor, Tensor]:
    """Return the naive Bayes log-odds of features and labels, the table to start at, and the log-odds of the labels.

    A feature's weight in the texts with a label, against what the label's share of all texts leads to expect; the
    same in the texts without it. `smoothing` is added to each, so that what is rare says little.
    """
    totals = bags.sum(axis=0)[:, None]
    share = ((targets.sum(axis=0) + 1) / (bags.shape[0] + 2)).astype(np.float32)
    inside = (bags.T @ targets).toarray(order="C")  # the rows of an embedding lie in one piece
    outside = np.maximum(totals - inside, 0)  # rounding may take it below
    odds = np.log((inside + smoothing) / (totals * share + smoothing))
    odds -= np.log((outside + smoothing) / (totals * (1 - share) + smoothing))
    return torch.from_numpy(odds), torch.from_numpy(share).logit()


class Classifier(nn.Module):
    """A table of features x labels, a bias, and the weights that turn texts into bags of features.

    Attributes
    ----------
    settings
        How it learnt.
    weights
        The features that it knows, the rows of the table: their weights under their hashes.
    labels
        The names of the labels, the columns of the table, ascending.
    table, bias
        What it learns, of shapes (n_features, n_labels) and (n_labels,).
    """

    def __init__(self, settings: Settings, weights: pd.Series, labels: list[str], table: Tensor, bias: Tensor) -> None:
        """Make a classifier of what was learnt."""
        super().__init__()
        self.settings, self.weights, self.labels = settings, weights, labels
        device = "cuda" if settings.device == "auto" and torch.cuda.is_available() else "cpu"
        self.table = nn.Parameter(table.to(device), requires_grad=False)
        self.bias = nn.Parameter(bias.to(device), requires_grad=False)

    @classmethod
    def learn(cls, texts: pd.Series, labels: pd.Series, settings: Settings) -> "Classifier":
        """Learn the labels of texts.

        Parameters
        ----------
        texts
            The texts.
        labels
            For each text its labels, at least one, separated by spaces.
        settings
            How to learn; the same data, settings and number of threads give the same classifier, to the byte.
        """
        pairs = labels.str.split().reset_index(drop=True).explode().astype("category")
        ones, names = np.ones(len(pairs), np.float32), list(pairs.cat.categories)
        targets = csr_array((ones, (pairs.index, pairs.cat.codes)), (len(texts), len(names))).minimum(1)
        features = find_features(split_words(texts), len(texts), settings.ngram)
        # The table has 2^24 cells at most: many labels leave room for fewer features
        weights = weigh(features, settings.min_count, min(settings.max_features, 2**24 // len(names)), settings.idf)
        bags, _ = pack(features, weights)
        classifier = cls(settings, weights, names, *start(bags, targets, settings.smoothing))
        classifier.descend(bags, targets)
        return classifier

    def descend(self, bags: csr_array, targets: csr_array) -> None:
        """Minimise the one-vs-all logistic loss, in shuffled batches, by Adagrad at a rate that falls to zero.

        Adagrad (Duchi et al., JMLR 2011) divides a step by the root of the sum of the squared gradients so far: no step
        is longer than the rate, so that no rate leads to numbers that are not finite. The bias stays as it is. The
        gradient of a bag is a bag too: a feature's is summed over the texts that hold it. Taken so, it costs a fraction
        of what PyTorch's own gradient of `embedding_bag` does, which sorts the ids anew in every step.
        """
        settings, n_texts, table = self.settings, bags.shape[0], self.table
        squares = torch.full_like(table, 0.1)  # more than nothing, so that faint gradients make short steps
        size = min(settings.batch_size, n_texts // 64 + 1)  # so that an epoch has steps enough
        epochs = np.tile(np.arange(n_texts), (settings.epochs, 1))
        order = np.random.default_rng(settings.seed).permuted(epochs, axis=1).ravel()
        # A bar at a terminal only (disable=None), and only where there is more than a second to wait
        for start in tqdm(range(0, order.size, size), "training", delay=1, leave=False, disable=None):
            batch = order[start : start + size]
            texts, truth = bags[batch], torch.from_numpy(targets[batch].toarray())
            errors = self(texts).sigmoid() - truth.to(table.device)
            gradient = add_up(texts.T.tocsr(), errors)
            rate = settings.learning_rate * (1 - start / order.size)
            table.addcdiv_(gradient, squares.addcmul_(gradient, gradient).sqrt(), value=-rate)

    def forward(self, bags: csr_array) -> Tensor:
        """Return logits of shape (n_bags, n_labels)."""
        return add_up(bags, self.table) + self.bias

    def predict(self, texts: pd.Series) -> np.ndarray:
        """Return the probability of each label for each text, float32 of shape (n_texts, n_labels)."""
        bags, _ = pack(find_features(split_words(texts), len(texts), self.settings.ngram), self.weights)
        return np.asarray(self(bags).sigmoid().cpu())

    def rank(self, texts: pd.Series, k: int) -> list[list[str]]:
        """Return the `k` most probable labels of each text, best first; ties in the order of the alphabet."""
        best = np.argsort(-self.predict(texts), axis=1, kind="stable")[:, :k]
        return [[self.labels[label] for label in row] for row in best.tolist()]

    def explain(self, text: str, k: int) -> pd.DataFrame:
        """Return what makes the logits of the `k` most probable labels of a text, in a column each, best first.

        A row is a distinct word of the text, in lower case, and what it adds to the logits; the last row is the bias. A
        column sums to the logit, whose sigmoid is the probability.
        """
        words = split_words(pd.Series([text]))
        apart = words.set_axis(words.cat.codes)  # each distinct word as a text of its own
        bags, lengths = pack(find_features(apart, len(words.cat.categories), self.settings.ngram), self.weights)
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
        torch.save({FORMAT: (asdict(self.settings), *features, self.labels, self.state_dict())}, file)
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
            classifier = cls(Settings(**settings), pd.Series(weights.numpy(), hashes.numpy()), labels, **state)
        except Exception as error:  # whatever a file that is not a model leads to
            raise ChallengeError(409, f"{path.name}: no whole {FORMAT}, is there; train one first") from error
        return classifier

"""The bag model: one column of weights a label, summed over the features of a text.

    logit of a label = bias of the label + sum over the text's features of weight x table[feature, label]

The table starts at the naive Bayes log-odds of features and labels, shrunk towards zero, which says nothing; a pass or
two of Adam on the one-vs-all logistic loss then weigh the features against each other. The idea is that of Wang and
Manning, "Baselines and Bigrams" (ACL 2012), who scale the inputs of a linear classifier by such log-odds.
"""

import os
from dataclasses import asdict
from io import BytesIO
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_array
from tokenizers import Tokenizer
from torch import Tensor, nn
from tqdm import tqdm

from challenge.settings import ModelError, Settings, TrainingError
from challenge.text import Array, find_features, learn_pieces, pack, split_words, to_matrix, weigh

FORMAT = "challenge model, format 1"  # the one key of a model file; what older code can't read needs another
BATCH = 8192  # texts at a time, in prediction


class Classifier(nn.Module):
    """A table of features x labels, a bias, and what turns texts into bags of features.

    Attributes
    ----------
    settings
        How it learnt.
    tokenizer
        What cuts words into pieces.
    weights
        The features that it knows, the rows of the table: their weights under their hashes.
    labels
        The names of the labels, the columns of the table, ascending.
    table, bias
        The parameters, of shapes (n_features, n_labels) and (n_labels,).
    """

    def __init__(self, settings: Settings, tokenizer: Tokenizer, weights: pd.Series, labels: list[str]) -> None:
        """Make a classifier that knows nothing: all zeros."""
        super().__init__()
        self.settings, self.tokenizer, self.weights, self.labels = settings, tokenizer, weights, labels
        zeros = torch.zeros(len(weights), len(labels))
        self.table = nn.EmbeddingBag.from_pretrained(zeros, freeze=False, mode="sum", include_last_offset=True)
        self.bias = nn.Parameter(torch.zeros(len(labels)))

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

        Raises
        ------
        TrainingError
            The loss is no longer a finite number.
        """
        pairs = labels.str.split().reset_index(drop=True).explode().astype("category")
        words = split_words(texts)
        tokenizer = learn_pieces(words, settings.pieces)
        features = find_features(words, len(texts), tokenizer)
        weights = weigh(features, settings.min_count, settings.idf)
        classifier = cls(settings, tokenizer, weights, list(pairs.cat.categories)).to(pick_device(settings.device))
        bags, targets = pack(features, weights), to_matrix(pairs, len(texts)).minimum(1)
        classifier.start(bags, targets)
        classifier.descend(bags, targets)
        return classifier

    def start(self, bags: csr_array, targets: csr_array) -> None:
        """Set the bias to the log-odds of the labels, and the table to naive Bayes log-odds of features and labels.

        A feature's weight in the texts with a label, as a multiple of what the label's share of texts leads to
        expect, against the same in the texts without it; `smoothing` is added to both, so that rare features say
        little.
        """
        share = (targets.sum(axis=0) + 1) / (bags.shape[0] + 2)
        inside = (bags.T @ targets).toarray()
        outside = np.maximum(bags.sum(axis=0)[:, None] - inside, 0)  # rounding may take it below
        smoothing = self.settings.smoothing
        odds = np.log(inside / share + smoothing) - np.log(outside / (1 - share) + smoothing)
        with torch.no_grad():
            self.table.weight.copy_(torch.from_numpy(odds))
            self.bias.copy_(torch.from_numpy(share).logit())

    def descend(self, bags: csr_array, targets: csr_array) -> None:
        """Minimise the one-vs-all logistic loss, in shuffled batches, with Adam at a rate that falls to zero."""
        settings, n_texts = self.settings, bags.shape[0]
        rate, size = settings.learning_rate, settings.batch_size
        optimizer = torch.optim.Adam(self.parameters(), rate, weight_decay=settings.weight_decay, fused=True)
        order = torch.Generator().manual_seed(settings.seed)
        shuffles = (torch.split(torch.randperm(n_texts, generator=order), size) for _ in range(settings.epochs))
        steps = settings.epochs * len(range(0, n_texts, size))
        batches = tqdm(chain.from_iterable(shuffles), "training", steps, disable=None)  # None: at a terminal only
        for step, batch in enumerate(batches):
            optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
            rows = batch.numpy()
            truth = torch.from_numpy(targets[rows].toarray()).to(self.bias.device)
            loss = nn.functional.binary_cross_entropy_with_logits(self(bags[rows]), truth, reduction="sum") / len(rows)
            if not loss.isfinite():
                epoch = step * settings.epochs // steps + 1
                raise TrainingError(f"the loss is {loss.item()} in epoch {epoch}: lower learning_rate, now {rate}")
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()

    def forward(self, bags: csr_array) -> Tensor:
        """Return logits of shape (n_bags, n_labels)."""
        parts = (torch.from_numpy(part).to(self.bias.device) for part in (bags.indices, bags.indptr, bags.data))
        sums: Tensor = self.table(*parts)
        return sums + self.bias

    def predict(self, texts: pd.Series) -> Array:
        """Return the probability of each label for each text, float32 of shape (n_texts, n_labels)."""
        bags = pack(find_features(split_words(texts), len(texts), self.tokenizer), self.weights)
        with torch.inference_mode():
            logits = [self(bags[start : start + BATCH]).cpu() for start in range(0, len(texts), BATCH)]
            return torch.cat(logits).sigmoid().numpy()

    def rank(self, texts: pd.Series, k: int) -> list[list[str]]:
        """Return the `k` most probable labels of each text, best first; ties in the order of the alphabet."""
        best = np.argsort(-self.predict(texts), axis=1, kind="stable")[:, :k]
        return [[self.labels[label] for label in row] for row in best.tolist()]

    def save(self, path: Path) -> None:
        """Write the classifier to a file, whole or not at all.

        Raises
        ------
        ModelError
            The file can't be written; what was there before is still there.
        """
        content = {
            "settings": asdict(self.settings),
            "tokenizer": self.tokenizer.to_str(),
            "hashes": torch.tensor(self.weights.index),
            "weights": torch.tensor(self.weights.array),
            "labels": self.labels,
            "state_dict": self.state_dict(),
        }
        file = BytesIO()
        torch.save({FORMAT: content}, file)
        unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            unfinished.write_bytes(file.getbuffer())
            unfinished.replace(path)
        except OSError as error:
            raise ModelError(f"{path.name}: not saved: {error.strerror}") from error
        finally:
            unfinished.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path, device: str = "auto") -> "Classifier":
        """Read a classifier from a file; nothing that the file may hold is run.

        Raises
        ------
        ModelError
            There is no such file, or it is not a whole one of this format.
        """
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)[FORMAT]
            weights = pd.Series(content["weights"].numpy(), content["hashes"].numpy())
            tokenizer = Tokenizer.from_str(content["tokenizer"])
            classifier = cls(Settings(**content["settings"]), tokenizer, weights, content["labels"])
            classifier.load_state_dict(content["state_dict"])
        except FileNotFoundError as error:
            raise ModelError(f"{path.name}: there is no model yet; train one first") from error
        except Exception as error:  # whatever a file that is not a model leads to
            raise ModelError(f"{path.name}: not a whole {FORMAT}; train one anew") from error
        return classifier.to(pick_device(device))


def pick_device(name: str) -> str:
    """Return the device to compute on: for "auto", a GPU where there is one."""
    return "cuda" if name == "auto" and torch.cuda.is_available() else "cpu"

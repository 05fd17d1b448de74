"""The bag model: an embedding bag with one column a label, summed over the features of a text.

    logit of a label = bias of the label + sum over the text's features of weight x embedding[feature, label]

The embedding starts at the naive Bayes log-odds of features and labels, shrunk towards zero, which says nothing; an
epoch or two of Adagrad on the one-vs-all logistic loss then weigh the features against each other. The idea is that of
Wang and Manning, "Baselines and Bigrams" (ACL 2012), who scale the inputs of a linear classifier by such log-odds.

`score` compares rankings with the true genres; `hold_out` learns from a part of the films, and scores the rest.
"""

from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_array
from tokenizers import Tokenizer
from torch import Tensor, nn

from challenge.movies import write_file
from challenge.settings import NoModelError, Settings
from challenge.text import BUCKETS, hash_units, learn_vocabulary, number_words, weigh

FORMAT = "challenge model, format 6"  # the one key of a model file; what older code can't read needs another
RANKS = 5  # that the challenge asks for and judges
MOST_CELLS = 2**24  # of the embedding, 64 MiB: many labels leave room for fewer features


def sum_bags(bags: csr_array, rows: Tensor) -> Tensor:
    """Return the weighted sums of rows over bags, of shape (n_bags, n_columns)."""
    ids, starts, data = (torch.from_numpy(part).to(rows.device) for part in (bags.indices, bags.indptr, bags.data))
    return nn.functional.embedding_bag(ids, rows, starts, mode="sum", per_sample_weights=data, include_last_offset=True)


def naive_bayes_log_odds(bags: csr_array, targets: csr_array, prior: Tensor, smoothing: float) -> Tensor:
    """Return the naive Bayes log-odds of features and labels, of shape (n_features, n_labels).

        log((inside + s) / (expected inside + s)) - log((outside + s) / (expected outside + s))

    `inside` is the weight of a feature in the texts with a label, `outside` in those without. What is expected inside
    is the weight in all texts times the label's prior; the rest is expected outside. s makes what is rare say little:
    it is `smoothing` times the mean weight of a feature in a text that has it. The log-count ratios of Wang and Manning
    (ACL 2012) compare shares of all features; here a feature is compared with itself.
    """
    inside = torch.from_numpy((bags.T @ targets).toarray(order="C"))
    totals = torch.from_numpy(bags.sum(axis=0))[:, None]
    added = smoothing * float(totals.sum() / bags.nnz)
    expected, outside = totals * prior, (totals - inside).clamp(min=0)  # rounding may lead below 0
    return ((inside + added) / (expected + added) * (totals - expected + added) / (outside + added)).log()


class Classifier(nn.Module):
    """An embedding bag with a column a label, a bias, and what turns texts into bags.

    Attributes
    ----------
    settings
        How it learnt.
    labels
        The names of the labels, ascending.
    vocabulary
        The BPE vocabulary.
    buckets, idf
        For each row of the embedding, the bucket of its feature (int32), and the feature's weight (float32): its
        inverse document frequency, (1 + log(texts / occurrences))^idf, 1 where that would be less. A feature occurs in
        a text once for each distinct word or pair that has it.
    projection
        The same as a matrix: the weight of each bucket in its row, float32 of shape (n_buckets, n_rows).
    embedding, bias
        What it learns, float32 of shapes (n_rows, n_labels) and (n_labels,).
    """

    def __init__(self, settings: Settings, labels: list[str], bpe: str, buckets: np.ndarray, idf: np.ndarray) -> None:
        """Make a classifier that has learnt nothing yet; `bpe` is the vocabulary, as JSON."""
        super().__init__()
        self.settings, self.labels, self.vocabulary = settings, labels, Tokenizer.from_str(bpe)
        self.buckets, self.idf = nn.Buffer(torch.from_numpy(buckets)), nn.Buffer(torch.from_numpy(idf))
        self.embedding = nn.EmbeddingBag(len(buckets), len(labels), mode="sum", include_last_offset=True)
        self.bias = nn.Parameter(torch.zeros(len(labels)))
        self.projection = csr_array((idf, (buckets, np.arange(len(idf), dtype=np.int32))), (BUCKETS, len(idf)))
        # Gradients are computed by hand, see `fit`
        self.to("cuda" if torch.cuda.is_available() else "cpu").requires_grad_(False)

    @classmethod
    def learn(cls, texts: Sequence[str], labels: Sequence[Sequence[str]], settings: Settings) -> "Classifier":
        """Learn the labels of texts.

        Parameters
        ----------
        texts
            The texts, at least one.
        labels
            The labels of each text, at least one.
        settings
            How to learn; the same data, settings and number of threads give the same classifier, to the byte.
        """
        words, ids = number_words(texts)
        vocabulary = learn_vocabulary(words)
        names, columns = np.unique([name for group in labels for name in group], return_inverse=True)
        owners = np.arange(len(texts), dtype=np.int32).repeat([len(group) for group in labels])
        # 64 bits would be copied into all products
        targets = csr_array((np.ones(len(columns), np.float32), (owners, columns.astype(np.int32)))).sign()

        units, counts, _ = hash_units(words, ids, vocabulary, settings)
        # A feature occurs in a text once for each distinct unit that has it, so twice where two words of the text share
        # an n-gram: to count texts would take a third of the whole training
        texts_with_unit = counts.sign().sum(axis=0)
        occurrences = units.sign().T @ texts_with_unit
        seen = np.flatnonzero(occurrences >= settings.min_count)
        # Rows go to the features that count most in all texts together: words before rare pairs and long n-grams
        strengths = (units.T @ texts_with_unit)[seen]
        known = seen[np.argsort(-strengths, kind="stable")[: min(settings.max_features, MOST_CELLS // len(names))]]
        idf = (1 + np.log(len(texts) / occurrences[known]).clip(0)) ** settings.idf
        classifier = cls(settings, names.tolist(), vocabulary.to_str(), known.astype(np.int32), idf.astype(np.float32))
        units, counts = weigh(units, counts, classifier.projection)
        classifier.fit(counts @ units, targets)
        return classifier

    def fit(self, bags: csr_array, targets: csr_array) -> None:
        """Minimise the one-vs-all logistic loss, in shuffled batches, by Adagrad at a rate that falls to zero.

        Adagrad (Duchi et al., JMLR 2011) divides a step by the root of the sum of the squared gradients so far: no step
        is longer than the rate, so that no rate leads to numbers that are not finite. The bias stays as it is. The
        gradient of a bag is a bag too: a feature's is summed over the texts that hold it. Taken so, it costs a fraction
        of what PyTorch's own gradient of an embedding bag does, which sorts the ids anew in every step.
        """
        settings, weight, n_texts = self.settings, self.embedding.weight, targets.shape[0]
        prior = (torch.from_numpy(targets.sum(axis=0)) + 1) / (n_texts + 2)
        self.bias.copy_(prior.logit())
        weight.copy_(naive_bayes_log_odds(bags, targets, prior, settings.smoothing))
        squares = torch.full_like(weight, 0.1)  # more than nothing, so that faint gradients make short steps
        # The texts are shuffled in each epoch, which has 32 batches or more where there are texts enough
        shuffle, size = np.random.default_rng(settings.seed).permutation, min(settings.batch_size, n_texts // 32 + 1)
        batches = [b for _ in range(settings.epochs) for b in np.array_split(shuffle(n_texts), -(-n_texts // size))]
        for step, batch in enumerate(batches):
            texts, truth = bags[batch], torch.from_numpy(targets[batch].toarray()).to(weight.device)
            errors = (sum_bags(texts, weight) + self.bias).sigmoid() - truth
            gradient = sum_bags(texts.T.tocsr(), errors)
            rate = settings.learning_rate * (1 - step / len(batches))
            weight.addcdiv_(gradient, squares.addcmul_(gradient, gradient).sqrt(), value=-rate)

    def forward(self, texts: Iterable[str]) -> Tensor:
        """Return the logits of texts, of shape (n_texts, n_labels); their sigmoid is the probability of each label."""
        units, counts, _, _ = self.read(texts)
        return sum_bags(counts @ units, self.embedding.weight) + self.bias

    def read(self, texts: Iterable[str]) -> tuple[csr_array, csr_array, list[str], np.ndarray]:
        """Return the units of texts, the texts as bags of units, the distinct words, and the pairs of their numbers."""
        words, ids = number_words(texts)
        units, counts, pairs = hash_units(words, ids, self.vocabulary, self.settings)
        return *weigh(units, counts, self.projection), words, pairs

    def rank(self, texts: Iterable[str], k: int) -> list[list[str]]:
        """Return the `k` most probable labels of each text, best first; ties in the order of the alphabet."""
        order = self(texts).argsort(stable=True, descending=True)
        return [[self.labels[column] for column in columns] for columns in order[:, :k].tolist()]

    def explain(self, texts: Iterable[str], k: int) -> Iterator[dict[str, dict[str, float]]]:
        """Yield the terms of the logits of the `k` most probable labels of each text, best first.

        A label has a term for each distinct word of a text and for each distinct pair of neighbours ("(start)" stands
        before the first word), and one for the bias. They sum to the logit, whose sigmoid is the probability. The term
        of what is unknown is 0.
        """
        units, counts, words, pairs = self.read(texts)
        names = [*words, *(f"{words[a] or '(start)'} {words[b]}" for a, b in pairs.tolist()), "(bias)"]
        logits = torch.cat([sum_bags(units, self.embedding.weight), self.bias[None]]).cpu().numpy()  # of each unit
        order = (sum_bags(counts @ units, self.embedding.weight) + self.bias).argsort(stable=True, descending=True)
        for best, start, end in zip(order[:, :k].tolist(), counts.indptr, counts.indptr[1:]):
            ids = np.append(counts.indices[start:end], -1)
            terms = logits[ids] * np.append(counts.data[start:end], 1)[:, None]
            yield {self.labels[label]: dict(zip([names[id] for id in ids], terms[:, label].tolist())) for label in best}

    def save(self, path: Path) -> None:
        """Write the classifier to a file, whole or not at all; through a link, to the file that it points at.

        Raises
        ------
        OSError
            The file can't be written. What was there before is still there, whole.
        """
        # A pipe or a device could be written to, but nothing could load that
        if path.exists() and not path.is_file():
            raise OSError(f"{path}: not saved: it is a folder or a device")
        content = BytesIO()
        settings = self.settings.model_dump()
        torch.save({FORMAT: (settings, self.labels, self.vocabulary.to_str(), self.state_dict())}, content)
        write_file(path, content.getvalue())

    @classmethod
    def load(cls, path: Path) -> "Classifier":
        """Read a classifier from a file; nothing that the file may hold is run.

        Raises
        ------
        NoModelError
            There is no such file, or it is not a whole one of this format.
        """
        try:
            settings, labels, vocabulary, state = torch.load(path, "cpu", weights_only=True)[FORMAT]
            classifier = cls(Settings(**settings), labels, vocabulary, state["buckets"].numpy(), state["idf"].numpy())
            classifier.load_state_dict(state)
        except Exception as error:  # whatever a file that is not a model leads to
            raise NoModelError(f"{path.name} is missing or not a valid model; train one first") from error
        return classifier


def score(genres: pd.Series, rankings: Iterable[Iterable[object]]) -> tuple[dict[str, float], pd.DataFrame]:
    """Compare rankings with the truth.

    Parameters
    ----------
    genres
        The true genres of each film.
    rankings
        The genres that each film is ranked to have, best first; what is named again is ignored. A number stands for a
        rank without a genre.

    Returns
    -------
    scores, per_genre
        P@1, the share of films whose first genre is right; R@5, the share of all films' genres that are in the top
        five; MAP@5, the mean of AP@5: the sum of the precision at each rank that is right, by min(number of genres, 5).
        And for each genre, the most frequent first, the number of its films and their MAP@5.
    """
    truth = pd.Series(map(set, genres))
    tops = [[*dict.fromkeys(ranking), *[""] * RANKS][:RANKS] for ranking in rankings]
    hits = pd.DataFrame([[genre in right for genre in top] for right, top in zip(truth, tops, strict=True)])
    precisions = hits * hits.cumsum(axis=1) / (hits.columns + 1)
    films = pd.DataFrame({"genre": truth, "map_at_5": precisions.sum(axis=1) / truth.str.len().clip(upper=RANKS)})
    scores = {"P@1": hits[0].mean(), "R@5": hits.sum().sum() / truth.str.len().sum(), "MAP@5": films["map_at_5"].mean()}
    per_genre = films.explode("genre").groupby("genre")["map_at_5"].agg(films="size", map_at_5="mean")
    return scores, per_genre.sort_values("films", ascending=False, kind="stable")


def hold_out(films: pd.DataFrame, number: int, folds: int, settings: Settings) -> dict[str, float]:
    """Learn from all folds of films but one, and return the scores on that one.

    Parameters
    ----------
    films
        What `movies.read_movies` returns for films with genres.
    number, folds
        Which fold is tested, counted from 0; and how many there are. Fold 0 of 10 has the first text, the eleventh, and
        so on; films with the same text are in the same fold. The fold must have a text.
    settings
        How the classifier learns.

    Returns
    -------
    dict
        What `score` returns first: P@1, R@5 and MAP@5. Nothing, where all films have one text.
    """
    test = pd.factorize(films["synopsis"])[0] % folds == number
    if test.all():
        return {}
    classifier = Classifier.learn(films["synopsis"][~test], films["genres"][~test], settings)
    return score(films["genres"][test], classifier.rank(films["synopsis"][test], RANKS))[0]

"""The bag model: an embedding bag with one column per label, summed over the features of a text.

    logit of a label = bias of the label + sum over the text's features of weight x embedding[feature, label]

The embedding starts at the naive Bayes log-odds of features and labels, shrunk towards zero, which is no evidence. An
epoch or two of Adagrad on the one-vs-all logistic loss then weigh the features against each other. The idea is from
Wang and Manning, "Baselines and Bigrams" (ACL 2012), who scale the inputs of a linear classifier by such log-odds.

`score` compares rankings with the true genres. `hold_out` learns from a part of the films, and scores the rest. The
commands and the service call `train_file` to learn from files, and `rank_file` to rank the films of files.
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

from challenge.movies import read_movies, write_file
from challenge.settings import RANKS, Answer, ChallengeError, NoModelError, Settings
from challenge.text import BUCKETS, Units, choose_rows, count_units, hash_units, learn_vocabulary, number_words, scale

KEY = "challenge model, format 6"  # of the content of a model file; change it when older code can't read the content
torch.set_num_threads(1)  # a second one does not help in such short steps, and both wait when the cores are busy


def pool(bags: csr_array, table: nn.EmbeddingBag) -> Tensor:
    """Return the weighted sums of a table's rows over bags, float32 of shape (n_bags, n_columns), on its device."""
    # The inputs, offsets and per_sample_weights of the module
    parts = [torch.from_numpy(part).to(table.weight.device) for part in (bags.indices, bags.indptr, bags.data)]
    return torch.as_tensor(table(*parts))  # it is a tensor, but a module does not declare that


def naive_bayes_log_odds(bags: csr_array, targets: csr_array, prior: np.ndarray, smoothing: float) -> Tensor:
    """Return the naive Bayes log-odds of features and labels, of shape (n_features, n_labels).

        log((inside + s) / (expected inside + s)) - log((outside + s) / (expected outside + s))

    `inside` is the weight of a feature in the texts with a label, `outside` in those without. The expected weight
    inside is the weight in all texts times the label's prior, the one outside is the rest. s makes rare features count
    less: it is `smoothing` times the mean weight of a feature in a text that has it. The log-count ratios of Wang and
    Manning (ACL 2012) compare shares of all features; here a feature is compared with itself.

    Parameters
    ----------
    bags
        The features of texts, float32 of shape (n_texts, n_features).
    targets
        1 where a text has a label, float32 of shape (n_texts, n_labels).
    prior
        The smoothed share of the texts that have each label, between 0 and 1, of shape (n_labels,).
    smoothing
        See `Settings`.
    """
    totals = bags.sum(axis=0)[:, None]
    s = smoothing * totals.sum() / max(bags.nnz, 1)
    inside = (bags.T @ targets).toarray(order="C")
    outside = (totals - inside).clip(0)  # rounding may lead below 0
    expected = totals * prior  # weight inside; the rest is expected outside
    odds = (inside + s) / (expected + s) * (totals - expected + s) / (outside + s)
    return torch.from_numpy(odds).log()


class Classifier(nn.Module):
    """An embedding bag with one column per label, a bias, and what turns texts into bags.

    Attributes
    ----------
    settings
        The settings of its training.
    labels
        The names of the labels, in ascending order.
    vocabulary
        The BPE vocabulary.
    buckets, idf
        For each row of the embedding, the bucket of its feature (int32), and the feature's weight (float32), see
        `text.choose_rows`.
    projection
        The same as a matrix: features by bucket, times this matrix, are weighted features by row; float32 of shape
        (BUCKETS, n_rows).
    embedding, bias
        The weights that it learns, float32 of shapes (n_rows, n_labels) and (n_labels,).
    """

    def __init__(self, settings: Settings, labels: list[str], bpe: str, buckets: np.ndarray, idf: np.ndarray) -> None:
        """Make a classifier that has learnt nothing yet; `bpe` is the vocabulary, as JSON."""
        super().__init__()
        self.settings = settings
        self.labels = labels
        self.vocabulary = Tokenizer.from_str(bpe)
        self.buckets = nn.Buffer(torch.from_numpy(buckets))
        self.idf = nn.Buffer(torch.from_numpy(idf))
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
            For each text, its labels: at least one. A label that is named twice counts once.
        settings
            How to learn. On a CPU, the same data and settings give the same classifier, byte for byte.

        Raises
        ------
        ValueError
            There is no text, there is a text without labels, or the numbers of texts and of their labels differ.
        """
        pairs = pd.Series([*labels]).explode()  # one label each, under the number of its text
        columns, names = pairs.factorize(sort=True)
        targets = csr_array((np.ones(len(columns), np.float32), np.array([pairs.index, columns], np.int32))).sign()

        units = count_units(*number_words(texts))
        vocabulary = learn_vocabulary(units.words)
        hashed = hash_units(units, vocabulary, settings)
        # The embedding has at most 2^24 cells, 64 MiB: many labels leave room for fewer features
        buckets, idf = choose_rows(units.counts, hashed, min(settings.max_features, 2**24 // len(names)), settings)
        classifier = cls(settings, names.tolist(), vocabulary.to_str(), buckets, idf)
        features = hashed @ classifier.projection
        classifier.fit(scale(units.counts, features) @ features, targets)
        return classifier

    def fit(self, bags: csr_array, targets: csr_array) -> None:
        """Minimise the one-vs-all logistic loss, in shuffled batches, by Adagrad at a rate that falls to zero.

        Adagrad (Duchi et al., JMLR 2011) divides a step by the root of the sum of the squared gradients so far. So no
        step is longer than the learning rate, and no rate leads to numbers that are not finite. The bias is the
        log-odds of the labels, and is not trained. The gradient of a logit is the probability minus the target. The
        gradient of a feature is the weighted sum of these over the texts that have the feature, which is an embedding
        bag too. So it is much cheaper than PyTorch's own gradient of an embedding bag, which sorts the row numbers in
        every step.

        Parameters
        ----------
        bags
            The rows of the embedding in each text, with weights, float32 of shape (n_texts, n_rows).
        targets
            1 where a text has a label, float32 of shape (n_texts, n_labels).
        """
        n_texts = targets.shape[0]
        prior = (targets.sum(axis=0) + 1) / (n_texts + 2)
        self.bias.copy_(torch.from_numpy(prior).logit())
        self.embedding.weight.copy_(naive_bayes_log_odds(bags, targets, prior, self.settings.smoothing))
        # About 32 batches or more, if there are at least a few hundred texts
        n_batches = int(np.ceil(n_texts / min(self.settings.batch_size, n_texts // 32 + 1)))
        # The squares start above zero, so that small gradients make short steps
        squares = torch.full_like(self.embedding.weight, 0.1)
        generator = np.random.default_rng(self.settings.seed)
        for epoch in range(self.settings.epochs):
            for number, chosen in enumerate(np.array_split(generator.permutation(n_texts), n_batches)):
                batch = bags[chosen]
                truth = torch.from_numpy(targets[chosen].toarray()).to(self.bias.device)
                errors = (pool(batch, self.embedding) + self.bias).sigmoid() - truth
                table = nn.EmbeddingBag.from_pretrained(errors, mode="sum", include_last_offset=True)
                gradient = pool(batch.T.tocsr(), table)
                rate = self.settings.learning_rate * (1 - (epoch + number / n_batches) / self.settings.epochs)
                squares.addcmul_(gradient, gradient)
                self.embedding.weight.addcdiv_(gradient, squares.sqrt(), value=-rate)

    def encode(self, texts: Iterable[str]) -> tuple[Units, csr_array]:
        """Return the units of texts, with scaled counts, and the features of units that the embedding has rows for."""
        units = count_units(*number_words(texts))
        features = hash_units(units, self.vocabulary, self.settings) @ self.projection
        return units._replace(counts=scale(units.counts, features)), features

    def forward(self, texts: Iterable[str]) -> Tensor:
        """Return the logits of texts, of shape (n_texts, n_labels); their sigmoid is the probability of each label."""
        units, features = self.encode(texts)
        return pool(units.counts @ features, self.embedding) + self.bias

    def rank(self, texts: Iterable[str], k: int) -> list[dict[str, float]]:
        """Return the `k` most probable labels of each text, with their probabilities.

        The best label comes first. Labels with the same logit are in alphabetical order.
        """
        logits, order = self(texts).sort(stable=True, descending=True)
        tops = zip(order[:, :k].tolist(), logits[:, :k].sigmoid().tolist())
        return [dict(zip([self.labels[column] for column in columns], values)) for columns, values in tops]

    def explain(self, texts: Iterable[str], k: int) -> Iterator[dict[str, dict[str, float]]]:
        """Yield the terms of the logits of the `k` most probable labels of each text, best first.

        A label has a term for each distinct word of a text and for each distinct pair of neighbours ("(start)" is
        before the first word), and one for the bias. The words come first, then the pairs, then the bias. They sum to
        the logit, and its sigmoid is the probability. The term of an unknown word or pair is 0.
        """
        units, features = self.encode(texts)
        names = units.words + [f"{units.words[i] or '(start)'} {units.words[j]}" for i, j in units.pairs.tolist()]
        logits = pool(features, self.embedding).cpu().numpy()  # what each unit adds where it counts 1
        order = (pool(units.counts @ features, self.embedding) + self.bias).argsort(stable=True, descending=True)
        for top, counts in zip(order[:, :k].tolist(), units.counts.sorted_indices()):
            keys = [names[unit] for unit in counts.indices]
            terms = logits[counts.indices] * counts.data[:, None]
            yield {self.labels[j]: dict(zip(keys, terms[:, j].tolist())) | {"(bias)": self.bias[j].item()} for j in top}

    def save(self, path: Path | str) -> None:
        """Write the classifier to a file, completely or not at all. If the path is a link, its target is written.

        Raises
        ------
        OSError
            The file can't be written. An existing file is unchanged.
        """
        file = BytesIO()
        torch.save({KEY: (self.settings.model_dump(), self.labels, self.vocabulary.to_str(), self.state_dict())}, file)
        write_file(Path(path), file.getvalue())

    @classmethod
    def load(cls, path: Path | str) -> "Classifier":
        """Read a classifier from a file. No code from the file is run.

        Raises
        ------
        NoModelError
            There is no such file, it can't be read, it is incomplete, or it has another format. Changed bits are not
            detected.
        """
        try:
            settings, labels, vocabulary, state = torch.load(path, "cpu", weights_only=True)[KEY]
            classifier = cls(Settings(**settings), labels, vocabulary, state["buckets"].numpy(), state["idf"].numpy())
            classifier.load_state_dict(state)
        except Exception as error:  # whatever a file that is not a model leads to
            # Without the folder, since the service shows this message
            raise NoModelError(f"{Path(path).name} is missing, unreadable or no model; train one first") from error
        return classifier


def score(genres: pd.Series, rankings: Iterable[Iterable[object]]) -> tuple[dict[str, float], pd.DataFrame]:
    """Compare rankings with the truth.

    Parameters
    ----------
    genres
        The true genres of each film, at least one.
    rankings
        The ranked genres of each film, best first. A repeated genre is dropped, and the rest moves up. So a rank
        without a genre needs a name of its own, which is not the name of a genre.

    Returns
    -------
    scores, per_genre
        P@1, the share of films whose first genre is right; R@5, the share of all films' genres that are in the top
        five; MAP@5, the mean of AP@5, which is the sum of the precision at each rank that is right, divided by
        min(number of genres, 5). And for each genre, the most frequent first, the number of its films and their MAP@5.

    Raises
    ------
    ValueError
        The numbers of rankings and of films differ.
    """
    truth = pd.Series(map(set, genres))
    tops = [[*dict.fromkeys(ranking), *[""] * RANKS][:RANKS] for ranking in rankings]
    hits = pd.DataFrame([[genre in right for genre in top] for right, top in zip(truth, tops, strict=True)])
    precisions = hits * hits.cumsum(axis=1) / (hits.columns + 1)
    films = pd.DataFrame({"genre": truth, "ap_at_5": precisions.sum(axis=1) / truth.str.len().clip(upper=RANKS)})
    scores = {"P@1": hits[0].mean(), "R@5": hits.sum().sum() / truth.str.len().sum(), "MAP@5": films["ap_at_5"].mean()}
    per_genre = films.explode("genre").groupby("genre")["ap_at_5"].agg(films="size", map_at_5="mean")
    return scores, per_genre.sort_values("films", ascending=False, kind="stable")


def hold_out(films: pd.DataFrame, number: int, folds: int, settings: Settings) -> dict[str, float]:
    """Learn from all folds of films but one, and return the scores on that one.

    Parameters
    ----------
    films
        What `movies.read_movies` returns for films with genres.
    number, folds
        The fold that is tested, counted from 0, and the number of folds: at least 2, and at most the number of
        different texts. Fold 0 of 10 has the first text, the eleventh, and so on. Films with the same text are in one
        fold.
    settings
        How the classifier learns.

    Returns
    -------
    dict
        The scores of `score`: P@1, R@5 and MAP@5.
    """
    test = pd.factorize(films["synopsis"])[0] % folds == number
    classifier = Classifier.learn(films["synopsis"][~test], films["genres"][~test], settings)
    return score(films["genres"][test], classifier.rank(films["synopsis"][test], RANKS))[0]


def train_file(content: bytes, name: str, settings: Settings, path: Path) -> dict[str, object]:
    """Learn the genres of films from a table, and save the classifier.

    Parameters
    ----------
    content, name
        The content of the table's file, and its name in errors.
    settings
        How to learn. With `held_out`, a second classifier is scored on a tenth of the films, if they have several
        different texts.
    path
        Where to save.

    Returns
    -------
    dict
        The number of `films`, the number `left_out` because they have no genres, the `genres`, and the scores.

    Raises
    ------
    ChallengeError, OSError
        The table can't be read, see `movies.read_movies`; or the model can't be saved, see `Classifier.save`.
    """
    movies, left_out = read_movies(content, name, labelled=True, columns=settings.columns)
    classifier = Classifier.learn(movies["synopsis"], movies["genres"], settings)
    scores = hold_out(movies, 0, 10, settings) if settings.held_out and movies["synopsis"].nunique() > 1 else {}
    classifier.save(path)
    return {"films": len(movies), "left_out": left_out, "genres": classifier.labels, **scores}


def rank_file(content: bytes, name: str, classifier: Classifier, options: Answer) -> dict[str, object]:
    """Rank the genres of the films of a table.

    Parameters
    ----------
    content, name
        The content of the table's file, and its name in errors.
    classifier
        A classifier that has learnt from films.
    options
        What to return for each film.

    Returns
    -------
    dict
        For each `movie_id`, in the order of the rows: the best genre under 0, the second under 1, and so on; or, if
        asked for, each genre with its probability, or with its explanation.

    Raises
    ------
    ChallengeError
        The table can't be read, see `movies.read_movies`, or is too large to explain.
    """
    texts = read_movies(content, name, labelled=False, columns=classifier.settings.columns)[0]["synopsis"]
    # An explanation takes many times the memory of its text
    if options.explain and (texts.str.len() + 100).sum() * len(classifier.labels) > 10_000_000:
        raise ChallengeError(f"{name}: too much to explain: (characters + 100 x films) x genres exceed 10 million")
    if not (options.explain or options.probabilities):
        return {film: dict(enumerate(ranking)) for film, ranking in zip(texts.index, classifier.rank(texts, options.k))}
    describe = classifier.explain if options.explain else classifier.rank
    return dict(zip(texts.index, describe(texts, options.k)))

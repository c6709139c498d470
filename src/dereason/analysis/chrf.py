"""chrF of all pairs of texts, far faster than one pair at a time.

chrF (Popović 2015) compares two texts by their character n-grams of orders 1..N, whitespace left out. With c_a(g) the
count of n-gram g in text a, |a|_n the number of its n-grams of order n, and

    O_n(a, b) = sum over g of min(c_a(g), c_b(g)),

precision and recall are the means of O_n / |a|_n and O_n / |b|_n over the orders that both texts reach, and
chrF = (1 + β²) P R / (β² P + R). This is sacrebleu's sentence score (`CHRF(char_order=N, word_order=0, beta=β)`, with
its effective order) divided by 100. Exchanging the two texts exchanges P and R.

The n-grams of all texts are numbered at once, and min(c_a, c_b) = sum over t >= 1 of [c_a >= t] [c_b >= t]. So O_n is
X Xᵀ for the 0/1 matrix X of texts by features, a feature being "has n-gram g at least t times". A feature of one text
adds nothing to any pair; features that few texts share are multiplied as a sparse matrix, the others as dense ones.

- n-grams are numbered by a stable counting sort by their last character, which keeps those with the same first n - 1
  characters together: exact, nothing is hashed. Positions whose n-gram no second text has are dropped, for no longer
  n-gram there is shared either.
- n-grams are handled in portions by their first character, so that working memory does not grow with the texts.

Shapes: M texts, U distinct ones (whitespace left out), T their characters in all, N the longest order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]

# Positions of n-grams handled together, unless one first character alone has more: about 60 bytes for each.
_PORTION = 1 << 19
# Numbers of a dense block (32 MB as float32). A block has under 2^24 features, so its float32 counts are exact.
_BLOCK = 1 << 23
# A feature goes into a dense product where more than this share of the texts has it: measured, the costs meet there.
_DENSE_SHARE = 1 / 24


def similarities(texts: Sequence[str], order: int = 6, beta: float = 2.0) -> Floats:
    """The mean of chrF in both directions for each pair of texts.

    Args:
        texts: M texts. Whitespace (as in ``str.split``) does not count; characters are Unicode code points.
        order: N, the longest n-gram.
        beta: weight of recall against precision.

    Returns:
        (M, M), symmetric, 0..1. A text is 1 to itself. As in sacrebleu, a text without characters is 0 to everything,
        itself too. Memory: 24 bytes for each of the T characters, about 60 MB of working memory (more where one
        character opens most n-grams), and 8 M² + 40 U² bytes.

    Raises:
        ValueError: order below 1, beta not above 0 or not finite, or T of 2^31 and more.
    """
    if order < 1 or not 0 < beta < np.inf:
        raise ValueError(f"chrF needs an order of at least 1 and a finite beta above 0, not {order} and {beta}")
    numbers: dict[str, int] = {}
    which = np.array([numbers.setdefault("".join(text.split()), len(numbers)) for text in texts], dtype=np.intp)
    lengths = np.array([len(text) for text in numbers], dtype=np.int64)
    if lengths.sum() > np.iinfo(np.int32).max:
        raise ValueError(f"chrF compares fewer than 2^31 characters at once, not {lengths.sum()}")
    precision = np.zeros((len(numbers), len(numbers)))
    for length, overlap in _overlaps(list(numbers), lengths, order):
        # A text that is too short for this order overlaps with none.
        precision += overlap / np.maximum(lengths - length + 1, 1)[:, None]
    precision /= np.maximum(np.minimum(np.minimum.outer(lengths, lengths), order), 1)
    scores = _f_score(precision, beta)
    scores += scores.T.copy()
    # Rounding may exceed 1 by its last digit.
    scores = np.minimum(scores / 2, 1.0)
    np.fill_diagonal(scores, lengths > 0)
    return np.asarray(scores[np.ix_(which, which)])


def _f_score(precision: Floats, beta: float) -> Floats:
    """(1 + β²) P R / (β² P + R), 0 where both are; recall is precision the other way round."""
    recall, weight = precision.T, beta**2
    below = weight * precision + recall
    return np.divide((1 + weight) * precision * recall, below, out=np.zeros_like(below), where=below > 0)


def _overlaps(texts: list[str], lengths: NDArray[np.int64], order: int) -> Iterator[tuple[int, Floats]]:
    """Parts of O_n, as (n, (U, U)); each n comes once a portion, and the diagonal is not to be used."""
    if len(texts) < 2:
        return
    codes, alphabet = _codes(texts)
    owner = np.repeat(np.arange(lengths.size, dtype=np.int32), lengths)
    ends = np.cumsum(lengths).astype(np.int32)
    by_code, bounds = _sorted(codes, alphabet)
    for first, last in _portions(bounds):
        starts = by_code[bounds[first] : bounds[last]]
        grams = codes[starts] - np.int32(first)
        for length in range(1, order + 1):
            if length > 1:
                inside = starts + (length - 1) < ends[owner[starts]]
                starts, grams = starts[inside], grams[inside]
                starts, grams = _longer(starts, grams, codes[starts + (length - 1)], alphabet)
            starts, grams = _shared(starts, grams, owner)
            if not starts.size:
                break
            yield length, _products(_features(grams, owner[starts], len(texts)))


def _codes(texts: list[str]) -> tuple[Ints, int]:
    """The characters of all texts (T,), numbered 0, 1, ... as they stand in Unicode, and how many there are."""
    # A lone surrogate is a character too.
    points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    seen = np.zeros(int(points.max(initial=0)) + 1, dtype=bool)
    seen[points] = True
    numbers = np.cumsum(seen, dtype=np.int32) - 1
    return numbers[points], int(numbers[-1]) + 1


def _portions(bounds: Ints) -> Iterator[tuple[int, int]]:
    """Ranges [first, last) of first characters with about `_PORTION` positions; bounds (A + 1,) counts those before."""
    first = 0
    while first < bounds.size - 1:
        last = max(first + 1, int(np.searchsorted(bounds, bounds[first] + _PORTION, side="right")) - 1)
        yield first, last
        first = last


def _sorted(keys: Ints, size: int) -> tuple[Ints, Ints]:
    """Stable counting sort of keys below size: the order (n,), and how many keys lie before each one (size + 1,)."""
    from scipy.sparse import csc_array

    n = keys.size
    ones = np.ones(n, dtype=np.int8)
    # One entry in each column: by rows, the columns come in ascending order.
    by_row = csc_array((ones, keys, np.arange(n + 1, dtype=np.int32)), shape=(size, n)).tocsr()
    return by_row.indices, by_row.indptr


def _longer(starts: Ints, grams: Ints, after: Ints, alphabet: int) -> tuple[Ints, Ints]:
    """Brings equal n-grams together, by position, and numbers them 0, 1, ...

    The n - 1 characters before `after` are together already, and a stable sort by `after` leaves them so.
    """
    order, _ = _sorted(after, alphabet)
    return starts[order], _numbered(grams[order], after[order])


def _numbered(*keys: Ints) -> Ints:
    """Numbers the runs of equal keys 0, 1, ..."""
    new = np.zeros(keys[0].size, dtype=bool)
    for key in keys:
        new[1:] |= key[1:] != key[:-1]
    return np.cumsum(new, dtype=np.int32)


def _shared(starts: Ints, grams: Ints, owner: Ints) -> tuple[Ints, Ints]:
    """Leaves out the n-grams that only one text has. Equal ones are together, by position, as before."""
    if not starts.size:
        return starts, grams
    opens = np.flatnonzero(np.diff(grams, prepend=-1))
    closes = np.append(opens[1:], starts.size) - 1
    several = owner[starts[opens]] != owner[starts[closes]]
    kept = np.repeat(several, closes - opens + 1)
    starts, grams = starts[kept], grams[kept]
    return starts, _numbered(grams)


def _features(grams: Ints, owners: Ints, texts: int) -> Any:
    """The 0/1 matrix (features, texts), sparse by rows: row (g, t) holds the texts with n-gram g at least t times."""
    from scipy.sparse import csr_array

    index = np.arange(grams.size, dtype=np.int32)
    run_opens = np.flatnonzero(np.diff(grams, prepend=-1) | np.diff(owners, prepend=-1))
    times = index - np.repeat(run_opens, np.diff(run_opens, append=grams.size)).astype(np.int32)
    gram_opens = np.flatnonzero(np.diff(grams, prepend=-1))
    most = np.maximum.reduceat(times, gram_opens) + 1
    before = (np.cumsum(most) - most).astype(np.int32)
    total = int(most.sum())
    order, bounds = _sorted(before[grams] + times, total)
    ones = np.ones(grams.size, dtype=np.float32)
    return csr_array((ones, owners[order], bounds), shape=(total, texts))


def _products(features: Any) -> Floats:
    """Xᵀ X (texts, texts) of the features; those of one text, which touch the diagonal only, are left out."""
    owners = np.diff(features.indptr)
    texts = features.shape[1]
    dense = owners > max(1, _DENSE_SHARE * texts)
    # In float64, for one first character may have more than 2^24 features.
    few = features[(owners > 1) & ~dense].astype(np.float64)
    overlap: Floats = (few.T @ few).toarray()
    many = features[dense]
    step = max(1, _BLOCK // texts)
    for low in range(0, many.shape[0], step):
        block = many[low : low + step].toarray()
        overlap += block.T @ block
    return overlap

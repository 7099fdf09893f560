"""Networks on the Hugging Face hub: a repository has weights in safetensors, ``config.json`` and a model card.

huggingface_hub is imported only when a function needs it, and does all transfers: names, tokens, cache and the
variables of its environment (HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE) are its own. No other format than
safetensors and JSON is downloaded.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...data.errors import CheckpointError, ConfigurationError, DownloadError
from ...data.files import atomic_file
from ...data.places import without_paths
from ...data.text import first_line, printable, rough_size
from ...extras import how_to_install
from ..models.registry import settings_of
from .checkpoint_header import read_header, read_values
from .folder import BEST, CONFIG, PULLED, WEIGHTS, checkpoint_of, read_config, write_config, writing
from .model_card import CARD, SPLITS, card_text, is_ours, metrics_file, metrics_of, read_card_facts
from .seen import SEEN

PREFIX = "hf://"
LIBRARY = "agnet"
_NAME = re.compile(r"(?:hf:/{1,2})?(?P<repository>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w./-]+))?")
_HINTS = ("file_relative_to_run", "root_relative_to_run")  # of a configuration: they lead through private folders
_METRICS = tuple(map(metrics_file, SPLITS))


@dataclass(frozen=True)
class HubName:
    """Name of a network on the hub."""

    repository: str  #: OWNER/NAME
    revision: str | None = None  #: branch, tag or commit; None: the main branch

    @classmethod
    def parse(cls, text: str) -> HubName:
        """Parse ``OWNER/NAME[@REVISION]``, with or without ``hf://`` before it.

        Raises: `ConfigurationError` for anything else.
        """
        found = _NAME.fullmatch(text)
        if found is None or ".." in text:
            raise ConfigurationError(f"{text!r} does not name a network on the hub: wanted OWNER/NAME[@REVISION]")
        return cls(found["repository"], found["revision"])

    def __str__(self) -> str:
        return self.repository + (f"@{self.revision}" if self.revision else "")


def is_on_the_hub(run: str | Path) -> bool:
    """Whether a run is named as one on the hub, with ``hf://``; a path has one slash less."""
    return str(run).startswith("hf:/")


def local_run(run: str | Path) -> Path:
    """Folder of a run, which may be named ``hf://OWNER/NAME[@REVISION]``: it is then downloaded, once (`fetch`)."""
    return fetch(HubName.parse(str(run))) if is_on_the_hub(run) else Path(run)


def fetch(name: HubName) -> Path:
    """Download a network into the hub's cache, unless it is there. Without a network, the cache has to do.

    Returns: a folder with `CONFIG` and `WEIGHTS`, which nothing may be written to. Its name is that of the commit.
    Raises: `DownloadError` if there is no such repository, or it cannot be reached; `CheckpointError` if it does not
        hold a network that this agnet can read; `ConfigurationError` if huggingface_hub is not installed.
    """
    config = _download(name, CONFIG, f"it is no network of agnet's, which have a {CONFIG}")
    _check_ours(name, config)
    at_once = replace(name, revision=config.parent.name)  # the branch may move between two downloads
    weights = _download(at_once, WEIGHTS, "weights in other formats than safetensors are not loaded")
    try:
        read_header(weights)
    except CheckpointError as error:
        raise CheckpointError(f"{name}: {first_line(error)}; its owner can push it again with agnet push") from None
    return weights.parent


def pull(name: HubName, run: Path) -> Path:
    """Copy a network from the hub into the folder of a new run.

    Returns: the folder, with `BEST`, `CONFIG`, and as far as they were pushed, card, metrics and the record of images.
    Raises: as `fetch`, and `CheckpointError` if the folder has one of these files or cannot be written to.
    """
    targets = {CARD: CARD, SEEN: SEEN, **{metrics: metrics for metrics in _METRICS}, WEIGHTS: BEST}
    for file in (CONFIG, *targets.values()):
        if (run / file).exists():
            raise CheckpointError(f"{run} already has a {file}; name another folder with --run")
    found = fetch(name)
    with _transfer(name):
        from huggingface_hub import snapshot_download

        snapshot_download(name.repository, revision=found.name, allow_patterns=[CONFIG, *targets])
    with writing(run):
        run.mkdir(parents=True, exist_ok=True)
        for source, target in targets.items():
            if (found / source).is_file():
                with atomic_file(run / target) as unfinished:
                    shutil.copyfile(found / source, unfinished)
    origin = {"repository": name.repository, "revision": found.name}
    write_config(run, {**json.loads((found / CONFIG).read_text(encoding="utf-8")), PULLED: origin})
    return run


def to_push(run: Path, name: HubName, *, licence: str = "", seen: bool = False) -> dict[str, bytes | Path]:
    """What a push would write into a repository: names of files, and their contents or where they are.

    Predictions, embeddings, pictures, logs and saved states are never among them, nor is a private path.

    Args:
        run: Folder of a single run, or of a network that ``save_pretrained`` wrote.
        name: Name of the repository.
        licence: Licence of the weights, as an identifier of the hub, for the card.
        seen: Whether the content hashes of the training images are among them.

    Raises: `CheckpointError` for anything but a run, and if a person's own card names a folder of this machine.
    """
    weights = checkpoint_of(run)
    epoch = read_header(weights).epoch
    found: dict[str, bytes | Path] = {
        WEIGHTS: weights,
        CONFIG: (json.dumps(public_config(weights), indent=2, ensure_ascii=False) + "\n").encode(),
        CARD: _card(weights.parent, name, licence).encode(),
    }
    for split, metrics in metrics_of(weights.parent, epoch):
        text = json.dumps(without_paths(metrics), indent=2, ensure_ascii=False)
        found[metrics_file(split)] = f"{text}\n".encode()
    if seen and (weights.parent / SEEN).is_file():
        found[SEEN] = weights.parent / SEEN
    return found


def size_text(content: bytes | Path) -> str:
    """Size of a file of `to_push`, as text."""
    return rough_size(len(content) if isinstance(content, bytes) else content.stat().st_size)


def push(files: Mapping[str, bytes | Path], name: HubName, *, private: bool = False) -> str:
    """Write files into a repository in one commit; it is made if it does not exist.

    Args:
        files: Files of `to_push`.
        name: Name of the repository, and its branch.
        private: Whether a new repository can be seen by its owner only.

    Returns: the address of the repository.
    Raises: `DownloadError` if the hub refuses or cannot be reached.
    """
    with _transfer(name, writing=True):
        from huggingface_hub import CommitOperationAdd, HfApi

        hub = HfApi(library_name=LIBRARY)
        # None: public, unless that is not what its organisation wants.
        address = str(hub.create_repo(name.repository, private=private or None, exist_ok=True))
        added = [CommitOperationAdd(file, content) for file, content in files.items()]
        message = "Network and model card, written by agnet"
        hub.create_commit(name.repository, added, commit_message=message, revision=name.revision)
    return address


def public_config(weights: Path) -> dict[str, Any]:
    """The ``config.json`` of a repository: metadata of the weights, and the run's configuration without paths."""
    header = {name: value for name, value in read_values(weights).items() if name != "blake2b"}
    try:
        config: dict[str, Any] = without_paths(read_config(weights.parent))
    except CheckpointError:  # weights without a run
        config = {}
    for hint in _HINTS:
        config.get("boxes", {}).pop(hint, None)
    return {"library_name": LIBRARY, **header, **{name: config[name] for name in config if name not in header}}


def _card(run: Path, name: HubName, licence: str) -> str:
    """The card to push: a person's own one as it is, otherwise a new one that names the repository."""
    path = run / CARD
    if is_ours(path):
        title = "" if "title" in public_config(checkpoint_of(run)) else name.repository.rpartition("/")[2]
        return card_text(read_card_facts(run, title, f"{PREFIX}{name.repository}", licence))
    text = path.read_text(encoding="utf-8")
    for private in (Path.home(), run.resolve().parent):
        if len(private.parts) > 1 and str(private) in text:
            raise CheckpointError(f"{path} names a folder of this machine, {private}: take it out, and push again")
    return text


def _check_ours(name: HubName, path: Path) -> None:
    """Raise `CheckpointError` unless ``config.json`` is that of a network that this agnet knows."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise CheckpointError(f"{name}: its {CONFIG} is damaged; its owner can push it again with agnet push") from None
    if not isinstance(config, dict) or config.get("library_name") != LIBRARY:
        given = config if isinstance(config, dict) else {}
        of = next((given[key] for key in ("library_name", "model_type", "architecture") if given.get(key)), "")
        told = f" but of {printable(of)[:80]}" if isinstance(of, str) and of else ""
        raise CheckpointError(f"{name} is no network of agnet's{told}; agnet push makes repositories that agnet reads")
    try:
        settings_of(config["model"])
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{name} holds a network that this agnet does not know ({first_line(error)}); a newer agnet may read it"
        ) from None


def _download(name: HubName, file: str, why_needed: str) -> Path:
    with _transfer(name):
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled, RemoteEntryNotFoundError

        try:
            return Path(hf_hub_download(name.repository, file, revision=name.revision, library_name=LIBRARY))
        except RemoteEntryNotFoundError:
            raise CheckpointError(f"{name.repository} has no {file}: {why_needed}") from None
        except LocalEntryNotFoundError as error:
            why = f"{_host()} cannot be reached ({first_line(error.__cause__ or error)})"
            if isinstance(error.__cause__, OfflineModeIsEnabled):
                why = "HF_HUB_OFFLINE forbids to ask the hub"
            raise DownloadError(
                f"{why}, and {file} of {name.repository} is not in the hub's cache; try again with a connection"
            ) from None


@contextmanager
def _transfer(name: HubName, writing: bool = False) -> Iterator[None]:
    """Convert the errors of the hub inside the block to one line with their cause and remedy.

    Args:
        name: Repository that the block is about.
        writing: Whether it is written to.
    """
    if find_spec("huggingface_hub") is None:
        raise ConfigurationError(
            f"networks on the Hugging Face hub need the package huggingface_hub: {how_to_install('huggingface-hub')}"
        )
    from huggingface_hub import errors

    # The base of its HTTP errors is that of the HTTP library below, whichever it is: a failed connection is one, too.
    any_http_error: Any = errors.HfHubHTTPError.__bases__[0]
    try:
        yield
    # A `ValueError` tells of a wrong name, of metadata that it does not accept, and of answers that are not the hub's.
    except (any_http_error, ValueError, OSError) as error:
        raise DownloadError(_told(error, name, writing)) from None


def _told(error: Exception, name: HubName, writing: bool) -> str:
    """An error of the hub, its cause and its remedy in one line."""
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    log_in = "log in with hf auth login, or set HF_TOKEN"
    if isinstance(error, ValueError):
        return f"{_host()} does not take {name}: {' '.join(str(error).split())[:300]}"
    if isinstance(error, errors.GatedRepoError):
        return f"{name} asks for a consent: give it on {_host()}/{name.repository}, and {log_in}"
    if writing and status in (401, 403):
        return f"{_host()} does not let you write to {name}: {log_in}, with a token that may write to it"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{name.repository} has no {name.revision or 'commit yet'}: name a branch, tag or commit that it has"
    if isinstance(error, errors.RepositoryNotFoundError) or status == 401:
        return f"there is no {name.repository} on {_host()}, or it is private: check the name, or {log_in}"
    if status is not None:
        return f"{_host()} answered {status} for {name}: {first_line(error)}; try again later"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}; the hub's cache is set by HF_HOME"
    return f"{_host()} cannot be reached ({first_line(error)}): check the connection and try again"


def _host() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)

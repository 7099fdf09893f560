"""Networks on the Hugging Face hub: a repository has weights in safetensors, ``config.json`` and a model card.

huggingface_hub is imported only when a function needs it, and does all transfers: names, tokens, cache and the
variables of its environment (HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE) are its own. No other format than
safetensors and JSON is downloaded.
"""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...data.contents import checksum
from ...data.errors import CheckpointError, ConfigurationError, DownloadError
from ...data.files import atomic_file
from ...data.places import follow_hint, private_place, without_paths
from ...data.text import first_line, printable, rough_size
from ...extras import how_to_install
from ..models.registry import settings_of
from .checkpoint_header import FORMAT_VERSION, read_header, read_values
from .folder import BEST, CONFIG, PULLED, WEIGHTS, checkpoint_of, read_config, write_config, writing
from .model_card import (
    CARD,
    EPOCHS,
    LICENCE,
    SPLITS,
    card_text,
    epochs_of_card,
    is_ours,
    metrics_file,
    metrics_of,
    read_card_facts,
)
from .seen import SEEN

PREFIX = "hf://"
LIBRARY = "agnet"
_NAME = re.compile(r"(?:hf:/{1,2})?(?P<repository>[\w.-]+/[\w.-]+?)/?(?:@(?P<revision>[\w./-]*[\w.-])/?)?")
_HINTS = ("file_relative_to_run", "root_relative_to_run")  # of a configuration: they lead through private folders
_METRICS = tuple(map(metrics_file, SPLITS))
_LARGEST_WEIGHTS = 2**34  # bytes; the largest backbones of timm have 2**32
_NO_NETWORK = re.compile(r"\.git.*|LICEN[CS]E.*|.*\.md")  # files of a repository that nothing was written to yet
_LARGEST_TEXT = 2**26  # bytes of any other file; the record of ImageNet's images takes half of it


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
    """Download a network into the hub's cache, unless it is there. If the hub cannot be asked, the cache has to do.

    Returns: a folder with `CONFIG` and `WEIGHTS`, which nothing may be written to. Its name is that of the commit.
    Raises: `DownloadError` if there is no such repository, or it cannot be reached; `CheckpointError` if it does not
        hold a network that this agnet can read; `ConfigurationError` if huggingface_hub is not installed.
    """
    return _fetch(name, _ask(name))


def pull(name: HubName, run: Path) -> Path:
    """Copy a network from the hub into the folder of a new run: everything, or nothing if it is interrupted.

    Returns: the folder, with `BEST`, `CONFIG`, and as far as they were pushed, card, metrics and the record of images.
    Raises: as `fetch`, and `CheckpointError` if the folder has one of these files or cannot be written to.
    """
    # The card is last: where the cache has it, it has the others, too.
    targets = {WEIGHTS: BEST, SEEN: SEEN, **{metrics: metrics for metrics in _METRICS}, CARD: CARD}
    for file in (CONFIG, *targets.values()):
        if (run / file).exists():
            raise CheckpointError(f"{run} already has a {file}; name another folder with --run")
    said = _ask(name)
    found = _fetch(name, said)
    at_once = replace(name, revision=found.name)
    sources = {source: _file(at_once, source, said) for source in targets}
    if said.failure and sources[CARD] is None:
        raise DownloadError(said.failure)
    config = _without_hints(json.loads((found / CONFIG).read_text(encoding="utf-8")))
    origin = {"repository": name.repository, "revision": found.name}
    try:
        with writing(run):
            run.mkdir(parents=True, exist_ok=True)
            for source, path in sources.items():
                if path is not None:
                    with atomic_file(run / targets[source]) as unfinished:
                        shutil.copyfile(path, unfinished)
        write_config(run, {**config, PULLED: origin})
    except BaseException:
        for file in (CONFIG, *targets.values()):
            with suppress(OSError):
                (run / file).unlink()
        raise
    return run


def to_push(run: Path, name: HubName, *, licence: str = "", seen: bool = False) -> dict[str, bytes | Path]:
    """What a push would write into a repository: names of files, and their contents or where they are.

    Predictions, embeddings, pictures, logs and saved states are never among them, nor is a private path.

    Args:
        run: Folder of a single run, or of a network that ``save_pretrained`` wrote.
        name: Name of the repository.
        licence: Licence of the weights, as an identifier of the hub, for the card. Empty: that of a pulled run.
        seen: Whether the content hashes of the training images are among them.

    Raises: `CheckpointError` for anything but a run, and if a person's own card names a folder of this machine.
    """
    weights = checkpoint_of(run)
    epoch = read_header(weights).epoch
    config = public_config(weights)
    if licence := licence or str(config.get(LICENCE) or ""):
        config[LICENCE] = licence
    found: dict[str, bytes | Path] = {
        WEIGHTS: weights,
        CONFIG: (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode(),
        CARD: _card(weights.parent, name, str(config.get("title") or ""), licence).encode(),
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


def licence_on_hub(name: HubName) -> str:
    """Licence in the metadata of a repository's card; empty if there is none yet."""
    with _transfer(name, writing=True):
        from huggingface_hub import HfApi

        found = getattr(getattr(_info(HfApi(library_name=LIBRARY), name), "card_data", None), "license", None)
    return found if isinstance(found, str) else ""


def push(files: Mapping[str, bytes | Path], name: HubName, *, private: bool = False, force: bool = False) -> str:
    """Write files into a repository in one commit; it, and its branch, are made if they do not exist.

    Metrics and a record of images that an earlier push left there, of another training, are removed.

    Args:
        files: Files of `to_push`.
        name: Name of the repository, and its branch.
        private: Whether a new repository can be seen by its owner only.
        force: Whether a repository is written to that holds something else: files of others, or a network with other
            classes or settings.

    Returns: the address of the repository.
    Raises: `DownloadError` if the hub refuses or cannot be reached, `CheckpointError` if the repository holds
        something else.
    """
    if not force and (other := _held_instead(files, name)):
        raise CheckpointError(
            f"{name} holds {other}: name another repository, or write into it with --force (in Python, force=True)"
        )
    with _transfer(name, writing=True):
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

        hub = HfApi(library_name=LIBRARY)
        # None: public, unless that is not what its organisation wants.
        address = str(hub.create_repo(name.repository, private=private or None, exist_ok=True))
        if name.revision:
            hub.create_branch(name.repository, branch=name.revision, exist_ok=True)
        there = hub.model_info(name.repository, revision=name.revision).siblings or ()
        old = {one.rfilename for one in there}.intersection((SEEN, *_METRICS)).difference(files)
        changes: list[Any] = [CommitOperationAdd(file, content) for file, content in files.items()]
        changes += [CommitOperationDelete(file) for file in sorted(old)]
        message = "Network and model card, written by agnet"
        hub.create_commit(name.repository, changes, commit_message=message, revision=name.revision)
    return address


def _info(hub: Any, name: HubName) -> Any:
    """What the hub says of a repository, or of its main branch if its own is to be made; None if there is none."""
    from huggingface_hub import errors

    for revision in dict.fromkeys((name.revision, None)):
        try:
            return hub.model_info(name.repository, revision=revision, files_metadata=True)
        except errors.RevisionNotFoundError:
            continue
        except errors.RepositoryNotFoundError:
            break
    return None


def _held_instead(files: Mapping[str, bytes | Path], name: HubName) -> str:
    """What a repository holds instead of an earlier state of these files, in words; empty if it does not."""
    with _transfer(name, writing=True):
        from huggingface_hub import HfApi

        found = _info(HfApi(library_name=LIBRARY), name)
    sizes = {one.rfilename: one.size or 0 for one in (found.siblings if found else None) or ()}
    others = sorted(file for file in sizes if not _NO_NETWORK.fullmatch(file))
    if not others:
        return ""
    at_once, own = replace(name, revision=str(found.sha)), files[CONFIG]
    path = _file(at_once, CONFIG, _Said(at_once.revision or "", sizes))
    theirs = _config_in(path.read_bytes()) if path else {}
    if theirs.get("library_name") != LIBRARY:
        shown = ", ".join(printable(file) for file in others[:3]) + (", ..." if len(others) > 3 else "")
        return f"something else than a network of agnet's ({shown})"
    ours = _config_in(own if isinstance(own, bytes) else own.read_bytes())
    if theirs.get("classes") != ours.get("classes"):
        return "a network with other classes"
    try:
        same = settings_of(theirs["model"]) == settings_of(ours["model"])
    except (AttributeError, LookupError, TypeError, ValueError):  # of a newer agnet, or damaged
        same = False
    return "" if same else "another network (other model, backbone or settings)"


def _config_in(content: bytes) -> dict[str, Any]:
    """A ``config.json``; empty if it is damaged."""
    try:
        config = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def public_config(weights: Path) -> dict[str, Any]:
    """The ``config.json`` of a repository: metadata of the weights, and the run's configuration without paths."""
    header = {name: value for name, value in read_values(weights).items() if name != "blake2b"}
    try:
        config: dict[str, Any] = _without_hints(without_paths(read_config(weights.parent)))
    except CheckpointError:  # weights without a run
        config = {}
    if epochs := epochs_of_card(weights.parent, config):
        config[EPOCHS] = epochs
    return {"library_name": LIBRARY, **header, **{name: config[name] for name in config if name not in header}}


def _without_hints(config: dict[str, Any]) -> dict[str, Any]:
    boxes = config.get("boxes")
    if not isinstance(boxes, dict):
        return config
    return config | {"boxes": {name: value for name, value in boxes.items() if name not in _HINTS}}


def _card(run: Path, name: HubName, title: str, licence: str) -> str:
    """The card to push: a person's own one as it is, otherwise a new one that names the repository."""
    path = run / CARD
    if is_ours(path):
        title = title or name.repository.rpartition("/")[2]
        return card_text(read_card_facts(run, title, f"{PREFIX}{name.repository}", licence))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read as UTF-8 text ({first_line(error)}): save it anew") from None
    if place := private_place(text, _own_places(run)):
        raise CheckpointError(f"{path} names a private place, {place}: take it out, and push again")
    return text


def _own_places(run: Path) -> Iterator[Path]:
    """Folders and files of this machine that a run has to do with, absolute."""
    with suppress(RuntimeError):  # a container's user may have no home
        if len(Path.home().parts) > 1:  # or the whole disk
            yield Path.home()
    places = [run, run.resolve().parent]
    with suppress(CheckpointError):  # weights without a run
        boxes = read_config(run)["boxes"]
        places += [place for hint in _HINTS if (place := follow_hint(boxes.get(hint), run))]
    yield from (place for one in places if len((place := one.resolve()).parts) > 2)  # a shorter name may mean anything


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
        if (version := config.get("format_version", FORMAT_VERSION)) != FORMAT_VERSION:
            raise ValueError(f"of format version {str(version)[:20]}")
        settings_of(config["model"])
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{name} holds a network that this agnet does not know ({first_line(error)}); a newer agnet may read it"
        ) from None


@dataclass(frozen=True)
class _Said:
    """What the hub says of a repository."""

    commit: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)  #: of its files, in bytes
    hashes: Mapping[str, str] = field(default_factory=dict)  #: SHA-256 of its files that go over LFS
    failure: str = ""  #: why it could not be asked, with the remedy; empty if it could


def _ask(name: HubName) -> _Said:
    """Ask the hub for the commit of a repository and the sizes of its files, once: the cache may have them."""
    with _transfer(name):
        from huggingface_hub import HfApi, constants, errors

        try:
            found = HfApi(library_name=LIBRARY).model_info(
                name.repository, revision=name.revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
            )
        except (errors.HFValidationError, errors.RevisionNotFoundError):
            raise
        except (_any_http_error(), OSError) as error:
            absent = "" if isinstance(error, errors.HfHubHTTPError) else "; the hub's cache does not have it"
            return _Said(failure=_told(error, name) + absent)
        except (ValueError, LookupError, TypeError):  # of a network that asks for a login, for instance
            return _Said(failure=f"{_host()} does not answer as a hub does: check the connection, or HF_ENDPOINT")
    files = found.siblings or ()
    hashes = {one.rfilename: one.lfs.sha256 for one in files if one.lfs}
    return _Said(str(found.sha), {one.rfilename: one.size or 0 for one in files}, hashes)


def _fetch(name: HubName, said: _Said) -> Path:
    config = _needed(name, CONFIG, said, f"it is no network of agnet's, which have a {CONFIG}")
    _check_ours(name, config)
    at_once = replace(name, revision=config.parent.name)  # the branch may move between two downloads
    weights = _needed(at_once, WEIGHTS, said, "weights in other formats than safetensors are not loaded")
    try:
        read_header(weights)
    except CheckpointError as error:
        told, cached = first_line(error).replace(str(weights), f"its {WEIGHTS}"), weights.parents[2]
        remedy = f"delete {cached} and try again, or ask its owner to push it again with agnet push"
        raise CheckpointError(f"{name}: {told}; {remedy}") from None
    return weights.parent


def _needed(name: HubName, file: str, said: _Said, why: str) -> Path:
    path = _file(name, file, said)
    if path is None and said.failure:
        raise DownloadError(said.failure)
    if path is None:
        raise CheckpointError(f"{name.repository} has no {file}: {why}")
    return path


def _file(name: HubName, file: str, said: _Said) -> Path | None:
    """A file of a repository, downloaded unless the cache has it. None: there is none, as far as can be known."""
    with _transfer(name):
        from huggingface_hub import hf_hub_download, try_to_load_from_cache

        cached = try_to_load_from_cache(name.repository, file, revision=name.revision)
        path = Path(cached) if isinstance(cached, str) else None
        if said.failure or (path and path.parent.name == said.commit):
            return path
        if file not in said.sizes:
            return None
        most = _LARGEST_WEIGHTS if file == WEIGHTS else _LARGEST_TEXT
        if said.sizes[file] > most:
            sizes = f"{rough_size(said.sizes[file])}, more than the {rough_size(most)} that agnet downloads"
            raise CheckpointError(f"{name.repository}: its {file} has {sizes}; ask its owner what it is")
        path = Path(hf_hub_download(name.repository, file, revision=name.revision, library_name=LIBRARY))
    _check_content(name, path, said.hashes.get(file))
    return path


def _check_content(name: HubName, path: Path, sha256: str | None) -> None:
    """Remove a download with other bytes than the hub's: huggingface_hub compares sizes only.

    Raises: `DownloadError` then.
    """
    if sha256 is None or checksum(path, "sha256") == sha256:
        return
    for one in (path.resolve(), path):  # the cache has a link
        one.unlink(missing_ok=True)
    raise DownloadError(
        f"{name.repository}: its {path.name} was damaged on the way (its SHA-256 is not the hub's): try again"
    )


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
    try:
        # Its warning of a full disk comes before the error.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Not enough free disk space")
            yield
    except Exception as error:
        # The package tells of a large file that could not be uploaded by a `RuntimeError`, whose cause is meant.
        cause = error.__cause__ if isinstance(error, RuntimeError) else error
        # A `ValueError` tells of a wrong name, metadata that it does not accept, and answers that are not the hub's.
        if isinstance(cause, (_any_http_error(), ValueError, OSError)):
            raise DownloadError(_told(cause, name, writing)) from None
        raise


def _any_http_error() -> Any:
    """Base class of the hub's HTTP errors and of failed connections: that of the HTTP library, whichever it is."""
    from huggingface_hub import errors

    return errors.HfHubHTTPError.__bases__[0]


def _told(error: Exception, name: HubName, writing: bool = False) -> str:
    """An error of the hub, its cause and its remedy in one line."""
    from huggingface_hub import constants, errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    log_in = "log in with hf auth login, or set HF_TOKEN"
    if isinstance(error, ValueError):
        return f"{_host()} does not take {name}: {' '.join(str(error).split())[:300]}"
    if isinstance(error, errors.GatedRepoError):
        return f"{name} asks for a consent: give it on {_host()}/{name.repository}, and {log_in}"
    # The uploads of large files have errors of their own, without a status.
    if writing and (status in (401, 403) or (isinstance(error, PermissionError) and not error.errno)):
        return f"{_host()} does not let you write to {name}: {log_in}, with a token that may write to it"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{name.repository} has no {name.revision or 'commit yet'}: name a branch, tag or commit that it has"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no {name.repository} on {_host()}, or it is private: check the name, or {log_in}"
    if status == 401:
        return f"{_host()} does not know your token: {log_in}, with one that is valid"
    if status == 403:
        return f"{_host()} does not let you read {name}: {log_in}, with a token that may read it"
    if status is not None:
        remedy = "try again later" if status in (408, 429) or status >= 500 else "check HF_ENDPOINT"
        return f"{_host()} answered {status} for {name}: {first_line(error)}; {remedy}"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return f"HF_HUB_OFFLINE forbids to ask the hub for {name}: unset it and try again"
    if isinstance(error, OSError) and error.errno and not isinstance(error, (ConnectionError, TimeoutError)):
        place = error.filename or constants.HF_HUB_CACHE  # a full disk reports no name
        return f"{place}: {error.strerror}" + ("" if writing else "; the hub's cache is set by HF_HOME")
    return f"{_host()} cannot be reached for {name} ({first_line(error)}): check the connection and try again"


def _host() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)

"""Files of the Hugging Face hub: ``hf:OWNER/REPO@REVISION#PATH``.

The ``huggingface_hub`` package says which address and which token; ``web`` brings the file, so that it is resumed,
verified and stored like any other. A copy that the package's own cache has is taken from there.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import msgspec

from openvino_llama.errors import SourceError
from openvino_llama.sources.local import FileSource, is_wanted
from openvino_llama.sources.transfer import Transfer
from openvino_llama.sources.web import WebSource

__all__ = ["HubSource", "Listed", "download_small", "list_repository", "parse"]

_FORM = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[\w./-]+)#(?P<path>.+)", re.ASCII)


class HubSource(msgspec.Struct, frozen=True):
    """One file of one revision of a repository."""

    repo: str
    revision: str
    path: str

    def fetch(self, transfer: Transfer) -> None:
        """See ``Source``."""
        hub = _hub(self)
        try:
            cached = hub.try_to_load_from_cache(self.repo, self.path, revision=self.revision)
        except ValueError as error:  # of the kind that the package has for names like a--b
            raise SourceError(f"{self}: not a name that the hub gives to a repository") from error
        if isinstance(cached, str) and is_wanted(Path(cached), transfer.part):
            FileSource(Path(cached)).fetch(transfer)
        else:
            self._on_the_web(hub).fetch(transfer)

    def _on_the_web(self, hub: Any) -> WebSource:
        url = hub.hf_hub_url(self.repo, self.path, revision=self.revision, endpoint=_endpoint())
        headers = hub.utils.build_hf_headers(library_name="openvino-llama")
        return WebSource(url, headers)

    def __str__(self) -> str:
        """The source as it is written."""
        return f"hf:{self.repo}@{self.revision}#{self.path}"


def parse(text: str) -> HubSource:
    """The source of ``OWNER/REPO@REVISION#PATH``."""
    match = _FORM.fullmatch(text)
    if not match:
        raise SourceError(f"expected hf:OWNER/REPO@REVISION#PATH, got {'hf:' + text!r}")
    return HubSource(**match.groupdict())


class Listed(msgspec.Struct, frozen=True):
    """What the hub says of one file."""

    size: int
    sha256: str
    """Empty for a small file, which the hub keeps in git."""


def list_repository(repo: str, revision: str | None) -> tuple[str, dict[str, Listed]]:
    """The commit of a revision (None is the main branch) and its files by path; SourceError if it cannot be listed."""
    hub = _hub(f"hf:{repo}")
    try:
        info = hub.HfApi(endpoint=_endpoint()).model_info(repo, revision=revision, files_metadata=True)
    except Exception as error:  # not found, gated, no connection, no valid name
        raise SourceError(f"hf:{repo}: the hub does not list it: {type(error).__name__}") from error
    return str(info.sha), {each.rfilename: _listed(each) for each in info.siblings or ()}


def download_small(repo: str, commit: str, path: str) -> Path:
    """A file in the hub's own cache."""
    try:
        return Path(_hub(f"hf:{repo}").hf_hub_download(repo, path, revision=commit, endpoint=_endpoint()))
    except Exception as error:
        raise SourceError(f"hf:{repo}: cannot fetch {path!r}: {type(error).__name__}") from error


def _listed(sibling: Any) -> Listed:
    return Listed(sibling.size or 0, sibling.lfs.sha256 if sibling.lfs else "")


def _endpoint() -> str | None:
    """Read here and not left to the package, which looks at it once, when it is imported."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


def _hub(source: HubSource | str) -> Any:
    try:
        import huggingface_hub.utils
    except ImportError as error:
        raise SourceError(
            f"{source}: needs the package huggingface-hub; install it with: pip install 'openvino-llama[hf]'"
        ) from error
    return huggingface_hub

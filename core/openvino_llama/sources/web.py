"""Files behind an https address, taken up where a break left them if the server can do that.

No validator is sent along with the range: the sha256 tells a file that has changed from one that has not, and
``pull`` then begins anew.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

import httpx
import msgspec

from openvino_llama.errors import SourceError
from openvino_llama.sources.transfer import Transfer

__all__ = ["WebSource", "parse"]

ATTEMPTS = 3
"""Connections that may break before the pull does."""

_TIMEOUT = httpx.Timeout(60.0, connect=15.0)


class WebSource(msgspec.Struct, frozen=True):
    """A file behind an address."""

    url: str
    headers: Mapping[str, str] = {}
    """Sent to that address only, not to where it redirects: an authorization, for one."""

    def fetch(self, transfer: Transfer) -> None:
        """See ``Source``."""
        try:
            self._attempt_all(transfer)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reached = f"{transfer.part.done} of {transfer.part.size} bytes"
            advice = "; pull again to go on" if transfer.part.done else ""
            raise SourceError(f"{self}: {type(error).__name__} after {reached}{advice}") from error

    def _attempt_all(self, transfer: Transfer) -> None:
        for left in reversed(range(ATTEMPTS)):
            try:
                return self._attempt(transfer)
            except httpx.TransportError:
                if not left and not transfer.part.complete:
                    raise
        return None

    def _attempt(self, transfer: Transfer) -> None:
        part = transfer.part
        # A coding would make the offsets of a range, and the size, those of other bytes.
        headers = {**self.headers, "Accept-Encoding": "identity"}
        if part.done:
            headers["Range"] = f"bytes={part.done}-"
        with self._client() as client, client.stream("GET", self.url, headers=headers) as response:
            if response.status_code != 416:
                return self._receive(response, transfer)
        if not part.done:
            raise SourceError(f"{self}: answered 416")
        part.restart()  # the file has become shorter than what we had of it
        return self._attempt(transfer)

    def _receive(self, response: httpx.Response, transfer: Transfer) -> None:
        if not _continues(response, transfer.part.done):
            if response.status_code != 200:
                raise SourceError(f"{self}: answered {response.status_code}")
            transfer.part.restart()
        # As it comes, not in pieces of one size: of these, the last would be lost with the connection.
        transfer.receive(response.iter_raw())

    def _client(self) -> httpx.Client:
        hooks = {"request": [self._check_request]}
        return httpx.Client(follow_redirects=True, max_redirects=10, timeout=_TIMEOUT, event_hooks=hooks)

    def _check_request(self, request: httpx.Request) -> None:
        """Plain http is for this machine only, and only where the address itself was so."""
        local = _is_loopback(httpx.URL(self.url))
        if request.url.scheme != "https" and not (local and _is_loopback(request.url)):
            raise SourceError(f"{self}: leads to {request.url.scheme}://{request.url.host}, which is not https")

    def __str__(self) -> str:
        """The address without what may be secret in it."""
        url = httpx.URL(self.url)
        return f"{url.scheme}://{url.host}{url.path}"


def parse(url: str) -> WebSource:
    """The source of an ``https:`` address, or of an ``http:`` one of this machine."""
    try:
        return WebSource(str(httpx.URL(url)))
    except httpx.InvalidURL as error:
        raise SourceError("the address of an https: source is not a valid one") from error


def _continues(response: httpx.Response, offset: int) -> bool:
    """Whether the answer goes on where we left off."""
    return response.status_code == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")


def _is_loopback(url: httpx.URL) -> bool:
    if url.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(url.host).is_loopback
    except ValueError:
        return False

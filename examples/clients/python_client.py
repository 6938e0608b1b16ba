"""Send a picture to a server and print what it says: ``python python_client.py photo.jpg --drawn out.png``.

Needs ``httpx``. Shows what a client should do with each kind of answer: results, a problem (RFC 9457), and a server
that is busy and says when to come back.
"""

from __future__ import annotations

import argparse
import json
import mimetypes
import os
import sys
import time
from pathlib import Path
from typing import Any

import httpx


class ProblemError(Exception):
    """The server has answered with a problem."""


class Client:
    """A connection to a server, kept open from request to request."""

    def __init__(self, address: str, api_key: str | None = None, tries: int = 5) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(base_url=address, headers=headers, timeout=60)
        self._tries = tries

    def models(self) -> list[dict[str, Any]]:
        """Every model that the server knows."""
        found: list[dict[str, Any]] = self._ask("GET", "/models").json()["models"]
        return found

    def infer(self, picture: Path, **parameters: str) -> dict[str, Any]:
        """What the model sees in a picture."""
        answer: dict[str, Any] = self._post(picture, "application/json", parameters).json()
        return answer

    def draw(self, picture: Path, **parameters: str) -> bytes:
        """The picture as PNG, with the results drawn over it."""
        return self._post(picture, "image/png", parameters).content

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def _post(self, picture: Path, accept: str, parameters: dict[str, str]) -> httpx.Response:
        media_type = mimetypes.guess_type(picture.name)[0] or "application/octet-stream"
        headers = {"Content-Type": media_type, "Accept": accept}
        return self._ask("POST", "/infer/image", content=picture.read_bytes(), headers=headers, params=parameters)

    def _ask(self, method: str, route: str, **options: Any) -> httpx.Response:
        answer = self._http.request(method, route, **options)
        for _ in range(self._tries - 1):
            if answer.status_code != 503:
                break
            time.sleep(float(answer.headers.get("Retry-After", 1)))
            answer = self._http.request(method, route, **options)
        if answer.is_success:
            return answer
        problem = answer.json() if "json" in answer.headers.get("content-type", "") else {}
        raise ProblemError(f"{answer.status_code}: {problem.get('detail') or answer.reason_phrase}")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Send a picture to a server and print what it says.")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--server", default="http://127.0.0.1:3000")
    parser.add_argument("--model", help="one that is not the active one")
    parser.add_argument("--drawn", type=Path, help="where to write the picture with the results drawn over it")
    arguments = parser.parse_args()
    chosen = {"model": arguments.model} if arguments.model else {}
    client = Client(arguments.server, os.environ.get("OVLLAMA_API_KEY"))
    try:
        print(json.dumps(client.infer(arguments.picture, **chosen), indent=2))
        if arguments.drawn:
            arguments.drawn.write_bytes(client.draw(arguments.picture, **chosen))
    except (ProblemError, httpx.TransportError) as error:
        print(f"python_client: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # of the files
        print(f"python_client: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    finally:
        client.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Streams about pictures: ``python -m benchmarks.multimodal_load ADDRESS MODEL STREAMS TOKENS``.

As ``text_load``, each with a picture and a question in a multipart body.
"""

from __future__ import annotations

from benchmarks.multimodal_prompts import Question, questions
from benchmarks.text_load import load, request

_BOUNDARY = "of-one-part"


def _requests(address: str, model: str, streams: int, tokens: int, seed: int) -> list[bytes]:
    target = f"/infer/multimodal/stream?model={model}&max_tokens={tokens}&temperature=0&ignore_eos=true"
    media_type = f"multipart/form-data; boundary={_BOUNDARY}"
    return [request(address, target, media_type, _body(each)) for each in questions(streams, seed)]


def _body(question: Question) -> bytes:
    head = 'Content-Disposition: form-data; name="{}"{}\r\n'
    image = head.format("image", '; filename="a.jpg"') + "Content-Type: image/jpeg\r\n\r\n"
    text = head.format("text", "") + "\r\n" + question.text
    begin, end = f"--{_BOUNDARY}\r\n", f"\r\n--{_BOUNDARY}"
    return f"{begin}{image}".encode() + question.jpeg + f"{end}\r\n{text}{end}--\r\n".encode()


if __name__ == "__main__":
    load(_requests)

"""The JSON of generation parameters."""

from __future__ import annotations

import pytest

from openvino_llama import InvalidInputError
from openvino_llama_text.engine.parameters import read_parameters


def test_defaults() -> None:
    """Only max_tokens has to be stated; the rest means the most likely tokens, and no form."""
    parameters = read_parameters(b'{"max_tokens": 5}')
    assert (parameters.temperature, parameters.form, parameters.seed) == (0.0, None, None)


def test_the_form() -> None:
    """Its kind and source."""
    assert read_parameters(b'{"max_tokens": 5, "regex": "a+"}').form == ("regex", "a+")


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "truncated"),
        ("[]", "object"),
        ("{}", "max_tokens"),
        ('{"max_tokens": 0}', "max_tokens"),
        ('{"max_tokens": 1e18}', "max_tokens"),
        ('{"max_tokens": 2, "min_tokens": 3}', "min_tokens"),
        ('{"max_tokens": 2, "temperature": NaN}', "JSON"),
        ('{"max_tokens": 2, "temperature": 1e400}', "temperature"),
        ('{"max_tokens": 2, "temperature": -0.1}', "temperature"),
        ('{"max_tokens": 2, "temperature": "hot"}', "temperature"),
        ('{"max_tokens": 2, "top_p": 0}', "top_p"),
        ('{"max_tokens": 2, "top_p": 1.1}', "top_p"),
        ('{"max_tokens": 2, "top_k": -1}', "top_k"),
        ('{"max_tokens": 2, "min_p": 1}', "min_p"),
        ('{"max_tokens": 2, "repetition_penalty": 0}', "repetition_penalty"),
        ('{"max_tokens": 2, "presence_penalty": 2.5}', "presence_penalty"),
        ('{"max_tokens": 2, "frequency_penalty": -1e18}', "frequency_penalty"),
        ('{"max_tokens": 2, "seed": -1}', "seed"),
        ('{"max_tokens": 2, "seed": 18446744073709551616}', "seed"),
        ('{"max_tokens": 2, "stop_token_ids": [-1]}', "stop_token_ids"),
        ('{"max_tokens": 2, "stop_token_ids": 3}', "stop_token_ids"),
        ('{"max_tokens": 2, "logprobs": 1}', "logprobs"),
        ('{"max_tokens": 2, "regex": ""}', "regex"),
        ('{"max_tokens": 2, "regex": "a", "grammar": "b"}', "regex and grammar"),
        ('{"max_tokens": 2, "temprature": 1}', "temprature"),
    ],
)
def test_wrong_values_are_named(text: str, field: str) -> None:
    """A value that no engine should see is the request's fault."""
    with pytest.raises(InvalidInputError, match=field):
        read_parameters(text.encode())


def test_text_that_is_none() -> None:
    """Bytes may be anything."""
    with pytest.raises(InvalidInputError):
        read_parameters(b'{"max_tokens": 2, "regex": "\xff"}')

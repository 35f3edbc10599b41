"""The check of words refuses what it is there for, where it is there for it."""

import conftest  # noqa: F401, scripts/ on the path
import pytest

from check_words import cpp_faults, text_faults


@pytest.mark.parametrize(
    "line, word",
    [
        ("double grad_norm = 0.0;", "grad_norm"),
        ('line["aux_loss"] = 1;', "aux_loss"),
        ("int64_t encoder_seq_len;", "seq_len"),
        ("at::Tensor x;  // [rows] fp32", "fp32"),
    ],
)
def test_refused_in_code(line, word):
    assert [number for number, fault in cpp_faults("// first\n" + line) if repr(word) in fault] == [2]


@pytest.mark.parametrize(
    "line", ['keys.read("router_aux_loss_coef", x);', 'field("dtype", self.dtype, "bf16 or fp32");  // "fp32" too', "at::_fused_(a, /*lr=*/0.1);", "int64_t color_range;"]
)
def test_taken_in_code(line):
    assert cpp_faults(line) == []


def test_texts():
    assert text_faults("Master weights are f32.") == [(1, "'f32', write fp32")]
    assert text_faults("`f32` of the code, fp32\n```\nf32\n```\n") == []

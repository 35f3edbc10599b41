"""The comparison itself."""

import torch
from compare import relative_error


def test_is_relative_to_the_largest_expected_value():
    expected = torch.tensor([100.0, 0.001, -2.0])
    assert relative_error(expected.clone(), expected) == 0
    assert abs(relative_error(expected + torch.tensor([0.0, 1.0, 0.0]), expected) - 0.01) < 1e-6
    assert relative_error(-expected, expected) == 2


def test_leaves_out_the_noise_it_is_told_of():
    zeros = torch.zeros(3)
    assert relative_error(zeros + 1e-9, zeros, noise=1e-8) == 0
    assert relative_error(zeros + 1e-7, zeros, noise=1e-8) == float("inf")
    assert abs(relative_error(torch.tensor([1.5]), torch.tensor([1.0]), noise=0.25) - 0.25) < 1e-6


def test_refuses_what_cannot_be_compared():
    ones = torch.ones(2, 2)
    assert relative_error(torch.tensor([[1.0, 1.0], [float("nan"), 1.0]]), ones) == float("inf")
    assert relative_error(ones, torch.full((2, 2), float("inf"))) == float("inf")
    assert relative_error(torch.ones(4), ones) == float("inf")
    assert relative_error(ones * 1e-30, torch.zeros(2, 2)) == float("inf")
    assert relative_error(torch.zeros(2, 2), torch.zeros(2, 2)) == 0

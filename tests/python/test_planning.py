"""switchyard.plan, and what the package says about itself."""

import ast
import inspect
import json
import pathlib

import pytest
from conftest import program

import switchyard
from switchyard.native import _native

PACKAGE = pathlib.Path(switchyard.__file__).resolve().parent


def test_plan_is_the_programs(workshop):
    plans = switchyard.plan("switch-base-32", devices=16, device="h200", memory=24, network_bandwidth=3)
    assert plans == json.loads(program("plan", "switch-base-32", "--devices", 16, "--device", "h200", "--memory", 24,
                                       "--network-bandwidth", 3, "--json"))
    assert len(plans["layouts"]) > 5
    of_run = switchyard.plan(workshop / "tiny.toml", devices=2, device="cpu", set=["train.batch_size=8", "train.micro_batch_size=2"])
    assert of_run["batch_size"] == 8
    scaling = switchyard.plan("switch-base-32", scaling="2..8")
    assert [point["devices"] for point in scaling["weak"]] == [2, 4, 8]


@pytest.mark.parametrize("options, message", [
    (dict(devices=8, memroy=3), "memroy"),
    (dict(), "plan needs --devices N"),
    (dict(devices=0), "devices"),
    (dict(devices=8, device="h900"), "h900"),
    (dict(devices=8, layout="2x2x1"), "--layout 2 x 2 x 1 is of 4 devices, --devices says 8"),
])
def test_plan_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        switchyard.plan("switch-base-32", **options)


def members(value):
    return {name for name in vars(value) if not name.startswith("__")}


def test_stubs_name_what_is_there():
    """_native.pyi against the compiled module: every function, class and member, and nothing else."""
    stub = ast.parse((PACKAGE / "_native.pyi").read_text())
    functions = {node.name for node in stub.body if isinstance(node, ast.FunctionDef)}
    classes = {node.name: {each.name for each in node.body if isinstance(each, ast.FunctionDef)} for node in stub.body
               if isinstance(node, ast.ClassDef)}
    values = {node.target.id for node in stub.body if isinstance(node, ast.AnnAssign)}
    assert functions | set(classes) | values - {"__version__"} == members(_native)
    for name, methods in classes.items():
        assert methods - {"__init__", "__len__"} == members(getattr(_native, name)), name


def test_everything_public_is_documented():
    assert set(switchyard.__all__) <= set(dir(switchyard))
    for name in switchyard.__all__:
        value = getattr(switchyard, name)
        assert inspect.getdoc(value), name
        if not inspect.isclass(value):
            continue
        for member, method in vars(value).items():
            if not member.startswith("_") and callable(method) and not hasattr(BaseException, member):
                assert inspect.getdoc(method), f"{name}.{member}"
    with pytest.raises(AttributeError, match="has no attribute 'Modle'"):
        switchyard.Modle
    assert (PACKAGE / "py.typed").exists() and switchyard.__version__ == _native.__version__

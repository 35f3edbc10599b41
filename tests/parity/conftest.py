import logging
import os
import sys
import warnings

import pytest

sys.path.insert(0, os.path.dirname(__file__))
sys.dont_write_bytecode = True

import compare  # noqa: E402
import models  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
logging.getLogger("transformers").setLevel(logging.ERROR)
warnings.filterwarnings("ignore")


def pytest_sessionstart(session):
    if not compare.PROGRAM.is_file():
        pytest.exit(f"{compare.PROGRAM} is not there: run `make build`, or set SWITCHYARD_PROGRAM", returncode=2)
    torch.set_num_threads(1)  # the models are small


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """model_folder(name): the directory of a model of models.MODELS, made once."""
    made = {}

    def make(name):
        if name not in made:
            made[name] = models.save_model(name, tmp_path_factory.mktemp(name))
        return made[name]

    return make


@pytest.fixture(scope="session")
def hf_model(model_folder):
    """hf_model(name, dtype): transformers' model of that directory, made once."""
    made = {}

    def load(name, dtype=torch.float32):
        if (name, dtype) not in made:
            made[name, dtype] = models.load_model(model_folder(name), dtype)
        return made[name, dtype]

    return load
